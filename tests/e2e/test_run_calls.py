"""
Each call that libsocks6-preload.so replaces, with and without `socks6 run`: tests/calls makes them and prints a line for each, and
the lines must be the same. What may differ is in the table below, with the reason.
"""

import difflib
import os
import re
import subprocess

import pytest

from lib import isolate, run_world
from lib.daemon import build_dir
from lib.net import reset
from lib.run_world import RunWorld
from lib.servers import Server

PROGRAM = os.path.join(build_dir(), "tests/calls/run-calls")
STATIC = os.path.join(build_dir(), "tests/calls/run-calls-static")
SECTIONS = ["connect", "interrupted", "timed-out", "wait", "epoll", "uring", "options", "stream", "ends", "descriptors", "processes",
            "threads", "names", "resolver"]


class Resets(Server):
    def handle(self, sock, peer):
        sock.sendall(b"hello")
        sock.recv(1)
        reset(sock)


class EndsFirst(Server):
    def handle(self, sock, peer):
        sock.shutdown(1)
        got = b""
        while piece := sock.recv(100):
            got += piece
        if got != b"after the end":
            reset(sock)


class Closes(Server):
    def handle(self, sock, peer):
        sock.sendall(b"bye")
        sock.recv(1)


class Mute(Server):
    """Takes connections and does nothing with them."""

    def __init__(self, *arguments, **more):
        self.kept = []
        super().__init__(*arguments, **more)

    def handle(self, sock, peer):
        with self.lock:
            self.lock.wait_for(lambda: self._closing)


# Section (regular expression), line without `run`, line with it, and why they may differ.
DIFFERENT = [
    ("connect|interrupted|wait|descriptors|processes|ends|timed-out",
     r"  getsockname, not connected: family \d+, length \d+, (an|no) address, a port",
     r"  getsockname, not connected: family \d+, length \d+, no address, no port",
     "Before the proxy has answered there is no address towards the destination, and a failed attempt has taken no port of this machine."),
    ("processes", "connected by the child: getpeername = 0", "connected by the child: getpeername = -1 ENOTCONN",
     "connect() puts another socket in the place of the caller's descriptor, and of its copies in the same process; a process that "
     "shares the old one since a fork keeps that."),
    ("connect|wait|timed-out", r"  poll = 1 (IN\|)?OUT\|ERR\|HUP", r"  poll = 1 (IN\|)?ERR\|HUP",
     "When the helper closes a stream that has failed the kernel tells of it a moment before it frees the pad that keeps it unwritable."),
    ("options", "connected 0 IP_MTU: length 4", "connected 0 IP_MTU: ENOTCONN",
     "The kernel forgets a connection's route when its IP_TOS is set, until it sends again: here that is when the program's options are "
     "taken over by the connection to the proxy."),
    ("names", r"(gethostbyname_r .*), small buffer = ERANGE: NETDB_INTERNAL", r"(gethostbyname_r .*), small buffer = 0: (NO_DATA|HOST_NOT_FOUND)",
     "libc asks for a larger buffer before it knows that there is nothing to be put into it."),
    ("names", r"gethostbyname2 \S+ family 1: .*", r"gethostbyname2 \S+ family 1: NETDB_INTERNAL",
     "A family without host names: libc finds a reason that depends on the name."),
    ("names", r"(gethostbyaddr(_r)?|getnameinfo) ::ffff:.*", r"(gethostbyaddr(_r)?|getnameinfo) ::ffff:.*'in-hosts\.run\.test'.*",
     "libc looks up IPv4-mapped addresses in the DNS alone, we also in /etc/hosts."),
]


@pytest.fixture(scope="module")
def world(isolation):
    one = RunWorld({"limits": {"connect": "2s"}})
    try:
        for kind, port in ((Resets, 11), (EndsFirst, 12), (Closes, 13), (Mute, 14)):
            one.stack.enter_context(kind("0.0.0.0", port=port, make_socket=one.world.tcp_socket))
        # Names: both runs ask the same resolver, so that the answers can be compared.
        one.direct_files = isolate.with_files({**isolate.name_files(one.folder("direct"), [], run_world.RESOLVER),
                                               "/etc/hosts": os.path.join(one.directory, "client", "hosts")})
        with open(os.path.join(one.directory, "direct", "resolv.conf"), "a", encoding="ascii") as file:
            file.write("search sub.run.test run.test\n")
    except BaseException:
        one.close()
        raise
    yield one
    one.close()


def lines_of(done):
    assert done.returncode == 0 and not done.stderr.count(b"Sanitizer"), done
    return done.stdout.decode().splitlines()


def is_allowed(section, before, after):
    return any(re.fullmatch(where, section) and re.fullmatch(old, before) and re.fullmatch(new, after)
               for where, old, new, _ in DIFFERENT)


@pytest.mark.parametrize("section", SECTIONS)
def test_calls_are_the_same_line_by_line(world, section):
    world.settle()
    done = world.run(PROGRAM, section)
    leaks, asked = world.leaks(), world.decoy.names()
    direct = subprocess.run([*world.control.wrapper, *world.direct_files, PROGRAM, section], capture_output=True, timeout=60, check=False,
                            env=world.environment(), stdin=subprocess.DEVNULL)
    expected = lines_of(direct)
    assert not any(line.startswith("broken") for line in expected), expected
    found = done.stdout.decode().splitlines()
    report = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, expected, found, False).get_opcodes():
        if kind == "equal":
            continue
        if b - a == d - c and all(is_allowed(section, *pair) for pair in zip(expected[a:b], found[c:d])):
            continue
        context = [f"  {line}" for line in expected[max(0, a - 2):a]]
        report += [*context, *(f"- {line}" for line in expected[a:b]), *(f"+ {line}" for line in found[c:d]), "..."]
    assert not report, "\n".join([f"{section}: - without run, + with it", *report, done.stderr.decode()[-2000:]])
    lines_of(done)
    assert not leaks and not asked, (leaks, asked)
