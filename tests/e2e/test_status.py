"""`socks6d --status` and the status socket: what it says, who may ask, and whose socket it is."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time

import pytest

from lib.clients import DIALERS, noop6, socks6_dial
from lib.daemon import Daemon, base_config, daemon_binary, environment, run_daemon
from lib.net import recv_all, recv_exact, wait_until
from lib import socks6 as s6


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "status.sock")


@pytest.fixture
def stranger():
    """Another user: the command that becomes it, a binary that it can reach, and a directory of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    with tempfile.TemporaryDirectory(prefix="socks6d-stranger-") as directory:
        os.chmod(directory, 0o755)
        binary = shutil.copy(daemon_binary(), directory)
        own = os.path.join(directory, "own")
        os.mkdir(own)
        os.chown(own, 65534, 65534)
        yield ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], binary, own


def ask(path):
    """As `--status` does, without it."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.settimeout(20)
        sock.connect(path)
        return json.loads(recv_all(sock).decode("ascii"))


def with_socket(path, **more):
    return base_config(["127.0.0.1:0"], status={"socket": path}, **more)


def status_of(*args, **more):
    done = run_daemon("--status", *args, **more)
    assert done.returncode == 0 and not done.stderr, done
    return json.loads(done.stdout)


def test_status_says_what_the_daemon_is_and_does(daemon, path, echo):
    before = time.time()
    proxy = daemon(with_socket(path, workers=2, limits={"connections": 77, "idle": "none", "connections_per_client": 55}))
    status = status_of("-c", proxy.config_path)
    assert status["pid"] == proxy.pid and status["state"] == "running" and status["reloaded"] is None
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", status["version"]) and status["config"] == os.path.realpath(proxy.config_path)
    started = status["started"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started)
    assert time.strftime("%Y-%m-%d", time.gmtime(before)) <= started[:10]
    assert status["listeners"] == [{"address": "%s:%d" % proxy.addr, "protocols": ["socks6", "socks5", "socks4"],
                                    "tls": False}]
    limits = status["limits"]
    assert (limits["connections"], limits["connections_per_client"], limits["idle_ms"], limits["handshake_ms"]) == (77, 55, None, 10000)
    process = status["process"]
    assert process["descriptors"] == proxy.fds() + 1, "with the one of the asking client"
    assert abs(process["memory_bytes"] / 1024 - proxy.rss_kib()) < 20_000
    assert 0 <= process["uptime_seconds"] < time.time() - before + 1 and process["log_lines_lost"] == 0
    assert {"hits", "misses", "bytes"} <= set(status["dns"])
    assert len(status["workers"]) == 2 and all(set(one) == set(status["totals"]) for one in status["workers"])
    with contextlib.ExitStack() as stack:
        for protocol in DIALERS:
            for _ in range(3):
                sock = stack.enter_context(DIALERS[protocol](proxy.addr, *echo.addr, early=b"x" * 10))
                assert len(recv_exact(sock, 10)) == 10
        status = ask(path)
        assert status["totals"]["connections"] == 9 == status["totals"]["connected"]
        assert sum(one["connections"] for one in status["workers"]) == 9
    proxy.access(9)
    totals = ask(path)["totals"]
    assert (totals["connections"], totals["accepted"], totals["closed"], totals["bytes_up"]) == (0, 9, 9, 90)
    assert (totals["requests_socks4"], totals["requests_socks5"], totals["requests_socks6"]) == (3, 3, 3)


def test_status_counts_what_sigusr1_logs(daemon, path):
    proxy = daemon(with_socket(path))
    assert noop6(proxy.addr) == s6.SUCCESS
    proxy.access()
    proxy.signal(signal.SIGUSR1)
    line = proxy.wait_line(re.compile(r"(?<!dns )counters:"))
    counters = {key: int(value) for key, value in re.findall(r"([a-z0-9_]+)=(\d+)", line)}
    assert counters.pop("log_lines_lost") == 0
    assert counters == ask(path)["totals"]


def test_a_refused_client_is_not_open(daemon, path):
    proxy = daemon(with_socket(path, limits={"connections_per_client": 1}))
    with contextlib.closing(socket.create_connection(proxy.addr)) as held:
        held.sendall(b"\x06")
        wait_until(lambda: ask(path)["totals"]["accepted"] == 1, "the first one")
        with contextlib.closing(socket.create_connection(proxy.addr)) as refused:
            assert refused.recv(1) == b""
        totals = ask(path)["totals"]
        assert (totals["connections"], totals["refused_client_limit"]) == (1, 1)


def test_only_the_owner_may_ask(daemon, path):
    daemon(with_socket(path))
    status = os.lstat(path)
    assert stat.S_ISSOCK(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o600 and status.st_uid == os.geteuid()


def test_a_stranger_is_told_that_he_may_not_ask(daemon, stranger):
    become, binary, own = stranger
    path = os.path.join(os.path.dirname(own), "s")
    daemon(with_socket(path))
    done = subprocess.run([*become, binary, "--status=" + path], check=False, capture_output=True, text=True, env=environment(),
                          timeout=60)
    assert done.returncode == 3 and not done.stdout and "permission denied; ask as the daemon's user or as root" in done.stderr


def test_the_umask_does_not_matter(daemon, path):
    daemon(with_socket(path), wrapper=["sh", "-c", 'umask 000; exec "$@"', "sh"])
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600


@pytest.mark.parametrize("how", ["missing", "left over", "not a socket", "directory"])
def test_nobody_there_is_said_so(path, how):
    if how == "left over":
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.bind(path)
            sock.listen()
    elif how == "not a socket":
        with open(path, "w", encoding="ascii"):
            pass
    elif how == "directory":
        os.mkdir(path)
    done = run_daemon("--status=" + path)
    assert done.returncode == 3 and not done.stdout
    assert done.stderr.startswith(f"socks6d: no daemon answers at {path}: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("answer", [b"", b"{", b"{\n  \"version\": 1,\n", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\x00" * 100])
def test_what_is_no_whole_answer_is_not_printed(path, answer):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(path)
        server.listen()
        asking = subprocess.Popen([daemon_binary(), "--status=" + path], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=environment())
        peer, _ = server.accept()
        with contextlib.closing(peer):
            peer.sendall(answer)
        out, err = asking.communicate(timeout=60)
    assert asking.returncode == 3 and out == b"" and b"not whole" in err


def test_status_without_a_socket_says_why(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("status: {socket: none}\n")
    done = run_daemon("--status", "-c", str(config))
    assert done.returncode == 1 and "no status socket" in done.stderr and not done.stdout
    config.write_text("statsu: {}\n")
    done = run_daemon("--status", "-c", str(config))
    assert done.returncode == 1 and f"{config}:1:1: unknown key 'statsu'; write 'status'" in done.stderr


def test_a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not(daemon, path):
    first = daemon(with_socket(path))
    second = daemon(with_socket(path), wait=False)
    assert second.wait() == 1
    assert f"cannot listen on {path}: another process has it" in second.text()
    assert ask(path)["pid"] == first.pid
    first.kill()
    assert os.path.exists(path)
    third = daemon(with_socket(path))
    assert ask(path)["pid"] == third.pid
    third.stop()
    assert not os.path.exists(path)


def test_starting_at_once_one_gets_it(daemon, path):
    """The file of a dead one is taken over by exactly one of those who race for it, and that one can be reached."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.bind(path)
    daemons = [daemon(with_socket(path), wait=False) for _ in range(6)]
    wait_until(lambda: all("ready" in one.text() or not one.alive() for one in daemons), "all to start or end")
    alive = [one for one in daemons if "ready" in one.text()]
    assert len(alive) == 1, [one.text() for one in daemons]
    assert ask(path)["pid"] == alive[0].pid
    for one in daemons:
        if one is not alive[0]:
            assert one.wait() == 1
            one.stopped = True


