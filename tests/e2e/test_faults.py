"""
Every system call and allocation of the daemon fails once at every place where it happens during connections of several kinds. The
daemon must live, answer the next connection, and keep neither descriptors nor memory.
"""

import contextlib
import errno
import itertools
import os
import socket
import struct
import threading

import pytest

from lib import socks6 as s6
from lib.clients import Tunnel, closed_on_error, expect_code, noop6, socks4_dial, socks5_dial, socks6_dial
from lib.daemon import Daemon, base_config, faults_binary
from lib.faults import Faults
from lib.net import dial, pattern, recv_exact, recv_until_end, wait_until
from lib.users import Users

NTH_MAX = 500  # no scenario makes nearly as many calls of one kind
LOGINS = 20000
HANG = 8  # seconds, well above the daemon's limits: whoever waits longer has been forgotten


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """(daemon, faults): one worker, so that the n-th call is the n-th."""
    if not os.access(faults_binary(), os.X_OK):
        pytest.fail(f"{faults_binary()} is not built")
    faults = Faults(tmp_path_factory.mktemp("faults") / "control")
    users = Users(tmp_path_factory.mktemp("users"), u="secret")
    with open(users.path, encoding="ascii") as file:
        line = file.read().strip()
    # Each logs in once, so that no password is known already.
    with open(users.path, "a", encoding="ascii") as file:
        file.write("".join(f"u{number}{line[1:]}\n" for number in range(LOGINS)))
    config = base_config(("127.0.0.1:0",), workers=1, auth=users.auth("password", "anonymous"),
                         limits={"handshake": "2s", "connect": "2s", "sessions_per_client": "none"})
    with Daemon(config, binary=faults_binary(), env={"SOCKS6_FAULTS": faults.path}) as one:
        one.logins = itertools.cycle(b"u%d" % number for number in range(LOGINS))
        one.session, one.tokens = session_with_tokens(one)
        yield one, faults
        faults.disarm()


def session_with_tokens(proxy):
    """The id of a session, and its tokens one by one."""
    with contextlib.closing(dial(proxy.addr)) as sock:
        sock.sendall(s6.noop(s6.session_request() + s6.window_request(4096)))
        auth = s6.read_auth_reply(sock)
        base, = struct.unpack_from("!I", auth.get(s6.WINDOW))
        return auth.get(s6.SESSION_ID), itertools.count(base)


def by_address(proxy, echo):
    return socks6_dial(proxy.addr, *echo.addr, early=b"hello", timeout=HANG)


def by_name(proxy, echo):
    return socks6_dial(proxy.addr, "localhost", echo.port, early=b"hello", timeout=HANG, options=s6.unknown_options(300, 20))


def by_socks5(proxy, echo):
    return socks5_dial(proxy.addr, "localhost", echo.port, early=b"hello", timeout=HANG)


def by_socks4(proxy, echo):
    return socks4_dial(proxy.addr, *echo.addr, early=b"hello", timeout=HANG)


def by_password(proxy, echo):
    options = s6.userpass(next(proxy.logins), b"secret") + s6.session_request() + s6.window_request(64)
    return socks6_dial(proxy.addr, *echo.addr, early=b"hello", timeout=HANG, options=options)


def by_socks5_password(proxy, echo):
    """In one piece, so that everything behind the password waits for it."""
    sock = dial(proxy.addr, HANG)
    with closed_on_error(sock):
        sock.sendall(s6.socks5_greeting((2,)) + s6.rfc1929(next(proxy.logins), b"secret") + s6.socks5_request(*echo.addr)
                     + b"hello")
        if s6.read_socks5_method(sock) != 2:
            raise s6.ProtocolError("method 2 was not selected")
        if s6.Reader(sock).read(2) != b"\1\0":
            return Tunnel(sock, None, None)
        reply = s6.read_socks5_reply(sock)
        return Tunnel(sock, reply, reply.code)


def in_a_session(proxy, echo):
    options = s6.session_id(proxy.session) + s6.expenditure(next(proxy.tokens) & 0xffffffff)
    return socks6_dial(proxy.addr, *echo.addr, early=b"hello", timeout=HANG, options=options)


