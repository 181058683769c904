"""In network namespaces, client - proxy - router - server: what the network answers becomes the right code, and who comes from
outside does not reach the proxy's own addresses."""

import contextlib
import socket
import threading

import pytest

from lib import isolate
from lib import socks6 as s6
from lib.clients import DIALERS, expect_code
from lib.daemon import Daemon, base_config
from lib.net import pattern, recv_exact, sha, wait_until
from lib.servers import Echo

PROTOCOLS = sorted(DIALERS)


class Net:
    """
    client 10.1.0.2 -- 10.1.0.1 proxy 10.2.0.2 -- 10.2.0.1 router 10.3.0.1 -- 10.3.0.2 server, and fd01:: to fd03:: alike.
    The router answers for further networks: 10.9.N.0/24 and fd09:N::/64, where N is the reply code to expect.
    """

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.client, self.proxy, self.router, self.server = (
            self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("client", "proxy", "router", "server"))
        client, proxy, router, server = self.client, self.proxy, self.router, self.server
        client.link("c-p", proxy, "p-c")
        proxy.link("p-r", router, "r-p")
        router.link("r-s", server, "s-r")
        client.address("c-p", "10.1.0.2/24", "fd01::2/64")
        proxy.address("p-c", "10.1.0.1/24", "fd01::1/64")
        proxy.address("p-r", "10.2.0.2/24", "fd02::2/64")
        router.address("r-p", "10.2.0.1/24", "fd02::1/64")
        router.address("r-s", "10.3.0.1/24", "fd03::1/64")
        server.address("s-r", "10.3.0.2/24", "fd03::2/64")
        proxy.ip("route add 10.0.0.0/8 via 10.2.0.1")
        proxy.ip("-6 route add fd00::/8 via fd02::1")
        server.ip("route add default via 10.3.0.1")
        server.ip("-6 route add default via fd03::1")
        router.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1, net__ipv4__icmp_ratelimit=0,
                      net__ipv6__icmp__ratelimit=0)
        router.ip("route add blackhole 10.9.9.0/24")
        router.ip("-6 route add blackhole fd09:9::/64")
        for n in (3, 4, 5):
            router.ip(f"route add 10.9.{n}.0/24 dev r-s")
            router.ip(f"-6 route add fd09:{n}::/64 dev r-s")
        router.nft("add table inet t")
        router.nft("add chain inet t f { type filter hook forward priority 0; }")
        router.nft("add rule inet t f ip daddr 10.9.3.0/24 reject with icmp type net-unreachable")
        router.nft("add rule inet t f ip6 daddr fd09:3::/64 reject with icmpv6 type no-route")
        router.nft("add rule inet t f ip daddr 10.9.4.0/24 reject with icmp type host-unreachable")
        router.nft("add rule inet t f ip6 daddr fd09:4::/64 reject with icmpv6 type addr-unreachable")
        router.nft("add rule inet t f ip daddr 10.9.5.0/24 meta l4proto tcp reject with tcp reset")
        router.nft("add rule inet t f ip6 daddr fd09:5::/64 meta l4proto tcp reject with tcp reset")
        proxy.ip("route add prohibit 10.9.2.0/24")
        self.echo = self.stack.enter_context(Echo("10.3.0.2", make_socket=server.tcp_socket))
        self.echo6 = self.stack.enter_context(Echo("fd03::2", make_socket=server.tcp_socket))

    def close(self):
        self.stack.close()


HOSTS = [("127.0.0.1", "localhost"), ("::1", "localhost"), ("10.1.0.1", "own.test"), ("fd02::2", "own6.test"),
         ("169.254.169.254", "metadata.test"), ("10.3.0.2", "server.test several.test mixed.test"), ("10.9.9.1", "several.test dead.test"),
         ("127.0.0.1", "mixed.test"), ("64:ff9b::7f00:1", "nat64.test"), ("::ffff:127.0.0.1", "mapped.test")]


@pytest.fixture(scope="module")
def net(isolation):
    world = Net()
    yield world
    world.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory, isolation):
    # Nothing serves on this address inside of the proxy's namespace: a resolver that is dead.
    return isolate.with_files(isolate.name_files(tmp_path_factory.mktemp("net"), HOSTS, "127.0.0.1"))


LISTENERS = [{"address": "10.1.0.1:0", "open": True}, {"address": "[fd01::1]:0", "open": True}, "127.0.0.1:0"]


@pytest.fixture(scope="module")
def outside(net, files):
    """The daemon between the networks."""
    with Daemon(base_config(LISTENERS, limits={"connect": "1s"}), wrapper=[*net.proxy.wrapper, *files]) as one:
        yield one