def test_the_default_socket_is_left_to_the_first(stranger):
    """That of an ordinary user, in XDG_RUNTIME_DIR; root's is in /run, which is not for tests."""
    become, binary, own = stranger
    more = {"args": ["-l", "127.0.0.1:0"], "wrapper": become, "binary": binary, "env": {"XDG_RUNTIME_DIR": own}}
    first = Daemon(None, **more)
    with first:
        with Daemon(None, **more) as second:
            second.wait_line(f"no status socket at {own}/socks6d.sock: another process has it")
        done = subprocess.run([*become, binary, "--status"], check=True, capture_output=True, text=True, timeout=60,
                              env=environment(XDG_RUNTIME_DIR=own))
        status = json.loads(done.stdout)
        assert status["pid"] == first.pid and status["config"] is None
    assert os.listdir(own) == []


def test_a_reload_moves_it_removes_it_and_brings_it_back(daemon, path, echo):
    proxy = daemon(with_socket(path))
    other = path + "2"
    inode = os.lstat(path).st_ino
    proxy.reload(with_socket(path, limits={"connections": 5}))
    assert os.lstat(path).st_ino == inode, "the same one"
    status = ask(path)
    assert status["limits"]["connections"] == 5 and status["reloaded"] >= status["started"]
    assert status["listeners"][0]["address"] == "%s:%d" % proxy.addr
    with socks6_dial(proxy.addr, *echo.addr):
        proxy.reload(with_socket(other))
        assert not os.path.exists(path) and ask(other)["totals"]["connections"] == 1
    proxy.reload(base_config(["127.0.0.1:0"]))
    assert not os.path.exists(other)
    proxy.reload(with_socket(path))
    assert ask(path)["pid"] == proxy.pid
    os.unlink(path)  # by mistake
    proxy.reload()
    assert ask(path)["pid"] == proxy.pid


