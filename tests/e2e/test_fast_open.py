"""
TCP Fast Open on both legs, in network namespaces: client - proxy - servers. What travelled in which SYN is read off the
interfaces; handshakes are left open by dropping the ACK that would end them.
"""

import contextlib
import hashlib
import itertools
import re
import signal
import socket
import struct
import subprocess

import pytest

from lib import isolate
from lib import socks6 as s6
from lib.capture import ACK, SYN, Capture
from lib.clients import finish6
from lib.daemon import Daemon, base_config, client_binary, environment, faults_binary, run_daemon
from lib.faults import Faults
from lib.names import ScriptedNames, name_socket
from lib.net import Listener, recv_exact, wait_until
from lib.servers import Server

MSG_FASTOPEN, TCP_FASTOPEN = 0x20000000, 23
LISTENER = {"address": "10.1.0.1:0", "open": True}
FAST4, OTHER4, REFUSING4, PLAIN4 = "198.51.100.10", "198.51.100.20", "198.51.100.30", "198.51.100.40"
DEAD4 = "198.51.100.50"
FAST6 = "2001:db8:2::10"


def tfo(bound=0):
    return s6.stack(s6.LEG_REMOTE, s6.LEVEL_TCP, 1, struct.pack("!H", bound))


EYEBALLS = s6.stack(s6.LEG_REMOTE, s6.LEVEL_IP, 2, b"\x02\x00")


class Recorder(Server):
    """Answers each connection's first bytes at once, keeps what comes on it, and echoes."""

    def __init__(self, **more):
        self.streams = []
        super().__init__(**more)

    def handle(self, sock, peer):
        stream = bytearray()
        self.streams.append(stream)
        while data := sock.recv(1 << 16):
            stream += data
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


class Net:
    """client 10.1.0.2 -- 10.1.0.1 proxy 198.51.100.1 -- servers, and 2001:db8:1:: and 2001:db8:2:: alike."""

    def __init__(self):
        self.stack = contextlib.ExitStack()
        self.client, self.proxy, self.server = (
            self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("client", "proxy", "server"))
        self.client.link("c-p", self.proxy, "p-c")
        self.proxy.link("p-s", self.server, "s-p")
        self.client.address("c-p", "10.1.0.2/24", "10.1.0.3/24", "2001:db8:1::2/64")
        self.proxy.address("p-c", "10.1.0.1/24", "2001:db8:1::1/64")
        self.proxy.address("p-s", "198.51.100.1/24", "2001:db8:2::1/64")
        self.server.address("s-p", *(f"{host}/24" for host in (FAST4, OTHER4, REFUSING4, PLAIN4, DEAD4)), f"{FAST6}/64")
        for space in (self.client, self.proxy, self.server):
            space.sysctl(net__ipv4__tcp_fastopen=3, net__ipv4__tcp_fastopen_blackhole_timeout_sec=0)
        for space in (self.client, self.server):
            space.nft("add table inet t")
        self.server.sysctl(net__ipv4__icmp_ratelimit=0)
        self.client.nft("add chain inet t o { type filter hook output priority 0; }")
        self.server.nft("add chain inet t i { type filter hook input priority 0; }")
        self.server.nft(f"add rule inet t i ip daddr {DEAD4} drop")
        self.fast = self.stack.enter_context(Recorder(host=FAST4, make_socket=self.fast_socket))
        self.port = self.fast.port
        for host in (OTHER4, FAST6):
            self.stack.enter_context(Recorder(host=host, port=self.port, make_socket=self.fast_socket))
        self.plain = self.stack.enter_context(Recorder(host=PLAIN4, port=self.port, make_socket=self.server.tcp_socket))
        self.names = self.stack.enter_context(ScriptedNames(self.proxy.call(name_socket)))
        self.count = itertools.count()

    def fast_socket(self, family):
        def make():
            sock = Listener(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 64)
            return sock
        return self.server.call(make)

    def name(self, *addresses):
        """A name that no test has asked for yet."""
        name = f"n{next(self.count)}.test"
        self.names.set(name, addresses)
        return name

    def capture(self):
        """Of what goes to the servers."""
        return Capture(self.proxy, "p-s", FAST4)

    def forget(self):
        """All cookies of the proxy and the client."""
        for space in (self.client, self.proxy):
            space.ip("tcp_metrics flush all")

    @contextlib.contextmanager
    def open_handshakes(self):
        """The client's ACKs do not leave, nor do its resets: handshakes stay open until the end of this."""
        self.client.nft("add rule inet t o tcp flags & (syn | ack) == ack drop")
        self.client.nft("add rule inet t o tcp flags & rst == rst drop")
        try:
            yield
        finally:
            self.client.nft("flush chain inet t o")

    def close(self):
        self.stack.close()


