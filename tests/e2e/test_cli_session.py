"""Sessions and idempotence tokens in `socks6 connect`, and the cache file that keeps them."""

import os
import stat
import struct
import subprocess

import pytest

from cli_peers import (AUTH_OK, DEADLINE, SESSION_ID, SESSION_REQUEST, TOKEN, WINDOW_REQUEST, Peer, Proxy5, Proxy6,
                       Scripted, SessionProxy6, client_environment, client_path, option6, auth6, reply6,
                       read_to_end, SESSION_INVALID, TOKEN_REJECTED)


@pytest.fixture
def socks6(tmp_path):
    """Runs `socks6 connect` with a cache of the test's own: (arguments) -> CompletedProcess."""
    def run(*args, data=b"ping", cache=tmp_path / "cache", **env):
        env.setdefault("XDG_CACHE_HOME", str(cache))
        return subprocess.run([client_path(), "connect", *map(str, args)], input=data, capture_output=True,
                              env=client_environment(**env), timeout=DEADLINE, check=False)
    return run


def cache_file(tmp_path):
    return tmp_path / "cache" / "socks6" / "client"


def answer_all(sock):
    sock.sendall(b"<" + read_to_end(sock) + b">")


@pytest.fixture
def server():
    with Peer(answer_all) as one:
        one.got = lambda done: (done.returncode, done.stdout)
        yield one


GOOD = (0, b"<ping>")


def options(request):
    return dict(request.options)


def token_of(request):
    data = options(request).get(TOKEN)
    return None if data is None else struct.unpack("!I", data)[0]


def test_session_is_asked_for_once_and_used_from_then_on(socks6, server, tmp_path):
    with SessionProxy6() as proxy:
        for _ in range(4):
            done = socks6("-N", "-x", proxy.url(), "s.test", server.port)
            assert server.got(done) == GOOD and done.stderr == b""
        first, *more = proxy.requests
        assert SESSION_REQUEST in options(first) and WINDOW_REQUEST in options(first) and token_of(first) is None
        assert all(SESSION_REQUEST not in options(one) and options(one)[SESSION_ID] in proxy.sessions for one in more)
        tokens = [token_of(one) for one in more]
        assert tokens == [(tokens[0] + i) % 2**32 for i in range(3)]  # the smallest first
        assert len(proxy.sessions) == 1 and proxy.rejected == 0
    status = os.stat(cache_file(tmp_path))
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert stat.S_IMODE(os.stat(cache_file(tmp_path).parent).st_mode) == 0o700


def test_password_is_sent_once(socks6, server):
    with SessionProxy6({"alice": "hunter2"}) as proxy:
        for _ in range(3):
            assert server.got(socks6("-N", "-x", proxy.url("alice:hunter2@"), "s.test", server.port)) == GOOD
        assert [one.credentials() for one in proxy.requests] == [("alice", "hunter2"), None, None]


def test_other_password_or_user_does_not_profit(socks6, server):
    with SessionProxy6({"alice": "hunter2", "bob": "b"}) as proxy:
        assert server.got(socks6("-N", "-x", proxy.url("alice:hunter2@"), "s.test", server.port)) == GOOD
        done = socks6("-N", "-x", proxy.url("alice:wrong@"), "s.test", server.port)
        assert done.returncode == 3 and b"refused the user name or password" in done.stderr
        assert server.got(socks6("-N", "-x", proxy.url("bob:b@"), "s.test", server.port)) == GOOD
        assert [SESSION_ID in options(one) for one in proxy.requests] == [False, False, False]


def test_untrusted_session_logs_in_each_time(socks6, server):
    with SessionProxy6({"alice": "hunter2"}, untrusted=True) as proxy:
        for _ in range(3):
            assert server.got(socks6("-N", "-x", proxy.url("alice:hunter2@"), "s.test", server.port)) == GOOD
        assert [one.credentials() for one in proxy.requests] == [("alice", "hunter2")] * 3
        assert len(proxy.sessions) == 1


def test_session_id_in_the_operation_reply(socks6, server):
    with SessionProxy6(id_in_reply=True) as proxy:
        for _ in range(3):
            assert server.got(socks6("-N", "-x", proxy.url(), "s.test", server.port)) == GOOD
        assert len(proxy.sessions) == 1 and token_of(proxy.requests[-1]) is not None


