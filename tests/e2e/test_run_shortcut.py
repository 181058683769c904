"""
Programs under `socks6 run` that connect their own socket to a near proxy: when they do, that one sees nothing of it, and what happens
when something goes wrong on the way. The programs say themselves which way they went (run_inside.py).
"""

import contextlib
import os
import re
import select
import signal
import socket
import threading
import time

import pytest

from cli_peers import SessionProxy6
from lib import run_world, socks6
from lib.daemon import Daemon, base_config
from lib.isolate import NetNs
from lib.net import DEADLINE, nobody_is_waiting, reset, wait_until
from lib.run_trace import PYTHON, output, starting, traced
from lib.run_world import RunWorld
from lib.servers import Echo, Server
from lib.tls import Authority
from lib.users import Users

HERE = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from run_inside import *
SERVER, SERVER6, ELSEWHERE, ECHO = {run_world.SERVER!r}, {run_world.SERVER6!r}, {run_world.ELSEWHERE!r}, {run_world.ECHO}
SILENT, REFUSING, UNREACHABLE = {run_world.SILENT!r}, {run_world.REFUSING!r}, {run_world.UNREACHABLE!r}
REFUSING6, UNREACHABLE6 = {run_world.REFUSING6!r}, {run_world.UNREACHABLE6!r}
PROXY, PROXY_PORT, PROXY_OUT = {run_world.PROXY!r}, {run_world.PROXY_PORT}, {run_world.PROXY_OUT!r}
"""
LEARN = HERE + "learn(SERVER, ECHO)\n"
# What FakeProxy says its address is.
BOUND = ("203.0.113.7", 4321)
YES = socks6.auth_reply() + socks6.op_reply(0, *BOUND)
GOOD = 1000  # a port of FakeProxy's: an echo
ECHO_LATE = 77


@pytest.fixture(scope="module")
def world(isolation):
    with contextlib.closing(RunWorld()) as one:
        yield one


@pytest.fixture
def trace(world):
    with traced(world) as one:
        yield one


@pytest.fixture
def running(world, trace):
    with starting(world, trace) as start:
        yield start


@pytest.fixture(autouse=True)
def no_leaks(world):
    world.settle()
    yield
    assert not world.leaks()
    assert not world.decoy.names()


class FakeProxy(Server):
    """SOCKS 6: what it does with a request depends on its port. `plans`: port -> function(sock, request); else yes, and an echo."""

    def __init__(self, world, plans=None, port=0):
        self.plans, self.requests, self.errors = plans or {}, [], []
        super().__init__(run_world.PROXY, make_socket=world.proxy.tcp_socket, port=port)
        self.url = world.url(port=self.port)

    def handle(self, sock, peer):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            request = socks6.read_request(sock)
            with self.lock:
                self.requests.append(request)
                self.lock.notify_all()
            self.plans.get(request.port, yes)(sock, request)
        except (AssertionError, socks6.ProtocolError) as error:
            self.errors.append(error)

    def count(self, port):
        with self.lock:
            return sum(request.port == port for request in self.requests)

    def close(self):
        super().close()
        assert not self.errors, self.errors


def echo(sock):
    while data := sock.recv(65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def yes(sock, _):
    sock.sendall(YES)
    echo(sock)


def says(data):
    def plan(sock, _):
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
    return plan


@pytest.fixture
def fake(world):
    with FakeProxy(world) as proxy:
        yield proxy


# When it is taken -----------------------------------------------------------------------------------------------------

def test_third_connection_is_the_programs_own_socket(world, trace):
    """The first one tells the helper how near the proxy is, the second one whether it may say something with TCP Fast Open."""
    code = HERE + """
for number in range(5):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(how, sock.family.name, sock.getpeername() == (SERVER, ECHO), raw_peer(sock) == (PROXY, PROXY_PORT), *sock.getsockname())
"""
    before = len(world.echo.peers)
    lines = output(world.run(*PYTHON, code, env=trace.env))
    ports = [port for host, port in world.echo.peers[before:] if host == run_world.PROXY_OUT]
    assert lines == [f"{how} AF_INET True True {run_world.PROXY_OUT} {port}"
                     for how, port in zip(["handed over"] * 2 + ["own"] * 3, ports, strict=True)]


def test_all_programs_of_the_tree_know_it(world, trace):
    """Another process, a child after fork(), what it executes."""
    code = HERE + """
import subprocess
def one(who):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(who, how, sock.getpeername(), sock.getsockname()[0] == PROXY_OUT)
if len(sys.argv) > 1:
    one(sys.argv[1])
    sys.exit()
learn(SERVER, ECHO)
again = [sys.executable, "-B", "-c", open("/proc/self/cmdline").read().split("\\0")[3]]
one("this one")
in_child(lambda: one("after fork"))
subprocess.run([*again, "another"], check=True)
os.execv(again[0], [*again, "after exec"])
"""
    lines = output(world.run(*PYTHON, code, env=trace.env))
    assert lines == [f"{who} own ('{run_world.SERVER}', {run_world.ECHO}) True" for who in ("this one", "after fork", "another", "after exec")]


def test_child_knows_what_its_parent_has_not_used(world, trace):
    """The memory is asked for where it is needed first."""
    code = HERE + """
import subprocess
def one():
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(how, sock.getpeername() == (SERVER, ECHO))
in_child(lambda: learn(SERVER, ECHO))
in_child(one)
one()
"""
    assert output(world.run(*PYTHON, code, env=trace.env)) == ["own True", "own True"]


def test_connection_is_known_to_those_who_inherit_it(world, trace):
    code = HERE + """
if len(sys.argv) > 1:
    sock = socket.socket(fileno=int(sys.argv[1]))
    echoes(sock)
    say(sock.getpeername() == (SERVER, ECHO), sock.getsockname()[0] == PROXY_OUT, connect(sock, SERVER, ECHO))
    sys.exit()
learn(SERVER, ECHO)
sock, how = go(SERVER, ECHO)
assert how == "own"
def child():
    echoes(sock)
    assert sock.getpeername() == (SERVER, ECHO)
in_child(child)
left, right = socket.socketpair()
socket.send_fds(left, [b"x"], [sock.fileno()])
received = socket.socket(fileno=socket.recv_fds(right, 1, 1)[1][0])
echoes(received)
say(received.getpeername() == (SERVER, ECHO), received.getsockname()[0] == PROXY_OUT)
os.set_inheritable(sock.fileno(), True)
os.execv(sys.executable, [sys.executable, "-B", "-c", open("/proc/self/cmdline").read().split("\\0")[3], str(sock.fileno())])
"""
    assert output(world.run(*PYTHON, code, env=trace.env)) == ["True True", "True True EISCONN"]


def test_options_and_duplicates_are_what_they_were(world, trace):
    code = LEARN + """
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 16)
copy, before = sock.dup(), cookie(sock)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.read(reader, 1)
    echoes(sock, b"the child's")
    assert sock.getpeername() == copy.getpeername() == (SERVER, ECHO), (sock.getpeername(), copy.getpeername())
    assert sock.getsockname()[0] == PROXY_OUT
    assert connect(sock, SERVER, ECHO) == "EISCONN"
    os._exit(0)
sock.connect((SERVER, ECHO))
say(way(sock, before), way(copy, before), sock.getpeername() == copy.getpeername() == (SERVER, ECHO))
say(*(bool(sock.getsockopt(*option)) for option in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY))),
    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS))
