"""
Programs under `socks6 run` that connect to a near proxy themselves, with TCP Fast Open on both ends: what travels in which SYN is read
off the wire, and no token twice.
"""

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess

import pytest

from cli_peers import SessionProxy6
from lib import run_world, socks6
from lib.capture import ACK, SYN, Capture
from lib.daemon import client_binary
from lib.net import DEADLINE, dial
from lib.run_trace import PYTHON, output, starting, traced
from lib.run_world import RunWorld
from test_run_shortcut import FakeProxy

TCP_FASTOPEN = 23
HERE = f"""
import sys, threading
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from run_inside import *
SERVER, SERVER6, ECHO = {run_world.SERVER!r}, {run_world.SERVER6!r}, {run_world.ECHO}
PROXY_OUT, PROXY_OUT6 = {run_world.PROXY_OUT!r}, {run_world.PROXY_OUT6!r}
"""
LEARN = HERE + "learn(SERVER, ECHO)\n"


@pytest.fixture(scope="module")
def world(isolation):
    with contextlib.closing(RunWorld()) as one:
        for space in (one.client, one.proxy):
            space.sysctl(net__ipv4__tcp_fastopen=3, net__ipv4__tcp_fastopen_blackhole_timeout_sec=0)
        one.stop_proxy()  # it looks at that when it starts
        one.start_proxy()
        yield one


@pytest.fixture(autouse=True)
def clean(world):
    """Without cookies, with all settings as they were, and with no leaks afterwards."""
    world.settle()
    world.client.ip("tcp_metrics flush all")
    yield
    world.client.sysctl(net__ipv4__tcp_fastopen=3)
    assert not world.leaks()
    assert not world.decoy.names()


@pytest.fixture
def trace(world):
    with traced(world) as one:
        yield one


