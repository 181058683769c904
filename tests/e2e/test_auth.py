"""Logging in, by every protocol: who is let in, what the others are told, and what the log says."""

import contextlib
import itertools
import json
import os
import ssl
import subprocess

import pytest

from lib import socks6 as s6
from lib.clients import finish6, noop6, socks4_dial, socks5_dial, socks6_dial
from lib.daemon import Daemon, base_config, environment, run_daemon
from lib.net import DEADLINE, dial, has_ended, listening, nobody_is_waiting, recv_all, recv_exact, reset, wait_until
from lib.tls import Authority, Tls, client_context
from lib.users import Users, noop_as, socks5_as, socks5_login

LONGEST = "n" * 255, "p" * 255
# Of the empty password, which `socks6 passwd` does not take.
EMPTY_HASH = ("$6$rounds=1000$saltsaltsaltsalt$iJqbB/BYYp/k8hcL2A"
              "Yn5BDNHh9Q6TCCHLgS3lYXHdw/RGAJ9EMTSJXZi6WacUamFVuuJcWBPILX97MOz/Sri0")
_sources = itertools.count(1)


def elsewhere():
    """A client's address that nobody has guessed from yet: after ten wrong passwords it would have to wait."""
    number = next(_sources)
    return f"127.9.{number // 250}.{number % 250 + 1}", 0


def reason(proxy, client):
    """Of the connection from `client`, or from anywhere there, as its line says it."""
    text = "%s:%d" % client if client[1] else client[0] + ":"
    return proxy.access(match=lambda r: r["client"].startswith(text))[-1]["reason"]


def status(reply):
    """What Authentication Data of a reply says; None: there is none."""
    data = reply.get(s6.AUTH_DATA)
    return None if data is None else (data[0], data[2])


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    one = Users(tmp_path_factory.mktemp("users"), alice="secret", bob="hunter2")
    one.set(*LONGEST, "-m", "sha512crypt", "-C", "1000")
    one.add_hash("empty", EMPTY_HASH)
    one.add_hash("robot", "*")
    return one


@pytest.fixture(scope="module")
def guarded(users):
    """One daemon that wants passwords. Its rules: bob may not connect to ports below 1024."""
    rules = [{"deny": {"users": ["bob"], "ports": ["1-1023"]}}, {"allow": {}}]
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth(), rules=rules)) as one:
        yield one


@pytest.fixture(scope="module")
def both(users):
    """One that also lets the anonymous in."""
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth("password", "anonymous"))) as one:
        yield one


# SOCKS 6 --------------------------------------------------------------------------------------------------------------


def test_the_right_password_is_let_in_and_the_user_is_in_the_log(guarded, echo):
    mark = guarded.mark()
    tunnel = socks6_dial(guarded.addr, *echo.addr, options=s6.userpass(b"alice", b"secret"), early=b"hello")
    with tunnel as sock:
        assert tunnel.ok and status(tunnel.reply.auth) == (2, 0)
        assert recv_exact(sock, 5) == b"hello"
    record, = guarded.access(since=mark)
    assert record["user"] == "alice" and record["protocol"] == "socks6" and record["reply"] == 0
    assert "secret" not in guarded.text()


def test_the_longest_name_and_password(guarded):
    auth, code = noop_as(guarded.addr, *(text.encode() for text in LONGEST))
    assert auth.success and code == s6.SUCCESS
    auth, code = noop_as(guarded.addr, LONGEST[0].encode(), b"p" * 254, source=elsewhere())
    assert not auth.success


@pytest.mark.parametrize("user, password", [(b"alice", b"Secret"), (b"alice", b""), (b"alice", b"secret\0"), (b"nobody", b"secret"),
                                            (b"Alice", b"secret"), (b"alice ", b"secret"), (b"alice\0", b"secret"), (b"", b""),
                                            (b"robot", b"*"), (b"robot", b""), (b"\n<3>forged", b"x"),
                                            (b"x" * 255, b"y" * 255)], ids=range(12))