def test_lost_session_is_replaced_and_the_early_data_is_not(socks6, server):
    """The proxy was restarted: Session Invalid. A second connection logs in, and the data arrives once."""
    with SessionProxy6({"alice": "hunter2"}) as proxy:
        url = proxy.url("alice:hunter2@")
        assert server.got(socks6("-N", "-x", url, "s.test", server.port)) == GOOD
        proxy.forget()
        done = socks6("-N", "-v", "--early", "-x", url, "s.test", server.port)
        assert server.got(done) == GOOD
        assert b"asking once more over another connection" in done.stderr
        assert [one.credentials() is not None for one in proxy.requests] == [True, False, True]
        assert proxy.invalid == 1 and proxy.acted == 2
        assert server.got(socks6("-N", "-x", url, "s.test", server.port)) == GOOD
        assert token_of(proxy.requests[-1]) is not None and len(proxy.requests) == 4


def test_proxy_that_never_knows_sessions_it_has_granted(socks6):
    """Two attempts, not more."""
    asked = []

    def forgetful(sock):
        data = sock.recv(65536)
        asked.append(data)
        grants = b"\x00\x05\x00\x04" in data
        sock.sendall(auth6(False, option6(SESSION_ID, b"i" * 16)) + reply6(5) if grants
                     else auth6(True, option6(SESSION_INVALID)))
    with Peer(forgetful) as proxy:
        url = f"socks6://127.0.0.1:{proxy.port}"
        assert socks6("-x", url, "192.0.2.1", 80).returncode == 1
        assert socks6("-x", url, "192.0.2.1", 80).returncode == 1
        assert len(asked) == 3


def test_invalid_said_to_a_request_without_a_session(socks6):
    with Scripted(auth6(True, option6(SESSION_INVALID)), then="close") as proxy:
        done = socks6("-x", proxy.url(), "192.0.2.1", 80)
        assert done.returncode == 3 and b"does not know our session" in done.stderr
        assert len(proxy.socks) == 1


def set_back(tmp_path, run):
    """The cache as it was before `run()`, as after a crash of the machine."""
    path = cache_file(tmp_path)
    before = path.read_bytes()
    run()
    path.write_bytes(before)


def test_rejected_token_is_replaced_by_a_later_one(socks6, server, tmp_path):
    with SessionProxy6() as proxy:
        one = lambda: socks6("-N", "-v", "--early", "-x", proxy.url(), "s.test", server.port)  # noqa: E731
        assert server.got(one()) == GOOD
        set_back(tmp_path, one)
        done = one()
        assert server.got(done) == GOOD and b"asking once more" in done.stderr
        assert proxy.rejected == 1 and proxy.acted == 3
        assert server.got(one()) == GOOD and proxy.rejected == 1


def test_every_token_is_rejected(socks6):
    asked = []

    def spiteful(sock):
        data = sock.recv(65536)
        asked.append(data)
        window = struct.pack("!HHII", 12, 12, 7, 100)
        if b"\x00\x05\x00\x04" in data:
            sock.sendall(auth6(False, option6(SESSION_ID, b"i" * 16), window) + reply6(5))
        else:
            sock.sendall(auth6(True, option6(TOKEN_REJECTED), window))
    with Peer(spiteful) as proxy:
        url = f"socks6://127.0.0.1:{proxy.port}"
        assert socks6("-x", url, "192.0.2.1", 80).returncode == 1
        done = socks6("-x", url, "192.0.2.1", 80)
        assert done.returncode == 3 and b"has seen the idempotence token" in done.stderr
        assert len(asked) == 3


def test_token_of_a_request_that_was_never_sent_is_kept(socks6, server):
    with SessionProxy6() as proxy:
        url = proxy.url()
        for _ in range(2):
            assert server.got(socks6("-N", "-x", url, "s.test", server.port)) == GOOD
        last = token_of(proxy.requests[-1])
    assert socks6("-x", url, "s.test", server.port).returncode == 3  # nobody listens there any more
    with SessionProxy6(port=proxy.port) as again:
        again.sessions.update(proxy.sessions)
        assert server.got(socks6("-N", "-x", url, "s.test", server.port)) == GOOD
        assert token_of(again.requests[-1]) == (last + 1) % 2**32


def test_no_session_keeps_and_reads_nothing(socks6, server, tmp_path):
    with SessionProxy6() as proxy:
        for _ in range(2):
            assert server.got(socks6("-N", "--no-session", "-x", proxy.url(), "s.test", server.port)) == GOOD
        assert not any(options(one).keys() & {SESSION_REQUEST, SESSION_ID, WINDOW_REQUEST, TOKEN} for one in proxy.requests)
    assert not cache_file(tmp_path).exists()


