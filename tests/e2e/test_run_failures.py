"""
What can go wrong under `socks6 run`: programs see the errno or the EAI_ code that one would see from a network, nothing hangs, and
neither process nor socket stays behind.
"""

import contextlib
import os
import pty
import select
import signal
import socket
import stat
import struct
import subprocess
import time
import uuid

import pytest

from cli_peers import AUTH_OK, reply6
from lib import run_world
from lib.daemon import build_dir
from lib.net import DEADLINE, DIES_WITH_US, reset, wait_until
from lib.run_trace import PYTHON, Running, output, starting, traced
from lib.run_world import RunWorld
from lib.servers import Server
from lib.users import Users

CALLS = os.path.join(build_dir(), "tests/calls/run-calls")
STATIC = os.path.join(build_dir(), "tests/calls/run-calls-static")
HERE = f"import errno, os, signal, socket, sys, time\nSERVER, ECHO = {run_world.SERVER!r}, {run_world.ECHO}\n"
# Prints one line for each try: "errno NAME", "eai NUMBER" or "passed".
TRY = HERE + """
def attempt(call):
    try: print(call() or "passed", flush=True)
    except socket.gaierror as error: print("eai", error.errno, flush=True)
    except OSError as error: print("errno", errno.errorcode.get(error.errno, error), flush=True)
"""
CONNECT = TRY + "attempt(lambda: socket.create_connection((SERVER, ECHO), 30).close())\n"
LOOKUP = TRY + "attempt(lambda: socket.getaddrinfo('web.run.test', 80)[0][4][0])\n"
EAI_AGAIN = f"eai {socket.EAI_AGAIN}"


@pytest.fixture(scope="module")
def world(isolation):
    one = RunWorld()
    yield one
    one.close()


@pytest.fixture
def trace(world):
    with traced(world) as one:
        yield one


@pytest.fixture
def running(world, trace):
    with starting(world, trace) as start:
        yield start


# The proxy ------------------------------------------------------------------------------------------------------------

class HalfProxy(Server):
    """Says yes to any request, sends "hello", waits for a byte, and then does `then`."""

    def __init__(self, world, then):
        self.then = then
        super().__init__(run_world.PROXY, make_socket=world.proxy.tcp_socket)

    def handle(self, sock, peer):
        sock.recv(4096)
        sock.sendall(AUTH_OK + reply6(0) + b"hello")
        sock.recv(1)
        self.then(sock)


CONVERSATION = TRY + """
s = socket.create_connection((SERVER, ECHO))
print(s.recv(5), flush=True)
s.sendall(b"x")
attempt(lambda: repr(s.recv(5)))
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
time.sleep(0.1)
attempt(lambda: s.sendall(b"x"))
"""


def test_connection_that_the_proxy_resets(world, trace):
    with HalfProxy(world, reset) as proxy:
        done = world.run(*PYTHON, CONVERSATION, url=world.url(port=proxy.port), options=["--no-session"], env=trace.env)
    assert output(done) == ["b'hello'", "errno ECONNRESET", "errno EPIPE"], done


def test_connection_that_the_proxy_ends(world, trace):
    with HalfProxy(world, lambda sock: sock.shutdown(socket.SHUT_WR) or sock.recv(1)) as proxy:
        done = world.run(*PYTHON, CONVERSATION, url=world.url(port=proxy.port), options=["--no-session"], env=trace.env)
    assert output(done) == ["b'hello'", "b''", "passed"], done


@pytest.mark.parametrize("kind", ["blocking", "non-blocking"])
@pytest.mark.parametrize("answer, expected", [
    (AUTH_OK + reply6(1), "ENETUNREACH"), (AUTH_OK + reply6(2), "EACCES"), (AUTH_OK + reply6(3), "ENETUNREACH"),
    (AUTH_OK + reply6(4), "EHOSTUNREACH"), (AUTH_OK + reply6(5), "ECONNREFUSED"), (AUTH_OK + reply6(9), "ETIMEDOUT"),
    (b"HTTP/1.0 400 Bad Request\r\n\r\n", "ENETUNREACH"), (b"", "ENETUNREACH"), (AUTH_OK[:1], "ENETUNREACH")])
