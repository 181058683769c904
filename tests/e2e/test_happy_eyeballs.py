"""
Happy Eyeballs at the proxy, in network namespaces: client - proxy - servers. Which addresses are tried in which order is read off
the proxy's own interface; a name server in the proxy's namespace answers as each test wants.

Times are asserted as "not before", with some room: a busy machine may be late.
"""

import contextlib
import itertools
import socket
import subprocess
import threading

import pytest

from lib import isolate
from lib import socks6 as s6
from lib.capture import RST, Capture
from lib.clients import DIALERS, socks6_dial
from lib.daemon import Daemon, base_config, client_binary, environment
from lib.names import ScriptedNames, name_socket
from lib.net import recv_all, reset, wait_until
from lib.servers import Server

pytestmark = pytest.mark.alone  # whose turn it is, is a matter of milliseconds

ALIVE4, REFUSING4 = "198.51.100.10", "198.51.100.20"
ALIVE6, REFUSING6 = "2001:db8:2::10", "2001:db8:2::20"
DEAD4 = [f"198.51.100.{n}" for n in range(30, 35)]
DEAD6 = [f"2001:db8:2::{n}" for n in range(30, 35)]
# What is asserted of the 250 ms: a busy machine may send the first SYN later than the timer knows.
ATTEMPT_DELAY = 0.15

HAPPY = {"wanted": b"\x02\x00", "not wanted": b"\x01\x00", "old form": b"\x00\x00"}


def eyeballs(value="wanted"):
    return s6.stack(s6.LEG_REMOTE, s6.LEVEL_IP, 2, HAPPY[value])


class Web(Server):
    """As much of HTTP as curl needs."""

    def handle(self, sock, peer):
        got = b""
        while b"\r\n\r\n" not in got:
            piece = sock.recv(4096)
            if not piece:
                return
            got += piece
        sock.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nyes")


class Net:
    """client 10.1.0.2 -- 10.1.0.1 proxy 198.51.100.1 -- servers, and 2001:db8:1:: and 2001:db8:2:: alike."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.client, self.proxy, self.server = (
            self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("client", "proxy", "server"))
        self.client.link("c-p", self.proxy, "p-c")
        self.proxy.link("p-s", self.server, "s-p")
        self.client.address("c-p", "10.1.0.2/24", "2001:db8:1::2/64")
        self.proxy.address("p-c", "10.1.0.1/24", "2001:db8:1::1/64")
        self.proxy.address("p-s", "198.51.100.1/24", "2001:db8:2::1/64")
        self.server.address("s-p", *(f"{host}/24" for host in (ALIVE4, REFUSING4, *DEAD4)),
                            *(f"{host}/64" for host in (ALIVE6, REFUSING6, *DEAD6)))
        self.server.nft("add table inet t")
        self.server.nft("add chain inet t i { type filter hook input priority 0; }")
        self.server.nft(f"add rule inet t i ip daddr {{ {', '.join(DEAD4)} }} drop")
        self.server.nft(f"add rule inet t i ip6 daddr {{ {', '.join(DEAD6)} }} drop")
        self.web = self.stack.enter_context(Web(host=ALIVE4, make_socket=self.server.tcp_socket))
        self.port = self.web.port
        self.web6 = self.stack.enter_context(Web(host=ALIVE6, port=self.port, make_socket=self.server.tcp_socket))
        self.names = self.stack.enter_context(ScriptedNames(self.proxy.call(name_socket)))
        self.count = itertools.count()

    def name(self, *addresses, **how):
        """A name that no test has asked for yet."""
        name = f"n{next(self.count)}.test"
        self.names.set(name, addresses, **how)
        return name

    def capture(self):
        return Capture(self.proxy, "p-s", "198.51.100.10")

    def close(self):
        self.stack.close()


@pytest.fixture(scope="module")
def net(isolation):
    world = Net()
    yield world
    world.close()


@pytest.fixture(scope="module")
def start(net, tmp_path_factory):
    """Starts daemons between the networks, one for each set of settings."""
    running = {}
    files = isolate.with_files(isolate.name_files(tmp_path_factory.mktemp("eyeballs"), [("127.0.0.1", "localhost")], "127.0.0.1"))

    def get(**settings):
        key = repr(sorted(settings.items()))
        if key not in running:
            settings.setdefault("limits", {"connect": "20s"})
            running[key] = Daemon(base_config([{"address": "10.1.0.1:0", "open": True}], **settings),
                                  wrapper=[*net.proxy.wrapper, *files])
        return running[key]
    yield get
    for one in running.values():
        one.stop()


class Outcome:
    def __init__(self, code, answer=None):
        self.code, self.answer = code, answer


def answer_of(reply):
    """The value of the Happy Eyeballs option in the reply; None = it is not there."""
    for kind, data in reply.options:
        if kind == s6.STACK and data[:2] == bytes([s6.LEG_REMOTE << 6 | s6.LEVEL_IP, 2]):
            return data[2:4]
    return None


def ask(net, daemon, protocol, name, port=None):
    """From the client's namespace; a success must lead to the web server."""
    port = port or net.port
    if protocol == "curl":
        done = net.client.call(lambda: curl(net, daemon, name, port))
        # 97: a proxy error; curl says which in words.
        assert done.returncode in (0, 97), done
        assert done.returncode == 97 or done.stdout == b"yes"
        return Outcome(s6.SUCCESS if done.returncode == 0 else None)
    options = {}
    kind = protocol
    if protocol.startswith("socks6"):
        kind = "socks6"
        form = protocol.partition(" ")[2]
        options = {"options": eyeballs(form)} if form else {}
    tunnel = net.client.call(lambda: DIALERS[kind](daemon.addr, name, port, **options))
    with tunnel as sock:
        if tunnel.ok:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert recv_all(sock).endswith(b"yes")
        return Outcome(tunnel.code, answer_of(tunnel.reply) if kind == "socks6" else None)


