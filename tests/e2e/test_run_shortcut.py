"""
Programs under `socks6 run` that connect their own socket to a near proxy: when they do, that one sees nothing of it, and what happens
when something goes wrong on the way. The programs say themselves which way they went (run_inside.py).
"""

import contextlib
import os
import select
import signal
import socket
import threading
import time

import pytest

from cli_peers import SessionProxy6
from lib import run_world, socks6
from lib.daemon import Daemon, base_config
from lib.net import DEADLINE, reset, wait_until
from lib.run_trace import PYTHON, output, starting, traced
from lib.run_world import RunWorld
from lib.servers import Server
from lib.users import Users

HERE = f"""
import sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
from run_inside import *
SERVER, SERVER6, ELSEWHERE, ECHO = {run_world.SERVER!r}, {run_world.SERVER6!r}, {run_world.ELSEWHERE!r}, {run_world.ECHO}
SILENT, REFUSING, UNREACHABLE = {run_world.SILENT!r}, {run_world.REFUSING!r}, {run_world.UNREACHABLE!r}
PROXY, PROXY_PORT, PROXY_OUT = {run_world.PROXY!r}, {run_world.PROXY_PORT}, {run_world.PROXY_OUT!r}
"""
LEARN = HERE + "learn(SERVER, ECHO)\n"
# What FakeProxy says its address is.
BOUND = ("203.0.113.7", 4321)
YES = socks6.auth_reply() + socks6.op_reply(0, *BOUND)
GOOD = 1000  # a port of FakeProxy's: an echo


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

def test_second_connection_is_the_programs_own_socket(world, trace):
    """The first one tells the helper how near the proxy is."""
    code = HERE + """
for number in range(4):
    sock, how = go(SERVER, ECHO)
    echoes(sock)
    say(how, sock.family.name, sock.getpeername() == (SERVER, ECHO), raw_peer(sock) == (PROXY, PROXY_PORT), *sock.getsockname())
"""
    before = len(world.echo.peers)
    lines = output(world.run(*PYTHON, code, env=trace.env))
    ports = [port for host, port in world.echo.peers[before:] if host == run_world.PROXY_OUT]
    assert lines == [f"{how} AF_INET True True {run_world.PROXY_OUT} {port}"
                     for how, port in zip(["handed over", "own", "own", "own"], ports, strict=True)]


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
    """Its answers for LATE wait until the gate is open."""

    def __init__(self, world, then=yes):
        self.gate = threading.Event()

        def late(sock, request):
            assert self.gate.wait(DEADLINE)
            then(sock, request)
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
    wait_until(lambda: sockets_of(pid) > before, "the library to ask the helper")
    assert proxy.asked() == 1
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


def test_signals_that_wait_are_delivered(world, trace):
    """Those that come in the first moments, while they are held back, are not lost; and the mask is what it was."""
    code = LEARN + """
import signal
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, handler)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
for number in range(20):
    sock = socket.socket()
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)  # again and again: the first one may come too soon
    said = connect(sock, SILENT, ECHO)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert said == "EINTR" and count > 0, (said, count)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == {signal.SIGUSR1}
    count = 0
    sock.close()
say("done")
"""
    done = world.run(*PYTHON, code, env=trace.env)
    assert output(done) == ["done"], done


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
    with LateProxy(world, lambda sock, request: yes(sock, request) if proxy.asked() > 2 else GARBAGE[kind](sock, request)) as proxy:
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


def test_proxy_that_never_answers(world, trace, fake):
    fake.plans[GOOD + 1] = lambda sock, _: sock.recv(1)
    code = HERE + f"""
learn(SERVER, {GOOD})
sock, other = socket.socket(), socket.socket()
other.setblocking(False)
say(connect(other, SERVER, {GOOD + 1}), connect(sock, SERVER, {GOOD + 1}))
wait(other)
say(error_of(other))
sock, how = go(SERVER, {GOOD})
echoes(sock)
say(how)
"""
    done = world.run(*PYTHON, code, url=fake.url, options=["-w", "1"], env=trace.env)
    assert output(done) == ["EINPROGRESS ETIMEDOUT", "ETIMEDOUT", "own"], done
    assert fake.count(GOOD + 1) == 2


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