def test_what_the_proxy_answers_is_an_errno(world, trace, answer, expected, kind):
    class Answers(Server):
        def handle(self, sock, peer):
            sock.recv(4096)
            sock.sendall(answer)
    code = CONNECT if kind == "blocking" else TRY + """
import select
s = socket.socket()
s.setblocking(False)
print(errno.errorcode[s.connect_ex((SERVER, ECHO))])
p = select.poll()
p.register(s, select.POLLOUT)
assert p.poll(30000)[0][1] & select.POLLERR
print("errno", errno.errorcode[s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)])
"""
    with Answers(run_world.PROXY, make_socket=world.proxy.tcp_socket) as proxy:
        done = world.run(*PYTHON, code, url=world.url(port=proxy.port), env=trace.env)
    assert output(done)[-1] == f"errno {expected}", done
    assert kind == "blocking" or output(done)[0] == "EINPROGRESS"


def test_proxy_that_is_not_there(world, trace):
    for url in (world.url(port=1), f"socks6://{run_world.SILENT}:1080"):
        done = world.run(*PYTHON, CONNECT + LOOKUP, url=url, options=["-w", "1"], env=trace.env)
        assert output(done) == ["errno ENETUNREACH", EAI_AGAIN], done


def test_stalling_proxy_does_not_block_connect(world, trace, running):
    """While it says nothing a non-blocking connect() has returned, and a second one is answered meanwhile; a signal gets through."""
    with HalfProxy(world, lambda sock: None) as proxy:
        proxy.handle = lambda sock, peer: sock.recv(4096) and sock.recv(4096)
        code = TRY + """
s = socket.socket()
s.setblocking(False)
print(errno.errorcode[s.connect_ex((SERVER, ECHO))], errno.errorcode[s.connect_ex((SERVER, ECHO))], flush=True)
s.setblocking(True)
t = socket.socket()
signal.signal(signal.SIGUSR1, lambda *_: os._exit(5))
print("waiting", flush=True)
t.connect((SERVER, ECHO))
"""
        one = running(*PYTHON, code, url=world.url(port=proxy.port))
        assert (one.line(), one.line()) == ("EINPROGRESS EALREADY", "waiting")
        proxy.wait(lambda: proxy.accepted == 2, "the second connection")

        def interrupted():  # more than once: a signal may come before the program sleeps
            one.process.send_signal(signal.SIGUSR1)
            return one.process.poll() is not None
        wait_until(interrupted, "the program's end")
        assert one.end()[0] == 5


def test_proxy_that_goes_in_mid_stream(trace, isolation):
    """The daemon is killed: what is open ends or breaks, and what is new fails."""
    del isolation
    with contextlib.closing(RunWorld()) as world:
        usual, trace.world, trace.before = (trace.world, trace.before), world, set()
        code = TRY + """
s = socket.create_connection((SERVER, ECHO))
s.sendall(b"x")
print(s.recv(1), flush=True)
attempt(lambda: repr(s.recv(1)))
attempt(lambda: socket.create_connection((SERVER, ECHO), 30))
attempt(lambda: socket.getaddrinfo('web.run.test', 80))
"""
        one = Running(world, trace, *PYTHON, code)
        assert one.line() == "b'x'"
        world.daemon.kill()
        status, out, _ = one.end()
        first, *rest = out.split("\n")[:-1]
        assert status == 0 and first in ("b''", "errno ECONNRESET") and rest == ["errno ENETUNREACH", EAI_AGAIN], out
        trace.nothing_is_left()
        trace.world, trace.before = usual
        world.daemon = None


def test_rule_that_denies(isolation, tmp_path):
    del isolation, tmp_path
    rules = [{"deny": {"to": [run_world.SERVER]}}, {"allow": {}}]
    with contextlib.closing(RunWorld({"rules": rules})) as world:
        done = world.run(*PYTHON, CONNECT + "attempt(lambda: socket.create_connection((sys.argv[1], ECHO), 30).close())\n", run_world.ELSEWHERE)
        assert output(done) == ["errno EACCES", "passed"], done


def test_wrong_password(isolation, tmp_path):
    del isolation
    users = Users(tmp_path, alice="hunter2")
    with contextlib.closing(RunWorld({"auth": users.auth()})) as world:
        done = world.run(*PYTHON, CONNECT + LOOKUP, url=world.url("alice:hunter2@"))
        assert output(done) == ["passed", run_world.SERVER6], done
        for who in ("alice:wrong@", "mallory:hunter2@", ""):
            done = world.run(*PYTHON, CONNECT + LOOKUP, url=world.url(who))
            assert output(done) == ["errno ENETUNREACH", EAI_AGAIN], done
            assert b"socks6" in done.stderr, "nobody would know why"