say(sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT), sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16))
echoes(copy, b"the copy's")
os.write(writer, b"x")
say(os.waitpid(child, 0)[1])
"""
    assert output(world.run(*PYTHON, code, env=trace.env)) == ["own own True", "True True 77 16", "1 True", "0"]


# Without waiting ------------------------------------------------------------------------------------------------------

# `one(number)` is told whether the connection took the shortcut, in a loop until it did: a proxy that takes more than a millisecond, as on
# a busy machine, is waited for by the helper; all the rest has to be as it says in any case.
UNTIL_OWN = """
for number in range(400):
    if one(number) == "own": break
else: raise AssertionError("no connection took the shortcut")
say("own")
"""


def test_non_blocking_connect_is_as_the_kernels(world, trace):
    code = LEARN + """
def one(number):
    sock = socket.socket()
    sock.setblocking(False)
    before = cookie(sock)
    assert connect(sock, SERVER, ECHO) == "EINPROGRESS"
    assert wait(sock, select.POLLIN | select.POLLOUT | select.POLLRDHUP) == select.POLLOUT
    assert error_of(sock) == "0"
    how = way(sock, before)
    assert how in ("own", "stream"), how
    assert sock.getpeername() == (SERVER, ECHO)
    assert how == "stream" or sock.getsockname()[0] == PROXY_OUT  # a stream's is ours from the beginning
    again = connect(sock, SERVER, ECHO), connect(sock, SERVER, ECHO)
    assert again == ("0", "EISCONN"), (how, again)
    echoes(sock)
    return how
""" + UNTIL_OWN
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["own"], done


def test_epoll_tells_of_the_connection_alone(world, trace):
    """Registered before, edge-triggered: room to write once, and nothing that comes from the proxy's reply."""
    code = LEARN + """
ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
def one(number):
    sock = socket.socket()
    sock.setblocking(False)
    before = cookie(sock)
    with select.epoll() as edge, select.epoll() as other:
        edge.register(sock, ALL)
        other.register(sock, select.EPOLLIN)
        assert connect(sock, SERVER, ECHO) == "EINPROGRESS"
        assert edge.poll(30) == [(sock.fileno(), select.EPOLLOUT)]
        assert edge.poll(0) == [] and other.poll(0) == []
        how = way(sock, before)
        sock.sendall(b"x")
        assert other.poll(30) == [(sock.fileno(), select.EPOLLIN)]
        assert sum(events for _, events in edge.poll(0)) & select.EPOLLIN
        assert sock.recv(2) == b"x"
    return how
""" + UNTIL_OWN
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["own"], done


def test_epoll_in_another_thread(world, trace, fake):
    """Which waits all the time, while the reply comes in pieces: it hears of the connection when it is one."""
    fake.plans[GOOD + 1] = one_by_one(YES)
    code = HERE + f"""
import threading
learn(SERVER, {GOOD})
ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
for number in range(10):
    sock = socket.socket()
    sock.setblocking(number % 2 == 0)
    seen, is_connected = [], threading.Event()
    with select.epoll() as edge:
        def watch():
            while not seen or not seen[-1][0] & select.EPOLLIN:
                for _, events in edge.poll(30):
                    seen.append((events, sock.getpeername()))
                    is_connected.set()
        edge.register(sock, ALL)
        edge.poll(0)  # of the socket that is not connected
        thread = threading.Thread(target=watch)
        thread.start()
        assert connect(sock, SERVER, {GOOD + 1}) == ("0" if sock.getblocking() else "EINPROGRESS")
        wait(sock)
        assert is_connected.wait(30)
        assert set(seen) == {{(select.EPOLLOUT, (SERVER, {GOOD + 1}))}}, seen  # a stream may say so more than once
        sock.sendall(b"x")
        thread.join()
say("done")
"""
    done = world.run(*PYTHON, code, url=fake.url, env=trace.env)
    assert output(done) == ["done"], done


def test_asyncio(world, trace):
    code = LEARN + """
import asyncio
async def one(number):
    reader, writer = await asyncio.open_connection(SERVER, ECHO)
    assert writer.get_extra_info("peername") == (SERVER, ECHO)
    data = b"%d" % number * 1000
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    writer.close()
    await writer.wait_closed()
async def main():
    await asyncio.gather(*(one(number) for number in range(50)))
asyncio.run(main())
say("done")
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["done"], done


# Answers that take long -----------------------------------------------------------------------------------------------

class Late:
    """A plan of FakeProxy's: the answer waits for the test; `then` is what it is, yes by default."""

    def __init__(self, then=yes):
        self.gate, self.then = threading.Event(), then

    def __call__(self, sock, request):
        assert self.gate.wait(DEADLINE)
        self.then(sock, request)


def sockets_of(pid):
    """How many a process has."""
    count = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    return count


# The program says which process it is, and begins when it is told to; `sock` is to be connected to LATE.
LATE = HERE + f"""
import signal
GOOD, LATE = {GOOD}, {GOOD + 1}
learn(SERVER, GOOD)
sock = socket.socket()
before = cookie(sock)
say(os.getpid())
on_line()
"""
ANSWERED = """
echoes(sock)
assert sock.getpeername() == (SERVER, LATE)
assert way(sock, before) == "stream" or sock.getsockname() == ("203.0.113.7", 4321)
say("answered")
"""


class LateProxy(FakeProxy):
    """Its answers for LATE wait until the gate is open; to so many requests at first they are `fault`."""

    def __init__(self, world, fault=None, faults=0):
        self.gate = threading.Event()

        def late(sock, request):
            number = self.asked()
            assert self.gate.wait(DEADLINE)
            (fault if number <= faults else yes)(sock, request)
        super().__init__(world, {GOOD + 1: late})

    def asked(self):
        return self.count(GOOD + 1)


@pytest.fixture
def late(world):
    with LateProxy(world) as proxy:
        yield proxy
        proxy.gate.set()


def begin(running, proxy, code, **more):
    """Starts LATE and `code`, up to where the helper waits for the answer, with the program: (Running, process ID)."""
    one = running(*PYTHON, LATE + code, url=proxy.url, **more)
    pid = int(one.line())
    before = sockets_of(pid)
    one.say()
    proxy.wait(proxy.asked, "the request")
    wait_until(lambda: sockets_of(pid) > before, "the library to ask the helper")
    return one, pid


def test_late_answer_to_a_blocking_connect(running, late):
    """The program keeps its socket, and the request is not repeated."""
    one, _ = begin(running, late, "say(connect(sock, SERVER, LATE), way(sock, before))\n" + ANSWERED)
    late.gate.set()
    assert (one.line(), one.line()) == ("0 own", "answered")
    assert one.end()[0] == 0 and late.asked() == 1


def test_late_answer_to_a_non_blocking_connect(running, late):
    code = """
sock.setblocking(False)
edge = select.epoll()
edge.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
say(connect(sock, SERVER, LATE), way(sock, before), connect(sock, SERVER, LATE), edge.poll(0), error_of(sock))
assert edge.poll(30) == [(sock.fileno(), select.EPOLLOUT)]
say(error_of(sock), connect(sock, SERVER, LATE), connect(sock, SERVER, LATE))
""" + ANSWERED
    one = running(*PYTHON, LATE + code, url=late.url)
    assert one.line()
    one.say()
    assert one.line() == "EINPROGRESS stream EALREADY [] 0"
    late.gate.set()
    assert (one.line(), one.line()) == ("0 0 EISCONN", "answered")
    assert one.end()[0] == 0 and late.asked() == 1