def refused(proxy, echo):
    del echo
    return socks6_dial(proxy.addr, "224.0.0.1", 80, early=b"hello", timeout=HANG)


SCENARIOS = [by_address, by_name, by_socks5, by_socks4, by_password, by_socks5_password, in_a_session, refused]

# What the call can really answer; which one should make no difference to safety.
CASES = [("malloc", errno.ENOMEM), ("calloc", errno.ENOMEM), ("realloc", errno.ENOMEM), ("accept4", errno.EMFILE),
         ("accept4", errno.ECONNABORTED), ("accept4", errno.ENOMEM), ("accept4", errno.EINTR), ("accept4", errno.EPROTO),
         ("socket", errno.EMFILE), ("socket", errno.ENFILE), ("socket", errno.ENOBUFS), ("socket", errno.EAFNOSUPPORT),
         ("connect", errno.EADDRNOTAVAIL), ("connect", errno.ENETUNREACH), ("connect", errno.EINTR), ("connect", errno.ENOMEM),
         ("setsockopt", errno.ENOMEM), ("setsockopt", errno.EINVAL), ("getsockopt", errno.ENOBUFS), ("getsockname", errno.ENOBUFS),
         ("getpeername", errno.ENOTCONN), ("epoll_ctl", errno.ENOMEM), ("epoll_ctl", errno.ENOSPC), ("recv", errno.ECONNRESET),
         ("recv", errno.ENOMEM), ("recv", errno.EINTR), ("recv", errno.ETIMEDOUT), ("send", errno.EPIPE), ("send", errno.ECONNRESET),
         ("send", errno.ENOBUFS), ("send", errno.EINTR), ("shutdown", errno.ENOTCONN),
         ("mmap", errno.ENOMEM)]


def end_sending(sock):
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # reset already; reading tells
            raise


def try_scenario(scenario, proxy, echo):
    """Runs it to its end. It may fail in any clean way: a code, an end, a reset. It may not hang, nor deliver wrong bytes."""
    try:
        tunnel = scenario(proxy, echo)
    except (s6.Ended, ConnectionResetError, BrokenPipeError):
        return "ended"
    with tunnel as sock:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            if tunnel.ok:
                sock.sendall(b" world")
                end_sending(sock)
                got, how = recv_until_end(sock)
                assert b"hello world".startswith(got), got
                assert got == b"hello world" or how == "reset", "an end without a reset pretends that all was delivered"
                return "relayed"
            assert recv_until_end(sock)[0] == b""
        return tunnel.code


@pytest.mark.parametrize("name, error", CASES, ids=lambda v: v if isinstance(v, str) else errno.errorcode.get(v, f"EAI{v}"))
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda f: f.__name__)
def test_a_failing_call_is_survived_wherever_it_happens(faulty, echo, scenario, name, error):
    proxy, faults = faulty
    assert noop6(proxy.addr) == s6.SUCCESS
    for nth in range(1, NTH_MAX):
        faults.arm(name, error, nth)
        outcome = try_scenario(scenario, proxy, echo)
        wait_until(lambda: proxy.fds() <= proxy.base_fds, lambda: f"descriptors after call {nth}: {outcome} {proxy.fd_targets()}")
        hits = faults.disarm()
        assert proxy.alive(), proxy.text()[-8000:]
        assert noop6(proxy.addr) == s6.SUCCESS, f"after call {nth}"
        if not hits:
            break
    else:
        raise AssertionError("the calls never end")
    # Nothing failed in the last round.
    assert outcome == (s6.RULES if scenario is refused else "relayed")
    proxy.wait_fds()
    proxy.check_reports()


@pytest.mark.parametrize("error, code", [
    (errno.ENETUNREACH, s6.NET_UNREACHABLE), (errno.EHOSTUNREACH, s6.HOST_UNREACHABLE), (errno.ECONNREFUSED, s6.REFUSED),
    (errno.ETIMEDOUT, s6.TIMED_OUT), (errno.EACCES, s6.RULES), (errno.EPERM, s6.RULES), (errno.EADDRNOTAVAIL, s6.NET_UNREACHABLE),
    (errno.ENOBUFS, s6.FAILURE), (errno.EMFILE, s6.FAILURE)], ids=lambda v: errno.errorcode.get(v, str(v)) if v > 9 else str(v))