@pytest.fixture(scope="module")
def net(isolation):
    world = Net()
    yield world
    world.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return isolate.with_files(isolate.name_files(tmp_path_factory.mktemp("tfo"), [("127.0.0.1", "localhost")], "127.0.0.1"))


@pytest.fixture
def start(net, files):
    """Starts a daemon between the networks: start(listener keys..., settings=...)."""
    running = []
    with contextlib.ExitStack() as stack:
        def get(settings=None, process=None, **listener):
            config = base_config([LISTENER | listener], **({"limits": {"connect": "2s"}} | (settings or {})))
            running.append(stack.enter_context(Daemon(config, wrapper=[*net.proxy.wrapper, *files], **(process or {}))))
            return running[-1]
        yield get
        for one in running:
            print(one.text()[-4000:])  # pytest shows it for tests that failed


def counters(daemon):
    mark = daemon.mark()
    daemon.signal(signal.SIGUSR1)
    line = daemon.wait_line(re.compile(r"accepted=\d"), "the counters", mark)
    return dict((name, int(value)) for name, value in re.findall(r"(\w+)[=:]\s*(\d+)", line.replace('"', "")))


# Client - proxy -------------------------------------------------------------------------------------------------------


def fast_client(net, address, data, source=None):
    """A client's socket whose SYN carries `data`, if the kernel has a cookie."""
    def make():
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.settimeout(30)
        sock.setblocking(False)
        if source:
            sock.bind(source)
        try:
            taken = sock.sendto(data, MSG_FASTOPEN, address)
        except BlockingIOError:
            taken = 0
        sock.settimeout(30)
        if taken < len(data):
            sock.sendall(data[taken:])
        return sock
    return net.client.call(make)


def get_cookie(net, daemon):
    """A connection that asks the proxy for one, since there is none."""
    net.forget()
    with fast_client(net, daemon.addr, s6.noop()) as sock:
        assert finish6(sock).ok


REQUESTS = {
    "socks6": lambda host, port: s6.request(host, port),
    "socks5": lambda host, port: s6.socks5_greeting() + s6.socks5_request(host, port),
    "socks4": lambda host, port: s6.socks4_request(host, port),
}


def read_reply(protocol, sock):
    if protocol == "socks6":
        return finish6(sock).code
    if protocol == "socks5":
        assert s6.read_socks5_method(sock) == 0
        return s6.read_socks5_reply(sock).code
    return 0 if s6.read_socks4_reply(sock).code == s6.SOCKS4_GRANTED else 1


def test_request_in_a_syn_is_taken(net, start):
    daemon = start()
    with Capture(net.client, "c-p", "10.1.0.1") as capture:
        get_cookie(net, daemon)
        assert counters(daemon)["requests_in_syn"] == 0
        with fast_client(net, daemon.addr, s6.request(FAST4, net.port) + b"hello") as sock:
            assert finish6(sock).ok and recv_exact(sock, 5) == b"hello"
        sizes = [segment.size for segment in capture.attempts(daemon.addr[1])]
        assert sizes == [0, len(s6.request(FAST4, net.port)) + 5]
    assert counters(daemon)["requests_in_syn"] == 1


@pytest.mark.parametrize("protocol", sorted(REQUESTS))
def test_request_in_a_syn_waits_for_the_end_of_the_handshake(net, start, protocol):
    daemon = start()
    get_cookie(net, daemon)
    before = net.fast.accepted
    with net.open_handshakes():
        sock = fast_client(net, daemon.addr, REQUESTS[protocol](FAST4, net.port) + b"hello")
        daemon.wait_line("has to end its handshake first")
        # It does not act, whatever else happens: another client comes and goes.
        with net.proxy.call(lambda: socket.create_connection(daemon.addr)) as other:
            other.sendall(s6.request(PLAIN4, net.port))
            assert finish6(other).ok
        assert net.fast.accepted == before
        found = counters(daemon)
        assert (found["requests_in_syn"], found["requests_waited"], found["connected"]) == (1, 1, 1)
    with sock:  # the SYN-ACK comes again, and is acknowledged now
        assert read_reply(protocol, sock) == 0
        assert recv_exact(sock, 5) == b"hello"
    assert net.fast.accepted == before + 1