def test_server_that_is_late(world, running):
    """Behind the daemon: it sees one connection for each connect()."""
    port = ECHO_LATE
    world.world.nft(f"table inet late {{\n chain in {{\n type filter hook input priority -1\n tcp dport {port} drop\n }}\n}}")
    try:
        with Echo("0.0.0.0", port=port, make_socket=world.world.tcp_socket) as server:
            code = LEARN + f"""
one, other = socket.socket(), socket.socket()
before = cookie(one)
other.setblocking(False)
say(os.getpid(), connect(other, SERVER, {port}))
say(connect(one, SERVER, {port}), way(one, before))
wait(other)
say(error_of(other))
for sock in (one, other):
    echoes(sock)
    assert sock.getpeername() == (SERVER, {port})
"""
            one = running(*PYTHON, code)
            pid, said = one.line().split()
            assert said == "EINPROGRESS"
            # The second one is a stream by now; the first one asks.
            wait_until(lambda: sockets_of(int(pid)) == 3, "the library to ask the helper")
            world.world.nft("delete table inet late")
            assert (one.line(), one.line()) == ("0 own", "0")
            assert one.end()[0] == 0
            assert server.accepted == 2
    finally:
        world.world.nft("table inet late\ndelete table inet late")


def test_signal_while_the_answer_is_late(running, late):
    """Without SA_RESTART it is EINTR, and the connection comes up in the background."""
    code = """
signal.signal(signal.SIGUSR2, lambda *_: None)
say(connect(sock, SERVER, LATE))
poll = select.poll()
poll.register(sock, select.POLLIN | select.POLLOUT)
say(poll.poll(0))
say(wait(sock) == select.POLLOUT, error_of(sock), connect(sock, SERVER, LATE), connect(sock, SERVER, LATE))
""" + ANSWERED
    one, pid = begin(running, late, code)
    def said():  # more than once: the first one may come before the program sleeps
        os.kill(pid, signal.SIGUSR2)
        return select.select([one.process.stdout], [], [], 0)[0]
    wait_until(said, "the end of connect()")
    assert (one.line(), one.line()) == ("EINTR", "[]")
    late.gate.set()
    assert (one.line(), one.line()) == ("True 0 0 EISCONN", "answered")
    assert one.end()[0] == 0 and late.asked() == 1


def test_signal_that_restarts_while_the_answer_is_late(running, late):
    code = """
signal.signal(signal.SIGUSR2, lambda *_: None)
signal.siginterrupt(signal.SIGUSR2, False)
signal.set_wakeup_fd(os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK))
say(connect(sock, SERVER, LATE), way(sock, before))
""" + ANSWERED
    one, pid = begin(running, late, code)
    for _ in range(3):
        os.kill(pid, signal.SIGUSR2)
        assert select.select([one.process.stdout], [], [], DEADLINE)[0]
        assert os.read(one.process.stdout.fileno(), 1) == bytes([signal.SIGUSR2])
    late.gate.set()
    assert (one.line(), one.line()) == ("0 own", "answered")
    assert one.end()[0] == 0 and late.asked() == 1


def test_signals_in_the_first_moments_are_not_lost(running, fake):
    """They are held back while the proxy may answer quickly, and interrupt connect(2) afterwards; the mask is what it was."""
    again = 0

    def kills(sock, _):
        nonlocal again
        os.kill(pid, signal.SIGUSR2)
        sock.settimeout(2)
        while True:
            try:
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
                return
            except TimeoutError:  # it was lost
                again += 1
                os.kill(pid, signal.SIGUSR2)
    fake.plans[GOOD + 1] = kills
    code = LATE + """
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGUSR2, handler)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for _ in range(20):
    said = connect(sock, SERVER, LATE)
    assert said == "EINTR" and count > 0, (said, count)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1}
    sock.close()
    sock, count = socket.socket(), 0
say("done")
"""
    one = running(*PYTHON, code, url=fake.url)
    pid = int(one.line())
    one.say()
    assert one.line() == "done"
    assert one.end()[0] == 0
    # One that comes after all, in the moment between the last look and the sleep, is too early as with every call that blocks.
    assert again <= 2


def test_signal_that_restarts_in_the_first_moments(running, fake):
    def kills(sock, request):
        os.kill(pid, signal.SIGUSR2)
        wait_until(lambda: sockets_of(pid) > before, "the library to ask the helper")
        yes(sock, request)
    fake.plans[GOOD + 1] = kills
    code = LATE + """
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGUSR2, handler)
signal.siginterrupt(signal.SIGUSR2, False)
say(connect(sock, SERVER, LATE), count, way(sock, before))
""" + ANSWERED
    one = running(*PYTHON, code, url=fake.url)
    pid = int(one.line())
    before = sockets_of(pid)
    one.say()
    assert (one.line(), one.line()) == ("0 1 own", "answered")
    assert one.end()[0] == 0 and fake.count(GOOD + 1) == 1


def test_signal_ends_a_program_that_connects(world, trace):
    """One without a handler."""
    code = LEARN + """
import signal
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
say(connect(socket.socket(), SILENT, ECHO))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert done.returncode == -signal.SIGALRM and not done.stdout, done


def test_time_limit_of_the_program(world, trace):
    code = LEARN + """
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("qq", 0, 50000))
say(connect(sock, SILENT, ECHO))
sock = socket.socket()
sock.settimeout(0.05)
try: sock.connect((SILENT, ECHO))
except TimeoutError: say("timed out")
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["EINPROGRESS", "timed out"], done


def test_other_threads_go_on_meanwhile(running, late):
    """One waits for a late answer, others connect and have the helper's ear."""
    code = """
import threading
def other():
    on_line()
    for _ in range(10):
        one, how = go(SERVER, GOOD)
        assert how == "own"
        echoes(one)
    say("others")
thread = threading.Thread(target=other)
thread.start()
say(connect(sock, SERVER, LATE), way(sock, before))
thread.join()
""" + ANSWERED
    one, _ = begin(running, late, code)
    one.say()
    assert one.line() == "others"
    late.gate.set()
    assert (one.line(), one.line()) == ("0 own", "answered")
    assert one.end()[0] == 0 and late.asked() == 1


def test_program_that_gives_up(running, late):
    """It closes a socket that waits, or ends: the proxy sees the end of the connection."""
    gone = threading.Event()

    def waits(sock, _):
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        gone.set()
    late.plans[GOOD + 2] = waits
    code = """
second = socket.socket()
second.setblocking(False)
assert connect(second, SERVER, LATE + 1) == "EINPROGRESS"
second.close()
say(connect(sock, SERVER, LATE))
"""
    one, pid = begin(running, late, code)
    assert gone.wait(DEADLINE)
    os.kill(pid, signal.SIGKILL)
    assert one.end()[0] == -signal.SIGKILL


# Errors ---------------------------------------------------------------------------------------------------------------

def test_errors_of_destinations(world, trace):
    """As without a proxy; and the same socket connects elsewhere afterwards."""
    code = LEARN + """
for where in (REFUSING, UNREACHABLE, SILENT):
    sock = socket.socket()
    before = cookie(sock)
    said = connect(sock, where, ECHO)
    say(said, error_of(sock), cookie(sock) == before, raw_peer(sock), connect(sock, SERVER, ECHO))
    assert way(sock, before) in ("own", "handed over")  # the kernel lets it keep its port
    echoes(sock)
"""
    done = world.run(*PYTHON, code, options=["-w", "1"], env=trace.env)
    assert output(done) == [f"{error} 0 True None 0" for error in ("ECONNREFUSED", "EHOSTUNREACH", "ETIMEDOUT")], done


