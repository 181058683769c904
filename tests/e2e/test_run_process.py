"""The processes of `socks6 run`: how it ends, what it passes on, what it leaves behind. No program here talks to a network."""

import contextlib
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import tempfile

import pytest

from cli_peers import DEADLINE, client_environment, client_path
from lib.daemon import build_dir
from lib.net import wait_until

PROXY = ["-x", "socks6://127.0.0.1:9"]


def run(*args, env=None, options=(), **more):
    more.setdefault("capture_output", True)
    more.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([client_path(), "run", *PROXY, *options, *args], env=client_environment(**(env or {})), timeout=DEADLINE,
                          check=False, **more)


@contextlib.contextmanager
def running(*args, **more):
    for name in ("stdin", "stdout", "stderr"):
        more.setdefault(name, subprocess.PIPE)
    with subprocess.Popen([client_path(), "run", *PROXY, *args], env=client_environment(), bufsize=0, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def children(pid):
    with contextlib.suppress(FileNotFoundError):
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    return []


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    return False


def helper_and_program(process):
    helper = wait_until(lambda: children(process.pid), "the helper")[0]
    return helper, wait_until(lambda: children(helper), "the program")[0]


def line(process):
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(process.stdout.fileno(), 512)
        assert piece, process.stderr.read().decode()
        data += piece
    return data.decode().strip()


@pytest.mark.parametrize("status", [0, 1, 2, 3, 126, 255])
def test_exit_status_is_the_programs(status):
    done = run("--", "sh", "-c", f"echo out; echo err >&2; exit {status}")
    assert (done.returncode, done.stdout, done.stderr) == (status, b"out\n", b"err\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_death_by_signal_is_the_programs(number):
    assert run("--", "sh", "-c", f"kill -{int(number)} $$").returncode == -number


def test_programs_that_cannot_be_run(tmp_path):
    missing = run("no-such-program")
    assert missing.returncode == 127 and b"no-such-program" in missing.stderr
    assert run(str(tmp_path / "missing")).returncode == 127
    plain = tmp_path / "plain"
    plain.write_text("#!/bin/sh\n")
    assert run(str(plain)).returncode == 126
    assert run(str(tmp_path)).returncode == 126
    plain.chmod(0o755)
    assert run(str(plain)).returncode == 0
    assert run("plain", env={"PATH": f"/nowhere:{tmp_path}:{os.environ['PATH']}"}).returncode == 0


def test_static_program_is_refused(tmp_path):
    source, program = tmp_path / "static.c", tmp_path / "static"
    source.write_text("int main(void){return 5;}\n")
    subprocess.run(["cc", "-static", "-o", program, source], check=True)
    done = run(str(program))
    assert done.returncode == 126 and b"statically linked" in done.stderr and b"--allow-direct" in done.stderr
    assert run(str(program), options=["--allow-direct"]).returncode == 5


def test_go_program_is_told_of():
    """It does without the C library where we stand."""
    program = os.path.join(build_dir(), "tests/calls/run-calls-go")
    for argv in ([program], ["sh", "-c", f"'{program}'; true"]):
        done = run(*argv)
        assert done.returncode == 0 and done.stderr.count(b"\n") == 1, done
        assert re.fullmatch(rb"socks6 run: .*\[\d+\]: a Go program, which .*: past the proxy.*\n", done.stderr), done
    assert run(program, options=["--allow-direct"]).stderr == b""
    assert b"a Go program" in run(program, options=["--allow-direct", "-v"]).stderr


def test_hooks_take_no_lock_of_the_dynamic_linker():
    library = os.path.join(build_dir(), "tests/calls/librun-calls-constructor.so")
    done = run(sys.executable, "-S", "-c", f"import ctypes; ctypes.CDLL({library!r})")
    assert (done.returncode, done.stdout) == (0, b"30 calls failed\n"), done


def test_usage():
    for args in ([], ["-w", "0", "true"], ["-4", "-6", "true"], ["--no-such", "true"]):
        done = run(*args)
        assert done.returncode == 2 and b"socks6 run --help" in done.stderr, args
    done = run("--help")
    assert done.returncode == 0 and b"--early" in done.stdout
    done = subprocess.run([client_path(), "run", "-x", "socks6://no.such.host.invalid", "true"], env=client_environment(),
                          capture_output=True, timeout=DEADLINE, check=False)
    assert done.returncode == 3 and b"no.such.host.invalid" in done.stderr


def test_options_behind_the_program_are_its_own():
    assert run("echo", "-v", "--help").stdout == b"-v --help\n"


def test_the_program_finds_what_it_would_find_without():
    with tempfile.TemporaryFile() as file:
        def limit():
            resource.setrlimit(resource.RLIMIT_NOFILE, (333, 4444))
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        script = "ulimit -n; ulimit -Hn; grep -E 'Sig(Blk|Ign)' /proc/self/status; cat; ls /proc/self/fd; cat <&%d" % file.fileno()
        want = subprocess.run(["bash", "-c", script], input=b"input\n", capture_output=True, check=True, preexec_fn=limit,
                              pass_fds=[file.fileno()]).stdout
        got = run("bash", "-c", script, stdin=None, input=b"input\n", preexec_fn=limit, pass_fds=[file.fileno()])
        assert got.stdout == want, got.stderr


def test_environment():
    env = {"ALL_PROXY": "socks6://127.0.0.1:9", "all_proxy": "http://127.0.0.1:9", "LD_PRELOAD": "/no/such.so /other.so"}
    text = run("sh", "-c", "/usr/bin/env 2>/dev/null", env=env).stdout.decode()
    variables = dict(one.split("=", 1) for one in text.splitlines() if "=" in one)
    assert "ALL_PROXY" not in variables and variables["all_proxy"] == "http://127.0.0.1:9"
    first, *others = variables["LD_PRELOAD"].split(":")
    assert first.endswith("/src/preload/libsocks6-preload.so") and first.startswith("/")
    assert others[-2:] == ["/no/such.so", "/other.so"]
    version, address, secret, flags = variables["SOCKS6_RUN"].split(":")
    assert (version, len(address), len(secret), flags) == ("1", 32, 32, "")


def test_nested_run_is_preloaded_once():
    env = {"ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0"}  # a program with ASan wants to be first
    done = run(client_path(), "run", *PROXY, "sh", "-c", "echo $LD_PRELOAD", env=env)
    assert done.stdout.count(b"libsocks6-preload.so") == 1, done.stderr


def test_signals_are_passed_on():
    with running("sh", "-c", "trap 'echo usr1' USR1; trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done") as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGUSR1)
        assert line(process) == "usr1"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "term"
        assert process.wait(DEADLINE) == 9


def test_killed_launcher_takes_all_along():
    with running("sh", "-c", "echo ready; read -r line") as process:
        assert line(process) == "ready"
        helper, program = helper_and_program(process)
        process.kill()
        process.wait(DEADLINE)
        wait_until(lambda: not is_alive(program), "the end of the program")
        wait_until(lambda: not is_alive(helper), "the end of the helper")


def test_killed_helper_does_not_take_the_program_along():
    with running("sh", "-c", "echo ready; read -r line; exit 7") as process:
        assert line(process) == "ready"
        helper, _ = helper_and_program(process)
        os.kill(helper, signal.SIGKILL)
        wait_until(lambda: not is_alive(helper), "the end of the helper")
        assert process.poll() is None
        process.stdin.write(b"\n")
        assert process.wait(DEADLINE) == 7
        assert b"the helper was killed" in process.stderr.read()


def test_helper_serves_what_the_program_leaves_behind(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    script = f"(read -r line <{fifo}) >/dev/null 2>&1 </dev/null & echo $!"
    with running("sh", "-c", script) as process:
        left = int(line(process))
        helper = wait_until(lambda: children(process.pid) or process.poll() is not None, "the helper")
        out, err = process.communicate(timeout=DEADLINE)  # nobody holds the pipes
        assert (process.returncode, out, err) == (0, b"", b"")
        with open(f"/proc/{left}/status", encoding="ascii") as file:
            parent = next(int(one.split()[1]) for one in file if one.startswith("PPid"))
        assert helper is True or parent == helper[0]
        with open(f"/proc/{parent}/comm", encoding="ascii") as file:
            assert file.read() == "socks6\n"
        with open(fifo, "w", encoding="ascii") as file:
            file.write("\n")
        wait_until(lambda: not is_alive(parent), "the end of the helper")


def test_nobody_holds_inherited_descriptors_open():
    ours, theirs = os.pipe()
    with running("bash", "-c", "exec >&-; eval \"exec $1>&-\"; echo done >&2; read -r line", "bash", str(theirs), pass_fds=[theirs]) as process:
        os.close(theirs)
        assert process.stderr.readline() == b"done\n"
        assert process.stdout.read() == b""  # the end, though the program lives
        assert os.read(ours, 1) == b""
        os.close(ours)
        process.stdin.write(b"\n")
        assert process.wait(DEADLINE) == 0


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve("/bin/bash", ["bash", "--norc", "--noediting", "-i"], client_environment(PS1="$ "))
        self.text = ""

    def expect(self, text):
        while text not in self.text:
            ready, _, _ = select.select([self.fd], [], [], DEADLINE)
            assert ready, self.text
            self.text += os.read(self.fd, 4096).decode()
        self.text = self.text.split(text, 1)[1]

    def type(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal():
    one = Terminal()
    one.expect("$ ")
    yield one
    one.close()


RUN = "{} run -x socks6://127.0.0.1:9 -- "


def test_ctrl_c_is_the_programs_to_handle(terminal):
    terminal.type(RUN.format(client_path()) + "sh -c 'trap \"echo caught; exit 4\" INT; echo begun | tr a-z A-Z; while :; do sleep 0.05; done'\n")
    terminal.expect("BEGUN")
    terminal.type("\x03")
    terminal.expect("caught")
    terminal.type("echo status $?.\n")
    terminal.expect("status 4.")


def test_ctrl_z_stops_and_fg_goes_on(terminal):
    terminal.type(RUN.format(client_path()) + "sh -c 'echo begun | tr a-z A-Z; read -r line; echo got $line; exit 6'\n")
    terminal.expect("BEGUN")
    terminal.type("\x1a")
    terminal.expect("Stopped")
    terminal.type("fg\n")
    terminal.expect("read -r line")
    terminal.type("words\n")
    terminal.expect("got words")
    terminal.type("echo status $?.\n")
    terminal.expect("status 6.")


def test_program_that_stops_itself_gives_the_shell_back(terminal):
    terminal.type(RUN.format(client_path()) + "sh -c 'kill -STOP $$; echo awake | tr a-z A-Z; exit 8'\n")
    terminal.expect("Stopped")
    terminal.type("fg\n")
    terminal.expect("AWAKE")
    terminal.type("echo status $?.\n")
    terminal.expect("status 8.")
