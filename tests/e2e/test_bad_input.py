"""Malformed, truncated, oversized and slow requests: the answer that the protocol gives, and nobody else notices."""

import contextlib
import socket
import threading

import pytest

from lib import socks6 as s6
from lib.clients import finish6, noop6, socks6_dial
from lib.net import dial, has_ended, listening, nobody_is_waiting, pattern, recv_all, recv_exact, recv_until_end, reset, wait_until

MALFORMED = b"\x06\x01\x00\x00"


def exchange(proxy, data, end=False):
    """Sends, and reads to the end of the stream."""
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(data)
        if end:
            sock.shutdown(socket.SHUT_WR)
        return recv_all(sock)


# Versions -------------------------------------------------------------------------------------------------------------


def test_every_other_first_byte_gets_a_lone_6_and_the_end(proxy):
    for byte in range(256):
        if byte not in (4, 5, 6):
            with contextlib.closing(dial(proxy.addr)) as sock:
                sock.sendall(bytes([byte]))
                assert recv_all(sock) == b"\x06", f"first byte {byte}"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01" + bytes(512), b"SSH-2.0-x\r\n",
                                  b"\x07" + bytes(1 << 20)])
def test_other_protocols_get_a_lone_6_that_can_be_read(proxy, data):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(data)
        assert recv_all(sock) == b"\x06"


@pytest.mark.parametrize("protocols", [["socks6"], ["socks5"], ["socks4"], ["socks6", "socks5"], ["socks5", "socks4"]])
def test_a_listener_speaks_its_protocols_only(daemon, echo, protocols):
    proxy = daemon(listeners=[{"address": "127.0.0.1:0", "protocols": protocols}])
    host, port = echo.addr
    requests = {"socks6": (s6.request(host, port), b"\x06\x00\x00\x00"),
                "socks5": (s6.socks5_greeting(), b"\x05\x00"),
                "socks4": (s6.socks4_request(host, port), b"\x00\x5a")}
    for protocol, (request, answer) in requests.items():
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(request)
            if protocol in protocols:
                assert recv_exact(sock, len(answer)) == answer
            else:
                assert recv_all(sock) == b"\x06"


# Cuts and half requests -----------------------------------------------------------------------------------------------


def whole_requests(addr):
    host, port = addr
    return {
        "socks6": s6.request(host, port, options=s6.unknown_options(2, 8) + s6.advertisement(3, [2])),
        "socks6-name": s6.request(b"127.0.0.1", port, options=s6.session_request()),
        "socks5": s6.socks5_greeting([0, 2]) + s6.socks5_request(host, port),
        "socks5-name": s6.socks5_greeting() + s6.socks5_request(b"127.0.0.1", port),
        "socks4": s6.socks4_request(host, port, b"user"),
        "socks4a": s6.socks4_request(b"127.0.0.1", port, b"user"),
    }


def read_success(sock, kind):
    if kind.startswith("socks6"):
        assert finish6(sock).ok
    elif kind.startswith("socks5"):
        assert s6.read_socks5_method(sock) == 0
        assert s6.read_socks5_reply(sock).code == s6.SUCCESS
    else:
        assert s6.read_socks4_reply(sock).code == s6.SOCKS4_GRANTED