def test_no_dns_service(isolation):
    del isolation
    with contextlib.closing(RunWorld({"dns": {"service": False}})) as world:
        done = world.run(*PYTHON, CONNECT + LOOKUP)
        assert output(done) == ["passed", EAI_AGAIN], done
        assert b"--fake-names" in done.stderr, done.stderr
        code = TRY + """
addresses = {one[4][0] for one in socket.getaddrinfo("web.run.test", ECHO, type=socket.SOCK_STREAM)}
s = socket.create_connection(("web.run.test", ECHO), 30)
s.sendall(b"x")
print(s.recv(1), s.getpeername()[0] in addresses, socket.gethostbyname("web.run.test") in addresses)
print(socket.getnameinfo(s.getpeername(), 0)[0])
"""
        world.settle()
        done = world.run(*PYTHON, code, options=["--fake-names"])
        assert output(done) == ["b'x' True True", "web.run.test"], done
        assert not world.leaks() and not world.decoy.names()
        assert world.daemon.access(match=lambda record: "web.run.test" in str(record))


# The helper -----------------------------------------------------------------------------------------------------------

ON_LINE = """
def wait(): sys.stdin.readline()
s = socket.create_connection((SERVER, ECHO))
t = socket.socket()
t.setblocking(False)
t.connect_ex((sys.argv[1], ECHO))
print(os.getpid(), os.getppid(), flush=True)
wait()
"""


@pytest.mark.parametrize("options, lives", [([], True), (["--early"], False)])
def test_helper_that_is_killed(world, trace, running, options, lives):
    """What was made is a socket of the program's own, and goes on, unless the helper moves its bytes; the rest has no network."""
    code = TRY + ON_LINE + """
import select
p = select.poll()
p.register(t, select.POLLOUT)
print(bool(p.poll(30000)[0][1] & select.POLLHUP), t.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, flush=True)
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
attempt(lambda: s.send(b"x") and repr(s.recv(1)))
attempt(lambda: socket.create_connection((SERVER, ECHO), 30))
attempt(lambda: socket.getaddrinfo('web.run.test', 80))
u = socket.socket()
u.setblocking(False)
print(errno.errorcode[u.connect_ex((SERVER, ECHO))])
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (SERVER, 53)))
sys.exit(9)
"""
    world.settle()
    one = running(*PYTHON, code, run_world.SILENT, options=options)
    _, parent = map(int, one.line().split())
    assert parent in trace.helpers(), "the program's parent is the helper"
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: parent not in trace.processes(), "the helper's end")
    one.say()
    status, out, said = one.end()
    lines = out.split("\n")[:-1]
    if lives:
        assert lines[:2] == ["True True", "b'x'"], (out, said)
    else:  # one connection was never made, but the program believes that it was
        assert lines[1] in ("errno ECONNRESET", "errno EPIPE"), (out, said)
    assert lines[2:] == ["errno ENETUNREACH", EAI_AGAIN, "ENETUNREACH", "errno ENETUNREACH"], (out, said)
    assert status == 9, "the launcher ends as the program ended"
    assert not world.leaks()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_run_that_is_killed(world, trace, running, number):
    """The program dies with it, and nothing is left."""
    one = running(*PYTHON, TRY + ON_LINE.replace("wait()\n", "") + "attempt(lambda: repr(s.recv(1)))\n", run_world.SILENT)
    assert one.line()
    one.process.send_signal(number)
    assert one.end()[0] == -number
    trace.nothing_is_left()


def test_signals_are_passed_on_and_can_be_handled(world, trace, running):
    code = HERE + """
got = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
    signal.signal(number, lambda number, _: (got.append(number), print(number, flush=True)))
print("ready", flush=True)
while len(got) < 6: time.sleep(0.01)
sys.exit(4)
"""
    one = running(*PYTHON, code)
    assert one.line() == "ready"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        one.process.send_signal(number)
        assert one.line() == str(int(number))
    assert one.end()[0] == 4