def test_errors_of_destinations_come_later_without_waiting(world, trace):
    code = LEARN + """
for where in (REFUSING, UNREACHABLE, SILENT):
    for again in range(2):
        sock = socket.socket()
        sock.setblocking(False)
        with select.epoll() as edge:
            edge.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)
            said = connect(sock, where, ECHO)
            assert edge.poll(30)[0][1] & (select.EPOLLERR | select.EPOLLHUP)
        say(said, error_of(sock), error_of(sock))
        sock.setblocking(True)
        assert (connect(sock, SERVER, ECHO), connect(sock, SERVER, ECHO)) == ("ECONNABORTED", "0")  # as the kernel has it
        echoes(sock)
"""
    done = world.run(*PYTHON, code, options=["-w", "1"], env=trace.env)
    assert output(done) == [f"EINPROGRESS {error} 0" for error in ("ECONNREFUSED", "EHOSTUNREACH", "ETIMEDOUT") for _ in range(2)], done


@pytest.mark.parametrize("code, error", [(1, "ENETUNREACH"), (2, "EACCES"), (3, "ENETUNREACH"), (4, "EHOSTUNREACH"), (5, "ECONNREFUSED"),
                                         (6, "EHOSTUNREACH"), (7, "ENETUNREACH"), (8, "ENETUNREACH"), (9, "ETIMEDOUT")])
def test_reply_codes(world, trace, fake, code, error):
    """Each is one request: what the proxy has said of the destination is not asked for again."""
    fake.plans[code] = says(socks6.auth_reply() + socks6.op_reply(code))
    program = HERE + f"""
learn(SERVER, {GOOD})
sock, other = socket.socket(), socket.socket()
before = cookie(sock)
say(connect(sock, SERVER, {code}), cookie(sock) == before, raw_peer(sock), error_of(sock))
other.setblocking(False)
say(connect(other, SERVER, {code}), bool(wait(other) & (select.POLLERR | select.POLLHUP)), error_of(other), error_of(other))
say(connect(sock, SERVER, {GOOD}), way(sock, before) in ("own", "handed over"))
echoes(sock)
"""
    done = world.run(*PYTHON, program, url=fake.url, env=trace.env)
    assert output(done) == [f"{error} True None 0", f"EINPROGRESS True {error} 0", "0 True"], done
    assert not done.stderr and fake.count(code) == 2, done


# What proxies may do --------------------------------------------------------------------------------------------------

def in_pieces(*pieces):
    """Sends them one after the other, a moment between them, so that they come as they were sent."""
    def plan(sock, _):
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(0.0005)
        echo(sock)
    return plan


def one_by_one(data, rest=b""):
    """A byte at a time; the last one has `rest` behind it."""
    return in_pieces(*(data[i:i + 1] for i in range(len(data) - 1)), data[-1:] + rest)


HELLO = b"hello from the server"
WHOLE = {"with data behind it": in_pieces(YES + HELLO), "byte by byte": one_by_one(YES, HELLO), "two replies": in_pieces(YES[:4], YES[4:] + HELLO),
         "in the middle of the second": in_pieces(YES[:9], YES[9:], HELLO), "with a name": in_pieces(
             socks6.auth_reply() + socks6.op_reply(0, "name.test", 4) + HELLO),
         "with options": one_by_one(socks6.auth_reply(options=socks6.option(0x7000, b"x" * 40)) + socks6.op_reply(
             0, *BOUND, options=socks6.stack(1, 1, 1, b"\0\1")), HELLO)}


@pytest.mark.parametrize("kind", WHOLE)
def test_replies_in_pieces(world, trace, fake, kind):
    """Not a byte of the server's is lost, and none of the proxy's seen; on the program's own socket."""
    fake.plans[GOOD + 1] = WHOLE[kind]
    code = HERE + f"""
learn(SERVER, {GOOD})
def hear(sock):
    sock.settimeout(30)
    got = b""
    while len(got) < {len(HELLO)}: got += sock.recv(1000)
    assert got == {HELLO!r}, got
    echoes(sock)
for _ in range(3):
    sock, how = go(SERVER, {GOOD + 1})
    say(how)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16) == bytes(16)
    hear(sock)
for _ in range(3):
    sock = socket.socket()
    sock.setblocking(False)
    assert connect(sock, SERVER, {GOOD + 1}) == "EINPROGRESS"
    wait(sock)
    assert error_of(sock) == "0"
    hear(sock)
"""
    done = world.run(*PYTHON, code, url=fake.url, env=trace.env)
    assert output(done) == ["own"] * 3 and not done.stderr, done
    assert fake.count(GOOD + 1) == 6


GARBAGE = {"an end": says(b""), "half a reply": says(YES[:9]), "a reset": lambda sock, _: reset(sock),
           "half a reply and a reset": lambda sock, _: sock.sendall(YES[:9]) or reset(sock),
           "another protocol": says(b"HTTP/1.0 400 Bad Request\r\n\r\n"), "another version": says(bytes([5]) + YES[1:]),
           "a login that is refused": says(socks6.auth_reply(1))}


@pytest.mark.parametrize("kind", GARBAGE)
@pytest.mark.parametrize("waits", ["blocking", "non-blocking"])
def test_proxy_that_is_no_use(world, trace, fake, kind, waits):
    """The helper asks again, and says why it was in vain; when it was not, the shortcut is taken again."""
    def once(sock, request):
        (GARBAGE[kind] if fake.count(GOOD + 2) % 2 else yes)(sock, request)
    fake.plans.update({GOOD + 1: GARBAGE[kind], GOOD + 2: once})
    code = HERE + f"""
learn(SERVER, {GOOD})
def attempt(port):
    sock = socket.socket()
    sock.setblocking({waits == "blocking"})
    said = connect(sock, SERVER, port)
    if not sock.getblocking():
        assert said == "EINPROGRESS", said
        wait(sock)
        said = error_of(sock)
    if said == "0":
        echoes(sock)
    return said
say(attempt({GOOD + 2}))
learn(SERVER, {GOOD})
say(attempt({GOOD + 1}))
sock, how = go(SERVER, {GOOD})
echoes(sock)
learn(SERVER, {GOOD})
say(how)
"""
    done = world.run(*PYTHON, code, url=fake.url, env=trace.env)
    first, second, how = output(done)
    assert (first, second) == ("0", "ENETUNREACH"), done
    # What does not wait has not tried the shortcut at all if the answer to the one before took long.
    assert how == "handed over" or (waits, how) == ("non-blocking", "own"), done
    assert done.stderr.count(b"\n") == 1, done


def test_reply_that_is_longer_than_the_library_takes(world, trace, fake):
    """The helper can."""
    fake.plans[GOOD + 1] = in_pieces(socks6.auth_reply(options=socks6.unknown_options(4, 512)) + socks6.op_reply(0))
    code = HERE + f"""
learn(SERVER, {GOOD})
sock, how = go(SERVER, {GOOD + 1})
echoes(sock)
say(how)
"""
    done = world.run(*PYTHON, code, url=fake.url, env=trace.env)
    assert output(done) == ["handed over"] and not done.stderr, done
    assert fake.count(GOOD + 1) == 2