def test_proxy_without_sessions(socks6, server):
    """It does not know the options, and needs no more connections or round trips than without them."""
    with Proxy6() as proxy:
        for _ in range(2):
            done = socks6("-N", "-v", "-x", proxy.url(), "s.test", server.port)
            assert server.got(done) == GOOD and b"2 round trips to the proxy" in done.stderr
        assert [SESSION_REQUEST in options(one) for one in proxy.requests] == [True, True]
        assert len(proxy.socks) == 2


def test_proxy_with_sessions_and_no_windows(socks6, server):
    with SessionProxy6(window=0) as proxy:
        for _ in range(3):
            assert server.got(socks6("-N", "-x", proxy.url(), "s.test", server.port)) == GOOD
        assert len(proxy.sessions) == 1
        assert [token_of(one) for one in proxy.requests] == [None] * 3


def test_socks5_is_as_before(socks6, server, tmp_path):
    with Proxy5() as proxy:
        assert server.got(socks6("-N", "-x", proxy.url(), "s.test", server.port)) == GOOD
    assert not cache_file(tmp_path).exists()


@pytest.mark.parametrize("content", [b"", b"S6CACHE1" + b"\0" * 100, b"no cache at all\n" * 1000])
def test_corrupt_cache_is_ignored_and_replaced(socks6, server, tmp_path, content):
    path = cache_file(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o600)
    with SessionProxy6() as proxy:
        for _ in range(2):
            done = socks6("-N", "-x", proxy.url(), "s.test", server.port)
            assert server.got(done) == GOOD and done.stderr == b""
        assert [SESSION_ID in options(one) for one in proxy.requests] == [False, True]


def readable_by_others(path):
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    path.chmod(0o644)


def folder_in_its_place(path):
    path.mkdir(parents=True)


def link_in_its_place(path):
    path.parent.mkdir(parents=True)
    (path.parent / "target").write_bytes(b"")
    (path.parent / "target").chmod(0o600)
    path.symlink_to(path.parent / "target")


@pytest.mark.parametrize("spoil", [readable_by_others, folder_in_its_place, link_in_its_place])
def test_unusable_cache_costs_nothing_but_the_session(socks6, server, tmp_path, spoil):
    spoil(cache_file(tmp_path))
    with SessionProxy6() as proxy:
        done = socks6("-N", "-v", "-x", proxy.url(), "s.test", server.port)
        assert server.got(done) == GOOD and b"the cache cannot be used: " in done.stderr
        assert SESSION_REQUEST not in options(proxy.requests[0])


def test_no_home_at_all(socks6, server):
    with SessionProxy6() as proxy:
        done = socks6("-N", "-x", proxy.url(), "s.test", server.port, XDG_CACHE_HOME="", HOME="")
        assert server.got(done) == GOOD and done.stderr == b""


@pytest.mark.parametrize("warm", [False, True])
def test_a_hundred_at_once_and_none_rejected(socks6, server, tmp_path, warm):
    with SessionProxy6({"alice": "hunter2"}) as proxy:
        url = proxy.url("alice:hunter2@")
        if warm:
            assert server.got(socks6("-N", "-x", url, "s.test", server.port)) == GOOD
        env = client_environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
        running = [subprocess.Popen([client_path(), "connect", "-N", "-x", url, "s.test", str(server.port)],
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
                   for _ in range(100)]
        for process in running:
            out, err = process.communicate(b"ping", DEADLINE)
            assert (process.returncode, out, err) == (0, b"<ping>", b"")
        assert proxy.rejected == 0 and proxy.invalid == 0
        if warm:
            tokens = [token_of(one) for one in proxy.requests[1:]]
            assert None not in tokens and len(set(tokens)) == 100


def test_reply_behind_the_session_options_is_the_right_one(socks6):
    """A refusal in a session that was granted: the session is kept."""
    with SessionProxy6() as proxy:
        for _ in range(2):
            assert socks6("-x", proxy.url(), "s.test", 1).returncode == 1
        assert token_of(proxy.requests[1]) is not None


def test_old_answers_still_count(socks6, server):
    with Scripted(AUTH_OK + reply6() + b"hello", then="close") as proxy:
        done = socks6("-x", proxy.url(), "192.0.2.1", 80, data=b"")  # what is not read would reset the connection
        assert (done.returncode, done.stdout) == (0, b"hello")