def test_wrong_ones_are_refused_and_their_early_data_goes_nowhere(guarded, user, password):
    with listening() as server, contextlib.closing(dial(guarded.addr, source=elsewhere())) as sock:
        client = sock.getsockname()
        sock.sendall(s6.request(*server.addr, options=s6.userpass(user, password)) + b"early")
        auth = s6.read_auth_reply(sock)
        assert not auth.success and status(auth) == (2, 1) and auth.get(s6.SELECTION) is None
        assert recv_all(sock) == b""
        assert nobody_is_waiting(server)
    record, = guarded.access(match=lambda r: r["client"] == "%s:%d" % client)
    assert record["reason"] == "wrong user name or password" and record["user"] is None and record["reply"] is None
    assert record["asked"] is None, "nobody was told what was asked for"
    assert "forged" not in guarded.text()


def test_only_the_first_credentials_are_tried(guarded):
    wrong, right = s6.userpass(b"alice", b"wrong"), s6.userpass(b"alice", b"secret")
    for options, good in ((wrong + right, False), (right + wrong, True)):
        with contextlib.closing(dial(guarded.addr, source=elsewhere())) as sock:
            sock.sendall(s6.noop(options))
            assert s6.read_auth_reply(sock).success == good


@pytest.mark.parametrize("data", [
    b"\x02\x01\xff" + b"a" * 5, b"\x02\x01\x05alice\xff" + b"s" * 6, b"\x02\x05\x05alice\x06secret", b"\x02", b"\x02\x01\x05alice"])
def test_malformed_credentials_are_refused(guarded, data):
    with contextlib.closing(dial(guarded.addr, source=elsewhere())) as sock:
        sock.sendall(s6.noop(s6.option(s6.AUTH_DATA, data)))
        assert not s6.read_auth_reply(sock).success
        assert recv_all(sock) == b""


def test_without_credentials_nobody_is_let_in(guarded):
    for options in (b"", s6.advertisement(0, [1, 3]), s6.option(s6.AUTH_DATA, b"\x03\x01\x05alice\x06secret"), s6.session_request(),
                    s6.expenditure(1) + s6.window_request(5), s6.session_teardown()):
        with contextlib.closing(dial(guarded.addr)) as sock:
            sock.sendall(s6.noop(options))
            auth = s6.read_auth_reply(sock)
            assert not auth.success and auth.options == []
            assert recv_all(sock) == b""
            client = sock.getsockname()
        assert reason(guarded, client) == "no credentials"


def test_an_unknown_address_type_tells_strangers_nothing(guarded):
    with contextlib.closing(dial(guarded.addr)) as sock:
        sock.sendall(s6.request(None, 80, atyp=9, raw_address=b"\1\2\3\4"))
        assert not s6.read_auth_reply(sock).success
        assert recv_all(sock) == b""


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_long_form_of_older_clients(guarded, echo, chunk):
    """Advertisement, selection, RFC 1929 on the stream, second reply; with initial data, which is delivered after it."""
    initial = b"initial data"
    with contextlib.closing(dial(guarded.addr)) as sock:
        sock.sendall(s6.request(*echo.addr, options=s6.advertisement(len(initial), [2])) + initial)
        first = s6.read_auth_reply(sock)
        assert not first.success and first.options == [(s6.SELECTION, b"\2\0\0\0")]
        login = s6.rfc1929(b"alice", b"secret") + b" and more"
        for at in range(0, len(login), chunk):
            sock.sendall(login[at:at + chunk])
        assert recv_exact(sock, 2) == b"\1\0"
        assert s6.read_auth_reply(sock).success
        assert s6.read_op_reply(sock).code == s6.SUCCESS
        assert recv_exact(sock, len(initial) + 9) == initial + b" and more"


def test_the_long_form_can_fail(guarded):
    client = elsewhere()
    with contextlib.closing(dial(guarded.addr, source=client)) as sock:
        sock.sendall(s6.noop(s6.advertisement(0, [2])))
        assert s6.read_auth_reply(sock).get(s6.SELECTION) == b"\2\0\0\0"
        sock.sendall(s6.rfc1929(b"alice", b"wrong"))
        assert recv_exact(sock, 2) == b"\1\1"
        assert not s6.read_auth_reply(sock).success
        assert recv_all(sock) == b""
    assert reason(guarded, client) == "wrong user name or password"


def test_rules_know_the_user(guarded, echo):
    for user, password, port, code in ((b"bob", b"hunter2", 9, s6.RULES), (b"bob", b"hunter2", echo.port, s6.SUCCESS),
                                       (b"alice", b"secret", 9, s6.REFUSED)):
        tunnel = socks6_dial(guarded.addr, "127.0.0.1", port, options=s6.userpass(user, password))
        with tunnel:
            assert tunnel.code == code