KINDS = ["socks6", "socks6-name", "socks5", "socks5-name", "socks4", "socks4a"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_split_at_any_byte_is_served_with_the_data_behind_it(proxy, echo, kind):
    """Every cut position at once, one connection each; the second halves follow when all first halves have been read."""
    data = whole_requests(echo.addr)[kind] + b"data"
    with contextlib.ExitStack() as stack:
        connections = []
        for cut in range(1, len(data)):
            sock = stack.enter_context(contextlib.closing(dial(proxy.addr)))
            sock.sendall(data[:cut])
            connections.append((cut, sock))
        assert noop6(proxy.addr) == s6.SUCCESS
        for cut, sock in connections:
            sock.sendall(data[cut:])
        for cut, sock in connections:
            read_success(sock, kind)
            assert recv_exact(sock, 4) == b"data", f"cut at {cut}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_sends_byte_by_byte_is_served(proxy, echo, kind):
    with contextlib.closing(dial(proxy.addr)) as sock:
        for byte in whole_requests(echo.addr)[kind] + b"tail":
            sock.sendall(bytes([byte]))
        read_success(sock, kind)
        assert recv_exact(sock, 4) == b"tail"


@pytest.mark.parametrize("kind", KINDS)
def test_the_end_of_the_stream_inside_a_request_ends_the_connection(proxy, echo, kind):
    data = whole_requests(echo.addr)[kind]
    for cut in range(0, len(data)):
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(data[:cut])
            sock.shutdown(socket.SHUT_WR)
            got, _ = recv_until_end(sock)
            # SOCKS 5 has answered the greeting already.
            assert got in (b"", MALFORMED, b"\x05\x00"), f"cut at {cut}: {got!r}"


def test_half_requests_are_closed_at_the_handshake_limit_and_others_work_meanwhile(daemon, echo):
    proxy = daemon(limits={"handshake": "300ms"})
    with contextlib.ExitStack() as stack:
        waiting = []
        for kind, data in whole_requests(echo.addr).items():
            for cut in range(0, len(data), 3):
                sock = stack.enter_context(contextlib.closing(dial(proxy.addr)))
                sock.sendall(data[:cut])
                waiting.append((kind, cut, sock))
        with socks6_dial(proxy.addr, *echo.addr) as sock:
            for kind, cut, half in waiting:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                got, _ = recv_until_end(half)
                assert got in (b"", MALFORMED, b"\x05\x00"), f"{kind} cut at {cut}: {got!r}"
    proxy.wait_fds()


def test_a_client_that_keeps_dripping_is_closed_at_the_handshake_limit_too(daemon):
    """The limit counts from accept to the whole request, not from the last byte."""
    proxy = daemon(limits={"handshake": "300ms"})
    options = s6.unknown_options(1000, 4)
    request = s6.request("127.0.0.1", 9, options=options)
    with contextlib.closing(dial(proxy.addr)) as sock:
        stop = threading.Event()

        def drip():
            with contextlib.suppress(OSError):
                for byte in request[:-1]:
                    if stop.wait(0.01):
                        return
                    sock.sendall(bytes([byte]))
        thread = threading.Thread(target=drip)
        thread.start()
        got, _ = recv_until_end(sock)
        stop.set()
        thread.join()
        assert got in (b"", MALFORMED)


def stages(addr):
    """What a client may have sent when it goes away."""
    host, port = addr
    request = s6.request(host, port)
    return [b"", b"\x06", request[:5], request[:-1], request, request + b"data", b"\x05", s6.socks5_greeting(),
            s6.socks5_greeting() + b"\x05\x01", s6.socks5_greeting() + s6.socks5_request(host, port), b"\x04", b"\x04\x01",
            s6.socks4_request(host, port)[:-1], s6.socks4_request(host, port), b"X", s6.noop(),
            s6.request("127.0.0.1", 1), s6.request("224.0.0.1", 1) + b"x" * 1000]


def test_resets_at_each_stage_leave_nothing_behind(proxy, echo):
    """With and without reading what has been answered."""
    for data in stages(echo.addr):
        sock = dial(proxy.addr)
        sock.sendall(data)
        reset(sock)
    for data in stages(echo.addr):
        if data not in (b"", b"\x06", b"\x05", b"\x04"):
            sock = dial(proxy.addr)
            sock.sendall(data)
            sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                sock.recv(100)
            reset(sock)
    assert noop6(proxy.addr) == s6.SUCCESS


def test_clients_that_vanish_while_the_server_does_not_answer_leave_nothing_behind(proxy):
    from lib.servers import full_listener
    with full_listener() as server:
        connections = []
        for how in (reset, socket.socket.close):
            sock = dial(proxy.addr)
            sock.sendall(s6.request(*server.addr) + b"early")
            connections.append((sock, how))
        # Both have an outgoing socket now.
        wait_until(lambda: proxy.fds() >= proxy.base_fds + 4, "the outgoing sockets")
        for sock, how in connections:
            how(sock)
        connections[0][0].close()
        server.drain()
    proxy.wait_fds()
    assert noop6(proxy.addr) == s6.SUCCESS


# Options --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    pytest.param(s6.unknown_options(5120, 4), id="5120-of-4-bytes"),
    pytest.param(s6.unknown_options(1, 20480), id="one-of-20480-bytes"),
    pytest.param(s6.unknown_options(2560, 8), id="2560-of-8-bytes"),
    pytest.param(s6.session_request() * 5120, id="5120-session-requests"),
    pytest.param(s6.stack(2, 1, 1, b"\x10\x00") * 2560, id="2560-stack-options"),
    pytest.param(s6.userpass(b"u", b"p") * 1706 + s6.unknown_options(2, 4), id="1706-authentications"),
])
def test_20480_bytes_of_options_are_taken(proxy, echo, options):
    assert len(options) == 20480
    with socks6_dial(proxy.addr, *echo.addr, options=options, early=b"behind") as sock:
        assert recv_exact(sock, 6) == b"behind"


@pytest.mark.parametrize("length", [20484, 20481, 32768, 65532, 65535])
def test_more_than_20480_bytes_of_options_are_refused(proxy, length):
    assert exchange(proxy, s6.request("127.0.0.1", 9, options=s6.unknown_options(1, 20480), options_len=length) + bytes(1 << 16)) \
        == MALFORMED


