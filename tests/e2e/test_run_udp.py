"""
Datagram sockets with a port of their own under `socks6 run`, in a world where others could reach them (lib/run_world.py): resolvers that
ask from random ports get their answers, and nobody but this machine gets through.
"""

import contextlib
import socket
import subprocess

import pytest

from lib import run_world
from lib.net import DEADLINE, wait_until
from lib.run_world import RunWorld

PORT = 5399
PYTHON = ["/usr/bin/python3", "-B", "-c"]
# What a resolver does that makes its own port: argv is family, own address, own port, server.
ASK = f"""
import dns.message, socket, sys
family, own, port, server = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout({DEADLINE})
s.bind((own, port))
assert s.getsockname()[:2] == (own, port), s.getsockname()
s.sendto(dns.message.make_query("web.run.test", "TXT").to_wire(), (server, 53))
answer, source = s.recvfrom(65535)
assert source[:2] == (server, 53), source
print(dns.message.from_wire(answer).answer[0][0].strings[0].decode())
"""
# Waits for datagrams, and prints each with where it is from.
HEAR = """
import socket, sys
s = socket.socket(int(sys.argv[1]), socket.SOCK_DGRAM)
s.bind((sys.argv[2], int(sys.argv[3])))
print("bound", flush=True)
while True:
    data, source = s.recvfrom(100)
    print(data.decode(), source[0], flush=True)
"""


@pytest.fixture(scope="module")
def world(isolation):
    with contextlib.closing(RunWorld()) as one:
        yield one


@pytest.mark.parametrize("family, own, server", [
    (socket.AF_INET, "0.0.0.0", run_world.RESOLVER), (socket.AF_INET, "10.50.2.2", "192.0.2.1"),
    (socket.AF_INET6, "::", "2001:db8::1"), (socket.AF_INET6, "fd50:2::2", "2001:db8::1"),
    (socket.AF_INET6, "::", f"::ffff:{run_world.RESOLVER}")])
def test_resolvers_ask_from_their_own_port(world, family, own, server):
    world.settle()
    done = world.run(*PYTHON, ASK, int(family), own, PORT, server)
    assert (done.returncode, done.stdout.decode()) == (0, run_world.TEXT + "\n"), done
    assert not world.leaks() and not world.decoy.names()


@contextlib.contextmanager
def hearing(world, family, own, options=()):
    with subprocess.Popen(world.command(*PYTHON, HEAR, int(family), own, PORT, options=options), env=world.environment(),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "bound\n", process.stderr.read()
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=DEADLINE)


def send(space, family, host, data):
    def one():
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, (host, PORT))
    space.call(one)


def dropped(space, family):
    """How many datagrams the socket's filter has kept out."""
    lines = [line.split() for line in space.run("cat", f"/proc/net/udp{'6' if family == socket.AF_INET6 else ''}").splitlines()]
    return sum(int(line[-1]) for line in lines if line[1].endswith(f":{PORT:04X}"))


@pytest.mark.parametrize("family, own, near, far", [
    (socket.AF_INET, "0.0.0.0", "127.0.0.1", "10.50.2.2"), (socket.AF_INET, "10.50.2.2", "10.50.2.2", "10.50.2.2"),
    (socket.AF_INET6, "::", "::1", "fd50:2::2"), (socket.AF_INET6, "fd50:2::2", "fd50:2::2", "fd50:2::2")])
def test_others_do_not_get_through(world, family, own, near, far):
    world.settle()
    with hearing(world, family, own) as process:
        send(world.world, family, far, b"from elsewhere")
        wait_until(lambda: dropped(world.client, family) == 1, "the filter to keep it out")
        send(world.client, family, near, b"from here")
        assert process.stdout.readline() == f"from here {near}\n"
    assert world.leaks() == {"away": 1, "where": []}  # the one that came


def test_others_do_not_get_through_in_the_other_family(world):
    with hearing(world, socket.AF_INET6, "::") as process:
        send(world.world, socket.AF_INET, "10.50.2.2", b"from elsewhere")
        wait_until(lambda: dropped(world.client, socket.AF_INET6) == 1, "the filter to keep it out")
        send(world.client, socket.AF_INET, "127.0.0.1", b"from here")
        assert process.stdout.readline() == "from here ::ffff:127.0.0.1\n"


def test_allow_direct_lets_others_through(world):
    with hearing(world, socket.AF_INET, "0.0.0.0", ["--allow-direct"]) as process:
        send(world.world, socket.AF_INET, "10.50.2.2", b"from elsewhere")
        assert process.stdout.readline() == "from elsewhere 10.50.2.1\n"


def test_it_is_said_once(world):
    """Whatever the port: resolvers take one after the other."""
    code = "import socket\nfor _ in range(3):\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n" \
           "    s.bind(('', 0))\n    port = s.getsockname()[1]\n    s.close()\n" \
           "    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    s.bind(('', port))\n    s.close()\n"
    done = world.run(*PYTHON, code)
    assert done.returncode == 0, done
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and lines[0].endswith(": receive from other machines without TCP: refused"), done
