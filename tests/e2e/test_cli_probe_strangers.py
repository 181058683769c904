"""`socks6 probe` against what is no SOCKS proxy: a plain sentence, in bounded time."""

import contextlib
import random
import ssl
import subprocess
import time

import pytest

from cli_peers import DEADLINE, client_environment, client_path, closed_port, read_to_end, reset
from probe_peers import Anything
from test_cli_probe import probe, run, states


def wait_for_end(sock):
    read_to_end(sock)


def say_and_wait(data):
    def talk(sock):
        sock.sendall(data)
        read_to_end(sock)
    return talk


def answer_and_close(data):
    def talk(sock):
        sock.recv(65536)
        sock.sendall(data)
    return talk


def endless(sock):
    while True:
        sock.sendall(b"abcdefgh" * 4096)


def drip(sock):
    with contextlib.suppress(OSError):
        for _ in range(10000):
            sock.sendall(b"\x01")
            time.sleep(0.05)


def drip_six(sock):
    """A reply of SOCKS 6 that never becomes whole."""
    sock.sendall(b"\x06\0\x40\0")
    for _ in range(4096):
        sock.sendall(b"\0\x70")
        time.sleep(0.05)


@pytest.mark.parametrize("talk, kind, words", [
    (wait_for_end, "silent", "answers nothing"),
    (lambda sock: None, "closes", "closes every connection without an answer"),
    (reset, "closes", "closes every connection without an answer"),
    (say_and_wait(b"SSH-2.0-OpenSSH_9.2\r\n"), "ssh-server", "this is an SSH server, not a SOCKS proxy"),
    (say_and_wait(b"220 mail.example ESMTP\r\n"), "mail-or-ftp-server", "mail or FTP server"),
    (say_and_wait(b"+OK ready\r\n"), "pop3-server", "POP3"),
    (say_and_wait(b"* OK ready\r\n"), "imap-server", "IMAP"),
    (say_and_wait(b"RFB 003.008\n"), "vnc-server", "VNC"),
    (say_and_wait(b"\xff\xfd\x18\xff\xfd\x20"), "telnet-server", "Telnet"),
    (answer_and_close(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "web-server", "this is a web server"),
    (answer_and_close(b"\x01\x02garbage\xff"), "unknown", 'it says \\"\\\\x01\\\\x02garbage\\\\xff\\"'),
    (endless, "endless", "sends without end"),
    (drip, "unknown", "not a SOCKS proxy"),
    (answer_and_close(b"\xcf"), "socks6-private", "a version byte of its own"),
    (answer_and_close(b"\xd4"), "socks6-private", "a version byte of its own"),
    (answer_and_close(b"\x06"), "unknown", "not a SOCKS proxy"),
    (answer_and_close(b"\x06\0\0\x08\0\x06\0\x03aaaa"), "unknown", "begins to answer as a SOCKS 6 proxy does"),
    (drip_six, "unknown", "not a SOCKS proxy"),
    (answer_and_close(b"\x05\xfe"), "unknown", "not a SOCKS proxy"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_stranger_is_named(talk, kind, words):
    with Anything(talk) as stranger:
        before = time.monotonic()
        done = run("--json", "--timeout", 2, stranger.url())
        # the bound that the program promises, and much more for a machine that has other things to do
        assert time.monotonic() - before < 2 + DEADLINE / 2
    assert done.returncode == 3 and done.stderr == ""
    assert f'"looks_like":"{kind}"' in done.stdout, done.stdout
    assert words in done.stdout, done.stdout


def test_a_closed_port_is_said_to_refuse():
    with closed_port() as closed:
        report = probe(f"127.0.0.1:{closed.getsockname()[1]}")
    assert report["exit_status"] == 3 and report["looks_like"] == "unreachable"
    assert "Connection refused" in report["summary"]


def test_a_name_without_an_address_is_said_to_be_one():
    report = probe("no-such-host.invalid")
    assert report["exit_status"] == 3 and report["looks_like"] == "unreachable"


def test_nginx_is_a_web_server(nginx):
    report = probe(f"socks6://127.0.0.1:{nginx.port}")
    assert report["exit_status"] == 3 and report["looks_like"] == "web-server"
    assert "this is a web server" in report["summary"]


def test_sshd_is_an_ssh_server(sshd):
    report = probe(f"socks6://127.0.0.1:{sshd.port}")
    assert report["exit_status"] == 3 and report["looks_like"] == "ssh-server"


def test_a_web_server_that_waits_for_a_request_is_one():
    """Like many in scripting languages: nothing is answered before a whole line has come."""
    def talk(sock):
        data = b""
        while b"\r\n\r\n" not in data and (piece := sock.recv(4096)):
            data += piece
        if data.startswith(b"GET / HTTP"):
            sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    with Anything(talk) as server:
        assert probe("--timeout", 2, server.url())["looks_like"] == "web-server"


def test_a_tls_port_is_one(tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key", "-out",
                    tmp_path / "cert", "-subj", "/CN=x"], check=True, capture_output=True, timeout=DEADLINE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")

    def talk(sock):
        with contextlib.suppress(ssl.SSLError), context.wrap_socket(sock, server_side=True) as inner:
            read_to_end(inner)
    with Anything(talk) as server:
        report = probe("--timeout", 4, server.url())
    assert report["looks_like"] == "tls-server" and "TLS" in report["summary"] and report["exit_status"] == 3


def test_random_bytes_never_break_it():
    """Whatever comes, the output is valid JSON, the exit status one of four, and the sanitizers are content."""
    rng = random.Random(6)
    starts = [b"", b"\x06\0\0\0", b"\x06\0\0\0\x06\0", b"\x05", b"\x05\0\x05\0\0", b"\0\x5a", b"\x06\x01\0\x08\0\x03"]

    def talk(sock):
        sock.recv(65536)
        sock.sendall(rng.choice(starts) + rng.randbytes(rng.randrange(64)))
        if rng.random() < 0.3:
            sock.recv(65536)
            sock.sendall(rng.randbytes(30))
    for _ in range(12):
        with Anything(talk) as stranger:
            report = probe("--timeout", 1, stranger.url())
        assert report["exit_status"] in (0, 1, 3)


def test_a_stranger_is_asked_no_further_once_it_is_known():
    with Anything(say_and_wait(b"SSH-2.0-x\r\n")) as stranger:
        report = probe(stranger.url())
        assert len(stranger.socks) <= 2, "the connection, and the NOOP"
    assert states(report, "version.socks5", "version.socks4") == ["skipped", "skipped"]


def test_it_lasts_no_longer_when_nobody_accepts():
    """A full queue: the kernel drops our SYNs."""
    from lib.servers import full_listener  # pylint: disable=import-outside-toplevel
    with full_listener() as full:
        done = subprocess.run([client_path(), "probe", "--timeout", "1", f"127.0.0.1:{full.addr[1]}"],
                              env=client_environment(), capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 3 and "cannot be reached" in done.stdout