def test_rules_with_users_hold_for_noop_and_the_dns_service(users):
    rules = [{"allow": {"users": ["alice"]}}, {"deny": {}}]
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth("password", "anonymous"), rules=rules)) as one:
        assert noop6(one.addr) == s6.RULES
        assert noop_as(one.addr, b"bob", b"hunter2")[1] == s6.RULES
        assert noop_as(one.addr, b"alice", b"secret")[1] == s6.SUCCESS
        for user, password, code in ((b"bob", b"hunter2", s6.RULES), (b"alice", b"secret", s6.SUCCESS)):
            tunnel = socks6_dial(one.addr, "0.0.0.0", 53, options=s6.userpass(user, password))
            with tunnel:
                assert tunnel.code == code


# The older ones -------------------------------------------------------------------------------------------------------


def test_socks5_with_the_right_password(guarded, echo):
    mark = guarded.mark()
    with socks5_as(guarded.addr, b"alice", b"secret", *echo.addr, early=b"hello") as sock:
        assert recv_exact(sock, 5) == b"hello"
    assert guarded.access(since=mark)[0]["user"] == "alice"


def test_socks5_all_in_one_segment(guarded, echo):
    """Greeting, login, request and data, without waiting for anything; the first time the password is hashed meanwhile."""
    message = (s6.socks5_greeting((0, 2)) + s6.rfc1929(b"bob", b"hunter2") + s6.socks5_request(*echo.addr) + b"x" * 9000)
    for chunk in (len(message), 1300, 11):
        with contextlib.closing(dial(guarded.addr)) as sock:
            for at in range(0, len(message), chunk):
                sock.sendall(message[at:at + chunk])
            assert recv_exact(sock, 4) == b"\5\2\1\0"
            assert s6.read_socks5_reply(sock).code == s6.SUCCESS
            assert recv_exact(sock, 9000) == b"x" * 9000


def test_socks5_wrong_passwords(guarded):
    for user, password in ((b"alice", b"wrong"), (b"nobody", b"secret"), (b"alice", b""), (b"x" * 255, b"y" * 255)):
        client = elsewhere()
        with contextlib.closing(dial(guarded.addr, source=client)) as sock:
            assert socks5_login(sock, user, password) == (2, 1)
            assert recv_all(sock) == b""
        assert reason(guarded, client) == "wrong user name or password"


def test_socks5_an_empty_password_can_be_right(guarded):
    with contextlib.closing(dial(guarded.addr)) as sock:
        assert socks5_login(sock, b"empty", b"") == (2, 0)


@pytest.mark.parametrize("methods", [(0,), (1,), (), tuple(range(3, 256))])
def test_socks5_without_a_fitting_method(guarded, methods):
    with contextlib.closing(dial(guarded.addr)) as sock:
        sock.sendall(s6.socks5_greeting(methods))
        assert recv_all(sock) == b"\x05\xff"
        client = sock.getsockname()
    assert reason(guarded, client) == "no acceptable authentication method"


def test_socks4_cannot_log_in(guarded, echo):
    for host in ("127.0.0.1", "localhost"):
        tunnel = socks4_dial(guarded.addr, host, echo.port, user=b"alice")
        with tunnel as sock:
            assert not tunnel.ok and tunnel.reply.code == s6.SOCKS4_FAILED
            assert recv_all(sock) == b""
            client = sock.getsockname()
        assert reason(guarded, client) == "SOCKS 4 cannot log in"


def test_with_both_the_anonymous_are_let_in_and_names_must_be_true(both, echo):
    with socks4_dial(both.addr, *echo.addr, user=b"alice") as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    with socks5_dial(both.addr, *echo.addr, early=b"x") as sock:
        assert sock.recv(1) == b"x"
    assert noop6(both.addr) == s6.SUCCESS
    with contextlib.closing(dial(both.addr)) as sock:
        sock.sendall(s6.noop(s6.advertisement(0, [2])))
        assert finish6(sock).code == s6.SUCCESS
    auth, code = noop_as(both.addr, b"alice", b"secret")
    assert status(auth) == (2, 0) and code == s6.SUCCESS
    auth, code = noop_as(both.addr, b"alice", b"wrong", source=elsewhere())
    assert not auth.success and code is None
    with contextlib.closing(dial(both.addr)) as sock:
        assert socks5_login(sock, b"alice", b"secret", (0, 2)) == (2, 0), "who offers both shall say who it is"
    with contextlib.closing(dial(both.addr)) as sock:
        assert socks5_login(sock, b"alice", b"wrong", (0, 2)) == (2, 1)