def test_the_option_limit_can_be_lowered(daemon, echo):
    proxy = daemon(limits={"options": 1024})
    with socks6_dial(proxy.addr, *echo.addr, options=s6.unknown_options(256, 4), early=b"x") as sock:
        assert sock.recv(1) == b"x"
    assert exchange(proxy, s6.request(*echo.addr, options=s6.unknown_options(257, 4))) == MALFORMED


@pytest.mark.parametrize("options", [
    pytest.param(s6.option(0x7000, length=0), id="length-0"),
    pytest.param(s6.option(0x7000, length=3), id="length-3"),
    pytest.param(s6.option(0x7000, b"1234", length=6), id="unaligned"),
    pytest.param(s6.option(0x7000, length=8), id="past-the-end"),
    pytest.param(s6.option(0x7000, length=65532), id="far-past-the-end"),
    pytest.param(s6.option(s6.SESSION_ID), id="empty-session-id"),
    pytest.param(s6.option(s6.ADVERTISEMENT), id="empty-advertisement"),
    pytest.param(s6.session_request() + s6.option(s6.SESSION_REQUEST, length=0), id="second-length-0"),
])
def test_malformed_options_are_refused(proxy, options):
    assert exchange(proxy, s6.request("127.0.0.1", 9, options=options)) == MALFORMED


@pytest.mark.parametrize("length", [1, 2, 3, 5, 6, 7])
def test_an_unaligned_options_length_is_refused(proxy, length):
    assert exchange(proxy, s6.request("127.0.0.1", 9, options_len=length) + bytes(8)) == MALFORMED


@pytest.mark.parametrize("options", [
    pytest.param(s6.option(s6.STACK, b""), id="empty-stack"),
    pytest.param(s6.stack(0, 7, 99), id="unknown-stack"),
    pytest.param(s6.option(s6.STACK, bytes(8)), id="long-stack"),
    pytest.param(s6.option(0), id="kind-0"),
    pytest.param(s6.option(16) + s6.option(17, b"abcd") + s6.option(18), id="removed-kinds"),
    pytest.param(s6.option(0xfc00, b"x" * 100) + s6.option(0xffff), id="experimental-kinds"),
    pytest.param(s6.option(s6.SESSION_OK) + s6.option(s6.WINDOW, bytes(8)) + s6.option(s6.SELECTION, b"\x02"), id="reply-kinds"),
])
def test_options_that_say_nothing_useful_are_skipped(proxy, echo, options):
    with socks6_dial(proxy.addr, *echo.addr, options=options, early=b"x") as sock:
        assert sock.recv(1) == b"x"


def test_padding_that_is_not_zero_is_taken(proxy, echo):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(*echo.addr, pad=0xff, options=s6.option(0x7000, b"\xff" * 4)) + b"x")
        assert finish6(sock).ok and sock.recv(1) == b"x"


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [
    pytest.param(bytes([0, 0, 0, 0]), id="empty"),
    pytest.param(b"\x03\0\0\0", id="only-padding"),
    pytest.param(b"\x03a\0b", id="nul-inside"),
    pytest.param(b"\xff" + b"a" * 100 + b"\0" + b"b" * 154, id="nul-inside-255"),
    pytest.param(b"\xff" + bytes(255), id="255-nuls"),
])
def test_names_with_nuls_and_empty_names_are_malformed(proxy, raw):
    assert exchange(proxy, s6.request(None, 80, atyp=s6.NAME, raw_address=raw)) == MALFORMED


@pytest.mark.parametrize("name", [b"", b"a\0b", b"\0", b"\0\0\0", b"127.0.0.1\0.evil.test"])
def test_names_with_nuls_and_empty_names_are_refused_over_socks5(proxy, name):
    request = bytes([5, 1, 0, 3, len(name)]) + name + b"\0\x50"
    got = exchange(proxy, s6.socks5_greeting() + request)
    assert got[:2] == b"\x05\x00"
    assert s6.read_socks5_reply(got[2:]).code in (s6.FAILURE, s6.HOST_UNREACHABLE)
    assert len(got) == 12


def test_an_empty_name_is_refused_over_socks4a(proxy):
    got = exchange(proxy, b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00\x00")
    assert s6.read_socks4_reply(got).code == s6.SOCKS4_FAILED


def test_bytes_of_any_kind_in_a_name_are_survived(named_proxy):
    for name in (bytes(range(1, 128)), bytes(range(128, 256)), b"\xff" * 255, b"%n%s%n" * 40, b"-", b"\r\n\r\n", b"' OR 1=1"):
        tunnel = socks6_dial(named_proxy.addr, name, 80)
        with tunnel:
            assert tunnel.code == s6.HOST_UNREACHABLE, (name, tunnel.reply)


# SOCKS 5 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", [[], [1], [2], list(range(1, 256)), [0x80, 0xfe]])
def test_socks5_without_method_0_is_answered_with_no_acceptable_method(proxy, methods):
    assert exchange(proxy, s6.socks5_greeting(methods)) == b"\x05\xff"


@pytest.mark.parametrize("methods", [[0], [2, 0], [0] * 255, list(range(254, -1, -1))])
def test_socks5_with_method_0_anywhere_is_served(proxy, echo, methods):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.socks5_greeting(methods))
        assert s6.read_socks5_method(sock) == 0
        sock.sendall(s6.socks5_request(*echo.addr))
        assert s6.read_socks5_reply(sock).code == s6.SUCCESS


