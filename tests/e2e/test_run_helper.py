"""The helper of `socks6 run`, spoken to as the preloaded library does, with a proxy written for the purpose."""

import errno
import select
import socket
import ssl
import struct
import threading

import pytest

from cli_peers import AUTH_OK, DEADLINE, pattern, read_exactly, read_to_end, reply6, reset
from lib.net import wait_until
from lib.tls import Authority
from run_shim import (BROKEN, CONNECTED, CONNECTING, DIRECT, ENDED, FAILED, MARKED, NON_BLOCKING, STATUS, TAKE_ERROR, UNKNOWN,
                      V_CONVERTED, V_DIRECT, V_FAILED, V_SOCKET, V_STREAM, V_WAIT, PortProxy, addr, answer, ends_well,
                      helper, is_ready, wait_for)

ECHO, GATE, RESET, TALK, SINK = 80, 90, 91, 92, 93
CODES = {100 + code: number for code, number in {
    1: errno.ENETUNREACH, 2: errno.EACCES, 3: errno.ENETUNREACH, 4: errno.EHOSTUNREACH, 5: errno.ECONNREFUSED,
    6: errno.EHOSTUNREACH, 7: errno.ENETUNREACH, 8: errno.ENETUNREACH, 9: errno.ETIMEDOUT}.items()}
POLL_ALL = select.POLLIN | select.POLLOUT | select.POLLRDHUP


@pytest.fixture
def gate():
    return threading.Event()


@pytest.fixture
def proxy(gate):
    def gated(sock, request):
        gate.wait(DEADLINE)
        answer(0)(sock, request)

    def breaks(sock, _):
        sock.sendall(AUTH_OK + reply6(0) + b"hello")
        read_exactly(sock, 2)
        reset(sock)

    def talks(sock, _):
        sock.sendall(AUTH_OK + reply6(0) + b"all of it")
        sock.shutdown(socket.SHUT_WR)
        proxy.heard = read_to_end(sock)

    def sinks(sock, _):
        sock.sendall(AUTH_OK + reply6(0))
        try:
            proxy.heard = read_to_end(sock)
        except ConnectionResetError:
            proxy.heard = "reset"
        proxy.is_heard.set()

    plans = {ECHO: answer(0, host="203.0.113.7", port=4321), GATE: gated, RESET: breaks, TALK: talks, SINK: sinks, 53: echo_dns}
    plans.update({port: answer(port - 100) for port in CODES})
    with PortProxy(plans) as proxy:
        proxy.is_heard = threading.Event()
        yield proxy
        gate.set()


def echo_dns(sock, request):
    assert request.host == "0.0.0.0"
    answer(0)(sock, request)