def test_where_only_certificates_count_whoever_has_none_is_refused(tmp_path, daemon, echo):
    """By every protocol, with TLS and without; and the daemon lives."""
    users = Users(tmp_path, alice="secret")
    authority = Authority(tmp_path)
    certificate, key = authority.issue("proxy.test")
    tls = {"certificate": certificate, "key": key, "client_ca": authority.pem}
    proxy = daemon(listeners=[{"address": "127.0.0.1:0", "tls": tls}, "127.0.0.1:0"], auth=users.auth("certificate"))
    context = client_context(authority)
    messages = {
        s6.socks5_greeting((0, 2)): b"\x05\xff", s6.socks4_request(*echo.addr, b"alice"): b"\x00\x5b" + bytes(6),
        s6.request(*echo.addr, options=s6.userpass(b"alice", b"secret")): None, s6.noop(s6.session_request()): None}
    secure, plain = proxy.listeners()[:2]
    for message, answer in messages.items():
        with contextlib.closing(dial(plain)) as sock:
            sock.sendall(message)
            if answer is None:
                assert not s6.read_auth_reply(sock).success
            else:
                assert s6.Reader(sock).read(len(answer)) == answer
        with contextlib.closing(Tls(secure, context)) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
            sock.sendall(message)
            sock.recv(1)
    assert proxy.alive()


# Real clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--socks5", "--socks5-hostname"])
def test_curl(guarded, nginx, tmp_path, option):
    del tmp_path
    url = f"http://127.0.0.1:{nginx.port}/"
    def curl(user):
        return subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "", option,
                               "%s:%d" % guarded.addr, "--proxy-user", user, url], env=environment(), capture_output=True,
                              timeout=DEADLINE, check=False)
    done = curl("alice:secret")
    assert done.returncode == 0 and done.stdout in (b"200", b"403", b"404"), done
    done = curl("alice:wrong")
    assert done.returncode == 97 and b"User was rejected by the SOCKS5 server" in done.stderr, done


def test_socks6_connect(guarded, echo, client):
    host, port = guarded.addr
    done = client("-x", f"socks6://alice:secret@{host}:{port}", "connect", *echo.addr, input=b"hello")
    assert (done.returncode, done.stdout) == (0, b"hello"), done.stderr
    done = client("-x", f"socks6://alice:wrong@{host}:{port}", "connect", *echo.addr, input=b"hello")
    assert done.returncode == 3 and done.stdout == b"" and b"refused the user name or password" in done.stderr, done.stderr


def in_memory(pid, wanted):
    """Which of `wanted` can be found in what the process can write."""
    found = set()
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                first, last = (int(text, 16) for text in line.split()[0].split("-"))
                if line.split()[1].startswith("rw") and last - first < 1 << 30:  # larger ones are shadows of sanitizers
                    with contextlib.suppress(OSError):  # not all of it can be read
                        memory.seek(first)
                        data = memory.read(last - first)
                        found.update(text for text in wanted if text in data)
    except PermissionError:
        pytest.skip("the memory of other processes cannot be read here")
    return found


def test_passwords_do_not_stay_in_memory(tmp_path, daemon, echo):
    """Right, wrong and broken off in the middle; in one piece and byte by byte. The middle of each is looked for."""
    users = Users(tmp_path)
    right, wrong = b"<correct-horse-battery-staple>", b"<wrong-horse-battery-staple>"
    users.set("alice", right.decode())
    proxy = daemon(auth=users.auth(), listeners=["127.0.0.1:0"])
    for password in (right, wrong):
        source = elsewhere()
        login, request = s6.rfc1929(b"alice", password), s6.socks5_request(*echo.addr)
        for message in (s6.socks5_greeting((2,)) + login + request, s6.noop(s6.userpass(b"alice", password)),
                        s6.noop(s6.advertisement(0, [2])) + login):
            for chunk in (len(message), 1):
                for end in (len(message), message.index(password) + len(password) - 1):
                    with contextlib.closing(dial(proxy.addr, source=source)) as sock, contextlib.suppress(ConnectionError):
                        for at in range(0, end, chunk):
                            sock.sendall(message[at:min(at + chunk, end)])
                        sock.shutdown(1)
                        recv_all(sock)
    proxy.wait_fds()
    with open(users.path, "rb") as file:
        known = file.read()[6:40]  # of the hash, which must be there
    assert in_memory(proxy.pid, {right[3:-3], wrong[3:-3], known}) == {known}


