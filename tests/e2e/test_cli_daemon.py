"""`socks6 connect` through socks6d: sessions, TLS, early data and TCP Fast Open of both, together."""

import contextlib
import json
import socket
import subprocess
import threading

import pytest

from lib import isolate
from lib.daemon import client_binary, environment
from lib.net import DEADLINE, listening, pattern, recv_all, sha
from lib.tls import Authority
from lib.users import Users


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("tls"))
    one.server = one.issue("proxy.test", alternatives="DNS:proxy.test,IP:127.0.0.1,IP:10.1.0.1")
    one.alice = one.issue("alice", alternatives=None)
    return one


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return Users(tmp_path_factory.mktemp("users"), alice="secret")


def tls_listener(authority, address="127.0.0.1:0", **more):
    certificate, key = authority.server
    return {"address": address, "tls": {"certificate": certificate, "key": key, **more}}


@pytest.fixture
def connect(tmp_path):
    def run(url, host, port, *options, data=b"ping", wrapper=()):
        return subprocess.run([*wrapper, client_binary(), "connect", "-v", "-x", url, *options, host, str(port)], input=data,
                              capture_output=True, timeout=DEADLINE, check=False,
                              env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")))
    return run


def good(done, data, *texts):
    assert (done.returncode, done.stdout) == (0, data), done.stderr.decode()
    for text in texts:
        assert text in done.stderr.decode(), done.stderr.decode()


def test_second_connection_shows_its_session(daemon, users, echo, connect):
    proxy = daemon(auth=users.auth())
    url = "socks6://alice:secret@%s:%d" % proxy.addr
    good(connect(url, *echo.addr, "-N"), b"ping", "a session begins", "a window of")
    for _ in range(3):
        good(connect(url, *echo.addr, "-N", "--early"), b"ping", "the session goes on; the token is accepted", "2 round trips")


def test_session_that_a_restart_has_ended(daemon, users, echo, connect):
    proxy = daemon(auth=users.auth())
    url = "socks6://alice:secret@%s:%d" % proxy.addr
    good(connect(url, *echo.addr, "-N"), b"ping")
    proxy.stop()
    again = daemon(listeners=["%s:%d" % proxy.addr], auth=users.auth())
    assert again.addr == proxy.addr
    good(connect(url, *echo.addr, "-N", "--early"), b"ping", "does not know our session; asking once more", "a session begins")


@pytest.mark.parametrize("secure", [False, True])
def test_a_hundred_at_once_and_none_rejected(daemon, users, authority, echo, connect, tmp_path, secure):
    proxy = daemon(listeners=[tls_listener(authority) if secure else "127.0.0.1:0"], auth=users.auth())
    url = "socks6%s://alice:secret@%s:%d%s" % ("s" if secure else "", *proxy.addr, f"?ca={authority.pem}" if secure else "")
    good(connect(url, *echo.addr, "-N"), b"ping")
    running = [subprocess.Popen([client_binary(), "connect", "-N", "-v", "--early", "-x", url, echo.addr[0], str(echo.addr[1])],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=environment(XDG_CACHE_HOME=str(tmp_path / "cache")))
               for _ in range(100)]
    for process in running:
        out, err = process.communicate(b"ping", DEADLINE)
        assert (process.returncode, out) == (0, b"ping"), err
        assert b"the token is accepted" in err and b"asking once more" not in err, err


def test_over_tls_a_known_proxy_takes_as_many_round_trips_as_without(daemon, users, authority, echo, connect):
    proxy = daemon(listeners=[tls_listener(authority)], auth=users.auth())
    url = "socks6s://alice:secret@%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    good(connect(url, *echo.addr, "-N", "--early"), b"ping", "TLSv1.3 (1 round trip)", "3 round trips")
    for _ in range(2):
        good(connect(url, *echo.addr, "-N", "--early"), b"ping", "resumed, early data accepted (0 round trips)", "2 round trips")


def test_listener_without_early_data(daemon, authority, echo, connect):
    proxy = daemon(listeners=[tls_listener(authority, early_data=False)])
    url = "socks6s://%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    good(connect(url, *echo.addr, "-N"), b"ping")
    good(connect(url, *echo.addr, "-N"), b"ping", "resumed (1 round trip)", "3 round trips")


def test_probe_over_tls_cold_and_warm(daemon, users, authority):
    proxy = daemon(listeners=[tls_listener(authority)], auth=users.auth())
    url = "socks6s://alice:secret@%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    done = subprocess.run([client_binary(), "probe", "--json", url], capture_output=True, timeout=DEADLINE, check=False,
                          env=environment())
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["summary"]
    checks = report["checks"]
    assert "TLSv1.3" in checks["connection.tcp"]["text"] and checks["version.socks6"]["state"] == "yes"
    assert checks["session.tokens"]["state"] == "yes"
    assert checks["time.cold"]["value"] == 3
    assert checks["time.warm"]["value"] == 2 and "TLS early data, in a session with a token" in checks["time.warm"]["text"]


