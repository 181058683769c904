"""The access log: one line per connection, every field, both formats, and nothing a client sends can forge a line."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

from lib import socks6 as s6
from lib.clients import DIALERS, finish6, noop6, socks6_dial
from lib.daemon import LISTENING, base_config, daemon_binary, environment, run_daemon, write_config
from lib.net import dial, listening, recv_all, recv_exact, recv_until_end, reset, wait_until

FIELDS = {"time", "level", "id", "client", "listener", "protocol", "tls", "user", "command", "asked", "dialled", "reply", "bytes_up",
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
    proxy = daemon(wrapper=names, log_format=log_format, log={"level": "info"})
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


@pytest.mark.parametrize("log_format", ["json", "text", "journald"])
def test_names_cannot_forge_debug_messages(daemon, names, log_format):
    """Which have them, too: each line is one of ours, and begins as it must."""
    proxy = daemon(wrapper=names, log_format=log_format, wait=False)
    proxy.wait_line("ready")
    mark = proxy.mark()
    for name in HOSTILE:
        tunnel = DIALERS["socks5"](proxy.addr, name, 80)
        with tunnel:
            assert not tunnel.ok
    begin = {"json": r'\{"time":"[^"]+","level":"(debug|access)",', "text": r"\S+Z (debug connection|access id)",
             "journald": r"<(7>connection|6>access id)"}[log_format]
    for number in range(4 * len(HOSTILE)):
        line = proxy.wait_line(lambda line: True, since=mark + number)
        assert re.match(begin, line) and all(0x20 <= ord(c) < 0x7f for c in line), repr(line)
    assert len(proxy.raw) == mark + 4 * len(HOSTILE)


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
    line = proxy.wait_line(re.compile(r"(?<!dns )counters:"), since=mark)
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


# Where it goes --------------------------------------------------------------------------------------------------------


def lines_of(path):
    with open(path, encoding="ascii") as file:
        text = file.read()
    assert text == "" or text.endswith("\n"), "a torn line"
    return text.splitlines()


def records_of(path):
    return [json.loads(line) for line in lines_of(path)]


def request(proxy, echo):
    with socks6_dial(proxy.addr, *echo.addr, early=b"x") as sock:
        assert recv_exact(sock, 1) == b"x"


def test_the_access_log_can_have_its_own_file_and_fields(daemon, echo, tmp_path):
    path = tmp_path / "access.log"
    proxy = daemon(log={"access": {"output": str(path), "format": "json", "fields": ["bytes_up", "asked", "id"]}})
    request(proxy, echo)
    wait_until(lambda: lines_of(path), "the line")
    record, = records_of(path)
    assert list(record) == ["time", "level", "bytes_up", "asked", "id"]
    assert (record["bytes_up"], record["asked"]) == (1, text_of(echo.addr))
    assert not [r for r in proxy.records() if r["level"] == "access"]
    assert oct(path.stat().st_mode & 0o777) in ("0o640", "0o600")


def test_relative_paths_are_relative_to_the_configuration(daemon, echo):
    proxy = daemon(log={"access": {"output": "./a.log"}})
    request(proxy, echo)
    path = os.path.join(proxy.directory.name, "a.log")
    wait_until(lambda: lines_of(path), "the line")


def test_standard_output_can_be_the_access_log(tmp_path, echo):
    path = write_config(tmp_path, base_config(["127.0.0.1:0"], log={"access": {"output": "stdout", "fields": ["id"]}}))
    with subprocess.Popen([daemon_binary(), "-c", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=environment()) as process:
        try:
            for line in process.stderr:
                match = LISTENING.search(line) or match
                if "ready" in line:
                    break
            with socks6_dial((match.group(1), int(match.group(2))), *echo.addr):
                pass
            assert set(json.loads(process.stdout.readline())) == {"time", "level", "id"}
            process.terminate()
            assert process.wait(30) == 0
            assert process.stdout.read() == "" and "access" not in process.stderr.read()
        finally:
            if process.poll() is None:
                process.kill()


def test_rotation_loses_nothing_and_leaves_the_old_file_alone(daemon, echo, tmp_path):
    """rename, then SIGHUP, ten times under load: every connection is in one of the files, once, and each file is whole."""
    path = tmp_path / "access.log"
    proxy = daemon(limits={"connections_per_client": 0}, log={"access": {"output": str(path)}})
    done, counts, failures = threading.Event(), [0] * 3, []

    def load(number):
        try:
            while not done.is_set():
                request(proxy, echo)
                counts[number] += 1
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=load, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    old = []
    try:
        for number in range(10):
            rotated = tmp_path / f"access.log.{number}"
            made = sum(counts)
            wait_until(lambda: failures or sum(counts) > made + 5, "the load to go on")
            os.rename(path, rotated)
            proxy.reload()
            # From the new file's first line on, nothing is written to the old one.
            wait_until(lambda: path.exists() and path.stat().st_size > 0, "a line in the new file")
            old.append((rotated, rotated.stat().st_size))
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    assert not failures
    wait_until(lambda: sum(len(lines_of(name)) for name, _ in [*old, (path, 0)]) >= sum(counts), "all lines")
    ids = [record["id"] for name, _ in [*old, (path, 0)] for record in records_of(name)]
    assert len(ids) == len(set(ids)) == sum(counts)
    for name, size in old:
        assert name.stat().st_size == size
    proxy.wait_fds()


def test_rotation_works_with_a_broken_configuration(daemon, echo, tmp_path):
    path = tmp_path / "socks6d.log"
    proxy = daemon(log={"access": {"output": str(path)}})
    os.rename(path, tmp_path / "old")
    proxy.reload("nonsense: [", good=False)
    request(proxy, echo)
    wait_until(lambda: path.exists() and lines_of(path), "the line in the new file")
    assert lines_of(tmp_path / "old") == []


def test_a_file_that_cannot_be_opened_keeps_the_old_one_and_says_so(daemon, echo, tmp_path):
    path = tmp_path / "access.log"
    proxy = daemon(log={"access": {"output": str(path)}})
    proxy.reload(base_config(log={"access": {"output": "/nonexistent/access.log"}}))
    line = proxy.wait_line("cannot write to /nonexistent/access.log")
    assert "No such file or directory; going on with the old one" in line
    request(proxy, echo)
    wait_until(lambda: lines_of(path), "the line in the old file")


def test_an_unusable_log_file_is_an_error_at_the_start(tmp_path):
    for output, why in (("/nonexistent/x", "No such file or directory"), (str(tmp_path), "Is a directory")):
        path = write_config(tmp_path, base_config(log={"output": output}))
        done = run_daemon("-c", path)
        assert done.returncode == 1
        assert f"error log: cannot write to {output}: {why}\n" in done.stderr
        assert run_daemon("-t", "-c", path).returncode == 0
    assert "note: log.output: the daemon would not start now: " in run_daemon(
        "-t", "-c", write_config(tmp_path, base_config(log={"output": "/nonexistent/x"}))).stderr


def test_the_whole_log_can_move_to_a_file_and_back(daemon, echo, tmp_path):
    path = tmp_path / "all.log"
    proxy = daemon()
    proxy.rewrite(base_config(log={"output": str(path)}))
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: path.exists() and any("configuration reloaded" in line for line in lines_of(path)), "the file")
    request(proxy, echo)
    wait_until(lambda: any(r["level"] == "access" for r in records_of(path)), "the access line")
    mark = proxy.mark()
    proxy.reload(base_config())
    request(proxy, echo)
    assert len(proxy.access(since=mark)) == 1


def test_a_full_disk_is_counted_and_told_elsewhere(daemon, echo):
    proxy = daemon(log={"access": {"output": "/dev/full"}})
    for _ in range(3):
        request(proxy, echo)
    line = proxy.wait_line("access log:")
    assert re.search(r"access log: \d+ lines were lost: No space left on device", line)


def test_the_journal_gets_priorities(tmp_path, echo):
    """With a socket as standard error that JOURNAL_STREAM names, as under systemd."""
    config = {"listeners": [{"address": "127.0.0.1:0"}], "status": {"socket": "none"}}
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    for stream, journal in ((f"{status.st_dev}:{status.st_ino}", True), (f"{status.st_dev}:{status.st_ino + 1}", False)):
        with subprocess.Popen([daemon_binary(), "-c", write_config(tmp_path, config)], stderr=theirs,
                              env=environment(JOURNAL_STREAM=stream)) as process:
            lines = ours.makefile(encoding="ascii")
            try:
                line = lines.readline()
                match = LISTENING.search(line)
                with socks6_dial((match.group(1), int(match.group(2))), *echo.addr):
                    pass
                while "access" not in line:
                    line = lines.readline()
                    assert line.startswith("<6>") == journal, line
                assert re.match(r"<6>access id=\d+ client=" if journal else r"\d{4}-\S+Z access id=", line)
                process.terminate()
                assert process.wait(30) == 0
            finally:
                if process.poll() is None:
                    process.kill()
            while "stopped" not in line:
                line = lines.readline()
    ours.close()
    theirs.close()


def test_quiet_and_verbose(daemon, echo):
    config = {"listeners": [{"address": "127.0.0.1:0"}], "status": {"socket": "none"}}
    proxy = daemon(config, args=["-v"])
    request(proxy, echo)
    proxy.wait_line(re.compile(r" debug connection \d+: accepted, client="))
    proxy.wait_line(re.compile(r" debug connection \d+: asks, .* protocol=socks6 command=CONNECT asked="))
    proxy.wait_line(re.compile(r" access id="))
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        addr = sock.getsockname()
    config["listeners"][0]["address"] = "%s:%d" % addr
    quiet = daemon(config, args=["-q"], wait=False)
    wait_until(lambda: noop_works(addr), "the quiet one")
    quiet.signal(signal.SIGHUP)
    quiet.signal(signal.SIGUSR1)
    quiet.signal(signal.SIGTERM)
    assert quiet.wait() == 0 and quiet.text() == ""


def noop_works(addr):
    try:
        return noop6(addr) == s6.SUCCESS
    except ConnectionRefusedError:
        return False