def test_blocking_connect_gives_the_socket_itself(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect("192.0.2.1", ECHO)
        assert connection.verdict == V_SOCKET and connection.sock.family == socket.AF_INET
        assert connection.peer == ("192.0.2.1", ECHO) and connection.local == ("203.0.113.7", 4321)
        assert connection.sock.getpeername() == (proxy.host, proxy.port) and connection.sock.getblocking()
        connection.sock.sendall(b"ping")
        assert connection.sock.recv(10) == b"ping"
        assert shim.status(connection.cookie) == (CONNECTED, 0, ("192.0.2.1", ECHO), ("203.0.113.7", 4321))
        connection.sock.close()
        ends_well(process, 7)
    assert proxy.requests[0].host == "192.0.2.1"


@pytest.mark.parametrize("port", CODES)
def test_reply_codes_are_errors_of_connect(proxy, port):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect("192.0.2.1", port)
        assert (connection.verdict, connection.error) == (V_FAILED, CODES[port])
        connection = shim.connect_later("2001:db8::1", port)
        assert connection.verdict == V_WAIT
        assert wait_for(connection.sock, POLL_ALL) & (select.POLLERR | select.POLLHUP)
        assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        assert shim.status(connection.cookie)[:3] == (FAILED, CODES[port], ("2001:db8::1", port))
        assert shim.status(connection.cookie, TAKE_ERROR)[:2] == (FAILED, CODES[port])
        assert shim.status(connection.cookie, TAKE_ERROR)[:2] == (FAILED, 0)
        ends_well(process)


def test_non_blocking_connect_waits_in_the_kernel(proxy, gate):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect_later("192.0.2.1", GATE)
        sock = connection.sock
        edge = select.epoll()
        edge.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        assert not is_ready(sock, POLL_ALL)
        with pytest.raises(BlockingIOError):
            sock.send(b"x")
        assert shim.status(connection.cookie)[0] == CONNECTING
        assert edge.poll(0.05) == []
        gate.set()
        assert edge.poll(DEADLINE) == [(sock.fileno(), select.EPOLLOUT)]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert shim.status(connection.cookie)[:3] == (CONNECTED, 0, ("192.0.2.1", GATE))
        sock.settimeout(DEADLINE)
        sock.sendall(b"after the pad")
        assert read_exactly(sock, 13) == b"after the pad"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        sock.close()
        edge.close()
        ends_well(process)


def test_many_bytes_both_ways(proxy):
    data = pattern(20_000_000)
    with helper("-x", proxy.url()) as (process, shim):
        sock = shim.connect_later("192.0.2.1", ECHO).sock
        sock.settimeout(DEADLINE)

        def send():
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send)
        thread.start()
        assert read_to_end(sock) == data
        thread.join(DEADLINE)
        sock.close()
        ends_well(process)


def test_end_of_the_remote_side_leaves_ours_open(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect_later("192.0.2.1", TALK)
        sock = connection.sock
        sock.settimeout(DEADLINE)
        assert read_to_end(sock) == b"all of it"
        assert not wait_for(sock, POLL_ALL) & select.POLLHUP
        assert shim.status(connection.cookie)[0] == CONNECTED
        sock.sendall(b"still here")
        sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: shim.status(connection.cookie)[:2] == (ENDED, 0), "the end")
        sock.close()
        ends_well(process)
    assert proxy.heard == b"still here"


def test_reset_closes_without_an_end(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect_later("192.0.2.1", RESET)
        sock = connection.sock
        sock.settimeout(DEADLINE)
        assert read_exactly(sock, 5) == b"hello"
        sock.sendall(b"go")
        wait_for(sock, 0)
        assert shim.status(connection.cookie, TAKE_ERROR)[:2] == (BROKEN, errno.ECONNRESET)
        assert shim.status(connection.cookie)[:2] == (BROKEN, 0)
        sock.close()
        ends_well(process)


@pytest.mark.parametrize("how", ["linger", "unread", "plain"])
def test_close_of_the_program(proxy, how):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect_later("192.0.2.1", SINK if how != "unread" else ECHO)
        sock = connection.sock
        sock.settimeout(DEADLINE)
        wait_for(sock, select.POLLOUT)
        sock.sendall(b"last words")
        if how == "linger":
            assert shim.setsockopt(connection.cookie, socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)) == 0
        elif how == "unread":
            wait_for(sock, select.POLLIN)
        sock.close()
        if how != "unread":
            assert proxy.is_heard.wait(DEADLINE)
            assert proxy.heard == ("reset" if how == "linger" else b"last words")
        ends_well(process)


