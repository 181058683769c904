"""
For programs under `socks6 run`: which way a connection has taken, seen past the preloaded library, which does not replace syscall(2).

    own          the socket that the program had before connect(), connected to the proxy
    direct       the same, connected to where it was to be
    handed over  the helper's, a TCP socket
    stream       the helper's, a Unix socket
"""

import ctypes
import errno
import os
import platform
import select
import socket
import struct
import sys

GETSOCKOPT, GETPEERNAME, GETSOCKNAME = {"x86_64": (55, 52, 51), "aarch64": (209, 205, 204)}[platform.machine()]
SO_COOKIE, SO_DOMAIN = 57, 39
WAIT_MS = 30000

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def raw_option(sock, name, size):
    value, room = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    rc = libc.syscall(GETSOCKOPT, sock.fileno(), socket.SOL_SOCKET, name, value, ctypes.byref(room))
    assert rc == 0, errno.errorcode[ctypes.get_errno()]
    return int.from_bytes(value.raw, sys.byteorder)


def cookie(sock):
    return raw_option(sock, SO_COOKIE, 8)


def _raw_address(sock, call):
    name, room = ctypes.create_string_buffer(128), ctypes.c_uint(128)
    if libc.syscall(call, sock.fileno(), name, ctypes.byref(room)) != 0:
        return None
    family, port = struct.unpack("=H", name.raw[:2])[0], struct.unpack("!H", name.raw[2:4])[0]
    return socket.inet_ntop(family, name.raw[4:8] if family == socket.AF_INET else name.raw[8:24]), port


def raw_peer(sock):
    """The kernel's; None if there is none."""
    return _raw_address(sock, GETPEERNAME)


def raw_name(sock):
    return _raw_address(sock, GETSOCKNAME)


def way(sock, before):
    """`before`: its cookie before connect()."""
    if raw_option(sock, SO_DOMAIN, 4) == socket.AF_UNIX:
        return "stream"
    if cookie(sock) != before:
        return "handed over"
    return "direct" if raw_peer(sock) == sock.getpeername()[:2] else "own"


def go(host, port, family=socket.AF_INET, prepare=None):
    """A blocking connect(): (the socket, its way)."""
    sock = socket.socket(family)
    if prepare:
        prepare(sock)
    before = cookie(sock)
    sock.connect((host, port))
    return sock, way(sock, before)


def learn(host, port, family=socket.AF_INET):
    """
    Connections until the shortcut is known; they are closed. The proxy has to have been near in one moment, which a busy machine may
    not grant to the first one.
    """
    for _ in range(20):
        sock, how = go(host, port, family)
        sock.close()
        if how == "own":
            return
    raise AssertionError("the shortcut is never taken")


def address(sock, host, port):
    """As connect(2) takes it."""
    if sock.family == socket.AF_INET6:
        return struct.pack("=H", sock.family) + struct.pack("!HI", port, 0) + socket.inet_pton(sock.family, host) + bytes(4)
    return struct.pack("=H", sock.family) + struct.pack("!H", port) + socket.inet_pton(sock.family, host) + bytes(8)


def connect(sock, host, port):
    """connect(2) as C programs call it: "0" or an errno's name. Python's own calls it again, or waits."""
    name = address(sock, host, port)
    return "0" if libc.connect(sock.fileno(), name, len(name)) == 0 else errno.errorcode[ctypes.get_errno()]


def wait(sock, events=select.POLLOUT):
    """poll(2) until one of the events has come; all that have."""
    poll = select.poll()
    poll.register(sock, events)
    ready = poll.poll(WAIT_MS)
    assert ready, "nothing happens"
    return ready[0][1]


def error_of(sock):
    """SO_ERROR as a name; "0" = none."""
    return errno.errorcode.get(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "0")


def echoes(sock, data=b"echo"):
    sock.settimeout(WAIT_MS / 1000)
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = sock.recv(len(data) - len(got))
        assert piece, got
        got += piece
    assert got == data, got


def say(*what):
    print(*what, flush=True)


def on_line():
    """Waits until the test says so."""
    assert sys.stdin.readline(), "the test has gone"


def in_child(function):
    """`function()` in a child of fork(); which has to end well."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
