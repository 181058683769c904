"""`socks6 dns` and `socks6 dns --listen` with what makes a way to the proxy short: TLS, tickets, early data, sessions, tokens."""

import contextlib
import re
import socket
import struct
import subprocess
import threading

import dns.edns
import dns.rcode
import pytest

from cli_peers import (DEADLINE, SESSION_REQUEST, Peer, auth6, client_environment, client_path, option6, read_to_end, relay,
                       reply6)
from dns_peers import DnsProxy, NameServer, answering, serve
from lib.net import wait_until
from lib.tls import Authority
from test_cli_dns_listen import A, Local, query, texts
from test_cli_tls import EARLY, GO_ON, GRANT, TlsProxy, make_certificates, s_server

RESUMED = "TLSv1.3, resumed, early data accepted (0 round trips)"
WHOLE = "TLSv1.3 (1 round trip)"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    make_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("authority"))
    one.server = one.issue("proxy.test", alternatives="DNS:proxy.test,DNS:localhost,IP:127.0.0.1")
    return one


@pytest.fixture(scope="module")
def name_server():
    with NameServer(answering(A)) as server:
        yield server


@pytest.fixture
def start(daemon, authority, name_server):
    """start(address): the daemon, with TLS and the DNS service."""
    def run(address="127.0.0.1:0", **tls):
        certificate, key = authority.server
        return daemon(listeners=[{"address": address, "tls": {"certificate": certificate, "key": key, **tls}}],
                      dns={"upstream": [f"udp://127.0.0.1:{name_server.port}"], "hosts": "none"})
    return run


@pytest.fixture
def cache(tmp_path):
    return {"XDG_CACHE_HOME": str(tmp_path / "cache")}


class Cutter(Peer):
    """A way to a port of this machine, of which all connections can be cut."""

    def __init__(self, port):
        self.to, self.upstreams = port, []
        super().__init__(self._pass)

    def _pass(self, sock):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.to), DEADLINE) as upstream:
            self.upstreams.append(upstream)
            relay(sock, upstream)

    def cut(self):
        for sock in self.socks + self.upstreams:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def url_of(port, ca, host="127.0.0.1"):
    return f"socks6s://{host}:{port}?ca={ca}"


def ask(url, *words, env=None):
    done = subprocess.run([client_path(), "-x", url, "dns", "+short", *words], env=client_environment(**(env or {})),
                          capture_output=True, timeout=DEADLINE, check=False)
    assert b"Sanitizer" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr.decode()


def token_of(text):
    return [int(one) for one in re.findall(r"token (\d+) is spent on this request", text)]


# One question.

def test_the_second_run_resumes_and_its_question_is_early_data(start, authority, cache):
    url = url_of(start().addr[1], authority.pem)
    code, out, err = ask(url, "-v", "x.test", env=cache)
    assert (code, out) == (0, b"192.0.2.1\n") and WHOLE in err and "no session with this proxy is known" in err
    assert "3 round trips to the proxy" in err
    tokens = []
    for _ in range(3):
        code, out, err = ask(url, "-v", "x.test", env=cache)
        assert (code, out) == (0, b"192.0.2.1\n") and RESUMED in err and "the token is accepted" in err, err
        tokens += token_of(err)
    assert tokens == [(tokens[0] + i) % 2**32 for i in range(3)]


@pytest.mark.parametrize("option,texts", [
    ("--no-early-data", ["TLSv1.3, resumed (1 round trip)", "a session is known; token"]),
    ("--no-session", [WHOLE]),
])
def test_early_data_is_not_used_where_it_is_not_wanted(start, authority, cache, option, texts):
    url = url_of(start().addr[1], authority.pem)
    ask(url, "x.test", env=cache)
    code, out, err = ask(url, "-v", option, "x.test", env=cache)
    assert (code, out) == (0, b"192.0.2.1\n") and "early data accepted" not in err
    assert all(text in err for text in texts), err
    assert ("session" in err) == (option != "--no-session")


QUESTION = b"\x01x\x04test\x00\x00\x01\x00\x01"