# Guessing -------------------------------------------------------------------------------------------------------------


def test_an_address_that_guesses_must_wait_and_others_need_not(users):
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth())) as one:
        source = elsewhere()
        for guess in range(10):
            assert not noop_as(one.addr, b"alice", b"guess%d" % guess, source=source)[0].success
        # The eleventh failure is looked at and makes the address wait: a cached password is refused then, too.
        assert noop_as(one.addr, b"alice", b"secret", source=source)[0].success
        assert not noop_as(one.addr, b"alice", b"guess10", source=source)[0].success
        with contextlib.closing(dial(one.addr, source=source)) as sock:
            sock.sendall(s6.noop(s6.userpass(b"alice", b"secret")))
            auth = s6.read_auth_reply(sock)
            assert not auth.success and status(auth) == (2, 1)
            clients = [sock.getsockname()]
        with contextlib.closing(dial(one.addr, source=source)) as sock:
            assert socks5_login(sock, b"alice", b"secret") == (2, 1)
            clients.append(sock.getsockname())
        assert [reason(one, client) for client in clients] == ["too many wrong passwords from this address"] * 2
        assert noop_as(one.addr, b"alice", b"secret", source=elsewhere())[0].success
        wait_until(lambda: noop_as(one.addr, b"alice", b"secret", source=source)[0].success, "the end of the wait")


def test_too_many_at_once_are_busy(tmp_path):
    """Hashes that take a while: 64 guesses of one address may be under way, what comes beyond is refused at once."""
    users = Users(tmp_path)
    users.set("slow", "right", "-m", "sha512crypt", "-C", "2000000")
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth(), limits={"handshake": "10m"})) as one:
        source = elsewhere()
        with contextlib.ExitStack() as stack:
            waiting = []
            for guess in range(64):
                sock = stack.enter_context(contextlib.closing(dial(one.addr, source=source)))
                sock.sendall(s6.noop(s6.userpass(b"slow", b"guess%d" % guess)))
                waiting.append(sock)
            mark = one.mark()
            # Who asks last may be looked at before the others are: ask until one is told.
            def is_busy():
                with contextlib.closing(dial(one.addr, source=source)) as sock:
                    sock.sendall(s6.noop(s6.userpass(b"slow", os.urandom(8).hex().encode())))
                    sock.settimeout(0.2)
                    try:
                        return not s6.read_auth_reply(sock).success
                    except TimeoutError:
                        reset(sock)
                        return False
            wait_until(is_busy, "a refusal")
            wait_until(lambda: any(r["reason"] == "too many passwords to check" for r in one.access(since=mark)), "its line")
            assert not any(has_ended(sock) for sock in waiting[-10:])
            for sock in waiting:
                reset(sock)
        wait_until(lambda: one.fds() <= one.base_fds, "all of them to be gone")


def test_a_client_that_goes_while_its_password_is_checked_leaves_nothing(tmp_path, echo):
    users = Users(tmp_path)
    users.set("slow", "right", "-m", "sha512crypt", "-C", "1000000")
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth())) as one:
        for _ in range(20):
            with contextlib.closing(dial(one.addr, source=elsewhere())) as sock:
                sock.sendall(s6.request(*echo.addr, options=s6.userpass(b"slow", os.urandom(4).hex().encode())))
            with contextlib.closing(dial(one.addr, source=elsewhere())) as sock:
                sock.sendall(s6.socks5_greeting((2,)) + s6.rfc1929(b"slow", b"right") + s6.socks5_request(*echo.addr))
        assert noop_as(one.addr, b"slow", b"right")[0].success
        one.wait_fds()


def test_a_half_close_while_the_password_is_checked_is_passed_on(tmp_path, echo):
    users = Users(tmp_path)
    users.set("slow", "right", "-m", "sha512crypt", "-C", "200000")
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth())) as one:
        for request in (s6.request(*echo.addr, options=s6.userpass(b"slow", b"right")),
                        s6.socks5_greeting((2,)) + s6.rfc1929(b"slow", b"right") + s6.socks5_request(*echo.addr)):
            with contextlib.closing(dial(one.addr)) as sock:
                sock.sendall(request + b"all of it" * 20000)
                sock.shutdown(1)
                assert recv_all(sock).endswith(b"all of it" * 20000)


