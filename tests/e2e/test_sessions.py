"""SOCKS 6 sessions and idempotence tokens of the daemon: who gets one, where it holds, when it ends, and that a token is spent once."""

import contextlib
import json
import os
import random
import struct
import threading

import pytest

from lib import socks6 as s6
from lib.clients import finish6, socks6_dial
from lib.daemon import Daemon, base_config, faults_binary, run_daemon
from lib.faults import Faults
from lib.net import dial, listening, nobody_is_waiting, recv_all, recv_exact, reset, wait_until
from lib.status import totals
from lib.tls import Authority, Tls, client_context
from lib.users import Users

ALICE, BOB = s6.userpass(b"alice", b"secret"), s6.userpass(b"bob", b"hunter2")
TOKENS = 1 << 32


def noop(proxy, options, source=None):
    """(Authentication Reply, code): code is None if it failed. Nothing may follow."""
    with contextlib.closing(dial(proxy, source=source)) as sock:
        sock.sendall(s6.noop(options))
        tunnel = finish6(sock)
        assert recv_all(sock) == b""
        return (tunnel.reply if tunnel.code is None else tunnel.reply.auth), tunnel.code


def start(proxy, options=b"", source=None):
    """The id of a new session."""
    auth, code = noop(proxy, s6.session_request() + options, source)
    assert auth.success and code is not None and auth.get(s6.SESSION_OK) is None
    return auth.get(s6.SESSION_ID)


def lives(proxy, session):
    auth, code = noop(proxy, s6.session_id(session))
    if auth.success:
        assert auth.options[0] == (s6.SESSION_OK, b"") and code == s6.SUCCESS
        return True
    assert auth.options == [(s6.SESSION_INVALID, b"")]
    return False


def window(auth):
    data = auth.get(s6.WINDOW)
    return None if data is None else struct.unpack("!II", data)


@pytest.fixture(scope="module")
def users(tmp_path_factory):
    return Users(tmp_path_factory.mktemp("users"), alice="secret", bob="hunter2")


@pytest.fixture(scope="module")
def guarded(users):
    with Daemon(base_config(("127.0.0.1:0", "127.0.0.1:0"), auth=users.auth(), rules=[{"allow": {"users": ["alice"]}}, {"deny": {}}])) as one:
        yield one


@pytest.fixture(scope="module")
def anonymous():
    with Daemon(base_config(("127.0.0.1:0", "127.0.0.1:0"), workers=4)) as one:
        yield one


# Sessions -------------------------------------------------------------------------------------------------------------


def test_a_session_is_granted_and_ids_are_long_and_different(anonymous):
    ids = {start(anonymous.addr) for _ in range(50)}
    assert len(ids) == 50 and all(len(one) == 16 for one in ids)


def test_inside_a_session_nobody_logs_in_and_its_user_is_in_force(guarded, echo):
    session = start(guarded.addr, ALICE)
    for options in (b"", s6.userpass(b"alice", b"wrong"), BOB, s6.advertisement(0, [2]), s6.option(s6.AUTH_DATA, b"\2\1\377x")):
        with contextlib.closing(dial(guarded.addr)) as sock:
            client = sock.getsockname()
            sock.sendall(s6.request(*echo.addr, options=s6.session_id(session) + options) + b"hello")
            tunnel = finish6(sock)
            assert tunnel.ok, "the rules let alice alone"
            assert tunnel.reply.auth.options == [(s6.SESSION_OK, b"")]
            assert recv_exact(sock, 5) == b"hello"
        record, = guarded.access(match=lambda r, c=client: r["client"] == "%s:%d" % c)
        assert record["user"] == "alice"


def test_a_session_has_the_rights_of_its_user_and_no_more(guarded, echo):
    session = start_denied(guarded.addr, BOB)
    tunnel = socks6_dial(guarded.addr, *echo.addr, options=s6.session_id(session) + ALICE)
    with tunnel:
        assert tunnel.code == s6.RULES


