"""The access log: one line per connection, every field, both formats, and nothing a client sends can forge a line."""

import contextlib
import re
import signal
import socket

import pytest

from lib import socks6 as s6
from lib.clients import DIALERS, finish6, noop6, socks6_dial
from lib.net import dial, listening, recv_all, recv_exact, recv_until_end, reset, wait_until

FIELDS = {"time", "level", "id", "client", "listener", "protocol", "user", "command", "asked", "dialled", "reply", "bytes_up",
          "bytes_down", "duration_ms", "reason", "rule"}


def text_of(addr):
    return f"[{addr[0]}]:{addr[1]}" if ":" in addr[0] else "%s:%d" % addr


@pytest.mark.parametrize("protocol, name", [("socks6", "socks6"), ("socks5", "socks5"), ("socks4", "socks4")])
def test_a_relay_is_logged_with_every_field(daemon, protocol, name):
    proxy = daemon()
    with listening() as server:
        with DIALERS[protocol](proxy.addr, *server.addr) as sock, server.accept_one() as peer:
            client = sock.getsockname()
            sock.sendall(b"u" * 1000)
            sock.shutdown(socket.SHUT_WR)
            assert len(recv_all(peer)) == 1000
            peer.sendall(b"d" * 50_000)
            peer.shutdown(socket.SHUT_WR)
            assert len(recv_all(sock)) == 50_000
    record = proxy.access()[0]
    assert set(record) == FIELDS
    assert record["client"] == text_of(client) and record["listener"] == text_of(proxy.addr)
    assert record["protocol"] == name and record["user"] is None and record["command"] == "CONNECT"
    assert record["asked"] == record["dialled"] == text_of(server.addr)
    assert (record["reply"], record["bytes_up"], record["bytes_down"]) == (0, 1000, 50_000)
    assert record["reason"] == "done" and record["rule"] is None
    assert isinstance(record["duration_ms"], int) and isinstance(record["id"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"])


def test_early_data_is_counted(daemon, sink):
    proxy = daemon()
    with socks6_dial(proxy.addr, *sink.addr, early=b"e" * 12345) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert len(recv_all(sock)) == 64
    record = proxy.access()[0]
    assert (record["bytes_up"], record["bytes_down"]) == (12345, 64)


def test_a_name_is_logged_with_the_address_dialled(daemon, names, echo):
    proxy = daemon(wrapper=names)
    for protocol, logged in (("socks6", "socks6"), ("socks5", "socks5"), ("socks4", "socks4a")):
        mark = proxy.mark()
        with DIALERS[protocol](proxy.addr, "V4.test", echo.port):
            pass
        record = proxy.access(since=mark)[0]
        assert record["protocol"] == logged
        assert record["asked"].lower() == f"v4.test:{echo.port}" and record["dialled"] == text_of(echo.addr)


def test_every_connection_is_logged_once_with_its_reason(daemon, names, echo):
    proxy = daemon(wrapper=names, limits={"handshake": "300ms"})

    def raw(data, how="read"):
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(data)
            if how == "read":
                recv_until_end(sock)
            elif how == "end":
                sock.shutdown(socket.SHUT_WR)
                recv_until_end(sock)

    expected = []

    def case(action, **fields):
        mark = proxy.mark()
        action()
        record = proxy.access(since=mark)[0]
        for key, value in fields.items():
            assert record[key] == value, (key, record)
        expected.append(record["id"])
        assert record["reason"], record

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refusing = bound.getsockname()
        case(lambda: raw(s6.request(*refusing)), reply=5, command="CONNECT", protocol="socks6", dialled=text_of(refusing))
        case(lambda: raw(s6.request("unknown.test", 80)), reply=4, dialled=None, asked="unknown.test:80")
        case(lambda: raw(s6.request("x.servfail.test", 80)), reply=1, dialled=None)
        case(lambda: raw(s6.request("224.0.0.1", 80)), reply=2, dialled=None)
        case(lambda: raw(s6.request("127.0.0.1", 80, command=s6.BIND)), reply=7, command="BIND")
        case(lambda: raw(s6.noop()), reply=0, command="NOOP", reason="done")
        case(lambda: raw(b"GET / HTTP/1.0\r\n\r\n"), reply=None, command=None)
        case(lambda: raw(b"\x06\x01"), reply=None, command=None, reason="handshake timeout")
        case(lambda: raw(b"\x06\x01", "end"), reply=None, command=None)
        case(lambda: raw(b"", "end"), reply=None, command=None)
        case(lambda: raw(s6.request("127.0.0.1", 9, options=s6.session_id(b"none"))), reply=None, protocol="socks6")
        case(lambda: raw(b"\x05\x01\x02"), reply=None, protocol="socks5")
    assert len(set(expected)) == len(expected)
    records = [r for r in proxy.records() if r["level"] == "access"]
    assert sorted(r["id"] for r in records) == sorted(expected)


def test_who_reset_a_relay_is_logged(daemon):
    proxy = daemon()
    for side in ("client", "server"):
        mark = proxy.mark()
        with listening() as server:
            tunnel = socks6_dial(proxy.addr, *server.addr)
            with tunnel as sock, server.accept_one() as peer:
                reset(sock if side == "client" else peer)
                recv_until_end(peer if side == "client" else sock)
        assert side in proxy.access(since=mark)[0]["reason"]


HOSTILE = [b"evil\nlevel=error forged", b"evil\r\n2026-01-01T00:00:00.000Z access id=1", b"\x1b[2J\x1b]0;owned\x07", b'quote"quote',
           b"back\\slash", b'","reply":0,"x":"', b"a b=c reply=0", b"\x7f\x80\xff\xc3\xa4", bytes(range(1, 32)), b"%s%n%d", b"-", b"{}"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_names_cannot_forge_lines_or_fields(daemon, names, log_format):
    proxy = daemon(wrapper=names, log_format=log_format)
    mark = proxy.mark()
    for name in HOSTILE:
        for tunnel in (socks6_dial(proxy.addr, name, 80), DIALERS["socks5"](proxy.addr, name, 80)):
            with tunnel:
                assert not tunnel.ok
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(s6.socks4_request(name, 80, user=b"user\n\x1b[2J"))
            assert s6.read_socks4_reply(sock).code == s6.SOCKS4_FAILED
    count = 3 * len(HOSTILE)

    def lines():
        return [line for line in proxy.text().splitlines()[mark:] if "access" in line]
    wait_until(lambda: len(lines()) >= count, lambda: f"{count} lines in:\n{proxy.text()}")
    assert len(proxy.raw[mark:]) == len(lines()) == count, "a line for each connection and no other"
    for line in proxy.raw[mark:]:
        assert all(0x20 <= ord(c) < 0x7f for c in line), repr(line)
    if log_format == "json":
        for record in proxy.access(count, mark):
            assert set(record) == FIELDS and record["reply"] == s6.HOST_UNREACHABLE
    else:
        for line in proxy.raw[mark:]:
            fields = text_fields(line)
            assert set(fields) == FIELDS - {"time", "level"} and fields["reply"] == "4", line


def text_fields(line):
    """The grammar of a text line: time, "access", then key=value with the value bare or in quotes."""
    match = re.fullmatch(r"\S+Z access((?: [a-z_]+=(?:\"(?:[^\"\\]|\\.)*\"|[^ \"]\S*))+)", line)
    assert match, line
    pairs = re.findall(r" ([a-z_]+)=(\"(?:[^\"\\]|\\.)*\"|\S+)", match.group(1))
    assert len({key for key, _ in pairs}) == len(pairs), f"a key twice: {line}"
    return dict(pairs)


def test_the_text_format_has_the_same_fields(daemon, echo):
    proxy = daemon(log_format="text")
    with socks6_dial(proxy.addr, *echo.addr, early=b"12345") as sock:
        assert recv_exact(sock, 5) == b"12345"
        client = sock.getsockname()
    fields = text_fields(proxy.wait_line(" access "))
    assert set(fields) == FIELDS - {"time", "level"}
    assert fields["client"] == text_of(client) and fields["asked"] == text_of(echo.addr) and fields["user"] == "-"
    assert (fields["bytes_up"], fields["bytes_down"], fields["reply"]) == ("5", "5", "0")


def test_access_lines_can_be_turned_off(daemon, echo):
    proxy = daemon(log={"access": False})
    with socks6_dial(proxy.addr, *echo.addr):
        pass
    proxy.signal(signal.SIGUSR1)
    proxy.wait_line("counters")
    assert not [r for r in proxy.records() if r["level"] == "access"]


def test_sigusr1_logs_counters_that_count(daemon, echo):
    proxy = daemon()
    for protocol in DIALERS:
        for _ in range(3):
            with DIALERS[protocol](proxy.addr, *echo.addr, early=b"x" * 100) as sock:
                assert len(recv_exact(sock, 100)) == 100
    tunnel = socks6_dial(proxy.addr, "224.0.0.1", 80)
    tunnel.sock.close()
    assert noop6(proxy.addr) == s6.SUCCESS
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(b"HELO")
        assert recv_all(sock) == b"\x06"
    with contextlib.closing(dial(proxy.addr)) as sock, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        sock.sendall(s6.request(*bound.getsockname()))
        assert finish6(sock).code == s6.REFUSED
    proxy.access(13)
    mark = proxy.mark()
    proxy.signal(signal.SIGUSR1)
    line = proxy.wait_line("counters", since=mark)
    counters = {key: int(value) for key, value in re.findall(r"([a-z0-9_]+)=(\d+)", line)}
    assert counters["connections"] == 0
    assert counters["accepted"] == counters["closed"] == 13
    assert (counters["requests_socks4"], counters["requests_socks5"], counters["requests_socks6"]) == (3, 3, 6)
    assert (counters["connected"], counters["denied"], counters["connect_failed"], counters["handshake_errors"]) == (9, 1, 1, 1)
    assert (counters["bytes_up"], counters["bytes_down"]) == (900, 900)


def test_a_verbose_level_logs_no_secret_bytes(daemon, echo):
    """Passwords and data never appear, whatever the level."""
    proxy = daemon(log={"level": "debug"})
    with socks6_dial(proxy.addr, *echo.addr, options=s6.userpass(b"alice", b"hunter2secret"), early=b"payloadsecret") as sock:
        assert recv_exact(sock, 13) == b"payloadsecret"
    proxy.access()
    assert "hunter2secret" not in proxy.text() and "payloadsecret" not in proxy.text()