def test_keys_of_a_terminal_reach_the_program_once(world, trace):
    code = HERE + """
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, handler)
print("ready", flush=True)
while not count: time.sleep(0.01)
time.sleep(0.3)
print("count", count, flush=True)
sys.exit(6)
"""
    pid, terminal = pty.fork()
    if pid == 0:
        command = world.command(*PYTHON, code)
        os.execvpe(command[0], command, world.environment(**trace.env))
    text = b""

    def read_until(what):
        nonlocal text
        while what not in text:
            assert select.select([terminal], [], [], DEADLINE)[0], text
            text += os.read(terminal, 1000)
    read_until(b"ready")
    os.write(terminal, b"\x03")
    read_until(b"count 1\r\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 6


def test_stopped_and_continued(world, trace, running):
    one = running("sh", "-c", "echo ready; kill -STOP $$; echo again; exit 3")
    assert one.line() == "ready"

    def state():
        with open(f"/proc/{one.process.pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0]
    wait_until(lambda: state() == "T", lambda: f"the launcher to be stopped as well, as a shell's job; it is {state()}")
    one.process.send_signal(signal.SIGCONT)
    assert one.line() == "again"
    assert one.end()[0] == 3


# Ends -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("argv, status", [
    (["true"], 0), (["sh", "-c", "exit 41"], 41), (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM), (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL),
    (["sh", "-c", "ulimit -c 0; kill -SEGV $$"], -signal.SIGSEGV), (["no-such-program"], 127), (["/nonexistent/program"], 127), (["/"], 126),
    (["/etc/passwd"], 126)])
def test_exit_status_is_the_programs(world, trace, argv, status):
    done = world.run(*argv, env=trace.env)
    assert done.returncode == status, done
    assert bool(done.stderr) == (status in (126, 127)), done.stderr


def test_wrong_usage(world, trace):
    for options, argv in ((["--no-such-option"], ["true"]), ([], [])):
        done = world.run(*argv, options=options, env=trace.env)
        assert done.returncode == 2 and done.stderr, done


def test_program_has_its_own_descriptors_and_environment(world, trace):
    """Neither descriptors nor signal settings of ours are inherited, and what was there stays."""
    code = HERE + """
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:-1], sys.stdin.read())
with open("/proc/self/status") as file: lines = dict(line.split(":", 1) for line in file)
print(lines["SigIgn"].strip(), lines["SigBlk"].strip(), lines["Threads"].strip())
print(os.environ["KEPT"], os.getpgrp() == os.getpgid(os.getppid()))
"""
    arguments = [*PYTHON, code]
    env = {**trace.env, "KEPT": "yes"}
    under, direct = (world.run(*arguments, run=run, env=env, input=b"input") for run in (True, False))
    assert output(under)[:2] == output(direct)[:2] and output(under)[2] == "yes True", (under, direct)


def test_child_in_the_background_is_served_after_the_end(world, trace):
    """`run` ends with its program; the helper goes on for those who are left, and ends with the last of them."""
    marker = os.path.join(world.directory, f"background-{uuid.uuid4().hex}")
    code = HERE + f"""
if os.fork(): sys.exit(8)
os.setsid()
for fd in (0, 1, 2): os.dup2(os.open("/dev/null", os.O_RDWR), fd)
while not os.path.exists({marker + '.go'!r}): time.sleep(0.01)
s = socket.create_connection(("echo.run.test", ECHO))
s.sendall(b"x")
with open({marker!r} + ".new", "w") as file: file.write(repr(s.recv(1)))
os.rename({marker!r} + ".new", {marker!r})
"""
    world.settle()
    done = world.run(*PYTHON, code, env=trace.env)
    assert done.returncode == 8, done
    assert len(trace.helpers()) == 1, trace.processes()
    with open(marker + ".go", "w", encoding="ascii"):
        pass
    wait_until(lambda: os.path.exists(marker), "the child's connection")
    with open(marker, encoding="ascii") as file:
        assert file.read() == "b'x'"
    trace.nothing_is_left()
    assert not world.leaks()


def test_helper_costs_nothing_at_rest(world, trace, running):
    """It sleeps while nothing happens."""
    one = running(*PYTHON, TRY + ON_LINE, run_world.SILENT)
    pid = int(one.line().split()[1])

    def switches():
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    time.sleep(0.3)  # until what has to do with the connections is over
    before = switches()
    time.sleep(1)
    assert switches() - before < 20
    one.say()
    assert one.end()[0] == 0


# What cannot be served ------------------------------------------------------------------------------------------------

