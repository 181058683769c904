"""The program `socks6 connect` against proxies and servers written for the purpose."""

import contextlib
import fcntl
import hashlib
import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading

import pytest

from cli_peers import (AUTH_OK, DEADLINE, Peer, Proxy5, Proxy6, Request6, Scripted, client_environment, client_path,
                       closed_port, digest, pattern, read_exactly, read_to_end, reply6, reset)

MIB = 1024 * 1024
REQUEST_PORT = 8181


def socks6(*args, data=b"", env=None, **more):
    """Runs the program to its end."""
    more.setdefault("capture_output", True)
    if "stdin" not in more:
        more["input"] = data
    return subprocess.run([client_path(), *map(str, args)], env=client_environment(**(env or {})), timeout=DEADLINE,
                          check=False, **more)


@contextlib.contextmanager
def running(*args, env=None, **more):
    """The program with pipes; killed and waited for in the end."""
    for name in ("stdin", "stdout", "stderr"):
        more.setdefault(name, subprocess.PIPE)
    with subprocess.Popen([client_path(), *map(str, args)], env=client_environment(**(env or {})), bufsize=0,
                          **more) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(process, code):
    assert process.wait(DEADLINE) == code, process.stderr.read().decode()


def said(done):
    text = done.stderr.decode()
    assert "hunter2" not in text
    assert all(c >= " " or c == "\n" for c in text), repr(text)
    return text