def test_end_of_the_handshake_is_noticed_by_itself(net, start):
    """A client that sends nothing after its SYN: the ACK alone has to wake the daemon, and it need not come twice."""
    daemon = start()
    get_cookie(net, daemon)
    for _ in range(20):
        with fast_client(net, daemon.addr, s6.request(FAST4, net.port)) as sock:
            assert finish6(sock).ok
    assert counters(daemon)["requests_in_syn"] == 20


def test_act_does_not_wait(net, start):
    daemon = start(tfo_without_token="act")
    get_cookie(net, daemon)
    before = net.fast.accepted
    with net.open_handshakes():
        sock = fast_client(net, daemon.addr, s6.request(FAST4, net.port) + b"hello")
        net.fast.wait(lambda: net.fast.accepted == before + 1, "the connection to the server")
        assert counters(daemon)["requests_waited"] == 0
    with sock:
        assert finish6(sock).ok and recv_exact(sock, 5) == b"hello"


def session_with_window(net, daemon):
    """The id of a session, and the lowest token of its window."""
    with net.client.call(lambda: socket.create_connection(daemon.addr)) as sock:
        sock.sendall(s6.noop(s6.session_request() + s6.window_request(64)))
        auth = s6.read_auth_reply(sock)
        return auth.get(s6.SESSION_ID), struct.unpack_from("!I", auth.get(s6.WINDOW))[0]


def with_token(net, session, token):
    return s6.request(FAST4, net.port, options=s6.session_id(session) + s6.expenditure(token & 0xffffffff)) + b"pay 1"


def test_request_with_a_token_does_not_wait(net, start):
    daemon = start()
    get_cookie(net, daemon)
    session, base = session_with_window(net, daemon)
    before = net.fast.accepted
    with net.open_handshakes():
        sock = fast_client(net, daemon.addr, with_token(net, session, base))
        net.fast.wait(lambda: net.fast.accepted == before + 1, "the connection to the server")
        found = counters(daemon)
        assert (found["requests_in_syn"], found["requests_waited"], found["tokens_accepted"]) == (1, 0, 1)
    with sock:
        assert finish6(sock).ok and recv_exact(sock, 5) == b"pay 1"


def test_repeated_syn_with_a_token_acts_once(net, start):
    daemon = start()
    get_cookie(net, daemon)
    session, base = session_with_window(net, daemon)
    before = net.fast.accepted
    frame = record_syn(net, daemon, with_token(net, session, base))
    assert net.fast.accepted == before + 1
    daemon.access(3)
    with net.open_handshakes():
        for number in range(5):
            replay(net, with_source_port(frame, 21000 + number))
        wait_until(lambda: counters(daemon)["tokens_rejected"] == 5, "the repeated SYNs")
    assert net.fast.accepted == before + 1 and counters(daemon)["tokens_accepted"] == 1


def test_a_proxy_that_does_not_check_tokens_is_found_out_by_repeated_syns(net, start, tmp_path):
    """The checks above would see it: the same with the build that accepts every token."""
    faults = Faults(tmp_path / "control")
    faults.switch_off("token")
    daemon = start(process={"binary": faults_binary(), "env": {"SOCKS6_FAULTS": faults.path}})
    get_cookie(net, daemon)
    session, base = session_with_window(net, daemon)
    before = net.fast.accepted
    frame = record_syn(net, daemon, with_token(net, session, base))
    daemon.access(3)
    with net.open_handshakes():
        for number in range(5):
            replay(net, with_source_port(frame, 21000 + number))
        net.fast.wait(lambda: net.fast.accepted == before + 6, "the repeated request")
    assert counters(daemon)["tokens_accepted"] == 6