@pytest.mark.parametrize("kind", GARBAGE)
def test_late_answer_that_is_no_use(world, running, kind):
    """The helper, which waits for it, asks again, for programs that wait and those that do not."""
    with LateProxy(world, GARBAGE[kind], 2) as proxy:
        code = """
other = socket.socket()
other.setblocking(False)
assert connect(other, SERVER, LATE) == "EINPROGRESS"
say(connect(sock, SERVER, LATE), way(sock, before))
echoes(sock)
assert sock.getpeername() == (SERVER, LATE)
wait(other)
say(error_of(other))
echoes(other)
"""
        one = running(*PYTHON, LATE + code, url=proxy.url)
        pid = int(one.line())
        before = sockets_of(pid)
        one.say()
        proxy.wait(lambda: proxy.asked() == 2, "both connections")
        wait_until(lambda: sockets_of(pid) == before + 2, "the library to ask the helper")
        proxy.gate.set()
        assert (one.line(), one.line()) == ("0 handed over", "0")
        assert one.end() == (0, "", "")


def test_proxy_that_never_answers(running, fake):
    """It sees the end when the time is up."""
    ended = threading.Semaphore(0)

    def waits(sock, _):
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(1) == b""
        ended.release()
    fake.plans[GOOD + 1] = waits
    code = HERE + f"""
learn(SERVER, {GOOD})
sock, other = socket.socket(), socket.socket()
other.setblocking(False)
say(connect(other, SERVER, {GOOD + 1}), connect(sock, SERVER, {GOOD + 1}))
wait(other)
say(error_of(other))
new, how = go(SERVER, {GOOD})
echoes(new)
say(how)
on_line()
"""
    one = running(*PYTHON, code, url=fake.url, options=["-w", "1"])
    assert [one.line() for _ in range(3)] == ["EINPROGRESS ETIMEDOUT", "ETIMEDOUT", "own"]
    for _ in range(2):
        assert ended.acquire(timeout=DEADLINE)
    one.say()
    assert one.end()[0] == 0 and fake.count(GOOD + 1) == 2


@pytest.mark.parametrize("waits", ["blocking", "non-blocking"])
def test_proxy_that_goes_and_comes_back(world, running, waits):
    code = HERE + f"""
learn(SERVER, {GOOD})
say("there")
on_line()
for _ in range(2):
    sock = socket.socket()
    sock.setblocking({waits == "blocking"})
    said = connect(sock, SERVER, {GOOD})
    if said == "EINPROGRESS":
        wait(sock)
        said = error_of(sock)
    say(said)
on_line()
sock, how = go(SERVER, {GOOD})
echoes(sock)
learn(SERVER, {GOOD})
say(how)
"""
    with FakeProxy(world) as proxy:
        one = running(*PYTHON, code, url=proxy.url)
        assert one.line() == "there"
    one.say()
    assert (one.line(), one.line()) == ("ENETUNREACH", "ENETUNREACH")
    with FakeProxy(world, port=proxy.port):
        one.say()
        assert one.line() == "handed over"
        status, out, err = one.end()
    assert (status, out) == (0, "") and err.count("\n") == 1 and "refused" in err.lower(), err


# Who uses the proxy, and how ------------------------------------------------------------------------------------------

# The ways of some connections, each with what there is to say about it.
SOME = HERE + """
ways = set()
for number in range(4):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    assert sock.getpeername() == (SERVER, ECHO)
    ways.add(how)
say(*sorted(ways))
"""


@contextlib.contextmanager
def another_daemon(world, port=0, listener=None, **options):
    """Beside the world's own."""
    with Daemon(base_config([{"address": f"{run_world.PROXY}:{port}", **(listener or {})}], **options),
                wrapper=[*world.proxy.wrapper, *world.proxy_files]) as one:
        yield one


def test_session_instead_of_the_password(world, running):
    """The password is sent once; and when the proxy has forgotten the session the program does not see it."""
    code = LEARN + """
for _ in range(2):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(how)
on_line()
for _ in range(2):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    assert sock.getpeername() == (SERVER, ECHO)
learn(SERVER, ECHO)
say("again")
on_line()
sock, how = go(SERVER, ECHO)
echoes(sock)
say(how)
"""
    proxy = world.proxy.call(lambda: SessionProxy6({"alice": "hunter2"}, host=run_world.PROXY, destination=(run_world.SERVER, run_world.ECHO)))
    with proxy:
        one = running(*PYTHON, code, url=proxy.url("alice:hunter2@"))
        assert (one.line(), one.line()) == ("own", "own")
        first, rest = proxy.requests[0], proxy.requests[1:]
        assert first.credentials() == ("alice", "hunter2")
        key, = proxy.sessions
        assert len(rest) >= 2 and not any(b"hunter2" in request.raw for request in rest)
        for request in rest[-2:]:
            assert request.options == [(6, key)], "the session's ID and nothing else"
        count = len(proxy.requests)
        proxy.forget()
        one.say()
        assert one.line() == "again"
        again = proxy.requests[count:]
        assert proxy.invalid and sum(request.credentials() is not None for request in again) == 1
        key, = proxy.sessions
        assert again[-1].options == [(6, key)]
        one.say()
        assert one.line() == "own"
        assert one.end() == (0, "", "")


def test_daemon_that_is_started_anew(world, running, tmp_path):
    """It does not know the session any more."""
    auth = Users(tmp_path, alice="hunter2").auth()
    code = LEARN + """
say("there")
for _ in range(2):
    on_line()
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    sock.close()
    learn(SERVER, ECHO)
    say(how)
"""
    with another_daemon(world, auth=auth) as daemon:
        port = daemon.addr[1]
        one = running(*PYTHON, code, url=world.url("alice:hunter2@", port))
        assert one.line() == "there"
    for _ in range(2):
        with another_daemon(world, port, auth=auth):
            one.say()
            assert one.line() == "handed over"
    assert one.end() == (0, "", "")


def test_never_without_a_session(world, trace):
    """Each connection is one request, with the password."""
    with world.proxy.call(lambda: SessionProxy6({"alice": "hunter2"}, host=run_world.PROXY,
                                                destination=(run_world.SERVER, run_world.ECHO))) as proxy:
        done = world.run(*PYTHON, SOME, url=proxy.url("alice:hunter2@"), options=["--no-session"], env=trace.env)
        assert output(done) == ["handed over"], done
    assert [request.credentials() for request in proxy.requests] == [("alice", "hunter2")] * 4