# Users come and go ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path, daemon):
    """(daemon, users) for one test alone."""
    users = Users(tmp_path, alice="secret", bob="hunter2")
    return daemon(auth=users.auth()), users


def by_socks6(proxy, echo, name, password):
    return socks6_dial(proxy.addr, *echo.addr, options=s6.userpass(name, password)).sock


def by_socks5(proxy, echo, name, password):
    return socks5_as(proxy.addr, name, password, *echo.addr).sock


def is_open(sock):
    sock.sendall(b"?")
    return recv_exact(sock, 1) == b"?"


@pytest.mark.parametrize("how", ["file", "reload"])
def test_a_user_who_is_removed_is_cut_and_nobody_else(own, echo, how):
    proxy, users = own
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(contextlib.closing(open_(proxy, echo, b"alice", b"secret")))
                for open_ in (by_socks6, by_socks5) for _ in range(5)]
        cut = [stack.enter_context(contextlib.closing(open_(proxy, echo, b"bob", b"hunter2")))
               for open_ in (by_socks6, by_socks5) for _ in range(5)]
        # In mid-conversation: logged in, and no request yet; and a stream of the DNS service.
        talking = stack.enter_context(contextlib.closing(dial(proxy.addr)))
        assert socks5_login(talking, b"bob", b"hunter2") == (2, 0)
        asking = socks6_dial(proxy.addr, "0.0.0.0", 53, options=s6.userpass(b"bob", b"hunter2")).sock
        stack.callback(asking.close)
        mark = proxy.mark()
        users.remove("bob")
        if how == "reload":
            proxy.reload()
        proxy.wait_line("users: 1 in force; 1 were removed, 0 have another password", since=mark)
        for sock in [*cut, talking, asking]:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert all(is_open(sock) for sock in kept)
        records = proxy.access(12, since=mark)
        assert {r["reason"] for r in records} == {"user removed"} and len(records) == 12
        assert sorted(r["user"] or "" for r in records) == [""] + ["bob"] * 11
    assert not noop_as(proxy.addr, b"bob", b"hunter2", source=elsewhere())[0].success
    assert noop_as(proxy.addr, b"alice", b"secret")[0].success


def test_another_password_counts_at_once_and_connections_live_on(own, echo):
    proxy, users = own
    with by_socks6(proxy, echo, b"bob", b"hunter2") as sock:
        mark = proxy.mark()
        users.set("bob", "hunter3")
        proxy.wait_line("users: 2 in force; 0 were removed, 1 have another password", since=mark)
        assert is_open(sock)
    assert not noop_as(proxy.addr, b"bob", b"hunter2", source=elsewhere())[0].success
    assert noop_as(proxy.addr, b"bob", b"hunter3")[0].success


@pytest.mark.parametrize("change", ["remove", "set"])
def test_a_password_that_is_being_checked_is_judged_by_the_users_that_are_in_force_then(tmp_path, daemon, change):
    users = Users(tmp_path, alice="secret")
    users.set("slow", "right", "-m", "sha512crypt", "-C", "5000000")
    proxy = daemon(auth=users.auth(), limits={"handshake": "100s"})
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop(s6.userpass(b"slow", b"right")))
        proxy.wait_line("accepted", since=0)
        if change == "remove":
            users.remove("slow")
        else:
            users.set("slow", "other")
        mark = proxy.mark()
        proxy.reload()
        proxy.wait_line("users: ", since=mark)
        assert not has_ended(sock), "it is still being checked"
        assert not s6.read_auth_reply(sock).success


def test_a_new_user_is_let_in(own):
    proxy, users = own
    mark = proxy.mark()
    users.set("carol", "new")
    proxy.wait_line("users: 3 in force", since=mark)
    assert noop_as(proxy.addr, b"carol", b"new")[0].success