def test_handshake_that_never_ends_is_given_up(net, start):
    daemon = start(settings={"limits": {"handshake": "1s"}})
    get_cookie(net, daemon)
    before = net.fast.accepted
    with net.open_handshakes():
        sock = fast_client(net, daemon.addr, s6.request(FAST4, net.port) + b"hello")
        record = daemon.access(match=lambda r: r["reason"] == "handshake timeout")[0]
        assert record["asked"] == f"{FAST4}:{net.port}"
        sock.close()
    assert net.fast.accepted == before and counters(daemon)["handshake_timeouts"] == 1


def record_syn(net, daemon, data):
    """The frame of a SYN with `data` in it, as it left the client."""
    with net.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))) as sniffer:
        sniffer.bind(("c-p", 0x0003))  # only who asks for all sees what goes out
        sniffer.settimeout(30)
        before = net.fast.accepted
        with fast_client(net, daemon.addr, data) as sock:
            assert finish6(sock).ok
            # The server's thread may be later than the proxy's success.
            net.fast.wait(lambda: net.fast.accepted == before + 1, "the connection to the server")
        return syn_with(sniffer, data)


def syn_with(sniffer, data):
    while True:
        frame = sniffer.recv(65536)
        if frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_TCP and frame[47] & (SYN | ACK) == SYN:
            assert frame.endswith(data)
            return frame


def replay(net, frame):
    with net.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sender:
        sender.bind(("c-p", 0))
        sender.send(frame)


@pytest.mark.parametrize("setting", ["wait", "act"])
def test_repeated_syn_acts_only_if_told_to(net, start, setting):
    daemon = start(tfo_without_token=setting)
    get_cookie(net, daemon)
    frame = record_syn(net, daemon, s6.request(FAST4, net.port) + b"pay 1")
    daemon.access(2)  # both connections are over, so that the addresses are free for another one
    before = net.fast.accepted
    waited = counters(daemon)["requests_waited"]  # perhaps the recorded one
    with net.open_handshakes():
        for number in range(3):
            replay(net, with_source_port(frame, 20000 + number))
        wait_until(lambda: counters(daemon)["requests_in_syn"] == 4, "the repeated SYNs")
        if setting == "act":
            net.fast.wait(lambda: net.fast.accepted == before + 3, "the repeated request")
        else:
            assert counters(daemon)["requests_waited"] == waited + 3
            assert net.fast.accepted == before


def with_source_port(frame, port):
    """The frame from another port (a cookie is bound to addresses, not to ports), with its checksum: that of what leaves a
    veth device was never computed."""
    segment = bytearray(frame[34:])
    segment[0:2] = struct.pack("!H", port)
    segment[16:18] = b"\0\0"
    pseudo = frame[26:34] + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment))
    whole = pseudo + bytes(segment) + b"\0" * (len(segment) % 2)
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    segment[16:18] = struct.pack("!H", ~total & 0xffff)
    return frame[:34] + bytes(segment)


def start_session(net, daemon):
    """(id, base of the token window) of a new session. The kernel has a cookie of the proxy's afterwards."""
    net.forget()
    with fast_client(net, daemon.addr, s6.noop(s6.session_request() + s6.window_request(64))) as sock:
        tunnel = finish6(sock)
        assert tunnel.ok
        return tunnel.reply.auth.get(s6.SESSION_ID), struct.unpack("!II", tunnel.reply.auth.get(s6.WINDOW))[0]


def test_request_with_a_token_acts_at_once_and_only_once(net, start):
    daemon = start()
    session, base = start_session(net, daemon)
    request = s6.request(FAST4, net.port, options=s6.session_id(session) + s6.expenditure(base)) + b"pay 1"
    before = net.fast.accepted
    with net.open_handshakes():
        with net.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))) as sniffer:
            sniffer.bind(("c-p", 0x0003))
            sniffer.settimeout(30)
            sock = fast_client(net, daemon.addr, request)
            net.fast.wait(lambda: net.fast.accepted == before + 1, "the connection to the server")
            frame = syn_with(sniffer, request)
        for number in range(10):
            replay(net, with_source_port(frame, 21000 + number))
        wait_until(lambda: counters(daemon)["tokens_rejected"] == 10, "the repeated SYNs")
        found = counters(daemon)
        assert (found["requests_waited"], found["connected"]) == (0, 1)
    with sock:
        tunnel = finish6(sock)
        assert tunnel.ok and recv_exact(sock, 5) == b"pay 1"
        assert s6.ACCEPTED in tunnel.reply.auth.kinds()
    assert net.fast.accepted == before + 1


