"""`socks6 connect` over TLS: who is believed, tickets, early data, and what half-closes and losses become."""

import contextlib
import os
import re
import socket
import ssl
import struct
import subprocess
import threading

import pytest

from cli_peers import (DEADLINE, TOKEN, Peer, Proxy6, SessionProxy6, auth6, client_environment, client_path, digest,
                       option6, pattern, read_to_end, reply6)
from dns_peers import DnsProxy, answering, rrset
from lib.net import wait_until


def make_certificates(folder):
    """A CA, and certificates: good (proxy.test, 127.0.0.1, ::1), expired, foreign (of another CA), self (signed), client."""
    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = "DNS:proxy.test,DNS:localhost,IP:127.0.0.1,IP:::1,IP:10.1.0.1"
    for ca in ("ca", "other"):
        openssl("req", "-x509", *key, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-subj", f"/CN=test {ca}", "-days", "2")
    openssl("req", "-x509", *key, "-keyout", "self.key", "-out", "self.pem", "-subj", "/CN=proxy.test", "-addext",
            f"subjectAltName={names}", "-days", "2")
    for name, ca, san, days in (("good", "ca", names, "2"), ("expired", "ca", names, "-1"), ("foreign", "other", names, "2"),
                                ("wrong", "ca", "DNS:else.test,IP:192.0.2.1", "2"), ("client", "ca", "DNS:alice", "2")):
        (folder / "ext").write_text(f"subjectAltName={san}\n", encoding="ascii")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-out",
                f"{name}.pem", "-days", days, "-extfile", "ext")
    (folder / "client-both.pem").write_text((folder / "client.pem").read_text() + (folder / "client.key").read_text())


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder)
    return folder


class TlsProxy(Peer):
    """SessionProxy6 behind TLS: Python's, on memory, so that each end is passed on by itself (close_notify)."""

    def __init__(self, pki, certificate="good", version=ssl.TLSVersion.TLSv1_3, alpn=("socks6",), client_ca=None, **more):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pki / f"{certificate}.pem", pki / f"{certificate}.key")
        self.context.minimum_version = self.context.maximum_version = version
        if alpn:
            self.context.set_alpn_protocols(list(alpn))
        if client_ca:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(client_ca)
        self.failed, self.alpn, self.reused, self.names, self.subjects = [], [], [], [], []
        self.context.sni_callback = lambda sock, name, context: self.names.append(name)
        self.inner = more["inner"] if "inner" in more else SessionProxy6(**more)
        self.requests, self.sessions = self.inner.requests, getattr(self.inner, "sessions", None)
        super().__init__(self._serve)

    def _handshake(self, sock, tls, read, write):
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(write.read())
                piece = sock.recv(65536)
                read.write(piece) if piece else read.write_eof()
            except ssl.SSLError:
                sock.sendall(write.read())
                raise
        self.alpn.append(tls.selected_alpn_protocol())
        self.reused.append(tls.session_reused)
        self.subjects.append(tls.getpeercert())
        sock.sendall(write.read())

    def _serve(self, sock):
        read, write = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(read, write, server_side=True)
        try:
            self._handshake(sock, tls, read, write)
        except (ssl.SSLError, OSError) as error:
            self.failed.append(error)
            return
        inner = socket.create_connection(("127.0.0.1", self.inner.port))
        lock = threading.Lock()

        def down():
            piece = b"-"
            while piece:
                piece = inner.recv(65536)
                with lock:
                    if piece:
                        tls.write(piece)
                    else:
                        with contextlib.suppress(ssl.SSLError):
                            tls.unwrap()  # close_notify
                    data = write.read()
                sock.sendall(data)
        thread = threading.Thread(target=down, daemon=True)
        thread.start()
        with inner:
            try:
                self._up(sock, tls, read, inner, lock)
            except OSError as error:
                self.failed.append(error)
            with contextlib.suppress(OSError):
                inner.shutdown(socket.SHUT_WR)
            thread.join(DEADLINE)

    @staticmethod
    def _up(sock, tls, read, inner, lock):
        while True:
            out, ended = [], False
            with lock:
                try:
                    while text := tls.read(65536):
                        out.append(text)
                    ended = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLZeroReturnError:
                    ended = True
            for text in out:
                inner.sendall(text)
            if ended:
                return
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionResetError("no close_notify")
            read.write(piece)

    def stop(self, quiet=False):
        super().stop(quiet)
        self.inner.stop(quiet)

    def url(self, userinfo="", host="127.0.0.1", **query):
        text = "&".join(f"{key}={value}" for key, value in query.items())
        return f"socks6s://{userinfo}{host}:{self.port}?{text}"