def start_denied(proxy, options):
    """A session outlives the failure of the request that has started it."""
    auth, code = noop(proxy, s6.session_request() + options)
    assert auth.success and code == s6.RULES
    return auth.get(s6.SESSION_ID)


def test_a_session_outlives_the_failure_of_its_first_request(anonymous):
    tunnel = socks6_dial(anonymous.addr, "224.0.0.1", 80, options=s6.session_request())
    with tunnel:
        assert tunnel.code == s6.RULES
    assert lives(anonymous.addr, tunnel.reply.auth.get(s6.SESSION_ID))


def test_the_request_that_starts_a_session_must_log_in(guarded):
    for options in (s6.session_request(), s6.session_request() + s6.userpass(b"alice", b"wrong")):
        auth, code = noop(guarded.addr, options, ("127.10.0.1", 0))
        assert not auth.success and code is None and auth.get(s6.SESSION_ID) is None


def test_in_a_session_no_other_is_started(anonymous):
    session = start(anonymous.addr)
    auth, _ = noop(anonymous.addr, s6.session_id(session) + s6.session_request())
    assert auth.success and auth.options == [(s6.SESSION_OK, b"")]


def test_teardown_ends_it_and_its_request_stands_for_itself(guarded):
    session = start(guarded.addr, ALICE)
    auth, code = noop(guarded.addr, s6.session_id(session) + s6.session_teardown() + ALICE)
    assert auth.success and code == s6.SUCCESS and auth.get(s6.SESSION_OK) is None
    assert not lives(guarded.addr, session)
    auth, _ = noop(guarded.addr, s6.session_id(session) + s6.session_teardown() + ALICE)
    assert not auth.success and auth.options == [(s6.SESSION_INVALID, b"")]


def test_teardown_ends_it_even_if_its_request_may_not_come_in(guarded):
    session = start(guarded.addr, ALICE)
    auth, _ = noop(guarded.addr, s6.session_id(session) + s6.session_teardown())
    assert not auth.success and auth.get(s6.SESSION_INVALID) is None
    assert not lives(guarded.addr, session)


def test_a_teardown_can_start_another(guarded):
    session = start(guarded.addr, ALICE)
    auth, _ = noop(guarded.addr, s6.session_id(session) + s6.session_teardown() + s6.session_request() + ALICE)
    assert auth.success and auth.get(s6.SESSION_ID) not in (None, session)
    assert lives(guarded.addr, auth.get(s6.SESSION_ID)) and not lives(guarded.addr, session)


@pytest.mark.parametrize("change", [lambda i: i[:-4], lambda i: i + bytes(4), lambda i: bytes(16), lambda i: i[::-1],
                                    lambda i: i[:-1] + bytes([i[-1] ^ 1]), lambda i: os.urandom(16), lambda i: i * 60])
def test_ids_that_were_not_given_out_are_invalid(guarded, change):
    session = start(guarded.addr, ALICE)
    with listening() as server, contextlib.closing(dial(guarded.addr)) as sock:
        sock.sendall(s6.request(*server.addr, options=s6.session_id(change(session)) + ALICE) + b"early")
        auth = s6.read_auth_reply(sock)
        assert not auth.success and auth.options == [(s6.SESSION_INVALID, b"")]
        assert recv_all(sock) == b"" and nobody_is_waiting(server)
        client = sock.getsockname()
    assert guarded.access(match=lambda r: r["client"] == "%s:%d" % client)[0]["reason"] == "there is no such session"
    assert lives(guarded.addr, session)
    assert session.hex() not in guarded.text()


def test_a_session_holds_only_at_the_listener_where_it_was_born(guarded, anonymous):
    for proxy, options in ((guarded, ALICE), (anonymous, b"")):
        here, there = proxy.listeners()[:2]
        session = start(here, options)
        assert not lives(there, session)
        auth, _ = noop(there, s6.session_id(session) + s6.session_teardown() + options)
        assert not auth.success, "nor can it be ended from there"
        assert lives(here, session)