@pytest.fixture
def env(trace, tmp_path):
    """With a cache of its own."""
    return {**trace.env, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.fixture
def running(world, trace, env):
    with starting(world, trace) as start:
        yield lambda *argv, **more: start(*argv, env={"XDG_CACHE_HOME": env["XDG_CACHE_HOME"]}, **more)


class Syn:
    """The first SYN of a connection to the proxy. `request` is what it carries, or None."""

    def __init__(self, segment):
        self.source, self.size = segment.source, segment.size
        self.session = self.token = self.request = None
        self.is_fast = False
        if segment.data:
            self.request = socks6.read_request(segment.data)
            self.destination = str(self.request.host), self.request.port
            options = dict(self.request.options)
            assert len(self.request.options) == len(options), options
            self.session = options.get(socks6.SESSION_ID)
            self.token, = struct.unpack("!I", options[socks6.EXPENDITURE]) if socks6.EXPENDITURE in options else (None,)
            self.is_fast = set(options) == {socks6.SESSION_ID, socks6.EXPENDITURE}


class Wire:
    """What has gone to the proxy since it was made, and what the daemon has counted."""

    def __init__(self, world, capture, port):
        self.world, self.capture, self.port = world, capture, port
        self.before = self._counted()

    def _counted(self):
        daemon = self.world.daemon
        mark = daemon.mark()
        daemon.signal(signal.SIGUSR1)
        line = daemon.wait_line(re.compile(r"accepted=\d"), "the counters", mark)
        return {name: int(value) for name, value in re.findall(r"(\w+)[=:]\s*(\d+)", line.replace('"', ""))}

    def counted(self, name):
        return self._counted()[name] - self.before[name]

    def syns(self):
        return [Syn(segment) for segment in self.capture.attempts(self.port)]

    def check_tokens(self):
        """Each was sent once, and the daemon has had nothing against them. How many there were."""
        tokens = [one.token for one in self.syns() if one.token is not None]
        assert len(tokens) == len(set(tokens))
        assert self.counted("tokens_rejected") == 0
        return len(tokens)


@contextlib.contextmanager
def watching(world, port=run_world.PROXY_PORT):
    with Capture(world.client, "to-proxy", run_world.PROXY) as capture:
        yield Wire(world, capture, port)


@pytest.fixture
def wire(world):
    with watching(world) as one:
        yield one


def carries_all(syn, host=run_world.SERVER, port=run_world.ECHO):
    """A request for the destination in a session, with a token, and nothing else."""
    assert syn.request is not None, syn.source
    assert syn.destination == (host, port)
    assert syn.is_fast and syn.session and syn.token is not None, syn.request.options
    return True


# In the SYN -----------------------------------------------------------------------------------------------------------

def test_own_connections_take_one_round_trip(world, env, running, wire):
    """Request in the SYN, SYN-ACK, and then the proxy's reply: the program's side has nothing to say in between."""
    program = running(*PYTHON, LEARN + """
say("known")
on_line()
for number in range(20):
    sock, how = go(SERVER, ECHO)
    assert how == "own", how
    echoes(sock, b"number %d" % number)
    sock.close()
""", options=["-v"])
    assert program.line() == "known"
    learnt = len(wire.syns())
    program.say()
    status, _, said = program.end()
    assert status == 0, said
    assert len(re.findall(r"connected, 1 round trip, ", said)) >= 20, said
    own = wire.syns()[learnt:]
    assert len(own) == 20 and all(map(carries_all, own))
    assert learnt >= 3
    segments = wire.capture.segments()
    for syn in own:
        talk = [one for one in segments if syn.source in (one.source, one.target)]
        is_ours = [one.source == syn.source for one in talk]
        first_data = next(at for at, one in enumerate(talk) if not is_ours[at] and one.size)
        assert talk[0].size and is_ours[0] and talk[1].flags & (SYN | ACK) == SYN | ACK and not is_ours[1], talk
        assert not any(one.size for at, one in enumerate(talk[1:first_data], 1)), talk
    assert wire.check_tokens() >= 20
    assert wire.counted("requests_in_syn") >= 20


def test_first_two_connections_tell_the_helper(world, env, wire):
    """The first asks for a session and a cookie, the second uses both, and then programs do."""
    code = HERE + """
ways = []
while not ways or ways[-1] != "own":
    assert len(ways) < 20
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    ways.append(how)
say(",".join(ways))
"""
    ways = output(world.run(*PYTHON, code, env=env))[0].split(",")
    syns = wire.syns()
    assert len(ways) >= 3 and ways[:-1] == ["handed over"] * (len(ways) - 1)
    assert len(syns) == len(ways)
    assert [syn.size > 0 for syn in syns] == [False] + [True] * (len(ways) - 1)
    carries_all(syns[-1])
    assert len({syn.session for syn in syns[1:]}) == 1
    assert wire.check_tokens() == len(ways) - 1


# As the kernel does it ------------------------------------------------------------------------------------------------

# `one()` returns a connected socket. Its SYN is found by the port that the kernel knows.
EACH = """
for number in range(400):
    sock, how = one()
    echoes(sock)
    if how == "own":
        say(raw_name(sock)[1])
        break
    sock.close()
else:
    raise AssertionError("no connection took the shortcut")
"""


def check_last(world, wire, lines, host=run_world.SERVER):
    """Of the connection whose port is the last line."""
    syn = next(one for one in wire.syns() if one.source == ("10.50.1.2", int(lines[-1])))
    carries_all(syn, host)
    wire.check_tokens()


def test_blocking_connect_is_as_the_kernels(world, env, wire):
    code = LEARN + """
def one():
    sock = socket.socket()
    before = cookie(sock)
    assert connect(sock, SERVER, ECHO) == "0"
    assert connect(sock, SERVER, ECHO) == "EISCONN"
    assert connect(sock, SERVER, ECHO + 1) == "EISCONN"
    how = way(sock, before)
    assert sock.getpeername() == (SERVER, ECHO) and sock.getsockname()[0] == PROXY_OUT
    assert error_of(sock) == "0" and sock.getblocking()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
    assert sock.getsockopt(socket.IPPROTO_TCP, 30) == 0  # TCP_FASTOPEN_CONNECT
    return sock, how
""" + EACH
    check_last(world, wire, output(world.run(*PYTHON, code, env=env)))


def test_non_blocking_connect_is_as_the_kernels(world, env, wire):
    code = LEARN + """
def one():
    sock = socket.socket()
    sock.setblocking(False)
    before = cookie(sock)
    with select.epoll() as edge:
        edge.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
        assert connect(sock, SERVER, ECHO) == "EINPROGRESS"
        assert edge.poll(30) == [(sock.fileno(), select.EPOLLOUT)]
        assert edge.poll(0) == []
    assert error_of(sock) == "0"
    how = way(sock, before)
    assert sock.getpeername() == (SERVER, ECHO)
    assert how == "stream" or sock.getsockname()[0] == PROXY_OUT
    again = connect(sock, SERVER, ECHO), connect(sock, SERVER, ECHO)
    assert again == ("0", "EISCONN"), (how, again)
    return sock, how
""" + EACH
    check_last(world, wire, output(world.run(*PYTHON, code, env=env)))


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("host", [run_world.SERVER6, "::ffff:" + run_world.SERVER])
def test_ipv6_socket_to_an_ipv4_proxy(world, env, wire, host, blocks):
    code = LEARN + f"HOST, BLOCKS = {host!r}, {blocks}" + """
def one():
    sock = socket.socket(socket.AF_INET6)
    sock.setblocking(BLOCKS)
    before = cookie(sock)
    assert connect(sock, HOST, ECHO) == ("0" if BLOCKS else "EINPROGRESS")
    wait(sock)
    how = way(sock, before)
    assert sock.getpeername()[:2] == (HOST, ECHO)
    assert how == "stream" or sock.getsockname()[0] == ("::ffff:" + PROXY_OUT if "." in HOST else PROXY_OUT6), sock.getsockname()
    if BLOCKS:
        assert connect(sock, HOST, ECHO) == "EISCONN"
    return sock, how
""" + EACH
    check_last(world, wire, output(world.run(*PYTHON, code, env=env)), host.removeprefix("::ffff:"))


def test_errors_of_the_destination(world, env, wire):
    """Refused is refused, and the socket can be used again."""
    code = LEARN + f"REFUSING = {run_world.REFUSING!r}" + """
for number in range(5):
    sock = socket.socket()
    assert connect(sock, REFUSING, 99) == "ECONNREFUSED"
    assert connect(sock, SERVER, ECHO) == "0"
    assert connect(sock, SERVER, ECHO) == "EISCONN"
    assert sock.getpeername() == (SERVER, ECHO)
    echoes(sock)
say("done")
"""
    assert output(world.run(*PYTHON, code, env=env)) == ["done"]
    refused = [one for one in wire.syns() if one.request is not None and one.destination[0] == run_world.REFUSING]
    assert len(refused) == 5 and all(carries_all(one, run_world.REFUSING, 99) for one in refused)
    wire.check_tokens()


# Many -----------------------------------------------------------------------------------------------------------------

# A tree of processes: `PROCESSES` with `THREADS` threads make `COUNT` connections each, of which each `SHARE`th does not block. They say
# how many took the shortcut.
MANY = """
def run_one(number, blocks):
    sock = socket.socket()
    sock.setblocking(blocks)
    before = cookie(sock)
    said = connect(sock, SERVER, ECHO)
    assert said == ("0" if blocks else "EINPROGRESS"), said
    wait(sock)
    assert error_of(sock) == "0"
    echoes(sock, b"%d %d" % (os.getpid(), number))
    way_was = way(sock, before)
    sock.close()
    return way_was

failed, ways = [], []

def run_thread():
    try:
        for number in range(COUNT):
            ways.append(run_one(number, number % SHARE != 0))
    except BaseException as error:
        failed.append(error)
        raise

def run_process():
    threads = [threading.Thread(target=run_thread) for _ in range(THREADS)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not failed, failed
    os.write(1, b"%d\\n" % ways.count("own"))  # in one piece

def run_tree():
    children = []
    for _ in range(PROCESSES):
        child = os.fork()
        if child == 0:
            try:
                run_process()
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""


def tree(processes, threads, count, share):
    return LEARN + f"PROCESSES, THREADS, COUNT, SHARE = {processes}, {threads}, {count}, {share}" + MANY


def test_processes_at_once_share_the_tokens(world, env, wire):
    own = output(world.run(*PYTHON, tree(4, 2, 30, 3) + "run_tree()\n", env=env))
    assert len(own) == 4 and sum(map(int, own)) >= 100
    syns = wire.syns()
    assert len(syns) >= 240
    assert wire.check_tokens() >= 200
    assert len({one.session for one in syns if one.session}) == 1
    assert wire.counted("requests_in_syn") >= 200


@pytest.mark.parametrize("processes, threads, count, share", [
    pytest.param(4, 2, 750, 0.95, id="6000"),
    pytest.param(16, 4, 188, 0.95, id="12032", marks=[pytest.mark.full, pytest.mark.timeout(600)])])
def test_tokens_do_not_run_out(world, env, wire, processes, threads, count, share):
    """
    Lent and lent again, beyond a whole window: nobody sees it, and nearly all go on by themselves.
    """
    own = output(world.run(*PYTHON, tree(processes, threads, count, 1 << 30) + "run_tree()\n", env=env, timeout=500))
    syns = wire.syns()
    total = processes * threads * count
    assert len(own) == processes and sum(map(int, own)) >= total * 0.9
    assert wire.counted("accepted") >= total
    wire.check_tokens()
    assert len(syns) >= total * 0.8  # a port that comes again is taken for the same attempt
    assert sum(one.is_fast for one in syns) >= len(syns) * share


# When something changes in the middle ---------------------------------------------------------------------------------

# For each line that it gets it makes so many connections, blocking or not, and says how many of them took the shortcut.
STEADY = LEARN + MANY[:MANY.index("failed, ways")] + """
say("known")
for line in sys.stdin:
    how, count = line.split()
    say([run_one(number, how == "blocking") for number in range(int(count))].count("own"))
"""


class Steady:
    def __init__(self, running, wire, how, **more):
        self.wire, self.how = wire, how
        self.program = running(*PYTHON, STEADY, **more)
        assert self.program.line() == "known"

    def go(self, count=10):
        """The SYNs of some connections more, and how many were the program's own."""
        before = len(self.wire.syns())
        self.program.say(f"{self.how} {count}")
        own = int(self.program.line())
        return self.wire.syns()[before:], own

    def go_fast(self):
        """As often as it takes until all requests are in SYNs; these. Who does not block may give way to the helper on a busy machine."""
        for _ in range(20):
            syns, own = self.go()
            if len(syns) == 10 and all(syn.is_fast for syn in syns) and (own == 10 or self.how != "blocking"):
                return syns
        raise AssertionError("not all requests are in SYNs")

    def end(self):
        status, _, said = self.program.end()
        assert status == 0 and not said, said


both_ways = pytest.mark.parametrize("how", ["blocking", "not-blocking"])


def test_helper_hears_of_few_tokens(running, wire):
    """Before there are none: else one of 64 connections would go through it."""
    steady = Steady(running, wire, "blocking")
    steady.go_fast()
    own = sum(steady.go()[1] for _ in range(32))
    assert own >= 318, own  # it may be late once
    assert wire.check_tokens() >= 320
    steady.end()


@both_ways
def test_proxy_that_has_forgotten_the_session(world, running, how):
    """Restarted. The first to come finds out and goes through the helper, which asks for another session."""
    with watching(world) as wire:
        steady = Steady(running, wire, how)
        old = steady.go_fast()[-1].session
        world.stop_proxy()
        world.start_proxy()
        wire.before = wire._counted()
        steady.go()
        after = steady.go_fast()
        assert old not in {syn.session for syn in after} and len({syn.session for syn in after}) == 1
        assert wire.counted("tokens_rejected") == 0
        steady.end()


@both_ways
def test_tokens_that_others_have_made_worthless(world, running, wire, how):
    """Somebody spends one of the upper half, and the proxy moves on: what is lent lies behind."""
    steady = Steady(running, wire, how)
    last = steady.go_fast()[-1]
    with world.client.call(lambda: dial((run_world.PROXY, run_world.PROXY_PORT))) as sock:
        options = socks6.session_id(last.session) + socks6.expenditure((last.token + 3500) % 2 ** 32)
        sock.sendall(socks6.noop(options))
        assert socks6.read_auth_reply(sock).type == 0
    steady.go()
    assert 1 <= wire.counted("tokens_rejected") < 8
    after = steady.go_fast()
    before = wire.counted("tokens_rejected")
    steady.go()
    assert wire.counted("tokens_rejected") == before
    found = [syn.token for syn in wire.syns() if syn.token is not None]
    assert len(found) == len(set(found)) and {syn.session for syn in after} == {last.session}
    steady.end()


@both_ways
def test_kernel_that_stops_doing_it(world, running, wire, how):
    steady = Steady(running, wire, how)
    steady.go_fast()
    world.client.sysctl(net__ipv4__tcp_fastopen=0)
    own_count = 0
    for _ in range(30):
        syns, own = steady.go()
        assert len(syns) == 10 and not any(syn.size for syn in syns)
        own_count += own
    assert own_count >= 290 or how != "blocking"  # the other might be late on a busy machine
    world.client.sysctl(net__ipv4__tcp_fastopen=3)
    steady.go_fast()
    wire.check_tokens()
    steady.end()


@both_ways
def test_path_that_begins_to_drop_data_in_a_syn(world, running, wire, how):
    """The kernel says it again without, after a second."""
    steady = Steady(running, wire, how)
    steady.go_fast()
    world.proxy.nft("add table inet t { chain i { type filter hook prerouting priority 0; "
                    "tcp flags & (syn | ack) == syn ip length > 90 drop; }; }")
    try:
        syns, _ = steady.go(2)
    finally:
        world.proxy.nft("delete table inet t")
    assert syns[0].is_fast
    again = [one for one in wire.capture.segments() if one.source == syns[0].source and one.flags & SYN]
    assert len(again) >= 2 and again[-1].size == 0
    wire.check_tokens()
    steady.end()


# What is left of the tokens -------------------------------------------------------------------------------------------

def tokens(syns):
    return [syn.token for syn in syns if syn.token is not None]


def follow(before, after):
    """Whether the tokens go on, in this order and around the end, without a gap."""
    return all((one - before[0]) % 2 ** 32 == len(before) + at for at, one in enumerate(after))


COUNTED = LEARN + """
for line in sys.stdin:
    for number in range(int(line)):
        sock, how = go(SERVER, ECHO)
        echoes(sock)
        sock.close()
    say("done")
"""


def test_next_run_goes_on_with_the_tokens_that_are_left(world, env, wire):
    before = []
    for count in (3, 30, 100):
        known = len(wire.syns())
        assert output(world.run(*PYTHON, COUNTED, env=env, input=b"%d\n" % count)) == ["done"]
        spent = sorted(tokens(wire.syns()[known:]), key=lambda token: (token - (before or [token])[0]) % 2 ** 32)
        assert len(spent) >= count
        assert not before or follow(before, spent), (before, spent)
        before += spent
    wire.check_tokens()


def connect(world, env):
    """Through `socks6 connect`, to the echo."""
    return subprocess.run([*world.client.wrapper, client_binary(), "connect", "-N", "-x", world.url(), run_world.SERVER, str(run_world.ECHO)],
                          input=b"ping", capture_output=True, env=world.environment(XDG_CACHE_HOME=env["XDG_CACHE_HOME"]), timeout=DEADLINE,
                          check=False)


def test_others_do_not_get_what_is_lent(world, env, running, wire):
    """`socks6 connect` and a second tree, while the first one goes on; each of them spends in its own SYNs."""
    first, second = (running(*PYTHON, COUNTED) for _ in range(2))
    for _ in range(10):
        for one in (first, second):
            one.say("9")
            assert one.line() == "done"
        done = connect(world, env)
        assert (done.returncode, done.stdout) == (0, b"ping"), done.stderr
        assert wire.syns()[-1].token is not None
    for one in (first, second):
        assert one.end()[0] == 0
    done = connect(world, env)
    assert (done.returncode, done.stdout) == (0, b"ping"), done.stderr
    assert wire.check_tokens() >= 2 * 10 * 9 + 11
    assert len({syn.session for syn in wire.syns() if syn.session}) == 1


def test_killed_helper_has_lost_what_it_had_lent(world, trace, env, running, wire):
    """Nobody knows what of it was spent: it is not used again."""
    program = running(*PYTHON, COUNTED)
    program.say("20")
    assert program.line() == "done"
    for pid in trace.helpers():
        os.kill(pid, signal.SIGKILL)
    program.end()
    trace.nothing_is_left()
    assert output(world.run(*PYTHON, COUNTED, env=env, input=b"20\n")) == ["done"]
    assert connect(world, env).stdout == b"ping"
    assert wire.check_tokens() >= 41


# Other proxies --------------------------------------------------------------------------------------------------------

TWENTY = LEARN + """
for number in range(20):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    sock.close()
    say(how)
"""


def fast(peer):
    peer.listener.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 64)
    return peer