@pytest.fixture
def socks6(tmp_path):
    def run(*args, data=b"ping", **env):
        env.setdefault("XDG_CACHE_HOME", str(tmp_path / "cache"))
        return subprocess.run([client_path(), "connect", *map(str, args)], input=data, capture_output=True,
                              env=client_environment(**env), timeout=DEADLINE, check=False)
    return run


def answer_all(sock):
    sock.sendall(b"<" + read_to_end(sock) + b">")


@pytest.fixture
def server():
    with Peer(answer_all) as one:
        yield one


def good(done):
    assert (done.returncode, done.stdout) == (0, b"<ping>"), done.stderr
    return True


def refused(done, text):
    assert done.returncode == 3 and done.stdout == b"", done
    assert text in done.stderr.decode() and len(done.stderr.splitlines()) == 1, done.stderr


def test_way_through(socks6, server, pki):
    with TlsProxy(pki) as proxy:
        for host in ("127.0.0.1", "localhost"):
            done = socks6("-4", "-N", "-v", "-x", proxy.url(host=host, ca=pki / "ca.pem"), "s.test", server.port)
            good(done)
            assert b"TLSv1.3 (1 round trip)" in done.stderr and b"3 round trips to the proxy" in done.stderr
        assert proxy.alpn == ["socks6"] * 2 and proxy.names == [None, "localhost"] and not proxy.failed


def test_certificate_of_the_system(socks6, server, pki):
    with TlsProxy(pki) as proxy:
        good(socks6("-N", "-x", proxy.url(), "s.test", server.port, SSL_CERT_FILE=str(pki / "ca.pem")))


@pytest.mark.parametrize("certificate, ca, text", [
    ("wrong", "ca", "certificate is not for 127.0.0.1"),
    ("expired", "ca", "certificate has expired"),
    ("self", "ca", "certificate is self-signed"),
    ("foreign", "ca", "signed by an authority that is not trusted here"),
    ("good", None, "signed by an authority that is not trusted here"),
])
def test_wrong_certificates_are_refused_and_nothing_is_sent(socks6, pki, certificate, ca, text):
    with TlsProxy(pki, certificate) as proxy:
        query = {"ca": pki / "ca.pem"} if ca else {}
        done = socks6("--early", "-x", proxy.url("alice:hunter2@", **query), "s.test", 1, SSL_CERT_FILE="/dev/null")
        refused(done, text)
        wait_until(lambda: len(proxy.failed) == 1, "the end of the handshake")
        assert not proxy.requests


def test_name_that_the_certificate_does_not_hold(socks6, pki):
    with TlsProxy(pki, "wrong") as proxy:
        refused(socks6("-4", "-x", proxy.url(host="localhost", ca=pki / "ca.pem"), "s.test", 1),
                "certificate is not for localhost")