def serve_http(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(4096)
    sock.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello\n")


# The way through.

@pytest.mark.parametrize("proxy_class", [Proxy6, Proxy5])
def test_request_and_answer(proxy_class):
    with Peer(serve_http) as server, proxy_class() as proxy:
        done = socks6("-x", proxy.url(), "connect", "web.test", server.port, data=b"GET / HTTP/1.0\r\n\r\n")
        assert said(done) == "" and done.returncode == 0
        assert done.stdout.endswith(b"\r\n\r\nhello\n")


def test_names_go_to_the_proxy_as_they_are():
    with Peer(serve_http) as server, Proxy6() as proxy, Proxy5() as old:
        for given, host, kind in (("Web.TEST", "Web.TEST", 3), ("127.0.0.1", "127.0.0.1", 1)):
            for one in (proxy, old):
                done = socks6("connect", given, server.port, "-x", one.url(), data=b"\r\n\r\n")
                assert done.returncode == 0, said(done)
            assert (proxy.requests[-1].type, proxy.requests[-1].host) == (kind, host)
            assert old.hosts[-1] == (kind, host)


@pytest.mark.parametrize("given", ["::1", "[::1]"])
def test_ipv6_destination(given):
    with Peer(serve_http, "::1") as server, Proxy6() as proxy:
        done = socks6("connect", given, server.port, "-x", proxy.url(), data=b"\r\n\r\n")
        assert done.returncode == 0, said(done)
        assert (proxy.requests[0].type, proxy.requests[0].host) == (4, "::1")


def test_service_name_as_port():
    with Proxy6() as proxy:
        socks6("connect", "192.0.2.1", "nosuchservice", "-x", proxy.url())
        with Scripted(AUTH_OK + reply6(5)) as scripted:
            done = socks6("connect", "192.0.2.1", "https", "-x", scripted.url())
            assert "192.0.2.1:443" in said(done)
        assert not proxy.requests


def both_ways(sock, up, down, results):
    """Reads and writes at once, so that neither side waits for the other."""
    def read():
        checksum, count = hashlib.sha256(), 0
        while piece := sock.recv(262144):
            checksum.update(piece)
            count += len(piece)
        results.append((count, checksum.hexdigest()))
    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    sock.sendall(down)
    sock.shutdown(socket.SHUT_WR)
    reader.join(DEADLINE)
    assert results == [(len(up), digest(up))]


@pytest.mark.parametrize("proxy_class", [Proxy6, Proxy5])
@pytest.mark.parametrize("stdio", ["pipe", "file"])
def test_megabytes_both_ways_at_once(proxy_class, stdio):
    up, down, results = pattern(9 * MIB + 1, 1), pattern(7 * MIB + 3, 2), []
    with Peer(lambda sock: both_ways(sock, up, down, results)) as server, proxy_class() as proxy:
        args = ("connect", "s.test", server.port, "-x", proxy.url())
        if stdio == "pipe":
            done = socks6(*args, data=up)
            got = done.stdout
        else:
            with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as target:
                source.write(up)
                source.seek(0)
                done = socks6(*args, stdin=source, stdout=target, stderr=subprocess.PIPE, capture_output=False)
                target.seek(0)
                got = target.read()
        assert done.returncode == 0, said(done)
        assert digest(got) == digest(down)


def test_our_end_first_then_the_answer():
    """Like `sort` at the far end: it says nothing before it has seen the end of the input."""
    data = pattern(3 * MIB)

    def serve(sock):
        sock.sendall(digest(read_to_end(sock)).encode())
    with Peer(serve) as server, Proxy6() as proxy:
        done = socks6("connect", "s.test", server.port, "-x", proxy.url(), data=data)
        assert done.returncode == 0, said(done)
        assert done.stdout.decode() == digest(data)


def test_server_that_drops_its_answer_at_our_end_is_heard_out():
    """Like nginx: a client that closes its side is taken for gone."""
    answer, broken = pattern(16 * MIB), []

    def serve(sock):
        sock.recv(4, socket.MSG_WAITALL)
        sock.setblocking(False)
        view = memoryview(answer)
        while view:
            ready, writable, _ = select.select([sock], [sock], [], DEADLINE)
            if ready:
                broken.append(len(view))
                return
            view = view[sock.send(view[:65536]):]
    with Peer(serve) as server, Proxy6() as proxy:
        done = socks6("connect", "s.test", server.port, "-x", proxy.url(), data=b"GET\n")
        assert done.returncode == 0, said(done)
        assert not broken and digest(done.stdout) == digest(answer)


def test_no_shutdown_keeps_our_side_open():
    seen = []

    def serve(sock):
        sock.recv(4, socket.MSG_WAITALL)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            seen.append(sock.recv(1))  # only when the client has ended, and without a word
    with Peer(serve) as server, Proxy6() as proxy:
        done = socks6("connect", "--no-shutdown", "-v", "s.test", server.port, "-x", proxy.url(), data=b"GET\n")
        assert done.returncode == 0, said(done)
        assert "end of standard input passed on" not in said(done)
    assert seen in ([b""], [])


def test_remote_end_first_then_an_upload():
    data, results = pattern(3 * MIB), []

    def serve(sock):
        sock.sendall(b"go")
        sock.shutdown(socket.SHUT_WR)
        results.append(digest(read_to_end(sock)))
    with Peer(serve) as server, Proxy6() as proxy:
        with running("connect", "s.test", server.port, "-x", proxy.url()) as process:
            assert process.stdout.read() == b"go"  # up to its end: it was passed on
            process.stdin.write(data)
            process.stdin.close()
            ends(process, 0)
    assert results == [digest(data)]


def test_data_right_behind_the_reply_is_not_swallowed():
    for pieces in (False, True):
        with Scripted(AUTH_OK + reply6() + b"\x06banner\n", then="close", pieces=pieces) as proxy:
            done = socks6("connect", "s.test", 1, "-x", proxy.url())
            assert done.returncode == 0, said(done)
            assert done.stdout == b"\x06banner\n"


def test_flags_of_shared_descriptors_stay():
    """O_NONBLOCK belongs to the open file that a shell and we share: setting it would break the shell."""
    with Peer(read_to_end) as server, Proxy6() as proxy:
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        try:
            with running("connect", "s.test", server.port, "-x", proxy.url(), stdin=in_read, stdout=out_write) as process:
                os.write(in_write, b"x")
                while not server.socks:
                    select.select([], [], [], 0.01)
                for fd in (in_read, out_write):
                    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK == 0
                os.close(in_write)
                in_write = -1
                ends(process, 0)
        finally:
            for fd in (in_read, in_write, out_read, out_write):
                if fd >= 0:
                    os.close(fd)


def test_one_socket_as_standard_input_and_output():
    """What an ssh that uses a socketpair for its ProxyCommand gives us."""
    def serve(sock):
        sock.sendall(b"banner\n" + read_to_end(sock))
    with Peer(serve) as server, Proxy6() as proxy:
        ours, theirs = socket.socketpair()
        with ours, running("connect", "s.test", server.port, "-x", proxy.url(), stdin=theirs, stdout=theirs) as process:
            theirs.close()
            ours.settimeout(DEADLINE)
            ours.sendall(b"question")
            ours.shutdown(socket.SHUT_WR)
            assert read_to_end(ours) == b"banner\nquestion"
            ends(process, 0)


# Early data.

@pytest.mark.parametrize("userinfo", ["", "alice:hunter2@"])
def test_early_data_comes_with_the_request(userinfo):
    requests = []

    def serve(sock):
        requests.append(Request6(sock))
        sock.sendall(AUTH_OK + reply6() + b"answer")
    with Peer(serve) as proxy:
        url = f"socks6://{userinfo}127.0.0.1:{proxy.port}"
        done = socks6("connect", "--early", "s.test", REQUEST_PORT, "-x", url, data=b"GET / HTTP/1.0\r\n\r\n")
        assert done.returncode == 0, said(done)
        assert done.stdout == b"answer"
    request = requests[0]
    assert request.first == request.raw + b"GET / HTTP/1.0\r\n\r\n", "not in one segment"
    assert request.initial_data_len() == (18 if userinfo else None)


@pytest.mark.parametrize("proxy_class", [Proxy6, Proxy5])
@pytest.mark.parametrize("userinfo", ["", "alice:hunter2@"])
def test_long_early_input_arrives_in_order(proxy_class, userinfo):
    data, results = pattern(2 * MIB), []
    with Peer(lambda sock: results.append(digest(read_to_end(sock)))) as server:
        with proxy_class({"alice": "hunter2"} if userinfo else None) as proxy:
            done = socks6("connect", "--early", "s.test", server.port, "-x", proxy.url(userinfo), data=data)
            assert done.returncode == 0, said(done)
            if userinfo and proxy_class is Proxy6:
                assert 0 < proxy.requests[0].initial_data_len() <= 16384
    assert results == [digest(data)]


def test_early_waits_for_input_or_its_end():
    with Peer(lambda sock: sock.sendall(digest(read_to_end(sock)).encode())) as server, Proxy6() as proxy:
        with running("connect", "--early", "s.test", server.port, "-x", proxy.url()) as process:
            assert select.select([process.stdout, process.stderr], [], [], 0.1)[0] == []
            assert not proxy.requests
            process.stdin.write(b"now")
            process.stdin.close()
            assert process.stdout.read().decode() == digest(b"now")
            ends(process, 0)
        done = socks6("connect", "--early", "s.test", server.port, "-x", proxy.url(), data=b"")
        assert done.returncode == 0 and done.stdout.decode() == digest(b"")


# Who we say we are.

@pytest.mark.parametrize("proxy_class", [Proxy6, Proxy5])
def test_password_of_each_source(proxy_class, tmp_path):
    file = tmp_path / "password"
    file.write_text("hunter2\n")
    with Peer(serve_http) as server, proxy_class({"alice": "hunter2"}) as proxy:
        for args, env in ((("-x", proxy.url("alice:hunter2@")), {}),
                          (("-x", proxy.url("alice:hunter%32@")), {}),
                          (("-x", proxy.url("alice@")), {"SOCKS6_PASSWORD": "hunter2"}),
                          (("-x", proxy.url(), "--proxy-user", "alice"), {"SOCKS6_PASSWORD": "hunter2"}),
                          (("-x", proxy.url(), "--proxy-user", "alice", "--password-file", file), {}),
                          (("--proxy-user=alice", f"--password-file={file}"), {"SOCKS6_PROXY": proxy.url()})):
            for line in ((*args, "connect", "s.test", server.port), ("connect", *args, "s.test", server.port)):
                done = socks6(*line, data=b"\r\n\r\n", env=env)
                assert done.returncode == 0, (line, said(done))


@pytest.mark.parametrize("proxy_class", [Proxy6, Proxy5])
def test_wrong_or_missing_password(proxy_class):
    with proxy_class({"alice": "hunter2"}) as proxy:
        done = socks6("-v", "connect", "s.test", 1, "-x", proxy.url("alice:nonsense@"))
        assert done.returncode == 2  # -v belongs to the subcommand
        done = socks6("connect", "-v", "s.test", 1, "-x", proxy.url("alice:nonsense@"))
        assert done.returncode == 3
        assert "refused the user name or password" in said(done) and "nonsense" not in said(done)
        done = socks6("connect", "s.test", 1, "-x", proxy.url())
        assert done.returncode == 3
        assert "it may want a user name and password" in said(done)


# Which proxy.

def test_proxy_of_the_environment():
    with Peer(serve_http) as server, Proxy6() as ours, Proxy5() as other:
        def run(**env):
            before = len(ours.requests), len(other.hosts)
            done = socks6("connect", "s.test", server.port, data=b"\r\n\r\n", env=env)
            assert done.returncode == 0, said(done)
            return "ours" if len(ours.requests) > before[0] else "other" if len(other.hosts) > before[1] else None
        assert run(SOCKS6_PROXY=ours.url(), ALL_PROXY=other.url()) == "ours"
        assert run(SOCKS6_PROXY="", ALL_PROXY=other.url()) == "other"
        assert run(ALL_PROXY="http://127.0.0.1:1", all_proxy=ours.url()) == "ours"
        assert run(all_proxy=other.url()) == "other"


def test_foreign_scheme():
    for args, env in ((("-x", "http://h:1"), {}), ((), {"SOCKS6_PROXY": "http://alice:hunter2@h:1"})):
        done = socks6(*args, "connect", "s.test", 1, env=env)
        assert done.returncode == 2
        assert "the scheme is not one of socks6://, socks6s:// and socks5h://" in said(done)


def test_family_of_the_connection_to_the_proxy():
    with Peer(serve_http) as server, Proxy6() as four, Proxy6(host="::1") as six:
        for flag, proxy, code in (("-4", four, 0), ("-6", six, 0), ("-6", four, 3), ("-4", six, 3)):
            done = socks6("connect", flag, "s.test", server.port, "-x", proxy.url(), data=b"\r\n\r\n")
            assert done.returncode == code, said(done)


def test_proxy_by_name():
    """localhost may have an IPv6 address first, where this proxy does not listen: then the next one is tried."""
    with Peer(serve_http) as server, Proxy6() as proxy:
        done = socks6("connect", "s.test", server.port, "-x", f"socks6://localhost:{proxy.port}", data=b"\r\n\r\n")
        assert done.returncode == 0, said(done)


# What goes wrong, and the exit status.

def test_nobody_listens_at_the_proxy():
    with closed_port() as sock:
        port = sock.getsockname()[1]
        done = socks6("connect", "s.test", 1, "-x", f"socks6://127.0.0.1:{port}")
        assert done.returncode == 3
        assert said(done) == f"socks6: connect: cannot connect to proxy 127.0.0.1:{port}: Connection refused\n"


def test_remote_end_refuses():
    with closed_port() as sock, Proxy6() as proxy:
        port = sock.getsockname()[1]
        done = socks6("connect", "s.test", port, "-x", proxy.url())
        assert done.returncode == 1
        assert said(done) == f"socks6: connect: connection refused by s.test:{port} (reply 5)\n"


@pytest.mark.parametrize("code,text", [(1, "general SOCKS server failure"), (2, "not allowed"), (3, "network unreachable"),
                                       (4, "host unreachable"), (6, "TTL expired"), (7, "command not supported"),
                                       (8, "address type not supported"), (9, "timed out"), (77, "unassigned")])
def test_reply_codes(code, text):
    with Scripted(AUTH_OK + reply6(code)) as proxy:
        done = socks6("connect", "s.test", 1, "-x", proxy.url())
        assert done.returncode == 1
        assert text.lower() in said(done).lower() and f"s.test:1 (reply {code})" in said(done)


@pytest.mark.parametrize("answer,then,text", [
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", "close", "does not speak SOCKS 6 (its first byte was 0x48 'H')"),
    (b"\x05\xff", "close", "(its first byte was 0x05); a SOCKS 5 proxy is written socks5h://"),
    (b"\x1b[31m", "close", "(its first byte was 0x1b)"),
    (b"", "close", "closed the connection without a reply"),
    (b"\x06", "close", "closed the connection in mid-reply"),
    (AUTH_OK + reply6()[:-1], "close", "closed the connection in mid-reply"),
    (AUTH_OK, "reset", "lost: Connection reset by peer"),
    (b"\x06\x07\x00\x00", "close", "malformed reply"),
])
def test_proxy_misbehaves(answer, then, text):
    with Scripted(answer, then) as proxy:
        done = socks6("connect", "s.test", 1, "-x", proxy.url())
        assert done.returncode == 3
        assert text in said(done)


def test_time_limit_of_the_connection():
    with Scripted(AUTH_OK) as proxy:
        done = socks6("connect", "-w", 1, "s.test", 1, "-x", proxy.url())
        assert done.returncode == 3
        assert "timed out waiting for a reply of proxy" in said(done)


def test_time_limit_of_silence():
    with Scripted(AUTH_OK + reply6() + b"hello") as proxy:
        with running("connect", "-w", 1, "s.test", 1, "-x", proxy.url()) as process:
            assert process.stdout.read() == b"hello"
            ends(process, 1)
            assert process.stderr.read() == b"socks6: connect: nothing moved for 1 seconds\n"


def test_quit_after_the_end_of_input():
    with Scripted(AUTH_OK + reply6() + b"hello") as proxy:
        with running("connect", "-q", 0, "s.test", 1, "-x", proxy.url()) as process:
            assert read_exactly_from(process.stdout, 5) == b"hello"
            process.stdin.close()
            ends(process, 0)


def read_exactly_from(file, count):
    data = b""
    while len(data) < count:
        piece = file.read(count - len(data))
        assert piece
        data += piece
    return data


def test_reset_by_the_remote_end():
    now = threading.Event()

    def serve(sock):
        Request6(sock)
        sock.sendall(AUTH_OK + reply6() + b"hello")
        assert now.wait(DEADLINE)
        reset(sock)
    with Peer(serve) as proxy:
        with running("connect", "s.test", 1, "-x", f"socks6://127.0.0.1:{proxy.port}") as process:
            assert read_exactly_from(process.stdout, 5) == b"hello"
            now.set()
            ends(process, 1)
            assert process.stderr.read() == b"socks6: connect: connection to s.test:1 lost: Connection reset by peer\n"


# Standard output that goes away.

def test_reader_that_goes_ends_it_by_sigpipe():
    with Scripted(AUTH_OK + reply6() + b"hello") as proxy:
        with running("connect", "s.test", 1, "-x", proxy.url()) as process:
            assert read_exactly_from(process.stdout, 5) == b"hello"
            process.stdout.close()  # while the remote end is silent, and standard input stays open
            ends(process, -signal.SIGPIPE)
            assert process.stderr.read() == b""


def test_reader_that_goes_with_sigpipe_ignored():
    with Scripted(AUTH_OK + reply6() + b"x" * MIB) as proxy:
        with running("connect", "s.test", 1, "-x", proxy.url(), restore_signals=False,
                     preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN)) as process:
            assert read_exactly_from(process.stdout, 5) == b"xxxxx"
            process.stdout.close()
            ends(process, 1)
            assert process.stderr.read() == b""


