"""
A name that leads to the proxy's own network: clients that are not on loopback are refused, whichever family's answer says so, from
the cache too, and after the answer has changed. In network namespaces, with a name server that answers as each test wants.
"""

import contextlib
import itertools

import pytest

from lib import isolate
from lib import socks6 as s6
from lib.capture import Capture
from lib.clients import DIALERS
from lib.daemon import Daemon, base_config
from lib.names import ScriptedNames, name_socket
from lib.servers import Echo

OUTSIDE4, OUTSIDE6 = "198.51.100.10", "2001:db8:2::10"

FORBIDDEN = [
    "127.0.0.1", "127.8.7.6", "::1", "0.0.0.0", "::", "0.1.2.3", "169.254.169.254", "fd00:ec2::254", "fe80::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:198.51.100.1", "::127.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c633:6401", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:c633:6401::1",
    "2001:0:c000:201::80ff:fffe", "224.0.0.1", "ff02::1", "255.255.255.255", "100.100.100.200", "168.63.129.16",
    "10.1.0.1", "198.51.100.1", "2001:db8:1::1", "2001:db8:2::1"]  # the last four are the proxy's own

# How a client may ask: SOCKS 6 with and without the race, and the older protocols.
WAYS = {"socks6": ("socks6", {}),
        "socks6 race": ("socks6", {"options": s6.stack(s6.LEG_REMOTE, s6.LEVEL_IP, 2, b"\x02\x00")}),
        "socks5": ("socks5", {}), "socks4": ("socks4", {})}