@contextlib.contextmanager
def asking(url, cache):
    """One `socks6 dns`, whose proxy is fed by hand."""
    with subprocess.Popen([client_path(), "-x", url, "dns", "-v", "+short", "x.test"], env=client_environment(**cache),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def answer_by_hand(one, replies):
    """Waits for the question, and answers it behind `replies`."""
    seen = one.wait(QUESTION)
    head = len(seen) - len(QUESTION) - 12
    message = seen[head:head + 2] + b"\x81\x80\0\1\0\1\0\0\0\0" + QUESTION + b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4\xc0\0\2\1"
    one.say(replies + struct.pack("!H", len(message)) + message)


def outcome(process):
    out, err = process.communicate(timeout=DEADLINE)
    assert (process.returncode, out) == (0, b"192.0.2.1\n"), err
    return err.decode()


def test_a_question_is_early_data_only_with_a_token(pki, cache):
    """The proxy grants a session without tokens: a copy of the flight would be acted on."""
    with s_server(pki, *EARLY) as one:
        for grant in (auth6(False, option6(6, b"i" * 16)), auth6(False, option6(8))):
            with asking(one.url(pki), cache) as process:
                answer_by_hand(one, grant + reply6())
                text = outcome(process)
        assert "TLSv1.3, resumed (1 round trip)" in text and "a session is known, but no token is left" in text


def test_a_rejected_token_is_replaced_although_the_question_was_early_data(pki, cache):
    """Whether somebody has repeated it or not: a question may be asked twice."""
    with s_server(pki, *EARLY) as one:
        with asking(one.url(pki), cache) as process:
            answer_by_hand(one, GRANT)
            outcome(process)
        with asking(one.url(pki), cache) as process:
            one.wait(QUESTION)
            one.say(auth6(True, option6(15), struct.pack("!HHII", 12, 12, 7, 4096)))
            answer_by_hand(one, GO_ON)
            text = outcome(process)
        first, second = token_of(text)
        assert first == 7 and second > 8 and text.count("early data accepted") == 2 and "asking once more" in text


@pytest.mark.parametrize("certificate, host, text", [
    ("wrong", "127.0.0.1", "certificate is not for 127.0.0.1"),
    ("wrong", "localhost", "certificate is not for localhost"),
    ("expired", "127.0.0.1", "certificate has expired"),
    ("foreign", "127.0.0.1", "signed by an authority that is not trusted here"),
])
def test_wrong_certificates_are_refused_and_nothing_is_sent(pki, certificate, host, text):
    with TlsProxy(pki, certificate, inner=DnsProxy(answering(A))) as proxy:
        url = proxy.url("alice:hunter2@", host=host, ca=pki / "ca.pem")
        code, out, err = ask(url, "-4", "x.test")
        assert (code, out) == (3, b"") and text in err
        wait_until(lambda: len(proxy.failed) == 1, "the end of the handshake")
        with Local(url, "-4") as local:
            assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
            local.wait_text(text)
            local.wait_text("answered with SERVFAIL until that changes")
        wait_until(lambda: len(proxy.failed) == 2, "the end of the handshake")
        assert not proxy.requests and not proxy.inner.socks


@pytest.mark.parametrize("listen", [[], ["--listen", "127.0.0.1:0"]])
@pytest.mark.parametrize("parameter, text", [("ca", "as certificates of authorities (ca=)"), ("cert", "as our certificate (cert=)")])
def test_files_that_cannot_be_used_are_said_at_once(parameter, text, listen):
    done = subprocess.run([client_path(), "-x", f"socks6s://127.0.0.1:1?{parameter}=/nonexistent", "dns", *(listen or ["x.test"])],
                          env=client_environment(), capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == 2 and text in done.stderr.decode(), done.stderr


# The local server.

def test_a_local_server_over_tls_answers_everything(pki):
    answer = answering(texts(300))
    with TlsProxy(pki, inner=DnsProxy(answer)) as proxy, Local(proxy.url(ca=pki / "ca.pem")) as local:
        for _ in range(5):
            assert local.tcp(query("x.test", "TXT")).answer == answer(query("x.test", "TXT")).answer
        threads = [threading.Thread(target=lambda: local.tcp(query("x.test", "TXT"))) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert len(proxy.inner.requests) == 1 and len(proxy.inner.queries) == 55 and proxy.alpn == ["socks6"]
        assert not proxy.failed


def test_the_name_of_the_url_is_verified_and_its_addresses_are_used(pki):
    with TlsProxy(pki, inner=DnsProxy(answering(A))) as proxy, \
            Local(proxy.url(host="localhost", ca=pki / "ca.pem"), "-4") as local:
        assert local.udp(query()).answer == [A]
        assert proxy.names == ["localhost"]


def test_a_client_certificate_is_shown(pki):
    with TlsProxy(pki, client_ca=pki / "ca.pem", inner=DnsProxy(answering(A))) as proxy, \
            Local(proxy.url(ca=pki / "ca.pem", cert=pki / "client-both.pem")) as local:
        assert local.udp(query()).answer == [A]
        assert proxy.subjects[-1]["subjectAltName"] == (("DNS", "alice"),)


def test_the_second_connection_takes_the_ticket_of_the_first(pki):
    """And each is ended with close_notify: the proxy says that it waits for nothing (RFC 7828)."""
    def handler(stream):
        serve(stream, answering(A, options=[dns.edns.GenericOption(11, b"\0\0")]))
    with TlsProxy(pki, inner=DnsProxy(handler=handler)) as proxy, Local(proxy.url(ca=pki / "ca.pem")) as local:
        for count in range(1, 4):
            assert local.udp(query()).answer == [A]
            wait_until(lambda: len(proxy.reused) == count and not any(thread.is_alive() for thread in proxy.threads), "the end")
        assert proxy.reused == [False, True, True] and not proxy.failed


@pytest.mark.parametrize("keeps", [True, False])
def test_a_connection_that_is_cut_is_replaced_with_early_data(start, authority, cache, keeps):
    """With a cache file, and without: then session and ticket are kept in memory."""
    with Cutter(start().addr[1]) as way:
        env = cache if keeps else {}
        with Local(url_of(way.port, authority.pem), "-v", env=env) as local:
            assert local.udp(query()).answer == [A]
            local.wait_text(WHOLE)
            for count in range(1, 4):
                way.cut()  # without close_notify; the question is asked once more if it went there
                assert local.udp(query()).answer == [A]
                wait_until(lambda: local.text().count(RESUMED) == count, local.text)
            tokens = token_of(local.text())
            assert tokens == [(tokens[0] + i) % 2**32 for i in range(3)]
            assert local.text().count("the token is accepted") == 3
            way.cut()
        if keeps:  # what the listener knew is there for others
            code, _, err = ask(url_of(way.port, authority.pem), "-v", "x.test", env=cache)
            assert code == 0 and RESUMED in err and token_of(err)[0] == (tokens[-1] + 1) % 2**32
        else:
            assert local.text().count("the cache cannot be used") <= 1


@pytest.mark.parametrize("option,text", [("--no-early-data", "TLSv1.3, resumed (1 round trip)"), ("--no-session", WHOLE)])
def test_a_local_server_without_early_data_or_sessions(start, authority, option, text):
    with Cutter(start().addr[1]) as way, Local(url_of(way.port, authority.pem), "-v", option) as local:
        for _ in range(2):
            assert local.udp(query()).answer == [A]
            way.cut()
        assert text in local.text() and "early data accepted" not in local.text()
        assert ("session" in local.text()) == (option != "--no-session")


def test_the_proxy_is_restarted_under_a_local_server(start, authority):
    """Its sessions and the keys of its tickets are gone: the next question comes by a second attempt, early data included."""
    first = start()
    port = first.addr[1]
    with Local(url_of(port, authority.pem), "-v") as local:
        assert local.udp(query()).answer == [A]
        first.stop()
        start(f"127.0.0.1:{port}")
        assert local.udp(query()).answer == [A]
        assert "early data rejected and sent again" in local.text()
        assert local.text().count("does not know our session; asking once more over another connection") == 1
        assert local.udp(query()).answer == [A]


def test_the_proxy_is_gone_and_comes_back(start, authority):
    first = start()
    port = first.addr[1]
    with Local(url_of(port, authority.pem)) as local:
        assert local.udp(query()).answer == [A]
        first.stop()
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        local.wait_text("answered with SERVFAIL until that changes")
        start(f"127.0.0.1:{port}")
        wait_until(lambda: local.udp(query()).answer == [A], "the service")
        local.wait_text("answers again")


def test_a_proxy_that_hangs_in_the_handshake_is_servfail_in_time(pki):
    with Peer(read_to_end) as proxy, Local(f"socks6s://127.0.0.1:{proxy.port}?ca={pki}/ca.pem", "-w", 1) as local:
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        local.wait_text("timed out")


# Without TLS.

def test_a_local_server_has_a_session(daemon, name_server, cache):
    one = daemon(dns={"upstream": [f"udp://127.0.0.1:{name_server.port}"], "hosts": "none"})
    with Cutter(one.addr[1]) as way, Local(f"socks6://127.0.0.1:{way.port}", "-v", env=cache) as local:
        for _ in range(4):
            assert local.udp(query()).answer == [A]
            way.cut()
        tokens = token_of(local.text())
        assert len(tokens) == 3 and len(set(tokens)) == 3 and local.text().count("a session begins") == 1


@pytest.mark.parametrize("option,goes_on", [([], True), (["--no-session"], False)])
def test_one_run_has_the_session_of_another(daemon, name_server, cache, option, goes_on):
    one = daemon(dns={"upstream": [f"udp://127.0.0.1:{name_server.port}"], "hosts": "none"})
    url = f"socks6://127.0.0.1:{one.addr[1]}"
    assert ask(url, "x.test", env=cache)[:2] == (0, b"192.0.2.1\n")
    code, _, err = ask(url, "-v", *option, "x.test", env=cache)
    assert code == 0 and bool(token_of(err)) == goes_on


def test_a_proxy_without_sessions_is_asked_as_before(cache):
    with DnsProxy(answering(A)) as proxy:
        for _ in range(2):
            assert ask(proxy.url(), "x.test", env=cache)[:2] == (0, b"192.0.2.1\n")
        with Local(proxy.url(), env=cache) as local:
            assert local.udp(query()).answer == [A]
        assert [SESSION_REQUEST in dict(one.options) for one in proxy.requests] == [True] * 3
        assert all(b"\x01x\x04test" in early for early in proxy.early)