def test_never_over_tls(world, trace, tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("proxy", alternatives=f"IP:{run_world.PROXY}")
    with another_daemon(world, listener={"open": True, "tls": {"certificate": certificate, "key": key}}) as daemon:
        url = f"socks6s://{run_world.PROXY}:{daemon.addr[1]}?ca={authority.pem}"
        done = world.run(*PYTHON, SOME, url=url, env=trace.env)
    assert output(done) == ["stream"], done


TOO_MANY = ",".join(f"192.0.{2 + number // 256}.{number % 256}" for number in range(257))


@pytest.mark.parametrize("options, scheme, no_proxy, expected", [
    (["--early"], "socks6", None, "stream"), (["--fake-names"], "socks6", None, "handed over"), (["-vv"], "socks6", None, "handed over"),
    ([], "socks5h", None, "handed over"),
    ([], "socks6", TOO_MANY, "handed over"), ([], "socks6", TOO_MANY.replace("192.0.2.0,", "", 1), "handed over own"),
    ([], "socks6", "10.99.0.0/16", "handed over own"), ([], "socks6", "192.0.2.1", "handed over own"),
    ([], "socks6", "127.0.0.0/7,2001:db8::/32", "handed over own"),
    ([], "socks6", "localhost,127.0.0.1,::1", "handed over own"), ([], "socks6", "localhost,127.0.0.0/8,.internal.test", "handed over own"),
    (["-v"], "socks6", None, "handed over own"), (["--no-session"], "socks6", None, "handed over own"),
    (["--no-tfo"], "socks6", None, "handed over own"), (["--no-early-data"], "socks6", None, "handed over own")])
def test_only_where_nothing_else_is_to_be_done(world, trace, options, scheme, no_proxy, expected):
    env = {**trace.env, **({"NO_PROXY": no_proxy} if no_proxy else {})}
    done = world.run(*PYTHON, SOME, url=world.url().replace("socks6", scheme), options=options, env=env)
    assert output(done) == [expected], done


def test_drafts(world, trace):
    for draft in (8, 12):
        done = world.run(*PYTHON, SOME, url=f"{world.url()}?draft={draft}", env=trace.env)
        assert output(done) == ["handed over own"], done


def test_what_verbose_says(world, trace):
    """A line for each connection, as the helper prints them."""
    done = world.run(*PYTHON, SOME + "say(os.getpid(), connect(socket.socket(), REFUSING, ECHO))", options=["-v"], env=trace.env)
    lines = output(done)
    assert lines[0] == "handed over own", done
    pid, error = lines[1].split()
    where = re.escape(f"{run_world.SERVER}:{run_world.ECHO}")
    said = done.stderr.decode().splitlines()
    made = [line for line in said if re.search(rf"{pid}.*: connect to {where}: connected, [12] round trips?, \d+ ms$", line)]
    assert len(made) == 4 and sum("2 round trips" in line for line in made) >= 2, said
    assert error == "ECONNREFUSED"
    assert sum(f"connect to {run_world.REFUSING}:{run_world.ECHO}: " in line for line in said) == 1, said


@pytest.mark.parametrize("no_proxy", [f"{run_world.ELSEWHERE}/31", f"192.0.2.1 ,[{run_world.ELSEWHERE}]", f"::ffff:{run_world.ELSEWHERE}"])
def test_network_of_no_proxy_is_direct(world, trace, no_proxy):
    """And only that. Also for a socket of the other family."""
    code = SOME + """
sock, how = go(ELSEWHERE, ECHO)
echoes(sock)
say(how)
say(go("::ffff:" + ELSEWHERE, ECHO, socket.AF_INET6)[1], go("::ffff:" + SERVER, ECHO, socket.AF_INET6)[1])
say(go(SERVER, ECHO)[1])
"""
    done = world.run(*PYTHON, code, env={**trace.env, "NO_PROXY": no_proxy})
    assert output(done) == ["handed over own", "direct", "direct own", "own"], done
    assert world.leaks()["away"] > 0
    world.settle()


def test_name_of_no_proxy_is_direct_as_soon_as_it_is_known(world, trace):
    # Another process of the tree looks it up: what this one knows is not enough.
    code = LEARN + """
import subprocess
ask = [sys.executable, "-B", "-c", "import socket; print(socket.gethostbyname('web.run.test'))"]
say(*(go(host, ECHO)[1] for host in (SERVER, ELSEWHERE)))
say(subprocess.run(ask, check=True, text=True, stdout=subprocess.PIPE).stdout.strip() == ELSEWHERE)
for _ in range(2):
    connections = [go(host, ECHO) for host in (SERVER, ELSEWHERE)]
    for sock, _ in connections:
        echoes(sock)
    say(*(how for _, how in connections))
"""
    done = world.run(*PYTHON, code, env={**trace.env, "NO_PROXY": "web.run.test"})
    assert output(done) == ["own own", "True", "own direct", "own direct"], done
    world.settle()


# Sockets --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prepare", [
    "sock.bind(('', 0))", "sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('qq', 20, 0))",
    "sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('qq', 20, 0))",
    "sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4)", "sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT"])
def test_sockets_with_wishes_go_through_the_helper(world, trace, prepare):
    """What they have been told to be they still are; also if it was done to a copy."""
    code = LEARN + f"""
OPTIONS = ((socket.SOL_SOCKET, socket.SO_RCVTIMEO, 16), (socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16), (socket.SOL_SOCKET, socket.SO_RCVLOWAT, 4))
for whose in range(2):
    sock = original = socket.socket()
    before = cookie(sock)
    if whose:
        sock = original.dup()
    {prepare}
    options = [sock.getsockopt(*option) for option in OPTIONS]
    sock = original
    say(connect(sock, SERVER, ECHO), way(sock, before), sock.getpeername() == (SERVER, ECHO), sock.getsockname()[0] == PROXY_OUT,
        [sock.getsockopt(*option) for option in OPTIONS] == options)
    sock.sendall(b"echo")
    assert sock.recv(4, socket.MSG_WAITALL) == b"echo"
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["0 handed over True True True"] * 2, done


def test_ports_of_their_own_meaning(world, trace):
    """Port 53 is the proxy's DNS service; at port 0 nobody listens."""
    code = LEARN + """
sock, how = go(ELSEWHERE, 53)
query = bytes.fromhex("123401000001000000000000") + bytes.fromhex("037765620372756e04746573740000010001")
sock.sendall(struct.pack("!H", len(query)) + query)
sock.settimeout(30)
answer = sock.recv(2, socket.MSG_WAITALL)
answer = sock.recv(struct.unpack("!H", answer)[0], socket.MSG_WAITALL)
say(how, socket.inet_aton(SERVER) in answer, sock.getpeername() == (ELSEWHERE, 53))
say(connect(socket.socket(), SERVER, 0))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["handed over True True", "ECONNREFUSED"], done


def test_mptcp(world, trace):
    code = LEARN + """
try: sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
except OSError: say("none")
else:
    before = cookie(sock)
    said = connect(sock, SERVER, ECHO)
    echoes(sock)
    say(said, way(sock, before))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    if output(done) == ["none"]:
        pytest.skip("this kernel has no MPTCP")
    assert output(done) == ["0 handed over"], done


def test_ipv6_behind_an_ipv4_proxy(world, trace):
    """An IPv6 socket is connected to the proxy's IPv4-mapped address, unless the program does not want IPv4."""
    code = HERE + """
learn(SERVER, ECHO)
sock, how = go(SERVER6, ECHO, socket.AF_INET6)
echoes(sock)
say(how, sock.family.name, sock.getpeername()[:2] == (SERVER6, ECHO), raw_peer(sock) == ("::ffff:" + PROXY, PROXY_PORT), sock.getsockname()[0])
sock, how = go("::ffff:" + SERVER, ECHO, socket.AF_INET6)
echoes(sock)
say(how, sock.family.name, sock.getpeername()[:2] == ("::ffff:" + SERVER, ECHO), sock.getsockname()[0])
sock, how = go(SERVER6, ECHO, socket.AF_INET6, lambda sock: sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
echoes(sock)
say(how != "own", sock.getpeername()[:2] == (SERVER6, ECHO), sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
assert go(SERVER, ECHO)[1] == "own"  # nothing was wrong with the way itself
sock = socket.socket(socket.AF_INET6)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
say(connect(sock, "::ffff:" + SERVER, ECHO))
for where in (REFUSING6, UNREACHABLE6):
    say(connect(socket.socket(socket.AF_INET6), where, ECHO))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == [f"own AF_INET6 True True {run_world.PROXY_OUT6}", f"own AF_INET6 True ::ffff:{run_world.PROXY_OUT}", "True True 1",
                            "ENETUNREACH", "ECONNREFUSED", "EHOSTUNREACH"], done


def test_ipv6_proxy(world, trace):
    """Which IPv4 sockets cannot reach."""
    code = HERE + f"""