def curl(net, daemon, name, port):
    return subprocess.run([*net.client.wrapper, "curl", "-sS", "--noproxy", "", "--socks5-hostname", "%s:%d" % daemon.addr,
                           f"http://{name}:{port}/"], env=environment(), capture_output=True, timeout=60, check=False)


def tried(capture, port):
    return [segment.target[0] for segment in capture.attempts(port)]


def gaps(capture, port):
    times = [segment.time for segment in capture.attempts(port)]
    return [later - earlier for earlier, later in zip(times, times[1:])]


# Those that race: SOCKS 6 when asked to, the others by default.
RACING = ["socks6 wanted", "socks6 old form", "socks5", "socks4", "curl"]
ANSWERS = {"socks6 wanted": b"\x02\x00", "socks6 old form": b"\x00\x00"}


def race(net, daemon, protocol, name, expected, code=s6.SUCCESS):
    """Asks, and checks what was tried and what the proxy says about it. Returns the capture, closed."""
    with net.capture() as capture:
        outcome = ask(net, daemon, protocol, name)
        if protocol == "curl":
            assert (outcome.code == s6.SUCCESS) == (code == s6.SUCCESS)
        elif protocol == "socks4":
            assert outcome.code == min(code, 1)
        elif protocol == "socks5":
            assert outcome.code == (s6.HOST_UNREACHABLE if code == s6.TIMED_OUT else code)
        else:
            assert outcome.code == code and outcome.answer == ANSWERS[protocol]
        assert tried(capture, net.port) == expected
        capture.final = capture.segments()
        capture.started = [segment.time for segment in capture.attempts(net.port)]
        capture.gaps = gaps(capture, net.port)
    nothing_is_left(net, daemon)
    return capture


def nothing_is_left(net, daemon):
    """Losers are closed: no attempt goes on, and no connection stays."""
    def sockets():
        return net.proxy.run("ss", "-Htn", "state", "syn-sent", "state", "established", "state", "close-wait")
    wait_until(lambda: sockets() == "", sockets)
    assert daemon.alive()


@pytest.mark.parametrize("protocol", RACING)
def test_ipv6_that_swallows_everything_costs_one_attempt_delay(net, start, protocol):
    capture = race(net, start(), protocol, net.name(DEAD6[0], ALIVE4), [DEAD6[0], ALIVE4])
    assert capture.gaps[0] >= ATTEMPT_DELAY


