"""
Programs that know no SOCKS, under `socks6 run`, in a world where they would get along without (lib/run_world.py): each does what
it is for, and not a packet of theirs passes the proxy by. The same without `run` shows that it would be seen.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from lib import run_servers, run_world
from lib.net import sha
from lib.run_world import RunWorld

JAVA = """
import java.io.*;
import java.net.*;
import java.net.http.*;
public class Fetch {
    public static void main(String[] a) throws Exception {
        InetAddress address = InetAddress.getByName("web.run.test");
        System.out.println(address.getHostAddress());
        try (Socket s = new Socket("echo.run.test", 7)) {
            s.getOutputStream().write("blocking\\n".getBytes());
            System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
        }
        HttpResponse<byte[]> r = HttpClient.newHttpClient().send(
            HttpRequest.newBuilder(URI.create("http://web.run.test/page")).build(), HttpResponse.BodyHandlers.ofByteArray());
        System.out.println(r.statusCode() + " " + r.body().length);
    }
}
"""

THREADS = """
import concurrent.futures, hashlib, sys, urllib.request
def fetch(number):
    return hashlib.sha256(urllib.request.urlopen("http://web.run.test/page?%d" % number, timeout=30).read()).hexdigest()
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = set(pool.map(fetch, range(48)))
print(*found)
"""

ASYNCIO = """
import asyncio, sys
async def one(number):
    reader, writer = await asyncio.open_connection("echo.run.test" if number % 2 else sys.argv[1], 7)
    writer.write(b"%d\\n" % number)
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return int(line)
async def main():
    hung = asyncio.create_task(asyncio.open_connection(sys.argv[2], 7))
    print(sum(await asyncio.gather(*(one(number) for number in range(99)))), "hung" if not hung.done() else hung)
    hung.cancel()