REPLAYS = 1200


def taken_with_a_syn(space):
    """How many SYNs with data the kernel has taken there."""
    names, values = (line.split()[1:] for line in space.run("cat", "/proc/net/netstat").splitlines() if line.startswith("TcpExt"))
    return int(dict(zip(names, values))["TCPFastOpenPassive"])


@pytest.mark.parametrize("with_token", [True, False])
def test_a_flood_of_repeated_syns_acts_no_second_time(net, start, with_token):
    """More than a thousand arrive as data of a SYN, on all workers, before and after a reload; the counters say so."""
    settings = {"workers": 4, "limits": {"handshake": "5s", "connections_per_client": "none"}}
    daemon = start(settings=settings, tfo=4096)
    session, base = start_session(net, daemon)
    options = s6.session_id(session) + (s6.expenditure(base) if with_token else b"")
    request = s6.request(FAST4, net.port, options=options) + b"pay 1"
    frame = record_syn(net, daemon, request)
    daemon.access(2)
    before, known, taken = net.fast.accepted, counters(daemon), taken_with_a_syn(net.proxy)
    # A request whose token is rejected is none that is counted.
    counter = "tokens_rejected" if with_token else "requests_waited"
    with net.open_handshakes(), net.client.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as sender:
        sender.bind(("c-p", 0))
        for number in range(REPLAYS):
            if number == REPLAYS // 2:
                daemon.reload()
            sender.send(with_source_port(frame, 20000 + number))
            if number % 100 == 99:
                arrived = number + 1
                wait_until(lambda: counters(daemon)[counter] - known[counter] == arrived,
                           lambda: f"{arrived} repeated SYNs: {counters(daemon)}")
        found = counters(daemon)
    assert taken_with_a_syn(net.proxy) - taken == REPLAYS
    assert found["connected"] == 1 and net.fast.accepted == before
    assert found["requests_in_syn"] - known["requests_in_syn"] == (0 if with_token else REPLAYS)


def test_request_without_a_token_waits_in_a_session_too(net, start):
    daemon = start()
    session, _ = start_session(net, daemon)
    before = net.fast.accepted
    with net.open_handshakes():
        sock = fast_client(net, daemon.addr, s6.request(FAST4, net.port, options=s6.session_id(session)))
        daemon.wait_line("has to end its handshake first")
        assert net.fast.accepted == before
    with sock:
        assert finish6(sock).ok


@pytest.mark.parametrize("how", ["listener", "top", "host"])
def test_without_fast_open_no_syn_carries_data(net, start, how):
    allowed = start()
    get_cookie(net, allowed)
    if how == "host":
        net.proxy.sysctl(net__ipv4__tcp_fastopen=1)
    try:
        daemon = start(settings={"tfo": False} if how == "top" else None, **({"tfo": False} if how == "listener" else {}))
        # The kernel has a cookie of this address, so it tries; the proxy's takes the data after the handshake.
        with fast_client(net, daemon.addr, s6.request(FAST4, net.port) + b"hello") as sock:
            assert finish6(sock).ok and recv_exact(sock, 5) == b"hello"
        assert counters(daemon)["requests_in_syn"] == 0
    finally:
        net.proxy.sysctl(net__ipv4__tcp_fastopen=3)


def test_reload_switches_it(net, start):
    daemon = start(tfo=False)
    for listener, taken in (({"tfo": 16}, 1), ({"tfo_without_token": "act"}, 2), ({"tfo": False}, 2), ({"tfo": True}, 3)):
        port = daemon.addr[1]
        daemon.reload(base_config([LISTENER | {"address": "10.1.0.1:0"} | listener]))
        assert daemon.addr[1] == port
        net.forget()
        get_cookie(net, daemon)
        with fast_client(net, daemon.addr, s6.request(FAST4, net.port)) as sock:
            assert finish6(sock).ok
        assert counters(daemon)["requests_in_syn"] == taken


# Proxy - server -------------------------------------------------------------------------------------------------------


def answer_of(reply):
    """The value of the TFO option in the reply; None = it is not there."""
    for kind, data in reply.options:
        if kind == s6.STACK and data[:2] == bytes([s6.LEG_REMOTE << 6 | s6.LEVEL_TCP, 1]):
            return struct.unpack("!H", data[2:4])[0]
    return None