def test_data_written_before_the_program_ends_arrives(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        sock = shim.connect_later("192.0.2.1", SINK).sock
        sock.settimeout(DEADLINE)
        wait_for(sock, select.POLLOUT)
        sock.sendall(pattern(200_000))
        sock.close()
        ends_well(process)
        assert proxy.is_heard.wait(DEADLINE)
        assert proxy.heard == pattern(200_000)


def test_interrupted_connect_becomes_a_non_blocking_one(proxy, gate):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.start("192.0.2.1", GATE, pad=1000)
        connection.talk.send(b"c")
        assert connection.receive().verdict == V_CONVERTED
        connection.sock.sendall(bytes(1000))
        assert shim.status(connection.cookie)[0] == CONNECTING
        gate.set()
        connection.sock.sendall(b"data")
        assert read_exactly(connection.sock, 4) == b"data"
        assert shim.status(connection.cookie)[0] == CONNECTED
        connection.sock.close()
        ends_well(process)


def test_program_that_gives_up_ends_the_dial(proxy, gate):
    with helper("-x", proxy.url()) as (process, shim):
        for connection in (shim.connect_later("192.0.2.1", GATE), shim.start("192.0.2.1", GATE)):
            while not proxy.requests:
                pass
            connection.sock.close()
        gate.set()
        ends_well(process)


def test_direct_addresses(proxy):
    env = {"no_proxy": "198.51.100.0/24, .example.com"}
    with helper("-x", proxy.url(), env=env) as (process, shim):
        for host in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "198.51.100.77", "::ffff:198.51.100.77"):
            assert shim.connect(host, ECHO).verdict == V_DIRECT, host
        assert shim.connect("192.0.2.1", ECHO).verdict == V_SOCKET
        assert shim.ask(DIRECT, addr("192.0.2.1")) == (0, b"")
        assert shim.connect("192.0.2.1", ECHO).verdict == V_DIRECT
        ends_well(process)


@pytest.mark.parametrize("host", ["127.0.0.53", "192.0.2.53", "2001:db8::53", "::1"])
def test_port_53_is_the_dns_service(proxy, host):
    with helper("-x", proxy.url()) as (process, shim):
        connection = shim.connect(host, 53)
        # The proxy is reached over IPv4, and an IPv6 socket is no IPv4 one.
        assert connection.verdict == (V_STREAM if ":" in host else V_SOCKET) and connection.peer == (host, 53)
        ends_well(process)