def test_full_disk_is_told():
    with Scripted(AUTH_OK + reply6() + b"hello", then="close") as proxy, open("/dev/full", "wb") as full:
        with running("connect", "s.test", 1, "-x", proxy.url(), stdout=full) as process:
            ends(process, 1)
            assert process.stderr.read() == b"socks6: connect: cannot write to standard output: No space left on device\n"


def test_closed_standard_descriptors():
    """The connection must not become descriptor 0 or 1."""
    def serve(sock):
        assert read_to_end(sock) == b""
        sock.sendall(b"hello")
    with Peer(serve) as server, Proxy6() as proxy:
        def run(redirections):
            line = f'exec "$0" connect s.test {server.port} -x {proxy.url()} {redirections}'
            return subprocess.run(["sh", "-c", line, client_path()], env=client_environment(), timeout=DEADLINE,
                                  capture_output=True, check=False)
        done = run("<&-")
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
        done = run("<&- >&-")
        assert done.returncode == 1
        assert done.stderr == b"socks6: connect: cannot write to standard output: Bad file descriptor\n"
        assert run("<&- 2>&-").stdout == b"hello"


# Usage.

@pytest.mark.parametrize("args,text", [
    ([], "which subcommand?"),
    (["conect"], "there is no subcommand 'conect'; did you mean 'connect'?"),
    (["xyzzy"], "there is no subcommand 'xyzzy'\n"),
    (["-Z", "connect"], "unknown option '-Z'"),
    (["--zeal", "connect"], "unknown option '--zeal'"),
    (["-x"], "option '-x' needs an argument"),
    (["connect"], "HOST PORT is missing"),
    (["connect", "h"], "PORT is missing"),
    (["connect", "h", "http", "x"], "a word too many"),
    (["connect", "h", "70000"], "'70000' is not a port"),
    (["connect", "", "80"], "HOST must be"),
    (["connect", "h" * 256, "80"], "HOST must be"),
    (["connect", "-4", "-6", "h", "1"], "exclude each other"),
    (["connect", "-w", "0", "h", "1"], "-w: '0'"),
    (["connect", "-x", "socks6s://h?tls=1", "h", "1"], "tls= takes"),
    (["connect", "-x", "socks6://alice:hunter2@h:x", "h", "1"], "the port must be"),
    (["connect", "-x", "alice:hunter2@h", "h", "1"], "starts with socks6://"),
    (["connect", "--proxy-user", "a", "--password-file", "/nonexistent", "h", "1"], "No such file or directory"),
])
def test_usage_errors(args, text):
    done = socks6(*args)
    assert done.returncode == 2
    assert text in said(done)
    assert "--help'." in said(done)
    assert done.stdout == b""