def ask(net, daemon, host, data, options=b"", port=None, advertised=None):
    """Request and data in one go; the reply, and the data's echo is checked if there was a success."""
    if advertised is not None:
        options += s6.advertisement(advertised)
    with net.client.call(lambda: socket.create_connection(daemon.addr, 30)) as sock:
        sock.sendall(s6.request(host, port or net.port, options=options) + data)
        tunnel = finish6(sock)
        if tunnel.ok:
            assert recv_exact(sock, len(data)) == data
            sock.sendall(b"more")
            assert recv_exact(sock, 4) == b"more"
        return tunnel.reply


def syn_sizes(capture, net, port=None):
    return [(segment.target[0], segment.size) for segment in capture.attempts(port or net.port)]


@pytest.fixture
def knowing(net, start):
    """A daemon whose host has cookies of FAST4 and FAST6."""
    net.forget()
    daemon = start()
    for host in (FAST4, FAST6):
        assert answer_of(ask(net, daemon, host, b"x", tfo())) == 0
    return daemon


@pytest.mark.parametrize("host", [FAST4, FAST6])
@pytest.mark.parametrize("bound, size", [(0, 300), (300, 300), (301, 300), (7, 7), (1, 1), (65535, 300)])
def test_syn_carries_data_up_to_the_bound(net, knowing, host, bound, size):
    data = bytes(range(200)) + b"x" * 100
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, host, data, tfo(bound))) == size
        assert syn_sizes(capture, net) == [(host, size)]


def test_much_data_fills_the_syn_and_follows_it(net, knowing):
    data = hashlib.sha256(b"x").digest() * 1500
    with net.capture() as capture:
        value = answer_of(ask(net, knowing, FAST4, data, tfo()))
        assert 1000 < value <= 1460
        assert syn_sizes(capture, net) == [(FAST4, value)]
    record = knowing.access(3)[-1]
    assert record["bytes_up"] == len(data) + 4 and record["bytes_down"] == len(data) + 4


def test_initial_data_goes_before_what_follows(net, knowing):
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, FAST4, b"initial, then more", tfo(), advertised=7)) == 18
        assert syn_sizes(capture, net) == [(FAST4, 18)]


def test_without_the_option_no_syn_carries_data(net, knowing):
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, FAST4, b"hello")) is None
        for protocol in ("socks5", "socks4"):
            with net.client.call(lambda: socket.create_connection(knowing.addr, 30)) as sock:
                sock.sendall(REQUESTS[protocol](FAST4, net.port) + b"hello")
                assert read_reply(protocol, sock) == 0
                assert recv_exact(sock, 5) == b"hello"
        assert syn_sizes(capture, net) == [(FAST4, 0)] * 3


def test_nothing_to_send_is_an_ordinary_syn(net, knowing):
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, FAST4, b"", tfo())) == 0
        assert syn_sizes(capture, net) == [(FAST4, 0)]


def test_without_a_cookie_data_follows_once(net, start):
    net.forget()
    daemon = start()
    with net.capture() as capture:
        assert answer_of(ask(net, daemon, FAST4, b"hello", tfo())) == 0
        assert syn_sizes(capture, net) == [(FAST4, 0)]
    net.fast.wait(lambda: bytes(net.fast.streams[-1]) == b"hellomore", "the data")


def test_server_without_fast_open_gets_data_once(net, start):
    daemon = start()
    before = len(net.plain.streams)
    for _ in range(3):
        assert answer_of(ask(net, daemon, PLAIN4, b"hello", tfo())) == 0
    net.plain.wait(lambda: [bytes(stream) for stream in net.plain.streams[before:]] == [b"hellomore"] * 3, "the data")


def test_server_that_takes_no_data_any_more_gets_it_once(net, knowing):
    """The SYN carries it, the SYN-ACK does not acknowledge it: the kernel sends it again, and the answer says so."""
    net.server.sysctl(net__ipv4__tcp_fastopen=1)
    try:
        with net.capture() as capture:
            assert answer_of(ask(net, knowing, FAST4, b"hello", tfo())) == 0
            assert syn_sizes(capture, net) == [(FAST4, 5)]
    finally:
        net.server.sysctl(net__ipv4__tcp_fastopen=3)
    net.fast.wait(lambda: bytes(net.fast.streams[-1]) == b"hellomore", "the data")
    assert knowing.access(3)[-1]["bytes_up"] == 9