def test_what_connect_says_is_the_reply_code(faulty, echo, error, code):
    proxy, faults = faulty
    faults.arm("connect", error)
    expect_code(proxy.addr, "socks6", *echo.addr, code)
    assert faults.disarm() == 1


@pytest.mark.parametrize("error, code", [(errno.EMFILE, s6.FAILURE), (errno.ENFILE, s6.FAILURE), (errno.ENOBUFS, s6.FAILURE),
                                         (errno.EAFNOSUPPORT, s6.NET_UNREACHABLE)],
                         ids=lambda v: errno.errorcode.get(v, str(v)) if v > 9 else str(v))
def test_what_socket_says_is_the_reply_code(faulty, echo, error, code):
    proxy, faults = faulty
    faults.arm("socket", error)
    expect_code(proxy.addr, "socks6", *echo.addr, code)
    assert faults.disarm() == 1


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM], ids=errno.errorcode.get)
def test_accepting_pauses_without_spinning_and_goes_on(faulty, error):
    """accept4() keeps failing: it is tried again now and then, not in a loop; whoever waits is served afterwards."""
    proxy, faults = faulty
    assert noop6(proxy.addr) == s6.SUCCESS
    faults.arm("accept4", error, count=1 << 30)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(contextlib.closing(dial(proxy.addr))) for _ in range(5)]
        wait_until(lambda: faults.hits >= 3, "further tries")
        # A loop makes a hundred thousand calls in this time.
        before, ticks = faults.calls("accept4"), proxy.cpu_ticks()
        wait_until(lambda: faults.hits >= 8, "further tries")
        assert faults.calls("accept4") - before < 100
        assert proxy.cpu_ticks() - ticks < 100
        faults.disarm()
        for sock in waiting:
            sock.sendall(s6.noop())
            assert s6.read_auth_reply(sock).success and s6.read_op_reply(sock).code == s6.SUCCESS


@pytest.mark.parametrize("name", ["malloc", "calloc", "epoll_ctl", "setsockopt"])
def test_while_everything_fails_clients_are_closed_and_afterwards_served(faulty, echo, name):
    proxy, faults = faulty
    assert noop6(proxy.addr) == s6.SUCCESS
    faults.arm(name, errno.ENOMEM, count=1 << 30)
    for _ in range(10):
        for scenario in SCENARIOS:
            try_scenario(scenario, proxy, echo)
    assert faults.disarm() > 0
    for scenario in SCENARIOS:
        assert try_scenario(scenario, proxy, echo) == (s6.RULES if scenario is refused else "relayed")
    proxy.wait_fds()