def test_unreadable_password_file(tmp_path):
    if os.geteuid() == 0:
        path = tmp_path  # root may read every file, but nobody reads a directory
    else:
        path = tmp_path / "password"
        path.touch(0)
    done = socks6("connect", "--proxy-user", "a", "--password-file", path, "h", "1")
    assert done.returncode == 2
    assert "Is a directory" in said(done) or "Permission denied" in said(done)


def test_help_and_version():
    for args in (["--help"], ["-h"], ["connect", "--help"], ["connect", "-h"], ["dns", "--help"], ["-x", "nonsense", "connect", "--help"]):
        done = socks6(*args)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"Usage: socks6 ")
        assert all(len(line) <= 80 for line in done.stdout.splitlines())
    done = socks6("--version")
    assert done.returncode == 0 and done.stdout.startswith(b"socks6 ")
    with open("/dev/full", "wb") as full:
        done = socks6("--help", stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 1 and b"No space left" in done.stderr


def test_only_what_exists_is_listed():
    text = socks6("--help").stdout.decode()
    listed = [line.split()[0] for line in text.split("tells more):\n")[1].split("\n\n")[0].splitlines()]
    assert listed == ["connect", "dns", "run", "probe", "passwd"]
    for name in listed:
        assert socks6(name, "--help").returncode == 0


def test_verbose_says_each_step():
    with Peer(serve_http) as server, Proxy6() as proxy:
        done = socks6("connect", "-v", "s.test", server.port, "-x", proxy.url("alice:hunter2@"), data=b"\r\n\r\n")
        assert done.returncode == 0
        text = said(done)
        for step in ("using the proxy of -x: socks6://127.0.0.1:", "connected to proxy 127.0.0.1:", "bytes to the proxy",
                     "the proxy reports success", "end of standard input passed on", "the remote end has closed its side",
                     "4 bytes sent, 25 received"):
            assert step in text, step


def test_terminal_is_left_when_the_remote_end_closes():
    with Scripted(AUTH_OK + reply6() + b"bye\n", then="close") as proxy:
        master, slave = os.openpty()
        try:
            with running("connect", "s.test", 1, "-x", proxy.url(), stdin=slave) as process:
                assert process.stdout.read() == b"bye\n"
                ends(process, 0)
        finally:
            os.close(master)
            os.close(slave)


def test_read_exactly_sees_a_cut():
    """The peers themselves must notice what they are there to notice."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"ab")
        theirs.close()
        with pytest.raises(EOFError):
            read_exactly(ours, 3)


def options_in(text):
    """All options that a help text lists: the words with dashes in the left column."""
    return {word for line in text.splitlines() if line.startswith("  ")
            for word in re.findall(r"(?<![\w-])--?[a-zA-Z0-9][a-z-]*", line[:24])}


def test_manual_and_completions_know_every_option():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    general = options_in(socks6("--help").stdout.decode())
    connect = options_in(socks6("connect", "--help").stdout.decode())
    assert {"-x", "--proxy", "--proxy-user", "--password-file", "-h", "--help", "-V", "--version"} == general
    assert {"-4", "-6", "-N", "-q", "-v", "-w", "--early"} <= connect
    with open(os.path.join(root, "man/socks6.1.scd"), encoding="utf-8") as file:
        manual = file.read()
    for option in general | connect:
        assert f"*{option}*" in manual, option
    for shell in ("bash", "zsh", "fish"):
        with open(os.path.join(root, "contrib/completions/socks6." + shell), encoding="utf-8") as file:
            text = file.read()
        for option in general | connect:
            if shell == "fish":
                option = f"-l {option[2:]} " if option.startswith("--") else f"-s {option[1:]} "
            assert re.search(re.escape(option.strip()) + r"(?![a-z-])", text), (shell, option)