def test_an_anonymous_session_is_invalid_where_people_log_in(users, daemon, echo):
    proxy = daemon()
    with open(proxy.config_path, encoding="ascii") as file:
        config = json.load(file)
    session = start(proxy.addr)
    proxy.reload({**config, "auth": users.auth()})
    wait_until(lambda: not lives(proxy.addr, session), "all workers to have heard of it")
    for _ in range(20):
        assert not lives(proxy.addr, session)
    for options in (s6.session_id(session), s6.session_id(session) + ALICE):
        tunnel = socks6_dial(proxy.addr, *echo.addr, options=options)
        with tunnel:
            assert tunnel.code is None


def test_a_session_of_tls_is_invalid_without_and_the_other_way_round(daemon, tmp_path):
    """At the same address, by a reload that takes TLS away and brings it back: then those of TLS are good again."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("proxy.test")
    context = client_context(authority)
    plain, secure = ({"address": "127.0.0.1:0"} | more for more in ({}, {"tls": {"certificate": certificate, "key": key}}))
    proxy = daemon(listeners=[secure])
    with open(proxy.config_path, encoding="ascii") as file:
        config = json.load(file)

    def ask(is_tls, options):
        with contextlib.closing(Tls(proxy.addr, context) if is_tls else dial(proxy.addr)) as sock:
            sock.sendall(s6.noop(options))
            return s6.read_auth_reply(sock)

    def is_plain():
        with contextlib.closing(dial(proxy.addr)) as sock:
            sock.sendall(s6.noop())
            return sock.recv(1) == b"\6"
    of_tls = ask(True, s6.session_request()).get(s6.SESSION_ID)
    assert ask(True, s6.session_id(of_tls)).success
    proxy.reload({**config, "listeners": [plain]})
    wait_until(is_plain, "all workers to have heard of it")
    of_plain = ask(False, s6.session_request()).get(s6.SESSION_ID)
    assert not ask(False, s6.session_id(of_tls)).success and ask(False, s6.session_id(of_plain)).success
    proxy.reload({**config, "listeners": [secure]})
    wait_until(lambda: not is_plain(), "all workers to have heard of it")
    assert not ask(True, s6.session_id(of_plain)).success and ask(True, s6.session_id(of_tls)).success


def test_a_reload_that_leaves_the_listener_leaves_its_sessions(users, daemon):
    proxy = daemon(auth=users.auth())
    session = start(proxy.addr, ALICE)
    with open(proxy.config_path, encoding="ascii") as file:
        config = json.load(file)
    for number in range(3):
        proxy.reload({**config, "listeners": [*config["listeners"], {"address": "127.0.0.1:0"}] if number % 2 else config["listeners"]})
        assert lives(proxy.addr, session)


def test_sessions_that_nobody_uses_end(daemon, tmp_path):
    path = str(tmp_path / "status")
    proxy = daemon(limits={"session_idle": "1s"}, status={"socket": path})
    session = start(proxy.addr)

    def process():
        return json.loads(run_daemon("--status=" + path).stdout)["process"]
    assert lives(proxy.addr, session)
    wait_until(lambda: process()["sessions"] == 0, "the end of the session")
    assert process()["sessions_expired"] == 1
    assert not lives(proxy.addr, session)


@pytest.mark.parametrize("limits, options, count", [
    ({"sessions": 3}, ALICE, 3), ({"sessions_per_user": 2}, ALICE, 2), ({"sessions_per_client": 4}, ALICE, 4), ({"sessions_anonymous": 1}, b"", 1)])
def test_at_a_limit_requests_go_on_without_a_session(users, daemon, echo, limits, options, count):
    proxy = daemon(limits=limits, auth=users.auth("password", "anonymous"))
    sessions = [start(proxy.addr, options) for _ in range(count)]
    assert None not in sessions
    for _ in range(3):
        tunnel = socks6_dial(proxy.addr, *echo.addr, options=options + s6.session_request() + s6.window_request(9) + s6.expenditure(1), early=b"x")
        with tunnel as sock:
            assert tunnel.ok and sock.recv(1) == b"x"
            assert tunnel.reply.auth.get(s6.SESSION_ID) is None and window(tunnel.reply.auth) is None
    assert all(lives(proxy.addr, session) for session in sessions)
    noop(proxy.addr, s6.session_id(sessions[0]) + s6.session_teardown() + options)
    assert start(proxy.addr, options) is not None
    if "sessions" in limits or "sessions_anonymous" in limits:
        proxy.wait_line(f"no more sessions are granted: there are as many as `limits.{next(iter(limits))}` allows")


def test_limits_of_users_and_clients_concern_nobody_else(users, daemon):
    proxy = daemon(limits={"sessions_per_user": 1, "sessions_per_client": 2}, auth=users.auth())
    assert start(proxy.addr, ALICE) and not start(proxy.addr, ALICE)
    assert start(proxy.addr, BOB) and not start(proxy.addr, BOB)
    assert not start(proxy.addr, ALICE, ("127.10.0.2", 0)), "alice has hers wherever she is"


def test_a_user_who_is_removed_loses_the_sessions_and_nobody_else_does(tmp_path, daemon):
    users = Users(tmp_path, alice="secret", bob="hunter2")
    proxy = daemon(auth=users.auth("password", "anonymous"))
    alices, bobs, others = [[start(proxy.addr, options) for _ in range(3)] for options in (ALICE, BOB, b"")]
    mark = proxy.mark()
    users.remove("bob")
    proxy.wait_line("users: 1 in force; 1 were removed", since=mark)
    assert all(lives(proxy.addr, session) for session in alices + others)
    assert not any(lives(proxy.addr, session) for session in bobs)
    mark = proxy.mark()
    users.set("bob", "hunter2")
    proxy.wait_line("users: 2 in force", since=mark)
    assert not any(lives(proxy.addr, session) for session in bobs), "another user of this name has none of them"


def test_another_password_ends_the_sessions_of_the_old_one(tmp_path, daemon):
    users = Users(tmp_path, alice="secret", bob="hunter2")
    proxy = daemon(auth=users.auth())
    alice, bob = start(proxy.addr, ALICE), start(proxy.addr, BOB)
    mark = proxy.mark()
    users.set("bob", "changed")
    proxy.wait_line("users: 2 in force; 0 were removed, 1 have another password", since=mark)
    assert lives(proxy.addr, alice) and not lives(proxy.addr, bob)


def test_nothing_of_a_user_is_left_who_is_removed_while_connections_pour_in(tmp_path, daemon, echo):
    """Several clients log in as bob, start sessions and relay, all the time while bob is removed: afterwards none of it works."""
    users = Users(tmp_path, alice="secret", bob="hunter2")
    proxy = daemon(auth=users.auth(), workers=4)
    for _ in range(2):
        sessions, sockets, stop, errors = [], [], threading.Event(), []

        def run(sessions=sessions, sockets=sockets, stop=stop, errors=errors):
            source = ("127.10.%d.%d" % (random.randrange(1, 250), random.randrange(1, 250)), 0)
            while not stop.is_set():
                try:
                    sock = dial(proxy.addr, source=source)
                    sockets.append(sock)
                    sock.sendall(s6.request(*echo.addr, options=s6.session_request() + BOB))
                    auth = s6.read_auth_reply(sock)
                    if not auth.success:
                        return  # bob is gone
                    if auth.get(s6.SESSION_ID):
                        sessions.append(auth.get(s6.SESSION_ID))
                except (s6.Ended, ConnectionResetError):
                    pass  # cut
                except Exception as error:  # pylint: disable=broad-except
                    errors.append(error)
                    return
        mark = proxy.mark()
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(sessions) > 20, "sessions of bob's")  # pylint: disable=cell-var-from-loop
        users.remove("bob")
        proxy.wait_line("users: 1 in force; 1 were removed", since=mark)
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors, errors
        for sock in sockets:
            with contextlib.closing(sock), contextlib.suppress(ConnectionResetError):
                recv_all(sock)  # which ends, or the socket's timeout tells
        assert not any(lives(proxy.addr, session) for session in sessions)
        mark = proxy.mark()
        users.set("bob", "hunter2")
        proxy.wait_line("users: 2 in force", since=mark)
        assert not any(lives(proxy.addr, session) for session in sessions)


# Tokens ---------------------------------------------------------------------------------------------------------------


def with_window(proxy, size=16):
    """(id, base) of a new session with a window."""
    auth, _ = noop(proxy, s6.session_request() + s6.window_request(size))
    base, granted = window(auth)
    assert granted == size
    return auth.get(s6.SESSION_ID), base


def spend(proxy, session, token):
    """(whether it was accepted, base of the window afterwards)"""
    auth, code = noop(proxy, s6.session_id(session) + s6.expenditure(token % TOKENS))
    assert auth.success == (auth.get(s6.ACCEPTED) is not None) == (auth.get(s6.REJECTED) is None) == (code == s6.SUCCESS)
    return auth.success, window(auth)[0]


@pytest.mark.parametrize("asked, granted", [(1, 1), (16, 16), (4096, 4096), (4097, 4096), (2 ** 31 - 1, 4096), (2 ** 32 - 1, 4096), (0, None)])
def test_windows_have_their_largest_size(anonymous, asked, granted):
    auth, _ = noop(anonymous.addr, s6.session_request() + s6.window_request(asked))
    assert auth.success and (window(auth) or (0, None))[1] == granted
    session = auth.get(s6.SESSION_ID)
    auth, _ = noop(anonymous.addr, s6.session_id(session))
    assert (window(auth) or (0, None))[1] == granted, "each reply of the session has it"


def test_the_largest_window_can_be_set(daemon):
    proxy = daemon(limits={"token_window": 7})
    auth, _ = noop(proxy.addr, s6.session_request() + s6.window_request(1000))
    assert window(auth)[1] == 7


def test_a_second_window_request_changes_nothing(anonymous):
    session, base = with_window(anonymous.addr)
    auth, _ = noop(anonymous.addr, s6.session_id(session) + s6.window_request(99))
    assert window(auth) == (base, 16)


def test_a_token_is_accepted_once_and_a_copy_acts_on_nothing(anonymous):
    session, base = with_window(anonymous.addr)
    with listening() as server:
        request = s6.request(*server.addr, options=s6.session_id(session) + s6.expenditure(base + 3 & TOKENS - 1)) + b"once"
        with contextlib.closing(dial(anonymous.addr)) as sock:
            sock.sendall(request)
            tunnel = finish6(sock)
            assert tunnel.ok and tunnel.reply.auth.kinds()[0] == s6.SESSION_OK
            assert tunnel.reply.auth.get(s6.ACCEPTED) == b"" and window(tunnel.reply.auth) == (base, 16)
            with contextlib.closing(server.accept_one()) as accepted:
                assert recv_exact(accepted, 4) == b"once"
        for _ in range(5):
            with contextlib.closing(dial(anonymous.addr)) as sock:
                client = sock.getsockname()
                sock.sendall(request)
                auth = s6.read_auth_reply(sock)
                assert not auth.success and auth.get(s6.REJECTED) == b"" and auth.get(s6.ACCEPTED) is None
                assert window(auth) == (base, 16) and recv_all(sock) == b""
            assert nobody_is_waiting(server)
            record, = anonymous.access(match=lambda r, c=client: r["client"] == "%s:%d" % c)
            assert record["reason"] == "the idempotence token is not eligible"


def test_tokens_outside_of_the_window_are_rejected(anonymous):
    session, base = with_window(anonymous.addr)
    for token in (base - 1, base + 16, base + 2 ** 31, base + 2 ** 31 - 1, base - 2 ** 31):
        assert spend(anonymous.addr, session, token) == (False, base)
    assert spend(anonymous.addr, session, base + 7) == (True, base)


def test_without_a_window_tokens_are_rejected(anonymous):
    session = start(anonymous.addr)
    auth, code = noop(anonymous.addr, s6.session_id(session) + s6.expenditure(0))
    assert not auth.success and code is None and auth.get(s6.REJECTED) == b"" and window(auth) is None
    assert lives(anonymous.addr, session)


def test_the_request_that_asks_for_a_window_can_spend_a_token_and_must_guess_it(anonymous):
    """One in a million is right; 20 that are would be a base that can be known."""
    rejected = 0
    for token in range(20):
        auth, _ = noop(anonymous.addr, s6.session_request() + s6.window_request(4096) + s6.expenditure(token << 27))
        assert auth.success == (auth.get(s6.REJECTED) is None) and window(auth)[1] == 4096
        rejected += not auth.success
    assert rejected >= 19


def test_the_window_slides(anonymous):
    session, base = with_window(anonymous.addr)
    assert spend(anonymous.addr, session, base + 1) == (True, base)
    assert spend(anonymous.addr, session, base) == (True, (base + 2) % TOKENS), "past all that are spent"
    assert spend(anonymous.addr, session, base + 1) == (False, (base + 2) % TOKENS)
    base = (base + 2) % TOKENS
    # More than half a window ahead: what is left behind counts as spent.
    accepted, now = spend(anonymous.addr, session, base + 15)
    assert accepted and 0 < (now - base) % TOKENS <= 15
    assert spend(anonymous.addr, session, base) == (False, now)
    assert spend(anonymous.addr, session, now)[0]


def test_a_session_and_its_tokens_are_the_same_for_all_workers(anonymous):
    """Connections are spread over four workers: tokens in order, each once, and the base follows."""
    session, base = with_window(anonymous.addr, 64)
    for number in range(200):
        assert spend(anonymous.addr, session, base + number) == (True, (base + number + 1) % TOKENS)


def spend_together(proxy, session, tokens, copies):
    """Each token in `copies` connections that were all open before the first of them spoke. {token: times accepted}"""
    with contextlib.ExitStack() as stack:
        wanted = [(token, stack.enter_context(contextlib.closing(dial(proxy)))) for token in tokens for _ in range(copies)]
        random.shuffle(wanted)
        for token, sock in wanted:
            sock.sendall(s6.noop(s6.session_id(session) + s6.expenditure(token % TOKENS)))
        accepted = dict.fromkeys(tokens, 0)
        for token, sock in wanted:
            auth = s6.read_auth_reply(sock)
            assert (auth.get(s6.ACCEPTED) is None) == (auth.get(s6.REJECTED) is not None) == (not auth.success)
            accepted[token] += auth.success
            if auth.success:
                assert s6.read_op_reply(sock).code == s6.SUCCESS
        return accepted


def race(proxy, rounds, copies=8):
    """Rounds of 8 neighbouring tokens in 8 copies each, from two threads that send the same; the winners of each token."""
    session, base = with_window(proxy, 64)
    wins, errors = {}, []

    for number in range(rounds):
        tokens = [base + number * 8 + i for i in range(8)]
        results = []

        def run(tokens=tokens, results=results):
            try:
                results.append(spend_together(proxy, session, tokens, copies // 2))
            except Exception as error:  # pylint: disable=broad-except
                errors.append(error)
        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors
        for result in results:
            for token, count in result.items():
                wins[token] = wins.get(token, 0) + count
    return wins


def test_of_copies_that_race_over_several_workers_one_wins(anonymous):
    wins = race(anonymous.addr, 20)
    assert len(wins) == 160 and set(wins.values()) == {1}


@pytest.mark.full
def test_of_ten_thousand_spends_each_token_has_one_winner(anonymous):
    wins = race(anonymous.addr, 160)
    assert len(wins) * 8 >= 10 ** 4 and set(wins.values()) == {1}


def race_over_the_wrap(daemon, tmp_path, rounds):
    """Windows begin anywhere, so that nobody relies on it; the build with faults lets this one begin where the race passes 2^32."""
    faults = Faults(tmp_path / "control")
    proxy = daemon(workers=4, binary=faults_binary(), env={"SOCKS6_FAULTS": faults.path})
    faults.choose_base(TOKENS - rounds * 8 // 2)
    wins = race(proxy.addr, rounds)
    assert min(wins) == TOKENS - rounds * 8 // 2 and max(wins) == TOKENS + rounds * 8 // 2 - 1
    assert set(wins.values()) == {1}
    return len(wins)


def test_of_copies_that_race_over_the_wrap_one_wins(daemon, tmp_path):
    race_over_the_wrap(daemon, tmp_path, 20)


@pytest.mark.full
def test_of_ten_thousand_spends_over_the_wrap_each_token_has_one_winner(daemon, tmp_path):
    assert race_over_the_wrap(daemon, tmp_path, 160) * 8 >= 10 ** 4


def flood(proxy, count, threads=2):
    """So many requests for a session, from several addresses; how many were granted."""
    granted = [0] * threads
    request = s6.noop(s6.session_request() + s6.window_request(4096))

    def run(index):
        for at in range(0, count // threads, 100):
            socks = [dial(proxy, source=(f"127.11.{index}.{1 + at // 100 % 50}", 0)) for _ in range(min(100, count // threads - at))]
            for sock in socks:
                sock.sendall(request)
            for sock in socks:
                # The head of a successful Authentication Reply; with options where there is a session.
                head = recv_exact(sock, 4)
                assert head[:2] == bytes([6, 0])
                granted[index] += head[2:] != bytes(2)
                reset(sock)  # so many would use up all ports otherwise
    running = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(granted)


def flood_is_survived(users, path, count):
    config = base_config(("127.0.0.1:0",), auth=users.auth("password", "anonymous"),
                         limits={"sessions": 1000, "sessions_anonymous": 500, "sessions_per_client": "none"}, log={"level": "info", "access": False},
                         status={"socket": str(path)})
    with Daemon(config) as one:
        old = [start(one.addr, ALICE) for _ in range(20)] + [start(one.addr) for _ in range(20)]
        before_full = flood(one.addr, 2000)
        assert before_full == 480, "up to the limit of the anonymous"
        memory = one.rss_kib()
        refused = totals(path)["sessions_refused"]
        assert flood(one.addr, count) == 0
        assert totals(path)["sessions_refused"] - refused == count
        assert one.rss_kib() < memory + 16 * 1024, "memory is capped"
        assert all(lives(one.addr, session) for session in old)
        assert start(one.addr, BOB) is not None, "the anonymous do not crowd out users"


def test_a_flood_of_session_requests_is_capped(users, tmp_path):
    flood_is_survived(users, tmp_path / "status", 4000)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_million_session_requests_are_capped(users, tmp_path):
    flood_is_survived(users, tmp_path / "status", 10 ** 6)


def test_counters(daemon, tmp_path):
    path = str(tmp_path / "status")
    proxy = daemon(status={"socket": path}, limits={"sessions_anonymous": 2})
    session, base = with_window(proxy.addr)
    other = start(proxy.addr)
    start(proxy.addr)
    spend(proxy.addr, session, base)
    spend(proxy.addr, session, base)
    lives(proxy.addr, bytes(16))
    noop(proxy.addr, s6.session_id(other) + s6.session_teardown())
    document = json.loads(run_daemon("--status=" + path).stdout)
    found = document["totals"]
    assert {key: found[key] for key in found if key.startswith(("sessions", "tokens"))} == {
        "sessions_started": 2, "sessions_refused": 1, "sessions_resumed": 2, "sessions_invalid": 1, "sessions_torn_down": 1,
        "tokens_accepted": 1, "tokens_rejected": 1}
    assert document["process"]["sessions"] == 1