def test_proxy_of_another_protocol(socks6, pki):
    with Peer(lambda sock: (sock.recv(1000), sock.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n"))) as web:
        refused(socks6("-x", f"socks6s://127.0.0.1:{web.port}", "s.test", 1), "it does not speak TLS")
    with TlsProxy(pki, alpn=None) as proxy, Peer(answer_all) as server:  # no ALPN on its side is good enough
        good(socks6("-N", "-x", proxy.url(ca=pki / "ca.pem"), "s.test", server.port))


def test_alpn_of_another_protocol(socks6, pki):
    with s_server(pki, "-alpn", "http/1.1") as one:
        refused(socks6("-x", one.url(pki), "s.test", 1), "it speaks another protocol than SOCKS over TLS")


def test_old_tls_only_if_allowed(socks6, server, pki):
    with TlsProxy(pki, version=ssl.TLSVersion.TLSv1_2) as proxy:
        refused(socks6("-x", proxy.url(ca=pki / "ca.pem"), "s.test", server.port), "does not speak TLS 1.3")
        done = socks6("-N", "-v", "-x", proxy.url(ca=pki / "ca.pem", tls="1.2"), "s.test", server.port)
        assert good(done) and b"TLSv1.2 (2 round trips)" in done.stderr


def test_client_certificate(socks6, server, pki):
    with TlsProxy(pki, client_ca=pki / "ca.pem") as proxy:
        url = proxy.url(ca=pki / "ca.pem")
        refused(socks6("-x", url, "s.test", server.port), "it wants a client certificate")
        for cert in (f"cert={pki}/client.pem&key={pki}/client.key", f"cert={pki}/client-both.pem"):
            good(socks6("-N", "-x", f"{url}&{cert}", "s.test", server.port))
        assert proxy.subjects[-1]["subjectAltName"] == (("DNS", "alice"),)


@pytest.mark.parametrize("query, text", [
    ("ca=/nonexistent", "as certificates of authorities (ca=)"),
    ("ca={pki}/ca.key", "as certificates of authorities (ca=)"),
    ("cert=/nonexistent", "as our certificate (cert=)"),
    ("cert={pki}/client.pem&key={pki}/good.key", "as the key of our certificate (key=)"),
    ("cert={pki}/client.pem", "as the key of our certificate (key=)"),
])
def test_files_that_cannot_be_used(socks6, pki, query, text):
    done = socks6("-x", f"socks6s://127.0.0.1:1?{query.format(pki=pki)}", "s.test", 1)
    assert done.returncode == 2 and text in done.stderr.decode(), done.stderr


def test_second_connection_resumes(socks6, server, pki):
    with TlsProxy(pki) as proxy:
        url = proxy.url("alice:hunter2@", ca=pki / "ca.pem")
        for _ in range(3):
            done = socks6("-N", "-v", "-x", url, "s.test", server.port)
            good(done)
        assert proxy.reused == [False, True, True] and b"resumed" in done.stderr
        good(socks6("-N", "--no-session", "-x", url, "s.test", server.port))
        assert proxy.reused[-1] is False


def test_session_of_tls_is_not_shown_in_plain(socks6, server, pki):
    """One port with and without TLS is unusual, but the key must tell them apart."""
    with TlsProxy(pki) as proxy:
        good(socks6("-N", "-x", proxy.url(ca=pki / "ca.pem"), "s.test", server.port))
        port, sessions = proxy.port, proxy.sessions
    with SessionProxy6(port=port) as plain:
        plain.sessions.update(sessions)
        good(socks6("-N", "-x", plain.url(), "s.test", server.port))
        assert TOKEN not in dict(plain.requests[0].options) and 6 not in dict(plain.requests[0].options)


@pytest.mark.parametrize("early", [False, True])
def test_megabytes_both_ways(socks6, pki, early):
    up, down = pattern(5 * 1024 * 1024 + 1), pattern(4 * 1024 * 1024 + 3, 2)
    seen = []

    def serve(sock):
        thread = threading.Thread(target=lambda: seen.append(read_to_end(sock)))
        thread.start()
        sock.sendall(down)
        thread.join(DEADLINE)  # our end after theirs: Python's TLS reads nothing more once it has ended its side
    with Peer(serve) as server, TlsProxy(pki) as proxy:
        args = ("--early",) if early else ()
        done = socks6(*args, "-N", "-x", proxy.url(ca=pki / "ca.pem"), "s.test", server.port, data=up)
        assert done.returncode == 0, done.stderr
        assert digest(done.stdout) == digest(down)
        assert not proxy.failed
    assert len(seen[0]) == len(up) and digest(seen[0]) == digest(up)


def test_dns_over_tls(pki):
    with TlsProxy(pki, inner=DnsProxy(answering(rrset("www.test.", "A", "192.0.2.7")))) as proxy:
        done = subprocess.run([client_path(), "dns", "+short", "-x", proxy.url(ca=pki / "ca.pem"), "www.test", "www.test"],
                              env=client_environment(), capture_output=True, timeout=DEADLINE, check=False)
        assert (done.returncode, done.stdout) == (0, b"192.0.2.7\n" * 2), done.stderr


def test_end_of_input_is_a_close_notify_and_the_answer_comes_after_it(socks6, server, pki):
    """Like `sort` at the far end."""
    data = pattern(300000)
    with TlsProxy(pki) as proxy:
        done = socks6("-N", "-x", proxy.url(ca=pki / "ca.pem"), "s.test", server.port, data=data)
        assert (done.returncode, digest(done.stdout)) == (0, digest(b"<" + data + b">")), done.stderr


def test_end_without_close_notify_is_a_loss(socks6, pki):
    def cut(sock):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / "good.pem", pki / "good.key")
        secure = context.wrap_socket(sock, server_side=True)
        secure.recv(1000)
        secure.sendall(auth6(False) + reply6() + b"half of")
        os.close(secure.detach())  # a FIN and no more
    with Peer(cut) as proxy:
        done = socks6("--no-shutdown", "-x", f"socks6s://127.0.0.1:{proxy.port}?ca={pki}/ca.pem", "s.test", 1)
        assert done.returncode == 1 and done.stdout == b"half of"
        assert b"without the close_notify of TLS" in done.stderr


def test_proxy_that_hangs_up_in_the_handshake(socks6, pki):
    with Peer(lambda sock: sock.recv(1000)) as proxy:
        refused(socks6("-x", f"socks6s://127.0.0.1:{proxy.port}?ca={pki}/ca.pem", "s.test", 1),
                "the connection ended without the close_notify of TLS")


def test_time_limit_holds_in_the_handshake(socks6, pki):
    with Peer(read_to_end) as proxy:
        done = socks6("-w", "1", "-x", f"socks6s://127.0.0.1:{proxy.port}?ca={pki}/ca.pem", "s.test", 1)
        assert done.returncode == 3 and b"timed out" in done.stderr


# Early data, with openssl s_server: Python's TLS has none.

class Server:
    """openssl s_server, whose standard input and output are the conversation. One connection at a time."""

    def __init__(self, pki, *arguments, wrapper=()):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.process = subprocess.Popen(
            [*wrapper, "openssl", "s_server", "-accept", f"127.0.0.1:{self.port}", "-cert", pki / "good.pem", "-key", pki / "good.key",
             *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
        self.text = b""
        self.wait(b"ACCEPT\n")

    def wait(self, what):
        """Reads until `what` has come, and returns what came before and with it."""
        while what not in self.text:
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, self.text
            self.text += piece
        end = self.text.index(what) + len(what)
        seen, self.text = self.text[:end], self.text[end:]
        return seen

    def url(self, pki, userinfo=""):
        return f"socks6s://{userinfo}127.0.0.1:{self.port}?ca={pki}/ca.pem"

    def say(self, data):
        self.process.stdin.write(data)

    def stop(self):
        self.process.kill()
        self.process.wait(DEADLINE)
        self.process.stdin.close()
        self.process.stdout.close()


@contextlib.contextmanager
def s_server(pki, *arguments, wrapper=()):
    one = Server(pki, *arguments, wrapper=wrapper)
    try:
        yield one
    finally:
        one.stop()


REQUEST_HEAD = b"\x06\x01"
GRANT = auth6(False, option6(6, b"i" * 16), struct.pack("!HHII", 12, 12, 7, 4096)) + reply6()
GO_ON = auth6(False, option6(8), option6(14), struct.pack("!HHII", 12, 12, 8, 4096)) + reply6()


@contextlib.contextmanager
def connecting(tmp_path, url, *options):
    env = client_environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    with subprocess.Popen([client_path(), "connect", "-v", "--early", *options, "-x", url, "web.test", "80"], env=env,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdin.write(b"GET /early\n")
            process.stdin.flush()
            yield process
        finally:
            process.kill()


EARLY = ("-early_data", "-alpn", "socks6", "-no_anti_replay", "-max_early_data", "16384", "-ign_eof", "-4")


def warm(one, tmp_path, url):
    """The first connection: a session, its window, and tickets."""
    with connecting(tmp_path, url) as process:
        one.wait(b"GET /early\n")
        one.say(GRANT + b"hello")
        assert process.stdout.read(5) == b"hello"
        process.terminate()
        text = process.stderr.read().decode()
        assert "3 round trips to the proxy" in text and "no session with this proxy is known" in text
    one.wait(b"ACCEPT\n") if b"ACCEPT" in one.text else None


def test_early_data_saves_the_round_trip_of_tls(pki, tmp_path):
    with s_server(pki, *EARLY) as one:
        warm(one, tmp_path, one.url(pki))
        with connecting(tmp_path, one.url(pki)) as process:
            seen = one.wait(b"GET /early\n")
            assert REQUEST_HEAD in seen
            one.say(GO_ON + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.terminate()
            text = process.stderr.read().decode()
        assert "TLSv1.3, resumed, early data accepted (0 round trips)" in text
        assert "2 round trips to the proxy" in text  # TCP, and the request


@pytest.mark.parametrize("options", [["--no-early-data"], ["--no-session"]])
def test_early_data_is_not_used_where_it_is_not_wanted(pki, tmp_path, options):
    with s_server(pki, *EARLY) as one:
        warm(one, tmp_path, one.url(pki))
        with connecting(tmp_path, one.url(pki), *options) as process:
            one.wait(b"GET /early\n")
            one.say(GO_ON + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.terminate()
            text = process.stderr.read().decode()
            assert re.search(r"TLSv1\.3(, resumed)? \(1 round trip\)", text) and "3 round trips to the proxy" in text


def test_early_data_only_with_a_token(pki, tmp_path):
    """A proxy that grants a session and no window: a request that could be repeated waits for the handshake."""
    with s_server(pki, *EARLY) as one:
        with connecting(tmp_path, one.url(pki)) as process:
            one.wait(b"GET /early\n")
            one.say(auth6(False, option6(6, b"i" * 16)) + reply6() + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.terminate()
            process.wait(DEADLINE)
        with connecting(tmp_path, one.url(pki)) as process:
            one.wait(b"GET /early\n")
            one.say(auth6(False, option6(8)) + reply6() + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.terminate()
            assert "TLSv1.3, resumed (1 round trip)" in process.stderr.read().decode()


def test_rejected_early_data_is_sent_once_more(pki, tmp_path):
    """The proxy has new ticket keys: a whole handshake, and the request behind it, once."""
    with s_server(pki, *EARLY) as one:
        warm(one, tmp_path, one.url(pki))
        port = one.port
    again = Server.__new__(Server)
    again.port, again.text = port, b""
    again.process = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pki / "good.pem", "-key", pki / "good.key", *EARLY],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    try:
        again.wait(b"ACCEPT\n")
        with connecting(tmp_path, again.url(pki)) as process:
            seen = again.wait(b"GET /early\n")
            assert seen.count(REQUEST_HEAD) == 1
            again.say(GO_ON + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.stdin.write(b"later\n")
            process.stdin.flush()
            rest = again.wait(b"later\n")
            assert b"/early" not in rest
            process.terminate()
            text = process.stderr.read().decode()
        assert "early data rejected and sent again (1 round trip)" in text and "3 round trips to the proxy" in text
    finally:
        again.stop()


def test_more_than_the_ticket_allows_is_not_early(pki, tmp_path):
    few = [*EARLY]
    few[few.index("16384")] = "40"
    with s_server(pki, *few) as one:
        warm(one, tmp_path, one.url(pki))
        with connecting(tmp_path, one.url(pki)) as process:
            one.wait(b"GET /early\n")
            one.say(GO_ON + b"hello")
            assert process.stdout.read(5) == b"hello"
            process.terminate()
            assert "resumed (1 round trip)" in process.stderr.read().decode()


def test_token_rejected_behind_early_data_is_not_asked_again(pki, tmp_path):
    """A copy of the request may have been first: the data that was with it is not sent a second time."""
    with s_server(pki, *EARLY) as one:
        warm(one, tmp_path, one.url(pki))
        with connecting(tmp_path, one.url(pki)) as process:
            one.wait(b"GET /early\n")
            one.say(auth6(True, option6(15), struct.pack("!HHII", 12, 12, 7, 4096)))
            assert process.wait(DEADLINE) == 3
            text = process.stderr.read().decode()
        assert "has seen the idempotence token of this request before" in text and "asking once more" not in text
