"""Fixtures. Daemons of the session are shared by tests that leave them as they were; `daemon` starts more."""

import os
import random
import subprocess

import pytest

from lib import isolate
from lib.daemon import Daemon, base_config, build_dir, client_binary, daemon_binary, environment
from lib.pam import is_built
from lib.servers import Echo, NameServer, Nginx, Sink, Sshd


def pytest_configure(config):
    del config
    for path in (daemon_binary(), client_binary()):
        if not os.access(path, os.X_OK):
            pytest.exit(f"{path} is not built", 2)
    os.environ["SOCKS6_BUILD"] = build_dir()


def pytest_collection_modifyitems(config, items):
    """Tests of builds with PAM are none of other builds, and the other way round."""
    foreign = "without_pam" if is_built() else "pam"
    rest = [item for item in items if item.get_closest_marker(foreign) is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in rest])
    items[:] = rest


CANNOT_ISOLATE = isolate.can_isolate()


@pytest.fixture(scope="session")
def isolation():
    """For tests that need root and namespaces."""
    if CANNOT_ISOLATE:
        pytest.skip(CANNOT_ISOLATE)


# 253 bytes, the longest a host name can be.
LONGEST_NAME = ".".join(["x" * 63, "y" * 63, "z" * 63, "w" * 56, "test"])
assert len(LONGEST_NAME) == 253

# The hosts file of daemons that live with private names. Names of the form *.test never leave the machine.
HOSTS = [
    ("127.0.0.1", "localhost v4.test"),
    ("::1", "localhost ip6-localhost v6.test"),
    ("127.0.0.1", "both.test"),
    ("::1", "both.test"),
    ("0.0.0.0", "unspecified.test"),
    ("224.0.0.1", "multicast.test"),
    ("127.0.0.2", "two.test allowed.example denied.example deep.sub.denied.example"),
    ("169.254.169.254", "metadata.test"),
    ("10.1.0.1", "own.test"),
]


@pytest.fixture(scope="session")
def name_server(isolation):
    server = NameServer({"dns4.test": ["127.0.0.1"], "dns6.test": ["::1"], LONGEST_NAME: ["127.0.0.1"]},
                        f"127.{random.randint(64, 127)}.{random.randint(0, 255)}.{random.randint(1, 254)}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def names(name_server, tmp_path_factory):
    """The wrapper that gives a daemon the private hosts file and name server."""
    return isolate.with_files(isolate.name_files(tmp_path_factory.mktemp("names"), HOSTS, name_server.addr))


@pytest.fixture(scope="session")
def shared_daemon():
    """One daemon with defaults on 127.0.0.1 and ::1."""
    with Daemon(base_config(("127.0.0.1:0", "[::1]:0"))) as one:
        yield one


def leaves_no_trace(one):
    """Yields the daemon; afterwards it must live and hold no more descriptors than before."""
    yield one
    assert one.alive(), one.text()[-8000:]
    one.wait_fds()
    one.check_reports()


@pytest.fixture
def proxy(shared_daemon):
    """The shared daemon."""
    yield from leaves_no_trace(shared_daemon)


@pytest.fixture(scope="session", params=["copy", "splice"])
def relaying_daemon(request):
    """One daemon for each way to move bulk; on loopback `auto` would be `copy`."""
    with Daemon(base_config(("127.0.0.1:0", "[::1]:0"), relay=request.param)) as one:
        one.relay = request.param
        yield one


@pytest.fixture(scope="session")
def shared_named_daemon(names):
    with Daemon(base_config(("127.0.0.1:0", "[::1]:0")), wrapper=names) as one:
        yield one


@pytest.fixture
def named_proxy(shared_named_daemon):
    """As `proxy`, with the private names."""
    yield from leaves_no_trace(shared_named_daemon)


@pytest.fixture
def daemon():
    """Starts daemons for one test: daemon(listeners=..., limits=..., rules=...). All are stopped and checked at its end."""
    running = []

    def start(config=None, **settings):
        process = {k: settings.pop(k) for k in ("args", "wrapper", "env", "leaks", "binary", "wait") if k in settings}
        one = Daemon(base_config(**settings) if config is None else config, **process)
        running.append(one)
        return one
    yield start
    errors = []
    for one in running:
        try:
            one.stop()
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture(scope="session")
def echo():
    with Echo() as server:
        yield server


@pytest.fixture(scope="session")
def echo6():
    with Echo(host="::1") as server:
        yield server


@pytest.fixture(scope="session")
def sink():
    with Sink() as server:
        yield server


@pytest.fixture(scope="session")
def nginx(tmp_path_factory):
    server = Nginx(tmp_path_factory.mktemp("nginx"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory):
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    yield server
    server.close()


@pytest.fixture
def client():
    """Runs the client: client("connect", "host", "80", input=b"...") -> CompletedProcess."""
    def run(*args, env=None, **more):
        more.setdefault("timeout", 60)
        more.setdefault("capture_output", True)
        return subprocess.run([client_binary(), *map(str, args)], env=environment(**(env or {})), check=False, **more)
    return run