def test_options_live_on_the_programs_own_socket(proxy, gate):
    with helper("-x", proxy.url()) as (process, shim), socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection = shim.connect_later("192.0.2.1", GATE, own=own)
        number = connection.cookie
        assert shim.getsockopt(number, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (0, struct.pack("i", 1))
        assert shim.getsockopt(number, socket.IPPROTO_TCP, socket.TCP_INFO, 200)[1][0] == 2  # SYN_SENT
        assert shim.setsockopt(number, socket.IPPROTO_TCP, socket.TCP_NODELAY, struct.pack("i", 1)) == 0
        assert own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert shim.setsockopt(number, socket.IPPROTO_TCP, 9999, bytes(4)) == errno.ENOPROTOOPT
        assert shim.setsockopt(number, socket.SOL_SOCKET, 26, bytes(16)) == errno.ENOPROTOOPT  # SO_ATTACH_FILTER: a pointer
        assert shim.getsockopt(12345, socket.SOL_SOCKET, socket.SO_KEEPALIVE) == (errno.ENOENT, b"")
        gate.set()
        wait_for(connection.sock, select.POLLOUT)
        assert shim.getsockopt(number, socket.IPPROTO_TCP, socket.TCP_INFO, 200)[1][0] == 1  # ESTABLISHED
        assert shim.getsockopt(number, socket.IPPROTO_IP, 14)[0] == 0  # IP_MTU
        connection.sock.close()
        ends_well(process)


def test_options_go_on_after_a_failure(proxy):
    with helper("-x", proxy.url()) as (process, shim), socket.socket() as own:
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        first = shim.connect_later("192.0.2.1", 105, own=own)
        wait_for(first.sock, 0)
        second = shim.connect_later("192.0.2.1", ECHO, own=first.sock, old=first.cookie)
        wait_for(second.sock, select.POLLOUT)
        assert shim.getsockopt(second.cookie, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == (0, struct.pack("i", 3))
        ends_well(process)


def test_early_bytes_travel_with_the_request(proxy):
    with helper("--early", "-x", proxy.url()) as (process, shim):
        for flags in (NON_BLOCKING, MARKED, 0):
            connection = shim.connect("192.0.2.1", ECHO, flags=flags)
            assert connection.verdict == V_STREAM
            assert shim.status(connection.cookie)[0] == CONNECTED
            connection.sock.sendall(b"c" if flags == MARKED else b"")
            connection.sock.sendall(b"GET /")
            assert read_exactly(connection.sock, 5) == b"GET /"
            connection.sock.close()
        def travelled():
            with shim.connect("192.0.2.1", ECHO, flags=NON_BLOCKING).sock as sock:
                sock.sendall(b"POST")
                return read_exactly(sock, 4) == b"POST" and proxy.requests[-1].extra == b"POST"
        wait_until(travelled, "bytes that come within the time that is waited for them")
        failed = shim.connect("192.0.2.1", 105)
        assert failed.verdict == V_STREAM
        failed.sock.sendall(b"POST")
        assert wait_for(failed.sock, 0) & select.POLLERR
        assert shim.status(failed.cookie)[:2] == (FAILED, errno.ECONNREFUSED)
        ends_well(process)


def test_unreachable_proxy_is_said_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with helper("-x", f"socks6://127.0.0.1:{closed.getsockname()[1]}") as (process, shim):
            for _ in range(3):
                connection = shim.connect("192.0.2.1", 80)
                assert (connection.verdict, connection.error) == (V_FAILED, errno.ENETUNREACH)
            text = ends_well(process)
    assert text.count("refused") == 1 and text.startswith("socks6 run: ")


def test_strangers_get_nothing(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        good = shim.message(STATUS, struct.pack("=QII", 1, 0, 0))
        for bad in (shim.message(STATUS, bytes(16), secret=bytes(16)), shim.message(STATUS, bytes(16), version=2),
                    shim.message(99, bytes(16)), shim.message(STATUS, b""), struct.pack("=I", 2**31) + good[4:],
                    struct.pack("=I", 3) + good[4:], bytes(200)):
            with shim.open() as sock:
                sock.sendall(bad)
                try:
                    assert sock.recv(100) == b""
                except ConnectionResetError:
                    pass  # with bytes unread
        silent = [shim.open() for _ in range(600)]
        half = shim.open()
        half.sendall(good[:30])
        assert shim.status(1)[0] == UNKNOWN
        half.sendall(good[30:])
        assert len(half.recv(100)) == 64
        assert silent[0].recv(1) == b""  # the oldest give way
        for sock in silent + [half]:
            sock.close()
        ends_well(process)


def test_notes_are_said_with_the_programs_name(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        for _ in range(2):
            shim.note(1, b"connect to 192.0.2.1:123 over UDP: \x1b[31mrefused")
        shim.note(0, b"for -v only")
        text = ends_well(process)
    assert text.count("connect to 192.0.2.1:123 over UDP: ?[31mrefused\n") == 1
    assert "for -v only" not in text and text.startswith("socks6 run: ")


def test_verbose_tells_of_each_connection(proxy):
    with helper("-v", "-x", proxy.url()) as (process, shim):
        assert "v" in shim.flags
        shim.connect("192.0.2.1", ECHO).sock.close()
        shim.connect("192.0.2.1", 105)
        shim.note(0, b"for -v only")
        text = ends_well(process)
    assert ": connect to 192.0.2.1:80: connected, 2 round trips, " in text
    assert ": connect to 192.0.2.1:105: Connection refused (" in text
    assert "for -v only" in text


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls_proxy(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.load_cert_chain(*authority.issue("proxy"))

    def echoes(sock, request):
        sock.sendall(AUTH_OK + reply6(0) + request.extra)
        while piece := sock.recv(65536):
            sock.sendall(piece)
        sock.unwrap()

    def cuts(sock, _):
        sock.sendall(AUTH_OK + reply6(0) + b"hello")
        read_exactly(sock, 2)
        sock.shutdown(socket.SHUT_RDWR)  # without close_notify

    with PortProxy({ECHO: echoes, RESET: cuts, 105: answer(5)}, context) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", ["blocking", "marked", "non-blocking", "early"])
def test_tls_tunnels(tls_proxy, authority, kind):
    data = pattern(5_000_000)
    options = ["--early"] if kind == "early" else []
    with helper(*options, "-x", f"{tls_proxy.url()}?ca={authority.pem}") as (process, shim):
        if kind == "non-blocking":
            connection = shim.connect_later("192.0.2.1", ECHO)
            wait_for(connection.sock, select.POLLOUT)
        else:
            connection = shim.connect("192.0.2.1", ECHO, flags=MARKED if kind == "marked" else 0)
            assert connection.verdict == V_STREAM
        sock = connection.sock
        sock.settimeout(DEADLINE)
        if kind == "marked":
            sock.sendall(b"c")

        def send():
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        thread = threading.Thread(target=send)
        thread.start()
        assert read_to_end(sock) == data
        thread.join(DEADLINE)
        wait_until(lambda: shim.status(connection.cookie)[:2] == (ENDED, 0), "the end")
        sock.close()
        ends_well(process)


def test_tls_that_is_cut_is_no_end(tls_proxy, authority):
    with helper("-x", f"{tls_proxy.url()}?ca={authority.pem}") as (process, shim):
        connection = shim.connect("192.0.2.1", RESET)
        assert read_exactly(connection.sock, 5) == b"hello"
        connection.sock.sendall(b"go")
        wait_until(lambda: shim.status(connection.cookie)[:2] == (BROKEN, errno.ECONNRESET), "the cut")
        failed = shim.connect("192.0.2.1", 105)
        assert (failed.verdict, failed.error) == (V_FAILED, errno.ECONNREFUSED)
        ends_well(process)


def test_certificate_of_nobody_is_said_once(tls_proxy):
    with helper("-x", tls_proxy.url()) as (process, shim):
        for _ in range(2):
            failed = shim.connect("192.0.2.1", ECHO)
            assert (failed.verdict, failed.error) == (V_FAILED, errno.ENETUNREACH)
        text = ends_well(process)
    assert text.count("certificate") == 1, text
    tls_proxy.errors.clear()  # its handshakes failed, as they had to


def test_a_reader_that_rests_stops_the_giver_and_nothing_grows(proxy):
    with helper("-x", proxy.url()) as (process, shim):
        sock = shim.connect_later("192.0.2.1", ECHO).sock
        wait_for(sock, select.POLLOUT)
        sent, chunk = 0, pattern(65536)
        while True:
            try:
                sent += sock.send(chunk[sent % 65536:])
            except BlockingIOError:
                # Stuck for a while: everything between is full, and nobody reads.
                if not select.select([], [sock], [], 1)[1]:
                    break
            assert sent < 200_000_000
        sock.settimeout(DEADLINE)
        got = b""
        while len(got) < sent:
            got += sock.recv(1 << 20)
        assert got == (chunk * (sent // 65536 + 1))[:sent]
        sock.close()
        ends_well(process)


def test_without_descriptors_connections_are_refused_and_questions_answered(proxy):
    with helper("-x", proxy.url(), wrapper=["prlimit", "--nofile=100:100"]) as (process, shim):
        made = []
        while (connection := shim.connect_later("192.0.2.1", ECHO)).verdict == V_WAIT:
            wait_for(connection.sock, select.POLLOUT)
            made.append(connection)
            assert len(made) < 100
        assert (connection.verdict, connection.error) == (V_FAILED, errno.ENOBUFS) and len(made) > 15
        assert shim.status(made[0].cookie)[0] == CONNECTED
        for one in made:
            one.sock.settimeout(DEADLINE)
            one.sock.sendall(b"x")
            assert one.sock.recv(1) == b"x"
            one.sock.close()
        wait_until(lambda: shim.connect("192.0.2.1", ECHO).verdict == V_SOCKET, "room")
        text = ends_well(process)
    assert text.count("limit of open files") == 1
