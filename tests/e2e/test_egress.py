"""Where connections to servers come from (`outgoing:`): all of a list in turn, that of the rule, and what happens without ports."""

import collections
import contextlib
import json
import socket
import threading

import pytest

from lib import isolate
from lib import socks6 as s6
from lib.clients import DIALERS, expect_code, socks6_dial
from lib.daemon import base_config, run_daemon, write_config
from lib.net import recv_all

OWN4 = [f"10.2.0.{n}" for n in range(2, 7)]
OWN6 = [f"fd02::{n}" for n in range(2, 5)]


class Teller:
    """A server that sends the address that it sees, and closes."""

    def __init__(self, namespace, host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def make():
            sock = socket.socket(family)
            sock.bind((host, 0))
            sock.listen(100)
            return sock
        self.sock = namespace.call(make)
        self.addr = self.sock.getsockname()[:2]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                peer, addr = self.sock.accept()
            except OSError:
                return
            with contextlib.closing(peer), contextlib.suppress(OSError):
                peer.sendall(addr[0].encode())

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.thread.join(10)


class Net:
    """proxy (many addresses) -- server; clients are on the proxy's loopback."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.proxy, self.server = (self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("proxy", "server"))
        self.proxy.link("p-s", self.server, "s-p")
        self.proxy.address("p-s", *(f"{addr}/24" for addr in OWN4), *(f"{addr}/64" for addr in OWN6))
        self.server.address("s-p", "10.2.0.1/24", "10.2.0.101/24", "10.2.0.102/24", "fd02::1/64")
        self.tellers = [self.stack.enter_context(contextlib.closing(Teller(self.server, host)))
                        for host in ("10.2.0.1", "fd02::1", "10.2.0.101")]


@pytest.fixture(scope="module")
def net(isolation):
    world = Net()
    yield world
    world.stack.close()


@pytest.fixture
def start(daemon, net, tmp_path):
    def run(wrapper=(), **more):
        return daemon(base_config(["127.0.0.1:0"], status={"socket": str(tmp_path / "status")}, **more),
                      wrapper=[*net.proxy.wrapper, *wrapper])
    return run


def told(net, proxy, addr, protocol="socks6"):
    """The address that the server saw."""
    def ask():
        with DIALERS[protocol](proxy.addr, *addr) as sock:
            return recv_all(sock).decode()
    return net.proxy.call(ask)


def status(tmp_path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(str(tmp_path / "status"))
        return json.loads(recv_all(sock))


@pytest.mark.parametrize("protocol", sorted(DIALERS))
def test_the_server_sees_all_of_them_in_turn(net, start, protocol):
    proxy = start(outgoing=[*OWN4, *OWN6[1:]], workers=1)
    seen = [told(net, proxy, net.tellers[0].addr, protocol) for _ in range(2 * len(OWN4))]
    assert collections.Counter(seen) == {addr: 2 for addr in OWN4}
    if protocol != "socks4":
        seen = [told(net, proxy, net.tellers[1].addr, protocol) for _ in range(4)]
        assert collections.Counter(seen) == {addr: 2 for addr in OWN6[1:]}


def test_a_family_without_an_address_is_left_to_the_system(net, start):
    proxy = start(outgoing=[OWN4[3]])
    assert told(net, proxy, net.tellers[0].addr) == OWN4[3]
    chosen = told(net, proxy, net.tellers[1].addr)
    assert chosen in OWN6 and all(told(net, proxy, net.tellers[1].addr) == chosen for _ in range(3))
    proxy.reload(base_config(["127.0.0.1:0"]))
    assert told(net, proxy, net.tellers[0].addr) == OWN4[0], "the system's choice"


def test_a_rules_list_wins(net, start):
    first, six, second = (teller.addr for teller in net.tellers)
    proxy = start(outgoing=[OWN4[1]], rules=[
        {"allow": {"to": [second[0]], "outgoing": [OWN4[2], OWN6[2]]}},
        {"allow": {"to": [six[0]], "outgoing": [OWN6[1]]}},
        {"allow": {"ports": [first[1]], "commands": ["connect"]}},
    ])
    assert told(net, proxy, second) == OWN4[2]
    assert told(net, proxy, six) == OWN6[1]
    assert told(net, proxy, first) == OWN4[1]
    proxy.reload(base_config(["127.0.0.1:0"], outgoing=[OWN4[1]], rules=[{"allow": {"to": [first[0]], "outgoing": []}},
                                                                        {"deny": {"ports": [1]}}]))
    assert told(net, proxy, first) == OWN4[0], "an empty list leaves it to the system"
    assert told(net, proxy, second) == OWN4[1], "what no rule matches has the list for all"


def test_each_address_of_a_name_has_its_rules_list(net, start, tmp_path):
    """The first of a name's addresses refuses, the second one is of another rule."""
    files = isolate.with_files(isolate.name_files(tmp_path, [("10.2.0.102", "both.test"), ("10.2.0.101", "both.test"),
                                                             ("10.2.0.1", "one.test")], "127.0.0.1"))
    port = net.tellers[2].addr[1]
    proxy = start(wrapper=files, outgoing=[OWN4[1]], rules=[
        {"allow": {"to": ["10.2.0.102"], "outgoing": [OWN4[2]]}},
        {"allow": {"to": ["10.2.0.101"], "outgoing": [OWN4[3]]}},
        {"allow": {"to": ["one.test"], "outgoing": [OWN4[4]]}}])
    assert told(net, proxy, ("both.test", port)) == OWN4[3]
    assert told(net, proxy, ("one.test", net.tellers[0].addr[1])) == OWN4[4]


def test_an_address_that_is_missing_is_passed_over_and_told(net, start, tmp_path):
    proxy = start(outgoing=["192.0.2.9", OWN4[1], "192.0.2.8"], workers=1)
    for missing in ("192.0.2.9", "192.0.2.8"):
        proxy.wait_line(f"outgoing: no connection can come from {missing} now: Cannot assign requested address")
    assert {told(net, proxy, net.tellers[0].addr) for _ in range(6)} == {OWN4[1]}
    line = proxy.wait_line("no outgoing connection could come from an address of `outgoing`, last from 192.0.2.")
    assert "give it to an interface" in line
    assert status(tmp_path)["totals"]["source_unavailable"] == 6, "two turns of three begin before the good one, by two and one"
    assert len([text for text in proxy.raw if "no outgoing connection could come" in text]) == 1, "once a minute"
    # Without any other it fails, with a reason.
    proxy.reload(base_config(["127.0.0.1:0"], outgoing=["192.0.2.9"]))
    net.proxy.call(lambda: expect_code(proxy.addr, "socks6", *net.tellers[0].addr, s6.NET_UNREACHABLE))
    proxy.wait_line("no local address or port")


def test_ports_that_are_used_up_are_told_with_advice(net, start, tmp_path):
    """Four ports per source; the fifth connection needs another source, and without one the log says what helps."""
    before = net.proxy.run("sysctl", "-n", "net.ipv4.ip_local_port_range").split()
    proxy = start(outgoing=OWN4[:2], workers=1)
    listener = net.server.call(lambda: socket.create_server(("10.2.0.1", 0)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(listener))
        client_ports = iter(range(20000, 20100))

        def connect():
            # From a port of its own: the range is for the proxy's connections.
            tunnel = socks6_dial(proxy.addr, *listener.getsockname(), source=("127.0.0.1", next(client_ports)))
            stack.enter_context(tunnel)
            return tunnel
        try:
            net.proxy.sysctl(net__ipv4__ip_local_port_range="40000 40003")
            codes = [net.proxy.call(connect).code for _ in range(10)]
        finally:
            net.proxy.sysctl(net__ipv4__ip_local_port_range=" ".join(before))
        assert codes == [s6.SUCCESS] * 8 + [s6.NET_UNREACHABLE] * 2
        line = proxy.wait_line("no port was free for an outgoing connection, last from 10.2.0.")
        assert "put more addresses into `outgoing`, widen net.ipv4.ip_local_port_range, or set net.ipv4.tcp_tw_reuse to 1" in line
        assert status(tmp_path)["totals"]["source_unavailable"] >= 4
        records = proxy.access(2, match=lambda record: record["reply"] == s6.NET_UNREACHABLE)
        assert {record["reason"] for record in records} == {"no local address or port"}


def test_the_check_names_what_this_host_does_not_have(tmp_path):
    path = write_config(tmp_path, base_config(outgoing=["127.0.0.1", "192.0.2.9"], rules=[{"allow": {"outgoing": "192.0.2.8"}}]))
    done = run_daemon("-t", "-c", path)
    assert done.returncode == 0
    assert "note: outgoing: no connection can come from 192.0.2.9 now: Cannot assign requested address\n" in done.stderr
    assert "of the rule at line" in done.stderr and "192.0.2.8" in done.stderr and "127.0.0.1" not in done.stderr