def test_a_reload_to_a_socket_that_cannot_be_had_keeps_everything(daemon, path):
    proxy = daemon(with_socket(path))
    line = proxy.reload(with_socket("/nonexistent/s", limits={"connections": 5}), good=False)
    assert "cannot listen on /nonexistent/s: No such file or directory" in line
    assert ask(path)["limits"]["connections"] != 5
    line = proxy.reload(base_config(["127.0.0.1:0", "127.0.0.3:0"], status={"socket": "/nonexistent/s"}), good=False)
    assert [one["address"] for one in ask(path)["listeners"]] == ["%s:%d" % proxy.addr]
    proxy.reload(with_socket(path))
    proxy.wait_fds()


def test_new_listeners_are_in_the_status(daemon, path):
    proxy = daemon(with_socket(path))
    proxy.reload(base_config(["127.0.0.3:0", {"address": "127.0.0.1:0", "protocols": ["socks5"]}], status={"socket": path}))
    addresses = {one["address"]: one["protocols"] for one in ask(path)["listeners"]}
    assert addresses["%s:%d" % proxy.addr] == ["socks5"]
    third, = [addr for addr in proxy.listeners() if addr[0] == "127.0.0.3"]
    assert addresses["%s:%d" % third] == ["socks6", "socks5", "socks4"] and len(addresses) == 2


def test_status_while_draining(daemon, path, echo):
    proxy = daemon(with_socket(path))
    with socks6_dial(proxy.addr, *echo.addr):
        proxy.signal(signal.SIGTERM)
        proxy.wait_line("draining")
        status = ask(path)
        assert status["state"] == "draining" and status["totals"]["connections"] == 1 and status["listeners"] == []
    assert proxy.wait() == 0
    assert not os.path.exists(path)


def test_clients_that_hang_on_hurt_nobody(daemon, path, echo):
    proxy = daemon(with_socket(path))
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                sock.connect(path)
                sock.send(b"GET / HTTP/1.0\r\n\r\n")
        assert status_of("-c", proxy.config_path)["pid"] == proxy.pid
        with socks6_dial(proxy.addr, *echo.addr, early=b"x") as tunnel:
            assert recv_exact(tunnel, 1) == b"x"
    proxy.wait_fds()
