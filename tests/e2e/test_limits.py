"""Limits: connections per client and in total, descriptors, thousands of connections at once."""

import contextlib
import resource
import selectors
import socket
import threading

import pytest

from lib import socks6 as s6
from lib.clients import finish6, noop6, socks6_dial
from lib.net import DEADLINE, dial, recv_exact, recv_until_end, reset, wait_until
from lib.servers import EchoProcess


@contextlib.contextmanager
def dialled(addr, count, source=None):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(contextlib.closing(dial(addr, source=source))) for _ in range(count)]


def test_a_clients_extra_connections_are_closed_at_once_and_others_are_served(daemon, echo):
    proxy = daemon(limits={"connections_per_client": 5})
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socks6_dial(proxy.addr, *echo.addr, source=("127.0.0.7", 0))) for _ in range(5)]
        with dialled(proxy.addr, 3, ("127.0.0.7", 0)) as extra:
            for sock in extra:
                assert recv_until_end(sock)[0] == b""
        # Another address is another client.
        with socks6_dial(proxy.addr, *echo.addr, source=("127.0.0.8", 0), early=b"x") as sock:
            assert sock.recv(1) == b"x"
        for sock in held:
            sock.sendall(b"still here")
            assert recv_exact(sock, 10) == b"still here"
    proxy.wait_fds()
    # The places are free again.
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socks6_dial(proxy.addr, *echo.addr, source=("127.0.0.7", 0)))


@pytest.mark.parametrize("stage", [b"", b"\x06\x01", b"\x05\x01\x00", b"X"])
def test_unfinished_conversations_count_too_and_are_given_back(daemon, stage):
    proxy = daemon(limits={"connections_per_client": 4})
    for number in range(1, 4):
        with dialled(proxy.addr, 4) as socks:
            for sock in socks:
                sock.sendall(stage)
            if stage != b"X":
                # Two workers accept: the order is known only once all four are counted.
                wait_until(lambda: proxy.fds() >= proxy.base_fds + 4, "all four to be accepted")
                with dialled(proxy.addr, 1) as extra:
                    assert recv_until_end(extra[0])[0] == b""
        proxy.access(4 * number)
        wait_until(lambda: proxy.fds() <= proxy.base_fds, "their end")
    assert noop6(proxy.addr) == s6.SUCCESS


def test_the_total_limit_lets_connections_wait_and_then_serves_them(daemon, echo):
    proxy = daemon(limits={"connections": 10, "connections_per_client": 0})
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socks6_dial(proxy.addr, *echo.addr)) for _ in range(10)]
        waiting = []
        for _ in range(10):
            sock = stack.enter_context(contextlib.closing(dial(proxy.addr)))
            sock.sendall(s6.request(*echo.addr) + b"waited")
            waiting.append(sock)
        # The held ones work; the others are neither answered nor closed.
        for _ in range(20):
            for sock in held:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        for sock in waiting:
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(30)
        for sock in held:
            sock.close()
        for sock in waiting:
            assert finish6(sock).ok
            assert recv_exact(sock, 6) == b"waited"
    proxy.wait_fds()


def as_served(socks):
    """Takes sockets out of the list as they become readable: who waits in which worker's queue is not known here."""
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        while socks:
            ready = selector.select(DEADLINE)
            assert ready, f"{len(socks)} clients are served no more"
            for key, _ in ready:
                selector.unregister(key.fileobj)
                socks.remove(key.fileobj)
                yield key.fileobj


def held_open(proxy, addr, count):
    """`count` connections, requests sent, as far as the proxy takes them."""
    socks = []
    for _ in range(count):
        sock = dial(proxy.addr)
        sock.sendall(s6.request(*addr) + b"served")
        socks.append(sock)
    return socks


def test_at_the_total_limit_nobody_is_dropped_whichever_worker_is_quicker(daemon, echo):
    """Several workers meet the limit at once, again and again: everyone waits and is served."""
    proxy = daemon(limits={"connections": 4, "connections_per_client": 0}, workers=4)
    socks = held_open(proxy, echo.addr, 600)
    try:
        for sock in as_served(socks):
            assert finish6(sock).ok
            assert recv_exact(sock, 6) == b"served"
            sock.close()
    finally:
        for sock in socks:
            sock.close()
    proxy.wait_fds()


