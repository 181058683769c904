"""Logging in by PAM: the real libpam with services of our own, by every front door. And what a build without it says."""

import contextlib
import os
import threading

import pytest

from lib import socks6 as s6
from lib.clients import finish6, noop6, socks5_dial, socks6_dial
from lib.daemon import Daemon, base_config, run_daemon
from lib.net import dial, recv_all, recv_exact, wait_until
from lib.pam import BUILT_WITHOUT, SERVICE, Pam, is_refused
from lib.status import status, totals
from lib.users import Users, noop_as, socks5_as, socks5_login

ALICE = s6.userpass(b"alice", b"secret")


def reason(proxy, client):
    text = "%s:%d" % client
    return proxy.access(match=lambda r: r["client"] == text)[-1]["reason"]


def noop(proxy, options):
    """(Authentication Reply, code or None)."""
    with contextlib.closing(dial(proxy)) as sock:
        sock.sendall(s6.noop(options))
        tunnel = finish6(sock)
        return (tunnel.reply if tunnel.code is None else tunnel.reply.auth), tunnel.code


def is_let_in(proxy, user, password, source=None):
    return noop_as(proxy.addr, user, password, source=source)[0].success


def why_refused(proxy, user, password, source=None):
    """Of a log-in that fails: what the log says."""
    with contextlib.closing(dial(proxy.addr, source=source)) as sock:
        client = sock.getsockname()
        sock.sendall(s6.noop(s6.userpass(user, password)))
        assert not s6.read_auth_reply(sock).success
        assert recv_all(sock) == b""
    return reason(proxy, client)


@pytest.fixture
def pam(tmp_path):
    one = Pam(tmp_path)
    one.users("mallory:sesame:sshd", alice="secret", bob="hunter2")
    yield one
    one.let_go()


@pytest.fixture
def proxy(pam):
    with pam.daemon() as one:
        yield one


# A build without it ---------------------------------------------------------------------------------------------------


@pytest.mark.without_pam
def test_a_build_without_pam_refuses_it_and_says_what_to_do(tmp_path):
    done = is_refused(tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path}/pam.yaml:3:8: {BUILT_WITHOUT}; build it with 'meson setup -Dpam=enabled'")
    assert "users: FILE" in done.stderr


# The front doors ------------------------------------------------------------------------------------------------------


@pytest.mark.pam
def test_every_door_lets_in_whom_pam_knows(proxy, echo):
    mark = proxy.mark()
    tunnel = socks6_dial(proxy.addr, *echo.addr, options=ALICE, early=b"hello")
    with tunnel as sock:
        assert tunnel.ok and recv_exact(sock, 5) == b"hello"
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.request(*echo.addr, options=s6.advertisement(0, [2])))
        assert s6.read_auth_reply(sock).get(s6.SELECTION) == b"\2\0\0\0"
        sock.sendall(s6.rfc1929(b"bob", b"hunter2") + b"hello")
        assert recv_exact(sock, 2) == b"\1\0"
        assert s6.read_auth_reply(sock).success and s6.read_op_reply(sock).code == s6.SUCCESS
        assert recv_exact(sock, 5) == b"hello"
    with socks5_as(proxy.addr, b"bob", b"hunter2", *echo.addr, early=b"hello") as sock:
        assert recv_exact(sock, 5) == b"hello"
    records = proxy.access(3, since=mark)
    assert sorted((r["protocol"], r["user"]) for r in records) == [("socks5", "bob"), ("socks6", "alice"), ("socks6", "bob")]
    assert "secret" not in proxy.text() and "hunter2" not in proxy.text()


@pytest.mark.pam
def test_every_door_refuses_everybody_else(proxy):
    """A wrong password, no such user, one whose account is for another service."""
    for user, password in ((b"alice", b"Secret"), (b"nobody", b"secret"), (b"mallory", b"sesame")):
        assert why_refused(proxy, user, password) == "wrong user name or password"
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop(s6.advertisement(0, [2])))
        assert s6.read_auth_reply(sock).get(s6.SELECTION) == b"\2\0\0\0"
        sock.sendall(s6.rfc1929(b"alice", b"wrong"))
        assert recv_exact(sock, 2) == b"\1\1"
        assert not s6.read_auth_reply(sock).success
        assert recv_all(sock) == b""
    with contextlib.closing(dial(proxy.addr)) as sock:
        assert socks5_login(sock, b"mallory", b"sesame") == (2, 1)
        assert recv_all(sock) == b""
    assert noop6(proxy.addr) is None
    assert is_let_in(proxy, b"alice", b"secret")