def special(world, name, mode=0o755, owner=0, capabilities=False):
    """A copy of run-calls that is something else."""
    path = os.path.join(world.directory, name)
    if not os.path.exists(path):
        with open(CALLS, "rb") as source, open(path, "wb") as target:
            target.write(source.read())
        os.chown(path, owner, owner)
        os.chmod(path, mode)
        if capabilities:  # cap_net_raw, effective; see <linux/capability.h>
            os.setxattr(path, "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    return path


def refusals(world):
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return {"static": ([], STATIC, [run_world.SERVER, run_world.ECHO]),
            "set-user-id": ([], special(world, "set-user-id", 0o4755, 65534), ["reaches", run_world.SERVER]),
            "set-group-id": ([], special(world, "set-group-id", 0o2755, 65534), ["reaches", run_world.SERVER]),
            "capability": (nobody, special(world, "capability", capabilities=True), ["reaches", run_world.SERVER])}


@pytest.mark.parametrize("kind", ["static", "set-user-id", "set-group-id", "capability"])
def test_program_that_cannot_be_served_is_refused(world, trace, kind):
    """Started by `run`, by a shell, and by posix_spawn; with a sentence, and not a packet. --allow-direct lets it go."""
    before, path, arguments = refusals(world)[kind]
    assert os.stat(path).st_mode & stat.S_IXUSR
    world.settle()
    argv = [*before, path, *map(str, arguments)]
    done = world.run(*argv, env=trace.env)
    assert done.returncode in ((126,) if not before else (126, 127)), done
    assert os.path.basename(path).encode() in done.stderr, "a message that names it"
    if not before:
        done = world.run("sh", "-c", '"$@"; echo "status $?"', "sh", *argv, env=trace.env)
        assert output(done) == ["status 126"] and os.path.basename(path).encode() in done.stderr, done
        code = TRY + "attempt(lambda: str(os.posix_spawn(sys.argv[1], sys.argv[1:], {})))\n"
        done = world.run(*PYTHON, code, *argv, env=trace.env)
        assert output(done) == ["errno EACCES"], done
    assert not world.leaks()
    done = world.run(*argv, options=["--allow-direct"], env=trace.env)
    assert done.returncode == 0, done
    if kind == "static":
        assert world.leaks()["away"] > 0


def test_set_user_id_for_who_is_that_user_already_is_served(world, trace):
    world.settle()
    done = world.run(special(world, "set-user-id-root", 0o4755, 0), "reaches", run_world.SERVER, env=trace.env)
    assert output(done) == ["  reached: echoed"] and not world.leaks(), done


def test_library_without_its_variable_lets_nothing_through(world, trace):
    """Whoever loses the variable, or has another's, has no network; loopback goes on."""
    world.settle()
    library = output(world.run("sh", "-c", "echo $LD_PRELOAD", env=trace.env))[0]
    assert library.endswith("libsocks6-preload.so")
    code = CONNECT + LOOKUP + """
l = socket.create_server(("127.0.0.1", 0))
attempt(lambda: socket.create_connection(l.getsockname()).close())
"""
    for value in (None, "", "1:garbage", "1:" + "0" * 32 + ":" + "0" * 32 + ":"):
        env = {"LD_PRELOAD": library, **trace.env, **({} if value is None else {"SOCKS6_RUN": value})}
        command = [*DIES_WITH_US, *world.client.wrapper, *world.files, "env", *(f"{k}={v}" for k, v in env.items()), *PYTHON, code]
        done = subprocess.run(command, env=world.environment(), capture_output=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
        assert output(done) == ["errno ENETUNREACH", EAI_AGAIN, "passed"], (value, done)
    assert not world.leaks() and not world.decoy.names()


def test_stranger_without_the_secret_is_not_served(world, trace, running):
    """Every user of the machine can see the helper's address."""
    one = running(*PYTHON, HERE + "print(os.environ['SOCKS6_RUN'], flush=True); sys.stdin.readline()\n")
    version, address, secret, _ = one.line().split(":")

    def ask(key):
        def inside():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(DEADLINE)
                sock.connect(b"\0" + bytes.fromhex(address))
                # RUN_STATUS of a cookie that nobody has: see src/run/protocol.h.
                sock.sendall(struct.pack("=IHH16sQII", 40, int(version), 2, key, 1, 0, 0))
                with contextlib.suppress(ConnectionResetError):
                    return sock.recv(100)
                return b""
        return world.client.call(inside)
    assert len(ask(bytes.fromhex(secret))) >= 8
    assert ask(os.urandom(16)) == b""
    one.say()
    assert one.end()[0] == 0