def test_a_bad_file_is_reported_and_changes_nothing(own):
    proxy, users = own
    with open(users.path, encoding="ascii") as file:
        good = file.read()
    mark = proxy.mark()
    with open(users.path + ".new", "w", encoding="ascii") as file:
        file.write("alice:$1$old$hash\n")
    os.replace(users.path + ".new", users.path)
    proxy.wait_line("the users in force stay: " + users.path + ":1: the hash of user 'alice' is of a kind that is not taken",
                    since=mark)
    assert noop_as(proxy.addr, b"bob", b"hunter2")[0].success
    assert users.path + ":1:" in proxy.reload(good=False)
    mark = proxy.mark()
    os.unlink(users.path)
    proxy.wait_line(users.path + ": No such file or directory", since=mark)
    assert noop_as(proxy.addr, b"bob", b"hunter2")[0].success
    with open(users.path, "w", encoding="ascii") as file:
        file.write(good.replace("alice", "alicia"))
    os.chmod(users.path, 0o644)
    proxy.wait_line("users: 2 in force; 1 were removed", since=mark)
    proxy.wait_line("every user of this machine has access (mode 0644)", since=mark)
    assert noop_as(proxy.addr, b"alicia", b"secret")[0].success


def test_a_file_that_is_being_written_is_not_taken_for_the_whole(own, echo):
    """Its first half, for less than two looks, then the rest: nobody is cut."""
    proxy, users = own
    with open(users.path, "rb") as file:
        good = file.read()
    with by_socks6(proxy, echo, b"bob", b"hunter2") as sock:
        mark = proxy.mark()
        with open(users.path, "wb", buffering=0) as file:
            file.write(good[:10])
            file.write(good[10:] + b"# and a comment\n")
        users.set("carol", "x")
        proxy.wait_line("users: 3 in force; 0 were removed", since=mark)
        assert is_open(sock)


def test_password_authentication_comes_and_goes_by_reload(tmp_path, daemon, echo):
    users = Users(tmp_path, alice="secret")
    proxy = daemon()
    listen = "%s:%d" % proxy.addr
    with socks6_dial(proxy.addr, *echo.addr) as anonymous:
        with open(proxy.config_path, encoding="ascii") as file:
            config = json.load(file)
        mark = proxy.mark()
        proxy.reload({**config, "auth": users.auth()})
        assert len(proxy.listeners(since=mark)) == 0, listen
        wait_until(lambda: noop6(proxy.addr) is None, "all workers to have heard of it")
        assert noop_as(proxy.addr, b"alice", b"secret")[0].success
        assert is_open(anonymous)
        with by_socks6(proxy, echo, b"alice", b"secret") as sock:
            proxy.reload(config)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b"", "there are no users any more"
        wait_until(lambda: noop6(proxy.addr) == s6.SUCCESS, "all workers to have heard of it")
        assert noop6(proxy.addr) == s6.SUCCESS
        assert is_open(anonymous)


def test_counters(users):
    with Daemon(base_config(("127.0.0.1:0",), auth=users.auth(), status={"socket": os.path.join(os.path.dirname(users.path), "s")})) as one:
        noop_as(one.addr, b"alice", b"secret")
        noop_as(one.addr, b"alice", b"wrong")
        noop6(one.addr)
        done = run_daemon("--status=" + os.path.join(os.path.dirname(users.path), "s"))
        document = json.loads(done.stdout)
        assert document["auth"] == {"methods": ["password"], "users": 5}
        totals = document["totals"]
        assert [totals["auth_" + key] for key in ("ok", "failed", "missing", "backoff", "busy")] == [1, 1, 1, 0, 0]


# The configuration ----------------------------------------------------------------------------------------------------


def test_a_listener_for_everybody_starts_if_it_asks_for_passwords(users, tmp_path):
    path = tmp_path / "f.yaml"
    config = base_config(("0.0.0.0:0",), auth=users.auth())
    path.write_text(json.dumps(config))
    assert run_daemon("-t", "-c", path).returncode == 0
    config["auth"]["methods"] = ["password", "anonymous"]
    path.write_text(json.dumps(config))
    done = run_daemon("-t", "-c", path)
    assert done.returncode == 1 and "would be open to everybody" in done.stderr


def test_errors_in_the_users_file_are_told_by_t(tmp_path):
    (tmp_path / "users").write_text("alice:secret\n")
    path = tmp_path / "f.yaml"
    path.write_text("auth: {methods: [password], users: users}\n")
    done = run_daemon("-t", "-c", path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/users:1: the hash of user 'alice' is of a kind that is not taken")