@pytest.mark.parametrize("configured", ["auto", 1000], ids=["limit-from-descriptors", "limit-too-high"])
def test_descriptor_exhaustion_pauses_without_spinning_and_recovers(daemon, echo, configured):
    """With the limit that fits the descriptors accepting just stops; with one that does not, accept4() fails with EMFILE."""
    proxy = daemon(limits={"connections": configured, "connections_per_client": 0},
                   wrapper=["prlimit", "--nofile=100:100"])
    socks = held_open(proxy, echo.addr, 200)
    try:
        # Whoever was taken is served or told that descriptors are short (code 1); the rest waits in the queue.
        wait_until(lambda: proxy.fds() >= (60 if configured == "auto" else 95), lambda: f"exhaustion; {proxy.fds()} descriptors")
        ticks = proxy.cpu_ticks()
        threading.Event().wait(1.0)
        spent = proxy.cpu_ticks() - ticks
        assert spent < 20, f"{spent} of 100 ticks of processor time while nothing could be done"
        assert proxy.alive()
        results = {"served": 0, "short": 0}
        for sock in as_served(socks):
            tunnel = finish6(sock)
            if tunnel.ok:
                assert recv_exact(sock, 6) == b"served"
                results["served"] += 1
            else:
                assert tunnel.code == s6.FAILURE, tunnel.reply
                results["short"] += 1
            sock.close()
        assert results["served"] > 0
        if configured == "auto":
            assert results["short"] == 0, "what is accepted must have descriptors for both legs"
    finally:
        for sock in socks:
            sock.close()
    proxy.wait_fds()
    for _ in range(10):
        with socks6_dial(proxy.addr, *echo.addr, early=b"x") as sock:
            assert sock.recv(1) == b"x"


def test_descriptor_exhaustion_by_stalled_clients_recovers_when_they_go(daemon, echo):
    proxy = daemon(limits={"connections": 1000, "connections_per_client": 0}, wrapper=["prlimit", "--nofile=80:80"])
    with dialled(proxy.addr, 150):
        wait_until(lambda: proxy.fds() >= 78, lambda: f"exhaustion; {proxy.fds()} descriptors")
    with socks6_dial(proxy.addr, *echo.addr, early=b"x") as sock:
        assert sock.recv(1) == b"x"
    proxy.wait_fds()


def hold(proxy, server, count):
    """Opens `count` relayed connections, proves each with a byte, closes them all."""
    socks = []
    try:
        for at in range(count):
            sock = dial(proxy.addr)
            sock.sendall(s6.request(*server.addr))
            socks.append(sock)
            if at % 64 == 63:  # the replies of a batch, so that no queue overflows
                for one in socks[-64:]:
                    assert finish6(one).ok
        for one in socks[len(socks) - len(socks) % 64:]:
            assert finish6(one).ok
        assert proxy.fds() >= 2 * count
        for at, sock in enumerate(socks):
            sock.sendall(at.to_bytes(4, "big"))
        for at, sock in enumerate(socks):
            assert recv_exact(sock, 4) == at.to_bytes(4, "big")
        return proxy.rss_kib()
    finally:
        for sock in socks:
            reset(sock)  # no TIME_WAIT


@pytest.mark.alone
@pytest.mark.parametrize("count", [2000, pytest.param(9000, marks=pytest.mark.timeout(300))])
def test_thousands_of_connections_are_held_and_all_answered_and_nothing_remains(daemon, count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * count + 500:
        pytest.skip(f"the descriptor limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        proxy = daemon(limits={"connections_per_client": 0}, log={"access": False, "level": "info"})
        with EchoProcess() as server:
            hold(proxy, server, count)
            proxy.wait_fds()
            first = proxy.rss_kib()
            hold(proxy, server, count)
            proxy.wait_fds()
            # The allocator keeps what the first round needed; a second round must not need more.
            assert proxy.rss_kib() <= first + 16 * 1024
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_come_and_go_leave_no_memory_behind(daemon, echo):
    proxy = daemon(log={"access": False, "level": "info"})

    def round_of(count):
        for number in range(count):
            with socks6_dial(proxy.addr, *echo.addr, options=s6.unknown_options(100, 40), early=b"x" * 5000) as sock:
                assert recv_exact(sock, 5000) == b"x" * 5000
            with contextlib.closing(dial(proxy.addr)) as sock:
                sock.sendall((b"\x06\x01", b"\x05\xff\x00", b"\x04" + b"u" * 400, b"zzz")[number % 4])
                sock.shutdown(socket.SHUT_WR)
                recv_until_end(sock)
    round_of(300)
    proxy.wait_fds()
    first = proxy.rss_kib()
    round_of(1500)
    proxy.wait_fds()
    assert proxy.rss_kib() <= first + 8 * 1024


def test_a_stuck_log_reader_holds_up_nobody(daemon, echo, tmp_path):
    """Standard error is a pipe that nobody reads: lines are dropped, connections are served."""
    import os
    import subprocess

    from lib.daemon import LISTENING, base_config, daemon_binary, environment, write_config
    config = write_config(str(tmp_path), base_config(("127.0.0.1:0",)))
    read_end, write_end = os.pipe()
    process = subprocess.Popen([daemon_binary(), "-c", config], stderr=write_end, stdin=subprocess.DEVNULL, env=environment())
    os.close(write_end)
    try:
        text = b""
        while b"ready" not in text:
            piece = os.read(read_end, 4096)
            assert piece, text
            text += piece
        match = LISTENING.search(text.decode())
        addr = (match.group(1), int(match.group(2)))
        # Each of these is worth a line of some hundred bytes; the pipe holds 64 KiB.
        for _ in range(1000):
            with socks6_dial(addr, *echo.addr, early=b"x") as sock:
                assert sock.recv(1) == b"x"
        process.terminate()
        # It ends although nobody reads.
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(read_end)