def test_host_that_forbids_it_connects_without(net, knowing):
    net.proxy.sysctl(net__ipv4__tcp_fastopen=2)
    try:
        with net.capture() as capture:
            assert answer_of(ask(net, knowing, FAST4, b"hello", tfo())) == 0
            assert syn_sizes(capture, net) == [(FAST4, 0)]
    finally:
        net.proxy.sysctl(net__ipv4__tcp_fastopen=3)


@pytest.mark.parametrize("host", [REFUSING4, "refusing", "denied"])
def test_failure_answers_zero(net, start, host):
    daemon = start(settings={"rules": [{"deny": {"to": OTHER4}}, {"allow": {"to": "any"}}]})
    address = {"refusing": lambda: net.name(REFUSING4), "denied": lambda: OTHER4}.get(host, lambda: host)()
    reply = ask(net, daemon, address, b"hello", tfo())
    assert reply.code == (s6.RULES if host == "denied" else s6.REFUSED)
    assert answer_of(reply) == 0


def test_noop_and_the_dns_service_answer_none(net, start):
    daemon = start()
    with net.client.call(lambda: socket.create_connection(daemon.addr, 30)) as sock:
        sock.sendall(s6.noop(options=tfo()))
        assert answer_of(finish6(sock).reply) is None
    with net.client.call(lambda: socket.create_connection(daemon.addr, 30)) as sock:
        sock.sendall(s6.request("0.0.0.0", 53, options=tfo()))
        tunnel = finish6(sock)
        assert tunnel.ok and answer_of(tunnel.reply) is None


# With Happy Eyeballs --------------------------------------------------------------------------------------------------


def test_single_address_of_a_name_gets_data(net, knowing):
    name = net.name(FAST4)
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, name, b"hello", tfo() + EYEBALLS)) == 5
        assert answer_of(ask(net, knowing, name, b"hello", tfo())) == 5
        assert syn_sizes(capture, net) == [(FAST4, 5)] * 2


def test_race_carries_no_data_and_its_winner_does_the_next_time(net, knowing):
    name = net.name(FAST4, FAST6)
    with net.capture() as capture:
        assert answer_of(ask(net, knowing, name, b"hello", tfo() + EYEBALLS)) == 0
        assert answer_of(ask(net, knowing, name, b"hello", tfo() + EYEBALLS)) == 5
        assert syn_sizes(capture, net) == [(FAST6, 0), (FAST6, 5)]


def test_several_addresses_one_after_the_other_carry_no_data(net, knowing):
    name = net.name(FAST4, FAST6)
    with net.capture() as capture:
        for _ in range(2):
            assert answer_of(ask(net, knowing, name, b"hello", tfo())) == 0
        assert syn_sizes(capture, net) == [(FAST6, 0)] * 2


def test_last_one_left_gets_data(net, knowing):
    name = net.name(REFUSING4, FAST4)
    with net.capture() as capture:
        ask(net, knowing, name, b"hello", tfo() + EYEBALLS)
        sizes = dict(syn_sizes(capture, net))
        assert sizes[FAST4] == (5 if REFUSING4 in sizes else 0)


def remembered(net, daemon, *addresses):
    """A name whose winner FAST4 is remembered; then `addresses` join it."""
    name = net.name(FAST4)
    assert ask(net, daemon, name, b"x", tfo() + EYEBALLS).code == 0
    net.names.set(name, [FAST4, *addresses])
    return name


def test_remembered_winner_with_data_has_no_company(net, start):
    """It is dead now: nobody else may get the data, so the time runs out."""
    net.forget()
    daemon = start(settings={"dns": {"cache": "none"}, "limits": {"connect": "2s"}})
    assert answer_of(ask(net, daemon, FAST4, b"x", tfo())) == 0
    name = remembered(net, daemon, OTHER4)
    net.server.nft(f"add rule inet t i ip daddr {FAST4} tcp dport {net.port} drop")
    try:
        with net.capture() as capture:
            reply = ask(net, daemon, name, b"hello", tfo() + EYEBALLS)
            assert (reply.code, answer_of(reply)) == (s6.TIMED_OUT, 0)
            assert syn_sizes(capture, net) == [(FAST4, 5)]
            # It is forgotten: the next one races, without data.
            reply = ask(net, daemon, name, b"hello", tfo() + EYEBALLS)
            assert (reply.code, answer_of(reply)) == (s6.SUCCESS, 0)
            assert {size for _, size in syn_sizes(capture, net)[1:]} == {0}
    finally:
        net.server.nft("flush chain inet t i")
        net.server.nft(f"add rule inet t i ip daddr {DEAD4} drop")