learn(SERVER6, ECHO, socket.AF_INET6)
sock, how = go(SERVER6, ECHO, socket.AF_INET6)
echoes(sock)
say(how, sock.getpeername()[:2] == (SERVER6, ECHO), raw_peer(sock) == ({run_world.PROXY6!r}, PROXY_PORT))
sock, how = go("::ffff:" + SERVER, ECHO, socket.AF_INET6)
echoes(sock)
say(how, sock.getpeername()[:2] == ("::ffff:" + SERVER, ECHO), sock.getsockname()[0] == "::ffff:" + PROXY_OUT)
for _ in range(2):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(how, sock.getpeername() == (SERVER, ECHO), sock.getsockname()[0] == PROXY_OUT)
"""
    done = world.run(*PYTHON, code, url=f"socks6://[{run_world.PROXY6}]:{run_world.PROXY_PORT}", env=trace.env)
    assert output(done) == ["own True True"] * 2 + ["stream True True"] * 2, done


# TCP Fast Open --------------------------------------------------------------------------------------------------------

TOKEN, SESSION_ID = 13, 6


class SynProxy(SessionProxy6):
    """Takes requests out of SYNs. Its requests say themselves what they are."""

    def __init__(self, **more):
        super().__init__(host=run_world.PROXY, destination=(run_world.SERVER, run_world.ECHO), **more)
        self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 512)

    def tokens(self):
        return [dict(request.options)[TOKEN] for request in self.requests if TOKEN in dict(request.options)]

    def begun_by_programs(self):
        """Those with a session and a token, and nothing else."""
        return [request for request in self.requests if sorted(kind for kind, _ in request.options) == [SESSION_ID, TOKEN]]


@pytest.fixture
def fast_open(world):
    spaces = (world.client, world.proxy)
    for space in spaces:
        space.sysctl(net__ipv4__tcp_fastopen=3, net__ipv4__tcp_fastopen_blackhole_timeout_sec=0)
        space.ip("tcp_metrics flush all")
    yield
    for space in spaces:
        space.sysctl(net__ipv4__tcp_fastopen=1)
        space.ip("tcp_metrics flush all")


def syn_proxy(world, **more):
    return world.proxy.call(lambda: SynProxy(**more))


def test_fast_open_spends_a_token_for_each(world, trace, fast_open):
    """One round trip, for those that wait and those that do not."""
    code = LEARN + """
sock, how = go(SERVER, ECHO)
echoes(sock)
assert way(sock, 0) != "direct" and sock.getpeername() == (SERVER, ECHO) and connect(sock, SERVER, ECHO) == "EISCONN"
say(how)
def one(number):
    sock = socket.socket()
    sock.setblocking(False)
    before = cookie(sock)
    assert connect(sock, SERVER, ECHO) == "EINPROGRESS"
    assert wait(sock, select.POLLIN | select.POLLOUT | select.POLLRDHUP) == select.POLLOUT
    assert error_of(sock) == "0" and sock.getpeername() == (SERVER, ECHO)
    how = way(sock, before)
    again = connect(sock, SERVER, ECHO), connect(sock, SERVER, ECHO)
    assert again == ("0", "EISCONN"), (how, again)
    echoes(sock)
    return how
""" + UNTIL_OWN
    with syn_proxy(world) as proxy:
        done = world.run(*PYTHON, code, url=proxy.url(), options=["-v"], env=trace.env)
    assert output(done) == ["own", "own"], done
    tokens = proxy.tokens()
    assert len(set(tokens)) == len(tokens) and proxy.rejected == proxy.invalid == 0
    assert len(proxy.begun_by_programs()) >= 3
    said = [line for line in done.stderr.decode().splitlines() if ": connected, " in line]
    assert len(said) == len(proxy.requests)
    assert any(", 1 round trip," in line for line in said[2:]) and not any(", 2 round trips," in line for line in said[2:]), said


def test_fast_open_of_the_daemon(world, trace, fast_open):
    with another_daemon(world, listener={"open": True}) as daemon:
        done = world.run(*PYTHON, LEARN + SOME.replace(HERE, ""), url=world.url(port=daemon.addr[1]), options=["-v"], env=trace.env)
    assert output(done) == ["own"], done
    assert done.stderr.count(b"connected, 1 round trip,") >= 4, done


def test_fast_open_with_many_at_once(world, trace, fast_open):
    """No token is taken twice, in threads or processes; and there are always more."""
    code = LEARN + """
import threading
start, ways = threading.Barrier(50), []
def one(number):
    start.wait()
    for _ in range(8):
        sock, how = go(SERVER, ECHO)
        echoes(sock)
        sock.close()
        ways.append(how)