asyncio.run(main())
"""


@dataclass
class Case:
    argv: list
    check: object  # of the CompletedProcess
    env: dict = field(default_factory=dict)
    more: dict = field(default_factory=dict)


class Stage:
    """The world and all that is served in it."""

    def __init__(self):
        self.world = RunWorld()
        world = self.world
        try:
            root = run_servers.start_web(world)
            self.repository, self.commit = run_servers.make_repository(world, root)
            self.deb = run_servers.make_mirror(world, root)
            self.ssh = run_servers.Sshd(world)
            world.stack.enter_context(run_servers.Postgres("0.0.0.0", port=5432, make_socket=world.world.tcp_socket))
            world.serve(["redis-server", "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly",
                         "no", "--dir", world.folder("redis")], 6379)
        except BaseException:
            world.close()
            raise
        self.count = 0

    def fresh(self, name):
        """A path that does not exist yet."""
        self.count += 1
        return os.path.join(self.world.directory, f"{name}-{self.count}")


@pytest.fixture(scope="module")
def stage(isolation):
    one = Stage()
    yield one
    one.world.close()


def prints(expected):
    """The check that this is all of the standard output."""
    def check(done):
        assert (done.returncode, done.stdout) == (0, expected), done
    return check


def page(done):
    assert (done.returncode, sha(done.stdout)) == (0, sha(run_servers.PAGE)), done.stderr


def contains(*texts):
    def check(done):
        assert done.returncode == 0, done
        for text in texts:
            assert text in done.stdout, done
    return check


def cloned(stage, folder):
    def check(done):
        assert done.returncode == 0, done.stderr
        with open(os.path.join(folder, "greeting"), "rb") as file:
            assert file.read() == run_servers.GREETING
        done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True,
                              env={**stage.world.environment(), **NO_GIT_CONFIG})
        assert done.stdout.strip() == stage.commit
    return check


def git_http(stage):
    folder = stage.fresh("clone")
    return Case(["git", "clone", "-q", "http://web.run.test/repository.git", folder], cloned(stage, folder), NO_GIT_CONFIG)


def git_ssh(stage):
    folder = stage.fresh("clone")
    return Case(["git", "clone", "-q", f"{stage.ssh.user}@ssh.run.test:{stage.repository}", folder], cloned(stage, folder),
                {**NO_GIT_CONFIG, "GIT_SSH_COMMAND": shlex.join(["ssh", *stage.ssh.options])})


NO_GIT_CONFIG = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}


def ssh(stage):
    data = run_servers.PAGE
    return Case(["ssh", *stage.ssh.options, f"{stage.ssh.user}@ssh.run.test", "sha256sum; exit 7"],
                lambda done: (done.returncode, done.stdout) == (7, sha(data).encode() + b"  -\n") or pytest.fail(str(done)),
                more={"input": data})


def apt(stage):
    here, env = run_servers.apt_folder(stage.world, os.path.basename(stage.fresh("apt")))

    def check(done):
        assert done.returncode == 0, (done.stdout, done.stderr)
        with open(os.path.join(here, f"{run_servers.PACKAGE}_1_all.deb"), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == stage.deb
        # apt fetches as another user; it says so where it cannot.
        assert b"unsandboxed" not in done.stderr, done.stderr
    return Case(["sh", "-c", f"apt-get update && apt-get download {run_servers.PACKAGE}"], check, env, {"cwd": here})


def java(stage):
    folder = stage.world.folder("java")
    source = os.path.join(folder, "Fetch.java")
    with open(source, "w", encoding="ascii") as file:
        file.write(JAVA)
    return Case(["java", "-XX:TieredStopAtLevel=1", "-Xshare:auto", source],
                lambda done: contains(b"blocking\n", b"200 %d\n" % len(run_servers.PAGE))(done))


def echoed(stage, *argv):
    del stage
    return Case(argv, prints(b"to and fro\n"), more={"input": b"to and fro\n"})


PYTHON = ["/usr/bin/python3", "-B", "-c"]
URL = "http://web.run.test/page"

CASES = {
    "curl": lambda stage: Case(["curl", "-sS", URL], page),
    "curl-ipv6": lambda stage: Case(["curl", "-sS", "-6", URL], page),
    "curl-literal": lambda stage: Case(["curl", "-sS", f"http://{run_world.SERVER}/page"], page),
    "curl-literal-ipv6": lambda stage: Case(["curl", "-sS", "-g", f"http://[{run_world.SERVER6}]/page"], page),
    "curl-parallel": lambda stage: Case(
        ["curl", "-sSZ", "-o", "/dev/null", "-w", "%{http_code}\n", "http://web.run.test/page?[1-12]"], prints(b"200\n" * 12)),
    "wget": lambda stage: Case(["wget", "-qO-", URL], page),
    "git-http": git_http,
    "git-ssh": git_ssh,
    "ssh": ssh,
    "python-threads": lambda stage: Case([*PYTHON, THREADS], prints(sha(run_servers.PAGE).encode() + b"\n")),
    "python-asyncio": lambda stage: Case([*PYTHON, ASYNCIO, run_world.SERVER, run_world.SILENT], prints(b"4851 hung\n")),
    "dig": lambda stage: Case(["dig", "+short", "web.run.test", "TXT"], contains(b'"')),
    "dig-tcp": lambda stage: Case(["dig", "+short", "+tcp", "web.run.test", "MX"], prints(b"10 web.run.test.\n")),
    "dig-any-server": lambda stage: Case(["dig", "+short", f"@{run_world.RESOLVER}", "web.run.test", "AAAA"],
                                         contains(b"fd60::")),
    "host": lambda stage: Case(["host", "web.run.test"], contains(b"web.run.test has address 10.60.0.", b"mail is handled by 10 web")),
    "nc": lambda stage: echoed(stage, "nc.openbsd", "-N", "echo.run.test", "7"),
    "ncat": lambda stage: echoed(stage, "ncat", "echo.run.test", "7"),
    "redis-cli": lambda stage: Case(["redis-cli", "-h", "redis.run.test", "-r", "3", "INCRBY", f"key{os.urandom(4).hex()}", "5"],
                                    prints(b"5\n10\n15\n")),
    "psql": lambda stage: Case(["psql", "-X", "-A", "-t", "-h", "sql.run.test", "-U", "alice", "-c", "select 'through'", "test"],
                               prints(b"SELECT 'THROUGH'\n"), {"PGPASSFILE": "/dev/null", "PGSSLMODE": "disable"}),
    "apt-get": apt,
    "java": java,
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.full) if name == "java" else name for name in CASES])
def test_program_does_its_work_through_the_proxy_alone(stage, name):
    world = stage.world
    for run in (True, False):
        one = CASES[name](stage)
        world.settle()
        accesses = world.daemon.mark()
        done = world.run(*one.argv, run=run, env=one.env, **one.more)
        leaks, asked = world.leaks(world.client if run else world.control), world.decoy.names()
        if run:
            assert not leaks and not asked, (leaks, asked, done)
            one.check(done)
            assert world.daemon.access(since=accesses)
        else:
            one.check(done)
            assert leaks.get("away", 0) > 0, "nothing would have been seen"


def test_answers_come_from_the_proxys_resolver(stage):
    """Not merely some answers: the two resolvers of this world say different things."""
    world = stage.world
    world.settle()
    for argv, expected in (
            (["dig", "+short", "web.run.test", "TXT"], f'"{run_world.TEXT}"\n'),
            (["dig", "+short", "+tcp", "@127.0.0.53", "web.run.test"], f"{run_world.SERVER}\n"),
            (["dig", "+short", "@192.0.2.1", "web.run.test"], f"{run_world.SERVER}\n"),
            (["dig", "+short", "@2001:db8::1", "web.run.test"], f"{run_world.SERVER}\n"),
            (["getent", "ahostsv4", "web.run.test"], f"{run_world.SERVER} STREAM web.run.test"),
            (["getent", "ahostsv4", "www.sub.run.test"], f"{run_world.SERVER} STREAM www.sub.run.test"),
            (["getent", "hosts", run_world.SERVER], f"{run_world.SERVER} in-hosts.run.test hosts-alias.run.test"),
            ([*PYTHON, "import socket; print(*socket.gethostbyname_ex('alias.run.test'))"],
             f"web.run.test ['alias.run.test'] ['{run_world.SERVER}']\n"),
            ([*PYTHON, "import socket; print(socket.gethostbyname('www'))"], f"{run_world.SERVER}\n")):
        done = world.run(*argv)
        assert done.returncode == 0 and " ".join(done.stdout.decode().split()).startswith(expected.strip()), (argv, done)
    assert not world.leaks() and not world.decoy.names()
    assert world.run("dig", "+short", "web.run.test", "TXT", run=False).stdout != f'"{run_world.TEXT}"\n'.encode()
    assert world.decoy.names()


def test_what_is_not_tcp_is_refused_and_not_leaked(stage):
    world = stage.world
    world.settle()
    code = ("import socket, sys\n"
            "for family, host in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):\n"
            "    s = socket.socket(family, socket.SOCK_DGRAM)\n"
            "    for call in (lambda: s.sendto(b'x', (host, 9)), lambda: s.connect((host, 9)), lambda: s.sendmsg([b'x'], [], 0, (host, 9))):\n"
            "        try: call(); print('passed')\n"
            "        except OSError as error: print(error.errno)\n"
            "for make in (lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1)):\n"
            "    try: make(); print('made')\n"
            "    except OSError as error: print(error.errno)\n")
    argv = [*PYTHON, code, run_world.SERVER, run_world.SERVER6]
    done = world.run(*argv)
    assert not world.leaks()
    assert done.stdout.split() == [b"101"] * 6 + [b"1", b"13"], done  # ENETUNREACH; as without CAP_NET_RAW
    assert b"refused" in done.stderr and run_world.SERVER.encode() in done.stderr
    done = world.run(*argv, options=["--allow-direct"])
    assert set(done.stdout.split()[:6]) == {b"passed"} and world.leaks(), done


def test_loopback_and_no_proxy_are_direct(stage):
    world = stage.world
    world.settle()
    code = ("import socket, threading\n"
            "l = socket.create_server(('127.0.0.1', 0))\n"
            "threading.Thread(target=lambda: l.accept()[0].sendall(b'own')).start()\n"
            "s = socket.create_connection(l.getsockname())\n"
            "print(s.recv(3), s.getpeername() == l.getsockname())\n")
    done = world.run(*PYTHON, code)
    assert done.stdout == b"b'own' True\n" and not world.leaks(), done
    for no_proxy in ("run.test", ".run.test", f"{run_world.SERVER},{run_world.ELSEWHERE}", "10.60.0.0/24"):
        host = "web.run.test" if "run.test" in no_proxy else run_world.SERVER
        world.settle()
        done = world.run("curl", "-sS4", f"http://{host}/ip", env={"NO_PROXY": no_proxy, "no_proxy": no_proxy})
        assert done.stdout == b"10.50.2.2\n", (no_proxy, done)  # as the server saw it
        assert world.leaks()["away"] > 0
    world.settle()
    done = world.run("curl", "-sS4", f"http://{run_world.SERVER}/ip", env={"NO_PROXY": "other.test,10.61.0.0/16"})
    assert done.stdout == run_world.PROXY_OUT.encode() + b"\n" and not world.leaks(), done


def test_one_tree_has_one_helper(stage):
    """A shell with a pipeline, subshells and `env -i`: everything below goes the same way."""
    world = stage.world
    world.settle()
    script = (f"curl -sS {URL} | sha256sum; (env -i {shutil.which('curl')} -sS {URL}) | sha256sum; "
              f"{sys.executable} -c 'import subprocess; subprocess.run([\"curl\", \"-sS\", \"{URL}\"], env={{}})' | sha256sum")
    done = world.run("sh", "-c", script)
    assert done.stdout == (sha(run_servers.PAGE) + "  -\n").encode() * 3, done
    assert not world.leaks() and not world.decoy.names()