@pytest.mark.parametrize("protocol", RACING)
def test_ipv6_that_refuses_leads_to_ipv4_at_once(net, start, protocol):
    """With an attempt delay of two seconds the next attempt can only come from the refusal."""
    capture = race(net, start(happy_eyeballs={"attempt_delay": "2s"}), protocol, net.name(REFUSING6, ALIVE4), [REFUSING6, ALIVE4])
    refused = next(s.time for s in capture.final if s.flags & RST and s.source[0] == REFUSING6)
    second = next(s.time for s in capture.final if s.target[0] == ALIVE4)
    assert refused < second
    assert capture.gaps[0] < 2


@pytest.mark.parametrize("protocol", RACING)
def test_both_alive_is_ipv6_alone(net, start, protocol):
    race(net, start(), protocol, net.name(ALIVE4, ALIVE6), [ALIVE6])


@pytest.mark.parametrize("protocol", RACING)
def test_slow_aaaa_is_not_waited_for(net, start, protocol):
    name = net.name(ALIVE4, ALIVE6, slow_a=0.2, slow_aaaa=1)
    capture = race(net, start(), protocol, name, [ALIVE4])
    assert net.names.time_of("ask", name, "AAAA") < net.names.time_of("answer", name, "A")
    late = net.names.time_of("answer", name, "AAAA")
    assert late is None or capture.started[0] < late


@pytest.mark.parametrize("protocol", RACING)
def test_aaaa_within_the_resolution_delay_goes_first(net, start, protocol):
    name = net.name(ALIVE4, ALIVE6, slow_aaaa=0.3)
    race(net, start(happy_eyeballs={"resolution_delay": "2s"}), protocol, name, [ALIVE6])
    assert net.names.time_of("answer", name, "A") < net.names.time_of("answer", name, "AAAA")


@pytest.mark.parametrize("protocol", RACING)
def test_late_aaaa_joins_in(net, start, protocol):
    name = net.name(DEAD4[0], DEAD4[1], ALIVE6, slow_aaaa=0.15)
    race(net, start(), protocol, name, [DEAD4[0], ALIVE6])


@pytest.mark.parametrize("protocol", RACING)
def test_slow_a_is_not_waited_for(net, start, protocol):
    name = net.name(ALIVE4, ALIVE6, slow_a=1, slow_aaaa=0.2)
    capture = race(net, start(), protocol, name, [ALIVE6])
    assert net.names.time_of("ask", name, "A") < net.names.time_of("answer", name, "AAAA")
    late = net.names.time_of("answer", name, "A")
    assert late is None or capture.started[0] < late


@pytest.mark.parametrize("protocol", RACING)
def test_late_a_comes_to_the_rescue(net, start, protocol):
    race(net, start(), protocol, net.name(ALIVE4, DEAD6[0], slow_a=0.4), [DEAD6[0], ALIVE4])


@pytest.mark.parametrize("protocol", RACING)
def test_answer_that_never_comes_does_no_harm(net, start, protocol):
    race(net, start(), protocol, net.name(ALIVE4, slow_aaaa=None), [ALIVE4])
    race(net, start(), protocol, net.name(ALIVE6, slow_a=None), [ALIVE6])


@pytest.mark.parametrize("protocol", RACING)
def test_ten_addresses_with_the_last_alive(net, start, protocol):
    fours = [*DEAD4[:4], ALIVE4]
    expected = [one for pair in zip(DEAD6, fours) for one in pair]
    capture = race(net, start(), protocol, net.name(*DEAD6, *fours), expected)
    assert min(capture.gaps) >= ATTEMPT_DELAY


@pytest.mark.parametrize("protocol", RACING)
def test_all_dead_is_the_right_code_in_bounded_time(net, start, protocol):
    daemon = start(limits={"connect": "1s"})
    race(net, daemon, protocol, net.name(DEAD6[0], DEAD4[0]), [DEAD6[0], DEAD4[0]], s6.TIMED_OUT)
    race(net, daemon, protocol, net.name(REFUSING6, REFUSING4), [REFUSING6, REFUSING4], s6.REFUSED)
    # Somebody answered: that says more than the silence.
    race(net, daemon, protocol, net.name(DEAD6[0], REFUSING4), [DEAD6[0], REFUSING4], s6.REFUSED)