def ask(net, proxy, host, port, code, protocol="socks6", where=0):
    """From the client's namespace to the listener `where`."""
    addr = proxy.listeners()[where]
    return net.client.call(lambda: expect_code(addr, protocol, host, port, code))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_client_reaches_the_server_behind_the_proxy(net, outside, protocol):
    for where in (0, 1):
        for host, port in (net.echo.addr, ("server.test", net.echo.port)):
            tunnel = net.client.call(lambda: DIALERS[protocol](outside.listeners()[where], host, port))
            with tunnel as sock:
                assert tunnel.ok
                if protocol != "socks4":
                    assert str(tunnel.reply.host) == "10.2.0.2"
                sock.sendall(b"x")
                assert recv_exact(sock, 1) == b"x"


@pytest.mark.parametrize("protocol", ["socks5", "socks6"])
def test_a_client_reaches_the_server_over_ipv6(net, outside, protocol):
    tunnel = net.client.call(lambda: DIALERS[protocol](outside.listeners()[1], *net.echo6.addr))
    with tunnel as sock:
        assert tunnel.ok and str(tunnel.reply.host) == "fd02::2"
        sock.sendall(b"x")
        assert recv_exact(sock, 1) == b"x"


@pytest.mark.parametrize("host, code", [
    ("10.9.3.1", s6.NET_UNREACHABLE), ("192.0.2.1", s6.NET_UNREACHABLE),
    ("fd09:3::1", s6.NET_UNREACHABLE), ("fd08::1", s6.NET_UNREACHABLE), ("2001:db8::1", s6.NET_UNREACHABLE),
    ("10.9.4.1", s6.HOST_UNREACHABLE), ("fd09:4::1", s6.HOST_UNREACHABLE),
    ("10.9.5.1", s6.REFUSED), ("fd09:5::1", s6.REFUSED), ("10.3.0.2", s6.REFUSED), ("fd03::2", s6.REFUSED)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_the_network_answers_is_the_code(net, outside, protocol, host, code):
    ask(net, outside, host, 1, code, protocol)


def test_the_code_does_not_depend_on_the_literals_place(net, outside):
    ask(net, outside, b"10.9.3.1", 1, s6.NET_UNREACHABLE)
    ask(net, outside, "::ffff:10.9.4.1", 1, s6.HOST_UNREACHABLE)


@pytest.mark.parametrize("host", ["10.9.9.1", "fd09:9::1", "dead.test"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_network_that_swallows_everything_is_code_9(net, outside, protocol, host):
    ask(net, outside, host, 80, s6.HOST_UNREACHABLE if protocol == "socks5" else s6.TIMED_OUT, protocol)


def test_the_kernels_own_time_out_is_code_9(net, files):
    net.proxy.sysctl(net__ipv4__tcp_syn_retries=1)
    try:
        with Daemon(base_config(LISTENERS, limits={"connect": "25s"}), wrapper=[*net.proxy.wrapper, *files]) as proxy:
            ask(net, proxy, "10.9.9.1", 80, s6.TIMED_OUT)
    finally:
        net.proxy.sysctl(net__ipv4__tcp_syn_retries=6)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_time_to_live_that_runs_out_is_code_6(net, outside, protocol):
    net.proxy.run("sysctl", "-qw", "net.ipv4.ip_default_ttl=1", "net.ipv6.conf.p-r.hop_limit=1")
    try:
        ask(net, outside, *net.echo.addr, s6.TTL_EXPIRED, protocol)
        ask(net, outside, *net.echo6.addr, s6.TTL_EXPIRED, protocol)
    finally:
        net.proxy.run("sysctl", "-qw", "net.ipv4.ip_default_ttl=64", "net.ipv6.conf.p-r.hop_limit=64")
    assert ask(net, outside, *net.echo.addr, s6.SUCCESS, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_route_that_prohibits_on_the_proxy_itself_is_code_2(net, outside, protocol):
    ask(net, outside, "10.9.2.1", 80, s6.RULES, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_resolver_that_is_not_there_is_code_1(net, outside, protocol):
    ask(net, outside, "not-in-hosts.test", 80, s6.FAILURE, protocol)


def test_a_dead_address_of_a_name_leaves_time_for_the_live_one(net, outside):
    for _ in range(3):
        ask(net, outside, "several.test", net.echo.port, s6.SUCCESS)


# Protection -----------------------------------------------------------------------------------------------------------

PROTECTED = [
    "127.0.0.1", "127.1.2.3", "::1", "10.1.0.1", "10.2.0.2", "fd01::1", "fd02::2", "fe80::1", "169.254.169.254", "169.254.0.1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.2.0.2",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a02:2",  # NAT64 of loopback, metadata, own
    "2002:7f00:1::1", "2002:a9fe:a9fe::", "2002:a02:2::1",  # 6to4
    "2001:0:c000:201::80ff:fffe", "2001:0:c000:201::5601:5601",  # Teredo: the client's address is inverted
    b"127.0.0.1", b"::1", b"::ffff:127.0.0.1", b"169.254.169.254",
    "localhost", "own.test", "own6.test", "metadata.test", "nat64.test", "mapped.test"]


@pytest.mark.parametrize("host", PROTECTED, ids=str)
def test_clients_from_outside_do_not_reach_what_is_the_proxys_own(net, outside, host):
    port = outside.listeners()[2][1]  # something listens there on loopback
    for where in (0, 1):
        for protocol in PROTOCOLS:
            ask(net, outside, host, port, s6.RULES, protocol, where)


@pytest.mark.parametrize("host", [b"2130706433", b"0x7f000001", b"127.1", b"0177.0.0.1", b"0"])
def test_odd_spellings_do_not_lead_to_the_proxy_either(net, outside, host):
    port = outside.listeners()[2][1]
    for protocol in PROTOCOLS:
        tunnel = net.client.call(lambda: DIALERS[protocol](outside.listeners()[0], host, port))
        with tunnel:
            assert not tunnel.ok


def test_a_link_local_address_of_an_own_interface_is_protected(net, outside):
    own = [line.split()[3].split("/")[0] for line in net.proxy.ip("-o -6 addr show scope link").splitlines()]
    assert own
    for host in own:
        ask(net, outside, host, 80, s6.RULES)


def test_of_a_names_addresses_only_those_outside_are_dialled(net, outside):
    """mixed.test is the server and loopback."""
    ask(net, outside, "mixed.test", net.echo.port, s6.SUCCESS)
    ask(net, outside, "mixed.test", outside.listeners()[2][1], s6.REFUSED)  # loopback has this port, the server has not


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.0.1", "10.2.0.2", "localhost"])
def test_clients_on_loopback_reach_the_proxys_own_addresses(net, outside, host):
    server = net.stack.enter_context(Echo("0.0.0.0", make_socket=net.proxy.tcp_socket))
    addr = outside.listeners()[2]
    for protocol in PROTOCOLS:
        net.proxy.call(lambda: expect_code(addr, protocol, host, server.port, s6.SUCCESS))


def test_addresses_that_come_and_go_are_followed(net, outside):
    def code():
        tunnel = net.client.call(lambda: DIALERS["socks6"](outside.listeners()[0], "10.9.5.77", 80))
        tunnel.sock.close()
        return tunnel.code
    assert code() == s6.REFUSED  # by the router
    net.proxy.ip("addr add 10.9.5.77/32 dev lo")
    try:
        wait_until(lambda: code() == s6.RULES, "the new address to be protected")
    finally:
        net.proxy.ip("addr del 10.9.5.77/32 dev lo")
    wait_until(lambda: code() == s6.REFUSED, "the address to be forgotten")


@pytest.mark.parametrize("to, host, code", [
    (["127.0.0.0/8"], "127.0.0.1", s6.REFUSED), (["127.0.0.1"], "127.0.0.1", s6.REFUSED), (["loopback"], "127.0.0.1", s6.REFUSED),
    (["loopback"], "::1", s6.REFUSED), (["own"], "10.2.0.2", s6.REFUSED), (["10.2.0.2"], "10.2.0.2", s6.REFUSED),
    # Not named: still protected.
    (["any"], "127.0.0.1", s6.RULES), (["0.0.0.0/0"], "127.0.0.1", s6.RULES), (["::/0"], "::1", s6.RULES),
    (["localhost"], "localhost", s6.RULES), (["*.test"], "own.test", s6.RULES), (["10.2.0.2"], "10.1.0.1", s6.RULES),
    (["loopback"], "10.2.0.2", s6.RULES), (["own"], "127.0.0.1", s6.RULES), (None, "127.0.0.1", s6.RULES)])
def test_only_a_rule_that_names_the_address_opens_it(net, files, to, host, code):
    rule = {"allow": {"from": ["10.1.0.2"], **({"to": to} if to else {})}}
    with Daemon(base_config(["10.1.0.1:0"], rules=[rule]), wrapper=[*net.proxy.wrapper, *files]) as proxy:
        ask(net, proxy, host, 1, code)


def test_the_own_listener_is_not_reached_through_itself(net, outside):
    """No loops from outside."""
    for host, port in outside.listeners():
        ask(net, outside, host, port, s6.RULES)


def test_the_built_in_defaults_serve_loopback_on_port_1080(net, files):
    with Daemon(None, wrapper=[*net.server.wrapper, *files]) as proxy:
        assert sorted(proxy.listeners()) == [("127.0.0.1", 1080), ("::1", 1080)]
        server = net.stack.enter_context(Echo("127.0.0.1", make_socket=net.server.tcp_socket))
        for addr in proxy.listeners():
            net.server.call(lambda: expect_code(addr, "socks6", *server.addr, s6.SUCCESS))


NO_IPV6 = ["unshare", "-n", "sh", "-c",
           'ip link set lo up && sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && exec "$@"', "sh"]


def test_the_built_in_defaults_do_without_ipv6(net, files):
    del net  # for its skip without root
    with Daemon(None, wrapper=[*NO_IPV6, *files]) as proxy:
        assert proxy.listeners() == [("127.0.0.1", 1080)]
        assert "going on without [::1]:1080: Cannot assign requested address" in proxy.text()


def test_a_configured_listener_must_be_there(net, files):
    del net
    proxy = Daemon(base_config(("127.0.0.1:0", "[::1]:0")), wrapper=[*NO_IPV6, *files], wait=False)
    assert proxy.process.wait(30) == 1
    proxy.stopped = True
    assert "cannot listen on [::1]:0: Cannot assign requested address" in proxy.text()


def test_a_wildcard_listener_serves_both_sides(net, files):
    rules = [{"allow": {"from": ["10.1.0.0/24", "127.0.0.0/8"]}}]
    with Daemon(base_config(["0.0.0.0:0"], rules=rules), wrapper=[*net.proxy.wrapper, *files]) as proxy:
        port = proxy.addr[1]
        net.client.call(lambda: expect_code(("10.1.0.1", port), "socks6", *net.echo.addr, s6.SUCCESS))
        net.proxy.call(lambda: expect_code(("127.0.0.1", port), "socks6", *net.echo.addr, s6.SUCCESS))
        net.server.call(lambda: expect_code(("10.2.0.2", port), "socks6", "10.3.0.2", 1, s6.RULES))


# Bulk ------------------------------------------------------------------------------------------------------------------


def splices(one):
    """Whether the daemon holds a pipe beside its standard output and error."""
    return sum(target.startswith("pipe:") for target in one.fd_targets()) > 2


@pytest.mark.parametrize("mode, client_is_local, spliced", [("auto", False, True), ("auto", True, False), ("copy", False, False),
                                                             ("splice", True, True)])
@pytest.mark.parametrize("family", [4, 6])
def test_bulk_between_hosts_is_spliced_and_with_the_proxys_host_is_copied(net, daemon, mode, client_is_local, spliced, family):
    """Each way 48 MiB over links with an MTU of 1500; a stall in the middle shows whether pipes are in use."""
    listeners = [{"address": "10.1.0.1:0", "open": True}, {"address": "[fd01::1]:0", "open": True}]
    proxy = daemon(listeners=listeners, relay=mode, wrapper=net.proxy.wrapper)
    host = "10.3.0.2" if family == 4 else "fd03::2"
    where = net.proxy if client_is_local else net.client
    listener = net.server.tcp_socket(socket.AF_INET if family == 4 else socket.AF_INET6)
    data = pattern(48 << 20)
    with listener:
        listener.bind((host, 0))
        listener.listen()
        addr = proxy.listeners()[0 if family == 4 else 1]
        tunnel = where.call(lambda: DIALERS["socks6"](addr, host, listener.getsockname()[1]))
        with tunnel as client, listener.accept()[0] as server:
            for sender, receiver in ((client, server), (server, client)):
                sender.settimeout(30)
                receiver.settimeout(30)
                writer = threading.Thread(target=sender.sendall, args=(data,))
                writer.start()
                got = recv_exact(receiver, 8 << 20)
                # Nobody reads: what does not fit into the sockets stays where it is, a pipe if there is one.
                if spliced:
                    wait_until(lambda: splices(proxy), "a pipe")
                else:
                    threading.Event().wait(0.3)
                    assert not splices(proxy)
                got += recv_exact(receiver, len(data) - len(got))
                writer.join(30)
                assert sha(got) == sha(data)
            client.shutdown(socket.SHUT_WR)
            assert server.recv(1) == b""
            server.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