@pytest.mark.parametrize("name, error", [("malloc", errno.ENOMEM), ("calloc", errno.ENOMEM), ("recv", errno.ECONNRESET),
                                         ("send", errno.EPIPE), ("getsockopt", errno.ENOBUFS)],
                         ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_failure_in_mid_relay_ends_that_relay_alone(faulty, echo, name, error):
    """Bulk in both directions on one connection while a neighbour stays open; each call fails once somewhere in the middle."""
    proxy, faults = faulty
    data = bytes(range(256)) * 400
    with socks6_dial(proxy.addr, *echo.addr) as neighbour:
        for nth in (1, 2, 3, 5, 9):
            with socks6_dial(proxy.addr, *echo.addr) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
                faults.arm(name, error, nth)
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                    sock.sendall(data)
                    end_sending(sock)
                    got, how = recv_until_end(sock)
                    assert data.startswith(got)
                    assert got == data or how == "reset"
            faults.disarm()
            neighbour.sendall(b"still here")
            assert recv_exact(neighbour, 10) == b"still here"
    proxy.wait_fds()


@pytest.fixture(scope="module")
def faulty_splicing(tmp_path_factory):
    """As `faulty`, splicing whatever is bulk."""
    faults = Faults(tmp_path_factory.mktemp("faults") / "control")
    with Daemon(base_config(("127.0.0.1:0",), workers=1, relay="splice"), binary=faults_binary(),
                env={"SOCKS6_FAULTS": faults.path}) as one:
        yield one, faults
        faults.disarm()


# The last: whether the stream must get through nevertheless.
# Those that refuse pipes come last: after one no other is asked for for a second.
SPLICE_CASES = [("splice", errno.EINVAL, True), ("splice", errno.ENOMEM, True), ("splice", errno.EINTR, True),
                ("splice", errno.ECONNRESET, False), ("splice", errno.EPIPE, False), ("getsockopt", errno.ENOBUFS, True),
                ("shutdown", errno.ENOTCONN, False), ("send", errno.ENOBUFS, False), ("recv", errno.ETIMEDOUT, False),
                ("calloc", errno.ENOMEM, True), ("pipe2", errno.EMFILE, True), ("pipe2", errno.ENFILE, True),
                ("fcntl", errno.EPERM, True)]


@pytest.mark.parametrize("name, error, survives", SPLICE_CASES, ids=lambda v: errno.errorcode[v] if type(v) is int else str(v))
def test_a_failure_while_splicing_loses_nothing_or_resets(faulty_splicing, echo, name, error, survives):
    proxy, faults = faulty_splicing
    data = pattern(8 << 20)
    was_spliced = False
    for nth in (1, 2, 3, 8):
        splices = faults.calls("splice")
        with socks6_dial(proxy.addr, *echo.addr) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            faults.arm(name, error, nth)
            received = []
            reader = threading.Thread(target=lambda: received.append(recv_until_end(sock)))
            reader.start()
            was_reset = False  # whoever meets a reset first hears of it, and the other of an end
            try:
                sock.sendall(data)
                end_sending(sock)
            except (ConnectionResetError, BrokenPipeError):
                was_reset = True
            reader.join(60)
            got, how = received[0]
            how = "reset" if was_reset else how
            assert data.startswith(got)
            if survives or not faults.hits:
                assert (len(got), how) == (len(data), "eof")
            else:
                assert how == "reset" or got == data
        faults.disarm()
        was_spliced = was_spliced or faults.calls("splice") > splices
    assert was_spliced or name in ("pipe2", "fcntl", "calloc")
    proxy.wait_fds()
    proxy.check_reports()


@pytest.mark.parametrize("name, error", [("malloc", errno.ENOMEM), ("calloc", errno.ENOMEM), ("realloc", errno.ENOMEM), ("socket", errno.EMFILE),
                                         ("setsockopt", errno.ENOMEM), ("epoll_ctl", errno.ENOMEM), ("getsockname", errno.ENOBUFS)],
                         ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_failure_during_a_reload_leaves_a_daemon_that_serves(tmp_path, name, error):
    """At every place: either the new configuration is in force, or it says that the old one stays; and the next reload works."""
    import signal

    faults = Faults(tmp_path / "control")
    configs = [base_config(("127.0.0.1:0",), workers=1),
               base_config(("127.0.0.1:0", "127.0.0.2:0"), workers=1, rules=[{"deny": {"ports": ["1-99"]}}, {"allow": {}}])]
    with Daemon(configs[0], binary=faults_binary(), env={"SOCKS6_FAULTS": faults.path}) as proxy:
        for nth in range(1, NTH_MAX):
            proxy.rewrite(configs[nth % 2])
            mark = proxy.mark()
            faults.arm(name, error, nth)
            proxy.signal(signal.SIGHUP)
            proxy.wait_line(lambda line: "configuration reloaded" in line or "reload failed" in line, "the reload", mark)
            hits = faults.disarm()
            assert proxy.alive()
            assert noop6(proxy.addr) == s6.SUCCESS, f"after call {nth}"
            if not hits:
                break
        else:
            raise AssertionError("the calls never end")
        proxy.reload(configs[0])
        proxy.wait_fds()
        assert noop6(proxy.addr) == s6.SUCCESS