def many():
    threads = [threading.Thread(target=one, args=(number,)) for number in range(50)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert len(ways) == 400 and set(ways) <= {"own", "handed over"} and ways.count("own") > 10, ways
child = os.fork()
many()
if child == 0: os._exit(0)
assert os.waitpid(child, 0)[1] == 0
say("done")
"""
    with syn_proxy(world) as proxy:
        done = world.run(*PYTHON, code, url=proxy.url(), env=trace.env)
    assert output(done) == ["done"] and not done.stderr, done
    tokens = proxy.tokens()
    assert len(set(tokens)) == len(tokens) and proxy.rejected == 0, (len(set(tokens)), len(tokens), proxy.rejected)
    assert proxy.acted == len(proxy.requests) >= 800


@pytest.mark.parametrize("window", [1, 3, 0])
def test_fast_open_with_few_tokens(world, trace, fast_open, window):
    """A proxy with a small window, or none."""
    with syn_proxy(world, window=window) as proxy:
        code = HERE + """
for number in range(30):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    assert sock.getpeername() == (SERVER, ECHO)
say("done")
"""
        done = world.run(*PYTHON, code, url=proxy.url(), env=trace.env)
    assert output(done) == ["done"] and not done.stderr, done
    tokens = proxy.tokens()
    assert len(set(tokens)) == len(tokens) and proxy.rejected == 0


def test_fast_open_with_a_session_that_is_forgotten(world, running, fast_open):
    """The tokens go with it."""
    code = LEARN + """
say("there")
for _ in range(3):
    on_line()
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    sock.close()
    learn(SERVER, ECHO)
    say(how)
"""
    with syn_proxy(world, users={"alice": "hunter2"}) as proxy:
        one = running(*PYTHON, code, url=proxy.url("alice:hunter2@"))
        assert one.line() == "there"
        for number in range(1, 4):
            proxy.forget()
            one.say()
            assert one.line() == "handed over"
            assert proxy.invalid >= number
        assert one.end() == (0, "", "")
        assert sum(request.credentials() is not None for request in proxy.requests) <= 8
    assert proxy.rejected == 0


def test_fast_open_and_what_goes_wrong(world, running, fast_open):
    """A proxy that goes; a late one."""
    code = LEARN + """
say("there")
on_line()
sock = socket.socket()
say(connect(sock, SERVER, ECHO), error_of(sock), raw_peer(sock))
sock = socket.socket()
sock.setblocking(False)
said = connect(sock, SERVER, ECHO)
wait(sock)
say(said, error_of(sock))
on_line()
sock, how = go(SERVER, ECHO)
echoes(sock)
learn(SERVER, ECHO)
say(how)
"""
    with syn_proxy(world) as proxy:
        one = running(*PYTHON, code, url=proxy.url())
        assert one.line() == "there"
    one.say()
    assert (one.line(), one.line()) == ("ENETUNREACH 0 None", "EINPROGRESS ENETUNREACH")
    with syn_proxy(world, port=proxy.port):
        one.say()
        assert one.line() == "handed over"
        status, out, err = one.end()
    assert (status, out) == (0, "") and err.count("\n") == 1, err


# Strangers ------------------------------------------------------------------------------------------------------------

def test_another_network_namespace(world, running):
    """What listens at the proxy's address there is not the proxy. Sockets of before can go on."""
    code = LEARN + """
import subprocess
old = socket.socket()
before = cookie(old)
assert libc.unshare(0x40000000) == 0  # CLONE_NEWNET
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
subprocess.run(["ip", "addr", "add", PROXY + "/32", "dev", "lo"], check=True)
subprocess.run(["ip", "route", "add", "default", "dev", "lo"], check=True)
say(os.getpid())
on_line()
sock, other = socket.socket(), socket.socket()
other.setblocking(False)
say(connect(sock, SERVER, ECHO), connect(other, SERVER, ECHO), raw_peer(sock), raw_peer(other))
say(connect(old, SERVER, ECHO), way(old, before))
echoes(old)
"""
    one = running(*PYTHON, code)
    pid = int(one.line())
    # Made from outside: programs under `run` may not listen there.
    listener = in_namespace(pid, lambda: socket.create_server((run_world.PROXY, run_world.PROXY_PORT)))
    with listener:
        in_namespace(pid, lambda: socket.create_connection((run_world.PROXY, run_world.PROXY_PORT))).close()
        listener.accept()[0].close()
        one.say()
        assert (one.line(), one.line()) == ("ENETUNREACH ENETUNREACH None None", "0 own")
        assert one.end()[0] == 0
        assert nobody_is_waiting(listener)


def in_namespace(pid, function):
    """`function()` in the network namespace of a process."""
    space = NetNs.__new__(NetNs)
    space.path = f"/proc/{pid}/ns/net"
    return space.call(function)


def test_another_user_goes_through_the_helper(world, trace):
    """The session is no business of other users; not even who was ours, and had the memory before, keeps it in what it executes."""
    code = HERE + """
def is_mapped():
    with open("/proc/self/maps") as file: return "memfd:socks6-run" in file.read()
if len(sys.argv) > 1 or os.fork() == 0:
    if len(sys.argv) == 1:
        os.setgid(65534)
        os.setuid(65534)
    for _ in range(2):
        sock, how = go(SERVER, ECHO)
        echoes(sock)
        say(how, sock.getpeername() == (SERVER, ECHO), is_mapped())
    os._exit(0)
os.wait()
learn(SERVER, ECHO)
say(is_mapped())
if os.fork() == 0:
    os.setgid(65534)
    os.setuid(65534)
    os.execv(sys.executable, [sys.executable, "-B", "-c", open("/proc/self/cmdline").read().split("\\0")[3], "again"])
os.wait()
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["handed over True False"] * 2 + ["True"] + ["handed over True False"] * 2, done


def test_memory_cannot_be_resized(world, trace):
    """So that nobody takes pages away from the others."""
    code = LEARN + """
import fcntl
found = 0
for pid in {os.getppid(), int(open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[1])}:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{fd}"
        if not os.readlink(path).startswith("/memfd:socks6-run"): continue
        file = os.open(path, os.O_RDWR)
        size = os.fstat(file).st_size
        for wanted in (0, size - 4096, size + 4096):
            try: os.ftruncate(file, wanted)
            except PermissionError: found += 1
            else: raise AssertionError("it can be resized")
        try: fcntl.fcntl(file, 1033, 0)  # F_ADD_SEALS
        except PermissionError: found += 1
        assert os.fstat(file).st_size == size > 0
say(found > 0 and found % 4 == 0)
sock, how = go(SERVER, ECHO)
echoes(sock)
say(how)
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["True", "own"], done


# Writes to the memory that it shares with the helper, in a child, until the pipe `stop` is closed. What it puts there comes from `make`.
SCRIBBLE = LEARN + """
def mapping():
    with open("/proc/self/maps") as file:
        for line in file:
            if "memfd:socks6-run" in line:
                start, end = (int(part, 16) for part in line.split()[0].split("-"))
                return start, end - start
start, size = mapping()
original = ctypes.string_at(start, size)
"""
SCRIBBLES = {
    "noise": "ctypes.memmove(start, os.urandom(size), size)",
    "ones": "ctypes.memset(start, 255, size)",
    "zeros": "ctypes.memset(start, 0, size)",
    # The route is in front: what is almost right. Where the proxy is is left alone, so that nothing goes astray.
    "numbers in front": "at = random.randrange(0, 32) // 8 * 8; ctypes.memmove(start + at, os.urandom(8), 8)",
    "lengths": "ctypes.memmove(start + route + 40, struct.pack('=I', random.choice([0, 1, 255, 256, 257, 65535, 2**31, 2**32 - 1])), 4)",
    "sessions": "ctypes.memmove(start + route + 44, os.urandom(256), 256)",
    "the table": "ctypes.memmove(start + 4096, os.urandom(size - 4096), size - 4096)",
}


@pytest.mark.parametrize("kind", [kind if kind in ("noise", "lengths", "numbers in front") else pytest.param(kind, marks=pytest.mark.full)
                                  for kind in SCRIBBLES])
def test_memory_that_is_spoilt(world, trace, kind):
    """While a child writes nonsense into it connections are made all the same, and the helper lives."""
    code = SCRIBBLE + f"""
import random
route = original.index(struct.pack("=HH", socket.AF_INET, PROXY_PORT)) - 16
child = os.fork()
if child == 0:
    parent = os.getppid()
    random.seed(7)
    while os.getppid() == parent:
        {SCRIBBLES[kind]}
    os._exit(0)
for number in range(30):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    sock.close()
    sock = socket.socket()
    sock.setblocking(False)
    assert connect(sock, SERVER, ECHO) == "EINPROGRESS"
    wait(sock)
    assert error_of(sock) == "0", error_of(sock)
    echoes(sock)
    in_child(lambda: echoes(sock) or sock.getpeername())
os.kill(child, 9)
os.wait()
assert os.path.realpath(f"/proc/{{os.getppid()}}/exe").endswith("/socks6")
sock, how = go(SERVER, ECHO)
echoes(sock)
say("done")
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["done"] and not done.stderr, done


# Many -----------------------------------------------------------------------------------------------------------------

MANY = LEARN + """
import threading
def open_files(): return len(os.listdir(f"/proc/{os.getppid()}/fd"))
before = open_files()
"""


def test_many_threads_at_once(world, trace):
    """The helper has nothing of what they have."""
    code = MANY + """
start, ways, sockets = threading.Barrier(200), [], []
def one(number):
    start.wait()
    sock, how = go(SERVER, ECHO)
    echoes(sock, b"%d" % number)
    sockets.append(sock)
    ways.append(how)
threads = [threading.Thread(target=one, args=(number,)) for number in range(200)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(ways) == 200 and set(ways) <= {"own", "handed over"}, ways
assert all(sock.getpeername() == (SERVER, ECHO) for sock in sockets)
say(ways.count("own") >= 100, max(0, open_files() - before))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["True 0"] and not done.stderr, done


def test_many_processes_at_once(world, trace):
    code = MANY + """
import subprocess
reader, writer = os.pipe()
children = []
for number in range(100):
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        kept = []
        for _ in range(4):
            sock, how = go(SERVER, ECHO)
            echoes(sock)
            kept.append(sock)
            assert sock.getpeername() == (SERVER, ECHO)
        assert how in ("own", "handed over")
        os._exit(10 if how == "own" else 11)
    children.append(child)
os.close(writer)
ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert set(ended) <= {10, 11}, ended
say(ended.count(10) >= 50, max(0, open_files() - before))
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["True 0"] and not done.stderr, done
