"""Small things about sockets and waiting that every test needs."""

import contextlib
import hashlib
import random
import socket
import struct
import time

DEADLINE = 30  # seconds until a test gives up waiting; never a thing that is measured


def pattern(size, seed=1):
    """`size` reproducible bytes without structure."""
    return random.Random(seed).randbytes(size)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def file_sha(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def wait_until(condition, what, deadline=DEADLINE):
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited for {what() if callable(what) else what} in vain")
        time.sleep(0.01)


def dial(addr, timeout=DEADLINE, source=None):
    sock = socket.socket(socket.AF_INET6 if ":" in addr[0] else socket.AF_INET)
    try:
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source:
            sock.bind(source)
        sock.connect(addr[:2])
    except BaseException:
        sock.close()
        raise
    return sock


def recv_exact(sock, count):
    got = bytearray()
    while len(got) < count:
        piece = sock.recv(min(count - len(got), 1 << 18))
        if not piece:
            raise AssertionError(f"end of stream after {len(got)} of {count} bytes")
        got += piece
    return bytes(got)


def recv_all(sock):
    """Everything until the end of the stream."""
    got = bytearray()
    while piece := sock.recv(1 << 18):
        got += piece
    return bytes(got)


def recv_until_end(sock):
    """(bytes, how): how is "eof" or "reset"."""
    got = bytearray()
    try:
        while piece := sock.recv(1 << 18):
            got += piece
    except ConnectionResetError:
        return bytes(got), "reset"
    return bytes(got), "eof"


def reset(sock):
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def has_ended(sock):
    """Whether the end of the stream, or a reset, can be read right now; does not wait."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        sock.settimeout(timeout)


# A prefix for commands: whatever happens to the tests, what they started does not outlive them.
DIES_WITH_US = ["setpriv", "--pdeathsig", "TERM"]


def nobody_is_waiting(listener):
    """Whether no connection has come to a listening socket that was not accepted."""
    timeout = listener.gettimeout()
    listener.setblocking(False)
    try:
        listener.accept()[0].close()
    except BlockingIOError:
        return True
    finally:
        listener.settimeout(timeout)
    return False


@contextlib.contextmanager
def listening(host="127.0.0.1", backlog=128, port=0):
    """A listening socket in the test's own hand; `.addr` is (host, port)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with Listener(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.settimeout(DEADLINE)
        sock.addr = sock.getsockname()[:2]
        yield sock


class Listener(socket.socket):
    addr = None

    def accept_one(self):
        peer, _ = self.accept()
        peer.settimeout(DEADLINE)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer


def free_low_port(host="127.0.0.1"):
    """A port below 10240, free now: out of the way of ports that the kernel hands out, for servers that cannot take port 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.sample(range(2048, 10240), 200):
        with socket.socket(family) as sock:
            try:
                sock.bind((host, port))
                return port
            except OSError:
                continue
    raise AssertionError("no free port below 10240")