class Net:
    """client 10.1.0.2 -- 10.1.0.1 proxy 198.51.100.1 -- 198.51.100.10 server, and 2001:db8:1:: and 2001:db8:2:: alike."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.client, self.proxy, self.server = (
            self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("client", "proxy", "server"))
        self.client.link("c-p", self.proxy, "p-c")
        self.proxy.link("p-s", self.server, "s-p")
        self.client.address("c-p", "10.1.0.2/24", "2001:db8:1::2/64")
        self.proxy.address("p-c", "10.1.0.1/24", "2001:db8:1::1/64")
        self.proxy.address("p-s", "198.51.100.1/24", "2001:db8:2::1/64")
        self.server.address("s-p", f"{OUTSIDE4}/24", f"{OUTSIDE6}/64")
        # Where everything leads that no other route has: what the proxy dials by mistake is seen.
        self.proxy.ip(f"route add default via {OUTSIDE4}")
        self.proxy.ip(f"-6 route add default via {OUTSIDE6}")
        self.echo = self.stack.enter_context(Echo(OUTSIDE4, make_socket=self.server.tcp_socket))
        self.echo6 = self.stack.enter_context(Echo(OUTSIDE6, port=self.echo.port, make_socket=self.server.tcp_socket))
        self.port = self.echo.port
        # What is to be protected: the same port on every address of the proxy's host.
        self.secret4 = self.stack.enter_context(Echo("0.0.0.0", port=self.port, make_socket=self.proxy.tcp_socket))
        self.secret6 = self.stack.enter_context(Echo("::", port=self.port, make_socket=self.v6only))
        self.names = self.stack.enter_context(ScriptedNames(self.proxy.call(name_socket)))
        self.count = itertools.count()

    def v6only(self, family):
        sock = self.proxy.tcp_socket(family)
        sock.setsockopt(41, 26, 1)  # IPPROTO_IPV6, IPV6_V6ONLY
        return sock

    def name(self, *addresses, **how):
        name = f"r{next(self.count)}.test"
        self.names.set(name, addresses, **how)
        return name

    def secrets_told(self):
        return self.secret4.accepted + self.secret6.accepted

    def close(self):
        self.stack.close()


@pytest.fixture(scope="module")
def net(isolation):
    world = Net()
    yield world
    world.close()


@pytest.fixture(scope="module")
def proxy(net, tmp_path_factory):
    files = isolate.with_files(isolate.name_files(tmp_path_factory.mktemp("rebinding"), [("127.0.0.1", "localhost")], "127.0.0.1"))
    with Daemon(base_config([{"address": "10.1.0.1:0", "open": True}], limits={"connect": "5s"}),
                wrapper=[*net.proxy.wrapper, *files]) as one:
        yield one


def ask(net, proxy, way, name):
    """The code in the terms of SOCKS 6, and which server answered if one did."""
    protocol, options = WAYS[way]
    told = net.secrets_told()
    tunnel = net.client.call(lambda: DIALERS[protocol](proxy.addr, name, net.port, **options))
    with tunnel as sock:
        if tunnel.ok:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    assert net.secrets_told() == told, "the proxy has dialled its own host"
    return tunnel.code


def refused(way):
    return s6.FAILURE if way == "socks4" else s6.RULES


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("way", sorted(WAYS))
def test_name_that_leads_inside_is_refused(net, proxy, way, address):
    name = net.name(address)
    with Capture(net.proxy, "p-s", OUTSIDE4) as capture:
        assert ask(net, proxy, way, name) == refused(way)
        asked = net.names.asked(name)
        assert asked == 2  # both families
        for again in sorted(WAYS):  # from the cache
            assert ask(net, proxy, again, name) == refused(again)
        assert net.names.asked(name) == asked, "this was to come from the cache"
        assert capture.attempts(net.port) == []


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("address", FORBIDDEN)
def test_answer_that_changes_to_it_is_refused(net, proxy, way, address):
    """The classic: first a good answer that lives for no time, then the bad one. The race has a winner to remember by then."""
    name = net.name(OUTSIDE6 if ":" in address else OUTSIDE4, ttl=0)
    assert ask(net, proxy, way, name) == s6.SUCCESS
    net.names.set(name, [address], ttl=0)
    with Capture(net.proxy, "p-s", OUTSIDE4) as capture:
        assert ask(net, proxy, way, name) == refused(way)
        assert capture.attempts(net.port) == []
    net.names.set(name, [OUTSIDE4, OUTSIDE6], ttl=0)
    assert ask(net, proxy, way, name) == s6.SUCCESS


@pytest.mark.parametrize("way", sorted(WAYS))
@pytest.mark.parametrize("address", FORBIDDEN)
def test_of_a_mixed_answer_only_what_is_outside_is_dialled(net, proxy, way, address):
    name = net.name(address, OUTSIDE4 if ":" in address else OUTSIDE6)
    with Capture(net.proxy, "p-s", OUTSIDE4) as capture:
        assert ask(net, proxy, way, name) == s6.SUCCESS
        assert [s.target[0] for s in capture.attempts(net.port)] == [OUTSIDE4 if ":" in address else OUTSIDE6]


@pytest.mark.parametrize("way", sorted(WAYS))
def test_late_answer_that_leads_inside_is_left_out(net, proxy, way):
    """It would join a race that is on."""
    name = net.name(OUTSIDE4, "::1", slow_aaaa=0.2)
    assert ask(net, proxy, way, name) == s6.SUCCESS
    name = net.name("127.0.0.1", slow_aaaa=0.2)
    assert ask(net, proxy, way, name) == refused(way)


def test_address_that_becomes_the_proxys_own_is_refused_from_then_on(net, proxy):
    name = net.name("198.51.100.77")
    net.server.ip("addr add 198.51.100.77/24 dev s-p")
    other = net.stack.enter_context(Echo("198.51.100.77", port=net.port, make_socket=net.server.tcp_socket))
    assert ask(net, proxy, "socks6 race", name) == s6.SUCCESS
    other.close()
    net.server.ip("addr del 198.51.100.77/24 dev s-p")
    net.proxy.ip("addr add 198.51.100.77/24 dev p-s")
    try:
        for way in sorted(WAYS):
            assert ask(net, proxy, way, name) == refused(way)
    finally:
        net.proxy.ip("addr del 198.51.100.77/24 dev p-s")