@pytest.mark.pam
def test_rules_know_the_user_and_the_anonymous_can_come_beside(pam):
    rules = [{"allow": {"users": ["alice"]}}, {"deny": {}}]
    with pam.daemon(auth=pam.auth("password", "anonymous"), rules=rules) as proxy:
        assert noop_as(proxy.addr, b"alice", b"secret")[1] == s6.SUCCESS
        assert noop_as(proxy.addr, b"bob", b"hunter2")[1] == s6.RULES
        assert noop6(proxy.addr) == s6.RULES
        assert not is_let_in(proxy, b"alice", b"wrong")


@pytest.mark.pam
def test_modules_are_told_who_comes_from_where(pam):
    pam.with_hook()
    with pam.daemon() as proxy:
        assert is_let_in(proxy, b"alice", b"secret", source=("127.9.8.7", 0))
        assert pam.seen() == [[SERVICE, "auth", "alice", "127.9.8.7", "socks6d"]]


# What PAM is not asked, and what it must not do -----------------------------------------------------------------------


@pytest.mark.pam
def test_what_could_mislead_a_module_never_reaches_it(pam):
    pam.service(SERVICE, f"auth required pam_exec.so quiet {pam.hook}", "auth required pam_permit.so", "account required pam_permit.so")
    with pam.daemon() as proxy:
        for number, (user, password) in enumerate([(b"alice", b""), (b"alice\0", b"x"), (b"alice", b"x\0y"), (b"../alice", b"x"),
                                                   (b"-alice", b"x"), (b"a:b", b"x"), (b"a\nb", b"x"), (b"", b"x"), (b"..", b"x")]):
            assert not is_let_in(proxy, user, password, source=(f"127.8.0.{number + 1}", 0))
        assert pam.seen() == []
        for user in (b"alice", b"j\xc3\xb6rg", b"a.b@example.org", b"n" * 255):
            assert is_let_in(proxy, user, b"x")
        assert len(pam.seen()) == 4


@pytest.mark.pam
def test_talkative_modules_are_heard_out(pam):
    pam.service(SERVICE, f"auth required {pam.module('pam_chatty.so')} num_lines=100 info error", pam.matrix("auth"), pam.matrix("account"))
    with pam.daemon(leaks=False) as proxy:  # that module leaks the answers to its messages
        assert is_let_in(proxy, b"alice", b"secret")
        assert not is_let_in(proxy, b"alice", b"wrong")


@pytest.mark.pam
def test_what_may_be_shown_is_no_password(pam):
    """A module that asks with echo gets the name: the password is not for everybody's eyes."""
    pam.service(SERVICE, pam.matrix("auth", "echo"), pam.matrix("account"))
    pam.users(alice="secret", same="same")
    with pam.daemon() as proxy:
        assert not is_let_in(proxy, b"alice", b"secret")
        assert is_let_in(proxy, b"same", b"anything")


@pytest.mark.pam
def test_who_gets_another_name_from_a_module_is_not_let_in(pam):
    pam.service(SERVICE, "auth required pam_permit.so", f"auth required {pam.module('pam_set_items.so')}", "account required pam_permit.so")
    with pam.daemon(environment={"PAM_USER": "admin"}) as proxy:
        assert why_refused(proxy, b"alice", b"secret") == "wrong user name or password"
        assert is_let_in(proxy, b"admin", b"secret")