def test_socks5_greeting_request_and_data_in_one_segment_are_served(proxy, echo):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.send(s6.socks5_greeting() + s6.socks5_request(*echo.addr) + b"data")
        read_success(sock, "socks5")
        assert recv_exact(sock, 4) == b"data"


def test_socks5_garbage_instead_of_the_request_is_refused(proxy):
    got = exchange(proxy, s6.socks5_greeting() + b"\x04\x01\x00\x01\x7f\0\0\1\0\x50")
    assert got[:2] == b"\x05\x00" and s6.read_socks5_reply(got[2:]).code == s6.FAILURE


def test_socks5_never_answers_with_memory_of_others(proxy):
    """A proxy once sent two kilobytes of heap to a client with this greeting."""
    assert exchange(proxy, b"\x05\x01\x02\x00") == b"\x05\xff"


# SOCKS 4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 100, 255])
@pytest.mark.parametrize("form", ["4", "4a"])
def test_socks4_user_ids_are_taken_up_to_255_bytes(proxy, echo, length, form):
    host = echo.host if form == "4" else b"127.0.0.1"
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.socks4_request(host, echo.port, b"u" * length) + b"data")
        read_success(sock, "socks4")
        assert recv_exact(sock, 4) == b"data"


@pytest.mark.parametrize("length", [256, 1000, 1 << 20])
def test_socks4_user_ids_without_end_are_refused(proxy, length):
    """The NUL never comes: the answer does."""
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(b"\x04\x01\x00\x50\x7f\x00\x00\x01" + b"u" * length)
        assert s6.read_socks4_reply(sock).code == s6.SOCKS4_FAILED
        assert sock.recv(1) == b""


def test_socks4a_names_without_end_are_refused(proxy):
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(b"\x04\x01\x00\x50\x00\x00\x00\x01user\0" + b"n" * 300)
        assert s6.read_socks4_reply(sock).code == s6.SOCKS4_FAILED
        assert sock.recv(1) == b""


# Everybody else -------------------------------------------------------------------------------------------------------


def test_a_neighbour_sees_nothing_of_bad_clients(proxy, echo):
    """A transfer runs on one connection while every kind of nonsense happens around it."""
    data = pattern(4 << 20)
    received = []
    with socks6_dial(proxy.addr, *echo.addr) as sock:
        reader = threading.Thread(target=lambda: received.append(recv_all(sock)))
        reader.start()
        for at in range(0, len(data), 1 << 17):
            sock.sendall(data[at:at + (1 << 17)])
            bad = dial(proxy.addr)
            bad.sendall((b"\x06\x01\xff\xff" + bytes(64), b"\x05\xff", b"\xff" * 100, b"\x04" * 700)[at >> 17 & 3])
            (reset if at >> 17 & 4 else socket.socket.close)(bad)
        sock.shutdown(socket.SHUT_WR)
        reader.join(60)
        assert received == [data]


def test_400_stalled_handshakes_do_not_hold_up_others(daemon, echo):
    proxy = daemon()
    halves = [b"", b"\x06", s6.request(*echo.addr)[:-1], b"\x05", s6.socks5_greeting(), b"\x04\x01", s6.request("h", 1)[:8],
              s6.request("127.0.0.1", 1, options_len=20480)]
    stalled = []
    try:
        for number in range(400):
            sock = dial(proxy.addr)
            sock.sendall(halves[number % len(halves)])
            if halves[number % len(halves)] == s6.socks5_greeting():
                assert s6.read_socks5_method(sock) == 0
            stalled.append(sock)
        wait_until(lambda: proxy.fds() >= proxy.base_fds + 400, "all of them to be accepted")
        for _ in range(100):
            with socks6_dial(proxy.addr, *echo.addr, early=b"x") as sock:
                assert sock.recv(1) == b"x"
        assert not any(map(has_ended, stalled)), "the stalled ones must still be there"
    finally:
        for sock in stalled:
            sock.close()
    proxy.wait_fds()


def test_early_data_of_a_refused_request_goes_nowhere(proxy):
    with listening() as server:
        got = exchange(proxy, s6.request(*server.addr, options=s6.option(0x7000, length=3)) + b"secret")
        assert got == MALFORMED
        assert nobody_is_waiting(server)