def test_proxy_without_sessions(world, env):
    """Nothing travels in a SYN that could be acted on twice."""
    with fast(FakeProxy(world)) as proxy, watching(world, proxy.port) as wire:
        assert output(world.run(*PYTHON, TWENTY, env=env, url=proxy.url)) == ["own"] * 20
        syns = wire.syns()
        assert len(syns) >= 22 and not any(syn.size for syn in syns)
        assert not any(kind == socks6.EXPENDITURE for request in proxy.requests for kind, _ in request.options)


@pytest.fixture
def sessions(world):
    """sessions(...): a SessionProxy6 in the proxy's place."""
    with contextlib.ExitStack() as stack:
        yield lambda **more: stack.enter_context(fast(world.proxy.call(lambda: SessionProxy6(host=run_world.PROXY, **more))))


def test_proxy_without_windows(world, env, sessions):
    proxy = sessions(window=0)
    with watching(world, proxy.port) as wire:
        assert output(world.run(*PYTHON, TWENTY, env=env, url=proxy.url())) == ["own"] * 20
        syns = wire.syns()
        assert len(syns) >= 22 and not any(syn.size for syn in syns)


def test_proxy_that_does_not_do_it(world, env):
    """It has sessions and windows, and no TCP Fast Open."""
    world.stop_proxy()
    try:
        world.start_proxy(listeners=[{"address": f"{run_world.PROXY}:{run_world.PROXY_PORT}", "open": True, "tfo": False}])
        with watching(world) as wire:
            assert output(world.run(*PYTHON, TWENTY, env=env)) == ["own"] * 20
            syns = wire.syns()
            assert len(syns) >= 22 and not any(syn.size for syn in syns)
    finally:
        world.stop_proxy()
        world.start_proxy()


