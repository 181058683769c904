"""Real clients through the proxy to real servers: curl, ssh and `socks6 connect`; large files, checksums equal."""

import os
import subprocess

import pytest

from conftest import leaves_no_trace
from lib.daemon import client_binary, environment
from lib.net import file_sha, pattern, sha, wait_until

MIB = 1 << 20
SIZES = [pytest.param(64 * MIB, id="64MiB"), pytest.param(1024 * MIB, id="1GiB", marks=[pytest.mark.full, pytest.mark.timeout(900)])]
CURL = ["--socks4", "--socks4a", "--socks5", "--socks5-hostname"]


@pytest.fixture
def proxy(relaying_daemon):
    """Everything here holds whether bytes are copied or spliced."""
    yield from leaves_no_trace(relaying_daemon)


def proxy_url(addr, scheme="socks6"):
    host = f"[{addr[0]}]" if ":" in addr[0] else addr[0]
    return f"{scheme}://{host}:{addr[1]}"


@pytest.fixture(scope="module")
def files(tmp_path_factory, nginx):
    """size -> (path, checksum, name on the web server); made once."""
    directory = tmp_path_factory.mktemp("files")
    made = {}

    def get(size):
        if size not in made:
            path = directory / f"{size}.bin"
            with open(path, "wb") as file:
                for part in range(size // (64 * MIB)):
                    file.write(pattern(64 * MIB, part))
            name = f"{size}.bin"
            os.link(path, nginx.path(name))
            made[size] = (path, file_sha(path), name)
        return made[size]
    yield get
    for path, _, name in made.values():
        os.unlink(path)
        os.unlink(nginx.path(name))


def finished(path, size):
    """Whether header and body are there."""
    with open(path, "rb") as file:
        head = file.read(4096).partition(b"\r\n\r\n")[0]
    return os.path.getsize(path) >= len(head) + 4 + size


def curl(*args):
    return subprocess.run(["curl", "-sS", "--fail", "--noproxy", "", *map(str, args)], env=environment(), capture_output=True,
                          text=True, check=False)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("option", CURL)
def test_curl_downloads(proxy, nginx, files, tmp_path, option, size):
    _, checksum, name = files(size)
    host = "localhost" if option in ("--socks4a", "--socks5-hostname") else "127.0.0.1"
    target = tmp_path / "down"
    done = curl(option, "%s:%d" % proxy.addr, "-o", target, f"http://{host}:{nginx.port}/{name}")
    assert done.returncode == 0, done.stderr
    assert file_sha(target) == checksum
    target.unlink()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("option", CURL)
def test_curl_uploads(proxy, nginx, files, option, size):
    path, checksum, _ = files(size)
    host = "localhost" if option in ("--socks4a", "--socks5-hostname") else "127.0.0.1"
    name = f"up{option}-{size}"
    done = curl(option, "%s:%d" % proxy.addr, "-T", path, f"http://{host}:{nginx.port}/{name}")
    assert done.returncode == 0, done.stderr
    assert file_sha(nginx.path(name)) == checksum
    os.unlink(nginx.path(name))


@pytest.mark.parametrize("option", ["--socks5", "--socks5-hostname"])
def test_curl_over_ipv6_to_a_proxy_on_ipv6(proxy, nginx, tmp_path, option):
    nginx.put("small", pattern(100_000))
    target = tmp_path / "down"
    done = curl(option, "[%s]:%d" % proxy.addr6, "-o", target, f"http://[::1]:{nginx.port}/small")
    assert done.returncode == 0, done.stderr
    assert file_sha(target) == sha(pattern(100_000))


def test_many_curls_on_one_command_line_share_nothing(proxy, nginx, tmp_path):
    for number in range(8):
        nginx.put(f"many{number}", pattern(500_000, number))
    args = ["--parallel", "--parallel-immediate", "--socks5-hostname", "%s:%d" % proxy.addr]
    for number in range(8):
        args += ["-o", tmp_path / str(number), f"http://127.0.0.1:{nginx.port}/many{number}"]
    done = curl(*args)
    assert done.returncode == 0, done.stderr
    for number in range(8):
        assert file_sha(tmp_path / str(number)) == sha(pattern(500_000, number))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_socks6_connect_downloads(proxy, nginx, files, tmp_path, host, size):
    _, checksum, name = files(size)
    target = tmp_path / "down"
    request = f"GET /{name} HTTP/1.0\r\nHost: x\r\n\r\n".encode()
    # Standard input stays open until the server has closed: nginx takes the client's end for a lost interest.
    with open(target, "wb") as output, subprocess.Popen(
            [client_binary(), "-x", proxy_url(proxy.addr), "connect", host, str(nginx.port)], stdin=subprocess.PIPE,
            stdout=output, stderr=subprocess.PIPE, env=environment()) as process:
        process.stdin.write(request)
        process.stdin.flush()
        wait_until(lambda: process.poll() is not None or finished(target, size), "the end of the download", 600)
        process.stdin.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    body = tmp_path / "body"
    with open(target, "rb") as file:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            assert line, "no end of the header"
            head += line
        assert head.startswith(b"HTTP/1.1 200"), head
        with open(body, "wb") as out:
            while piece := file.read(MIB):
                out.write(piece)
    assert file_sha(body) == checksum
    target.unlink()
    body.unlink()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("early", [[], ["--early"]], ids=["plain", "early"])
def test_socks6_connect_uploads(proxy, nginx, files, early, size):
    path, checksum, _ = files(size)
    name = f"up-connect-{size}"
    request = f"PUT /{name} HTTP/1.0\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
    with subprocess.Popen([client_binary(), "-x", proxy_url(proxy.addr), "connect", *early, "127.0.0.1", str(nginx.port)],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        process.stdin.write(request)
        with open(path, "rb") as file:
            while piece := file.read(MIB):
                process.stdin.write(piece)
        process.stdin.close()
        answer = process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert b" 201 " in answer or b" 204 " in answer, answer
    assert file_sha(nginx.path(name)) == checksum
    os.unlink(nginx.path(name))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_ssh_through_socks6_connect_runs_a_command(proxy, sshd, host):
    command = sshd.command(f"{client_binary()} -x {proxy_url(proxy.addr)} connect %h %p", host)
    done = subprocess.run([*command, "echo out; echo err >&2; exit 7"], env=environment(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_ssh_through_socks6_connect_moves_data_both_ways(proxy, sshd):
    data = pattern(8 * MIB)
    command = sshd.command(f"{client_binary()} -x {proxy_url(proxy.addr)} connect %h %p")
    done = subprocess.run([*command, "cat"], input=data, env=environment(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sha(done.stdout) == sha(data)


def test_the_proxy_from_the_environment_serves_ssh(proxy, sshd):
    command = sshd.command(f"{client_binary()} connect %h %p")
    done = subprocess.run([*command, "echo hello"], env=environment(SOCKS6_PROXY=proxy_url(proxy.addr)), capture_output=True,
                          check=False)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