@pytest.mark.parametrize("query, text", [("", "authority that is not trusted"), ("ca=/nonexistent", "cannot use /nonexistent")])
def test_probe_of_a_certificate_that_is_not_good(daemon, authority, query, text):
    proxy = daemon(listeners=[tls_listener(authority)])
    done = subprocess.run([client_binary(), "probe", "socks6s://%s:%d?%s" % (*proxy.addr, query)], capture_output=True,
                          timeout=DEADLINE, check=False, env=environment(SSL_CERT_FILE="/dev/null"))
    assert done.returncode == 3 and text in done.stdout.decode()


def test_either_end_first_over_tls(daemon, authority, connect):
    proxy = daemon(listeners=[tls_listener(authority)])
    url = "socks6s://%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    up, down = pattern(3 << 20), pattern((2 << 20) + 1)
    for server_first in (True, False):
        with listening() as server:
            got = []

            def serve(server=server, got=got, server_first=server_first):
                with server.accept_one() as sock:
                    if server_first:
                        sock.sendall(down)
                        sock.shutdown(socket.SHUT_WR)
                        got.append(recv_all(sock))
                    else:
                        got.append(recv_all(sock))
                        sock.sendall(down)
            thread = threading.Thread(target=serve)
            thread.start()
            done = connect(url, *server.addr, "-N", data=up)
            thread.join(DEADLINE)
        assert done.returncode == 0, done.stderr
        assert sha(done.stdout) == sha(down) and sha(got[0]) == sha(up)


def test_reset_by_the_server_over_tls(daemon, authority, connect):
    proxy = daemon(listeners=[tls_listener(authority)])
    url = "socks6s://%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    with listening() as server:
        def serve():
            with server.accept_one() as sock:
                sock.recv(4, socket.MSG_WAITALL)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        thread = threading.Thread(target=serve)
        thread.start()
        done = connect(url, *server.addr, "--no-shutdown")
        thread.join(DEADLINE)
    assert done.returncode == 1 and b"lost: " in done.stderr


def test_client_certificate_is_the_login(daemon, authority, echo, connect):
    proxy = daemon(listeners=[tls_listener(authority, client_ca=authority.pem)])
    url = "socks6s://%s:%d?ca=%s" % (*proxy.addr, authority.pem)
    certificate, key = authority.alice
    good(connect(f"{url}&cert={certificate}&key={key}", *echo.addr, "-N"), b"ping")


def test_everything_at_once_takes_one_round_trip(isolation, daemon, users, authority, connect):
    """A password, TLS, early data, a token, TCP Fast Open: the request and the data leave with the SYN."""
    del isolation
    with contextlib.closing(isolate.NetNs("one")) as space:
        space.sysctl(net__ipv4__tcp_fastopen=3)
        proxy = daemon(listeners=[tls_listener(authority)], auth=users.auth(), wrapper=space.wrapper)
        url = "socks6s://alice:secret@%s:%d?ca=%s" % (*proxy.addr, authority.pem)
        with space.tcp_socket(socket.AF_INET) as server:
            server.bind(("127.0.0.1", 0))
            server.listen()

            def serve():
                for _ in range(2):
                    with server.accept_one() as sock:
                        sock.sendall(recv_all(sock))
            thread = threading.Thread(target=serve)
            thread.start()
            for trips in ("3 round trips", "1 round trip to the proxy"):
                done = connect(url, *server.getsockname(), "-N", "--early", wrapper=space.wrapper)
                good(done, b"ping", trips)
            thread.join(DEADLINE)
        good(done, b"ping", "by TCP Fast Open, with", "early data accepted", "the token is accepted")