@pytest.mark.parametrize("how, code", [("with tcp reset", s6.SUCCESS), ("with icmp type host-unreachable", s6.HOST_UNREACHABLE),
                                       ("with icmp type port-unreachable", s6.REFUSED)])
def test_only_a_reset_lets_the_others_have_the_data(net, start, how, code):
    net.forget()
    daemon = start(settings={"dns": {"cache": "none"}})
    assert answer_of(ask(net, daemon, FAST4, b"x", tfo())) == 0
    name = remembered(net, daemon, OTHER4)
    net.server.nft(f"add rule inet t i ip daddr {FAST4} tcp dport {net.port} reject {how}")
    try:
        with net.capture() as capture:
            reply = ask(net, daemon, name, b"hello", tfo() + EYEBALLS)
            assert reply.code == code
            expected = [(FAST4, 5), (OTHER4, 0)] if code == s6.SUCCESS else [(FAST4, 5)]
            assert syn_sizes(capture, net) == expected
    finally:
        net.server.nft("flush chain inet t i")
        net.server.nft(f"add rule inet t i ip daddr {DEAD4} drop")


# The client -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option, size, said", [
    ("--remote-tfo", 11, "it took 11 bytes with the SYN"), ("--remote-tfo=4", 4, "it took 4 bytes with the SYN"),
    (None, 0, None)])
def test_client_asks_and_says_what_was_answered(net, knowing, option, size, said):
    with net.capture() as capture:
        done = subprocess.run([*net.client.wrapper, client_binary(), "-x", "socks6://%s:%d" % knowing.addr, "connect", "-v", "--early",
                               "--no-session", *([option] if option else []), FAST4, str(net.port)], input=b"hello there",
                              env=environment(), capture_output=True, timeout=60, check=False)
        assert done.returncode == 0 and done.stdout == b"hello there", done
        assert syn_sizes(capture, net) == [(FAST4, size)]
    lines = [line for line in done.stderr.decode().splitlines() if "Fast Open to the remote end" in line]
    assert len(lines) == (1 if said else 0) and all(said in line for line in lines)


def test_client_says_that_nothing_was_taken(net, start):
    net.forget()
    done = subprocess.run([*net.client.wrapper, client_binary(), "-x", "socks6://%s:%d" % start().addr, "connect", "-v", "--early",
                           "--no-session", "--remote-tfo", FAST4, str(net.port)], input=b"hello", env=environment(),
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and b"TCP Fast Open to the remote end: it took nothing with the SYN\n" in done.stderr, done


# The configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting, notes", [(0, ["listeners", "connections to servers"]), (1, ["listeners"]),
                                            (2, ["connections to servers"]), (3, [])])
def test_check_says_which_leg_the_host_forbids(net, start, tmp_path, setting, notes):
    path = tmp_path / "socks6d.yaml"
    path.write_text('listeners: [{address: "127.0.0.1:0"}]\n', encoding="ascii")
    net.client.sysctl(net__ipv4__tcp_fastopen=setting)
    try:
        done = net.client.call(lambda: run_daemon("-t", "-c", str(path)))
    finally:
        net.client.sysctl(net__ipv4__tcp_fastopen=3)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "tcp_fastopen" in line]
    assert done.returncode == 0 and len(lines) == len(notes)
    for line, word in zip(lines, notes):
        assert line.startswith("note: ") and word in line and f"is {setting}" in line


def test_capture_sees_sizes(net):
    """The capture itself: it tells a SYN with data from one without."""
    net.forget()
    with Capture(net.client, "c-p", "10.1.0.1") as capture, net.proxy.tcp_socket(socket.AF_INET) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 4)
        listener.bind(("10.1.0.1", 0))
        listener.listen()
        for _ in range(2):
            fast_client(net, listener.getsockname(), b"hello").close()
        assert [segment.size for segment in capture.attempts(listener.getsockname()[1])] == [0, 5]