@pytest.mark.pam
def test_a_service_that_cannot_work_is_told_once_and_is_no_guess(pam, tmp_path):
    pam.service(SERVICE, f"auth required {pam.module('no_such_module.so')}", "account required pam_permit.so")
    path = str(tmp_path / "status")
    with pam.daemon(status={"socket": path}) as proxy:
        threads = [threading.Thread(target=noop_as, args=(proxy.addr, b"alice", b"%d" % i)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert why_refused(proxy, b"alice", b"secret") == "PAM could not tell"
        assert totals(path)["auth_errors"] == 13 and totals(path)["auth_failed"] == 0
        assert proxy.text().count("pam: service 'socks6d' cannot tell who may come in: ") == 1


# For how long it holds ------------------------------------------------------------------------------------------------


@pytest.mark.pam
def test_what_was_right_is_remembered_until_a_reload(pam, proxy):
    assert is_let_in(proxy, b"alice", b"secret")
    pam.users(bob="hunter2")
    assert is_let_in(proxy, b"alice", b"secret")
    assert not is_let_in(proxy, b"alice", b"secret", source=("127.0.0.2", 0)), "another address is another question"
    proxy.reload()
    proxy.wait_line("users: whoever PAM lets in by its service 'socks6d'")
    assert not is_let_in(proxy, b"alice", b"secret")
    assert is_let_in(proxy, b"bob", b"hunter2")


@pytest.mark.pam
def test_what_was_right_is_forgotten_in_time_and_its_sessions_end(pam, tmp_path):
    path = str(tmp_path / "status")
    with pam.daemon(auth=pam.auth("password", "anonymous", pam_remember="1s"), status={"socket": path}) as proxy:
        session = noop(proxy.addr, s6.session_request() + ALICE)[0].get(s6.SESSION_ID)
        anonymous = noop(proxy.addr, s6.session_request())[0].get(s6.SESSION_ID)
        assert session and anonymous
        pam.users(bob="hunter2")
        wait_until(lambda: not noop(proxy.addr, s6.session_id(session))[0].success, "the session to end, used or not")
        wait_until(lambda: not is_let_in(proxy, b"alice", b"secret"), "alice to be forgotten")
        assert noop(proxy.addr, s6.session_id(anonymous))[0].success
        wait_until(lambda: status(path)["process"]["sessions"] == 1, "it to be cleared away")
        assert status(path)["process"]["sessions_expired"] == 1


@pytest.mark.pam
def test_sessions_know_their_user_and_end_at_a_reload(proxy, echo):
    session = noop(proxy.addr, s6.session_request() + ALICE)[0].get(s6.SESSION_ID)
    mark = proxy.mark()
    tunnel = socks6_dial(proxy.addr, *echo.addr, options=s6.session_id(session), early=b"x")
    with tunnel as sock:
        assert tunnel.ok and recv_exact(sock, 1) == b"x"
        proxy.reload()
        proxy.wait_line("users: whoever PAM lets in", since=mark)
        auth, _ = noop(proxy.addr, s6.session_id(session))
        assert not auth.success and auth.get(s6.SESSION_INVALID) is not None
        sock.sendall(b"y")
        assert recv_exact(sock, 1) == b"y", "connections go on"
    assert proxy.access(match=lambda r: r["command"] == "CONNECT")[0]["user"] == "alice"


@pytest.mark.pam
@pytest.mark.parametrize("other", ["file", "nobody", "service"])
def test_connections_end_when_pam_goes(pam, tmp_path, echo, other):
    users = Users(tmp_path, alice="secret")
    auths = {"file": users.auth("password", "anonymous"), "nobody": {"methods": ["anonymous"]},
             "service": {"methods": ["password", "anonymous"], "pam": "second"}}
    config = base_config(("127.0.0.1:0",), auth=pam.auth("password", "anonymous"))
    with Daemon(config, wrapper=pam.wrapper()) as proxy:
        with socks6_dial(proxy.addr, *echo.addr, options=ALICE, early=b"x") as sock, \
                socks5_dial(proxy.addr, *echo.addr, early=b"x") as anonymous:
            assert recv_exact(sock, 1) == recv_exact(anonymous, 1) == b"x"
            mark = proxy.mark()
            proxy.reload({**config, "auth": auths[other]})
            proxy.wait_line("users: all whom PAM had let in were removed", since=mark)
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b""
            anonymous.sendall(b"y")
            assert recv_exact(anonymous, 1) == b"y"
        assert proxy.access(match=lambda r: r["user"] == "alice")[-1]["reason"] == "user removed"
        assert is_let_in(proxy, b"alice", b"secret") == (other != "service"), "with nobody to log in all are anonymous"


# Time and load --------------------------------------------------------------------------------------------------------


def begin(proxy, user, password=b"x", source=None):
    """A log-in that is not waited for."""
    sock = dial(proxy.addr, source=source)
    sock.sendall(s6.noop(s6.userpass(user, password)))
    return sock


@pytest.mark.pam
def test_a_module_that_hangs_holds_up_neither_others_nor_the_end(pam, tmp_path):
    path = str(tmp_path / "status")
    pam.with_hook()
    leaves_a_thread = {"TSAN_OPTIONS": "report_thread_leaks=0"}
    with pam.daemon(environment=leaves_a_thread, status={"socket": path}, limits={"handshake": "2s"}) as proxy:
        with contextlib.closing(begin(proxy, b"hang1")) as sock:
            wait_until(lambda: len(pam.seen()) == 1, "the module to hang")
            assert status(path)["process"]["logins_waiting"] == 1
            assert is_let_in(proxy, b"alice", b"secret")
            assert recv_all(sock) == b"", "the handshake's limit"
            client = sock.getsockname()
        assert reason(proxy, client) == "handshake timeout"
        wait_until(lambda: status(path)["process"]["logins_waiting"] == 0, "nobody to wait")
        assert is_let_in(proxy, b"bob", b"hunter2")
        proxy.stop()  # although it still hangs
        proxy.wait_line("pam: some questions are not answered; not waiting for them")


@pytest.mark.pam
def test_as_many_hang_as_there_are_threads_and_go_on_afterwards(pam, tmp_path):
    path = str(tmp_path / "status")
    pam.with_hook()
    pam.users(alice="secret", **{f"hang{i}": "x" for i in range(32)})
    with pam.daemon(status={"socket": path}, limits={"handshake": "60s"}) as proxy, contextlib.ExitStack() as stack:
        hanging = [stack.enter_context(contextlib.closing(begin(proxy, b"hang%d" % i))) for i in range(32)]
        wait_until(lambda: len(pam.seen()) == 32, "all threads to hang")
        alice = stack.enter_context(contextlib.closing(begin(proxy, b"alice", b"secret")))
        wait_until(lambda: status(path)["process"]["logins_waiting"] == 33, "alice to wait with them")
        pam.let_go()
        for sock in [*hanging, alice]:
            assert finish6(sock).code == s6.SUCCESS
        wait_until(lambda: status(path)["process"]["logins_waiting"] == 0, "nobody to wait")


@pytest.mark.pam
def test_a_slow_service_is_told(pam):
    pam.with_hook()
    with pam.daemon(limits={"handshake": "60s"}) as proxy, contextlib.closing(begin(proxy, b"hang1", source=("127.0.0.2", 0))):
        wait_until(lambda: not is_let_in(proxy, b"alice", b"wrong") and "pam: service 'socks6d' is slow: " in proxy.text(),
                   "the log to tell of it")
        pam.let_go()


@pytest.mark.pam
def test_guessing_must_wait(pam):
    source = ("127.7.7.7", 0)
    pam.with_hook()
    with pam.daemon() as proxy:
        guesses = [begin(proxy, b"hang", b"guess%d" % i, source) for i in range(20)]
        wait_until(lambda: len(pam.seen()) == 20, "all to be looked at")
        pam.let_go()  # so that all fail at once
        for sock in guesses:
            assert not s6.read_auth_reply(sock).success
            sock.close()
        assert why_refused(proxy, b"alice", b"secret", source) == "too many wrong passwords from this address"
        assert is_let_in(proxy, b"alice", b"secret")


# What is said of it ---------------------------------------------------------------------------------------------------


@pytest.mark.pam
def test_status_and_notes_name_the_service(pam, tmp_path):
    path = str(tmp_path / "status")
    with pam.daemon(status={"socket": path}, auth={"methods": ["password"], "pam": "no-such-service"}) as proxy:
        assert status(path)["auth"] == {"methods": ["password"], "users": None, "pam": "no-such-service"}
        proxy.wait_line("there is no file 'no-such-service' in /etc/pam.d; PAM does what its service 'other' says")
        assert not is_let_in(proxy, b"alice", b"secret")
    config = tmp_path / "f.yaml"
    config.write_text("auth: {methods: [password], pam: no-such-service}\nrules: [allow: {users: [alice]}]\n")
    done = run_daemon("-t", "-c", config)
    assert done.returncode == 0 and "note: there is no file 'no-such-service'" in done.stderr + done.stdout
    assert "names a user" not in done.stderr + done.stdout
    assert os.path.exists(config)