def test_no_tfo_is_none_for_programs(world, env, wire):
    assert output(world.run(*PYTHON, TWENTY, env=env, options=["--no-tfo"])) == ["own"] * 20
    syns = wire.syns()
    assert len(syns) >= 22 and not any(syn.size for syn in syns)


def test_proxy_with_a_login(world, env, sessions):
    """The session stands for it."""
    proxy = sessions(users={"alice": "hunter2"})
    with watching(world, proxy.port) as wire:
        assert output(world.run(*PYTHON, TWENTY, env=env, url=world.url("alice:hunter2@", port=proxy.port))) == ["own"] * 20
        syns = wire.syns()
    assert len(syns) >= 22 and all(map(carries_all, syns[-20:]))
    assert len(set(tokens(syns))) == len(tokens(syns)) and (proxy.rejected, proxy.invalid) == (0, 0)
    assert sum(request.credentials() is not None for request in proxy.requests) == 1


@pytest.mark.parametrize("window", [1, 8, 40])
def test_proxy_with_a_small_window(world, env, sessions, window):
    """Few are lent at once, and connections for which there are none go through the helper."""
    proxy = sessions(window=window)
    with watching(world, proxy.port) as wire:
        own = output(world.run(*PYTHON, tree(3, 1, 50, 2) + "run_tree()\n", env=env, url=proxy.url()))
        assert len(own) == 3 and sum(map(int, own)) > 0
        syns = wire.syns()
    found = [(syn.session, syn.token) for syn in syns if syn.token is not None]
    assert len(found) == len(set(found)) and proxy.rejected == 0
    assert len(syns) >= 150
