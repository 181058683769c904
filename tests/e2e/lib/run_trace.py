"""Programs that tests start under `socks6 run` in a RunWorld: their lines, their ends, and what is left of them."""

import contextlib
import os
import select
import signal
import subprocess
import uuid

from .daemon import client_binary
from .net import DEADLINE, wait_until

PYTHON = ["/usr/bin/python3", "-B", "-c"]


class Trace:
    """Finds everything that a run has started, by a variable in its environment, and the sockets that it listens on."""

    def __init__(self, world):
        self.world, self.value = world, uuid.uuid4().hex
        self.before = self.sockets()

    @property
    def env(self):
        return {"RUN_TEST_MARK": self.value}

    def processes(self):
        """{pid: command line}"""
        found = {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if self.value.encode() not in file.read():
                        continue
                with open(f"/proc/{pid}/stat", encoding="ascii") as file:
                    if file.read().rpartition(")")[2].split()[0] == "Z":
                        continue
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    found[int(pid)] = file.read().replace(b"\0", b" ").decode()
        return found

    def helpers(self):
        """Those of socks6, oldest first."""
        return sorted(pid for pid in self.processes() if os.path.realpath(f"/proc/{pid}/exe") == os.path.realpath(client_binary()))

    def sockets(self):
        """Abstract addresses in the client's namespace."""
        return {line.split()[-1] for line in self.world.client.run("cat", "/proc/net/unix").splitlines() if "@" in line.split()[-1]}

    def nothing_is_left(self):
        wait_until(lambda: not self.processes(), lambda: f"the end of {self.processes()}")
        wait_until(lambda: not self.sockets() - self.before, lambda: f"the end of {self.sockets() - self.before}")


@contextlib.contextmanager
def traced(world):
    """A Trace; at the end nothing that it has traced may be left."""
    one = Trace(world)
    yield one
    try:
        one.nothing_is_left()
    finally:
        for pid in one.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Running:
    """A program under `run` that goes on: lines of its output can be waited for, and lines sent."""

    def __init__(self, world, trace, *argv, options=(), url=None, env=None, **more):
        self.process = subprocess.Popen(world.command(*argv, options=options, url=url),
                                        env=world.environment(**trace.env, **(env or {})), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **more)

    def line(self):
        assert select.select([self.process.stdout], [], [], DEADLINE)[0], "it says nothing"
        line = self.process.stdout.readline()
        assert line, self.end()
        return line.decode().rstrip("\n")

    def say(self, text=""):
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self):
        """(its status, the rest of its output, what was said about it)"""
        out, err = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, out.decode(), err.decode()


@contextlib.contextmanager
def starting(world, trace):
    """A function that makes a Running; those that are left are killed at the end."""
    made = []

    def start(*argv, **more):
        made.append(Running(world, trace, *argv, **more))
        return made[-1]
    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate()


def output(done, status=0):
    assert done.returncode == status, done
    return done.stdout.decode().split("\n")[:-1]