@pytest.mark.parametrize("protocol", RACING)
def test_one_family_alone(net, start, protocol):
    race(net, start(), protocol, net.name(DEAD4[0], REFUSING4, ALIVE4), [DEAD4[0], REFUSING4, ALIVE4])
    race(net, start(), protocol, net.name(REFUSING6, ALIVE6), [REFUSING6, ALIVE6])


def test_winner_is_remembered_for_a_while(net, start):
    daemon = start()
    name = net.name(DEAD6[0], ALIVE4)
    race(net, daemon, "socks5", name, [DEAD6[0], ALIVE4])
    race(net, daemon, "socks5", name.upper(), [ALIVE4])  # whatever the case, and whoever asks
    race(net, daemon, "socks6 wanted", name, [ALIVE4])


def test_winner_is_not_remembered_if_not_wanted(net, start):
    daemon = start(happy_eyeballs={"remember": "none"})
    name = net.name(DEAD6[0], ALIVE4)
    for _ in range(2):
        race(net, daemon, "socks5", name, [DEAD6[0], ALIVE4])


def test_remembered_winner_that_has_died_is_forgotten(net, start):
    daemon = start()
    name = net.name(REFUSING6, ALIVE4, ttl=0)
    race(net, daemon, "socks5", name, [REFUSING6, ALIVE4])
    net.names.set(name, [ALIVE6, DEAD4[0]], ttl=0)
    race(net, daemon, "socks5", name, [ALIVE6])
    net.names.set(name, [ALIVE4, ALIVE6], ttl=0)
    race(net, daemon, "socks5", name, [ALIVE6])


def test_settings_are_obeyed(net, start):
    prefer4 = start(happy_eyeballs={"prefer": "ipv4"})
    race(net, prefer4, "socks5", net.name(ALIVE4, ALIVE6), [ALIVE4])
    race(net, prefer4, "socks5", net.name(DEAD4[0], ALIVE6), [DEAD4[0], ALIVE6])
    two = start(happy_eyeballs={"first_family_count": 2})
    race(net, two, "socks5", net.name(*DEAD6[:3], ALIVE4), [DEAD6[0], DEAD6[1], ALIVE4])
    slow = start(happy_eyeballs={"attempt_delay": "1s"})
    assert race(net, slow, "socks5", net.name(DEAD6[0], ALIVE4), [DEAD6[0], ALIVE4]).gaps[0] >= 0.8


def test_many_addresses_are_bounded_in_descriptors(net, start):
    """No more than 16 attempts at the same time, whatever the answer holds."""
    daemon = start(happy_eyeballs={"attempt_delay": "10ms"})
    hosts = [f"198.51.100.{n}" for n in range(100, 140)]  # nobody there: neighbours are looked for in vain
    peak = 0
    with net.capture():
        asking = threading.Thread(target=lambda: ask(net, daemon, "socks5", net.name(*hosts, *DEAD6)))
        asking.start()
        while asking.is_alive():
            peak = max(peak, daemon.fds() - daemon.base_fds)
            asking.join(0.02)
    assert 10 < peak <= 16 + 1 + 2  # the client's, and sockets of the resolver
    nothing_is_left(net, daemon)


def test_client_that_leaves_ends_the_race(net, start):
    daemon = start()
    name = net.name(DEAD6[0], DEAD4[0])
    with net.capture() as capture:
        sock = net.client.call(lambda: socket.create_connection(daemon.addr))
        sock.sendall(s6.request(name, net.port, options=eyeballs()))
        wait_until(lambda: len(capture.attempts(net.port)) == 2, "both attempts")
        reset(sock)
        nothing_is_left(net, daemon)


# Without Happy Eyeballs: one address after the other ------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["socks6", "socks6 not wanted", "socks5 by setting"])
def test_without_it_ipv4_is_tried_when_ipv6_has_failed(net, start, protocol):
    settings = {"limits": {"connect": "2s"}}
    if protocol.endswith("by setting"):
        settings["happy_eyeballs"] = {"legacy": False}
    daemon = start(**settings)
    kind = protocol.removesuffix(" by setting")
    for first, least in ((REFUSING6, 0), (DEAD6[0], 0.8)):
        with net.capture() as capture:
            outcome = ask(net, daemon, kind, net.name(first, ALIVE4))
            assert outcome.code == s6.SUCCESS
            assert outcome.answer == (b"\x01\x00" if kind == "socks6 not wanted" else None)
            assert tried(capture, net.port) == [first, ALIVE4]
            assert gaps(capture, net.port)[0] >= least  # a dead one has half of what the look-up left of the time
        nothing_is_left(net, daemon)


def test_without_it_ipv6_is_waited_for(net, start):
    name = net.name(ALIVE4, ALIVE6, slow_aaaa=0.4)
    with net.capture() as capture:
        assert ask(net, start(), "socks6", name).code == s6.SUCCESS
        assert tried(capture, net.port) == [ALIVE6]
    name = net.name(ALIVE4, ALIVE6, slow_a=None)
    with net.capture() as capture:
        assert ask(net, start(), "socks6", name).code == s6.SUCCESS
        assert tried(capture, net.port) == [ALIVE6]


# What the reply says --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", [ALIVE4, ALIVE6, ALIVE4.encode(), ALIVE6.encode()], ids=str)
@pytest.mark.parametrize("value", sorted(HAPPY))
def test_option_is_ignored_without_a_domain_name(net, start, host, value):
    tunnel = net.client.call(lambda: socks6_dial(start().addr, host, net.port, options=eyeballs(value)))
    with tunnel:
        assert tunnel.ok and tunnel.reply.options == []


@pytest.mark.parametrize("value, answer", [("wanted", b"\x01\x00"), ("not wanted", b"\x01\x00"), ("old form", None)])
def test_nothing_was_raced_where_the_name_has_no_address(net, start, value, answer):
    outcome = ask(net, start(), f"socks6 {value}", "nosuch.test")
    assert outcome.code == s6.HOST_UNREACHABLE and outcome.answer == answer


@pytest.mark.parametrize("value, answer", [("wanted", b"\x02\x00"), ("not wanted", b"\x01\x00"), ("old form", b"\x00\x00")])
def test_failure_says_what_was_done(net, start, value, answer):
    outcome = ask(net, start(), f"socks6 {value}", net.name(REFUSING6, REFUSING4))
    assert outcome.code == s6.REFUSED and outcome.answer == answer


def test_first_of_two_contradicting_options_counts(net, start):
    name = net.name(ALIVE6)
    tunnel = net.client.call(lambda: socks6_dial(start().addr, name, net.port,
                                                 options=eyeballs("not wanted") + eyeballs("wanted")))
    with tunnel:
        assert tunnel.ok and answer_of(tunnel.reply) == b"\x01\x00" and len(tunnel.reply.options) == 1


# The client -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draft", [8, 11, 12])
@pytest.mark.parametrize("option, said, expected", [
    ("--happy-eyeballs", "the proxy used it", [DEAD6[0], ALIVE4]),
    ("--happy-eyeballs=off", "the proxy did not use it", [REFUSING6, ALIVE4]),
    (None, None, [REFUSING6, ALIVE4])])
def test_client_asks_and_says_what_was_answered(net, start, draft, option, said, expected):
    daemon = start()
    if draft == 8 and option == "--happy-eyeballs=off":
        said = "the proxy does not say whether it used it"  # there is no way to ask for it
    with net.capture() as capture:
        proxy = "socks6://%s:%d?draft=%d" % (*daemon.addr, draft)
        done = subprocess.run([*net.client.wrapper, client_binary(), "-x", proxy, "connect", "-v", *([option] if option else []),
                               net.name(*expected), str(net.port)],
                              input=b"GET / HTTP/1.0\r\n\r\n", env=environment(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0 and done.stdout.endswith(b"yes"), done
        assert tried(capture, net.port) == expected
    if said:
        assert f"Happy Eyeballs: {said}\n".encode() in done.stderr
    else:
        assert b"Happy" not in done.stderr
