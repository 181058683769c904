"""A stand-in for the library that `socks6 run` preloads: speaks src/run/protocol.h with the helper, one call per test's wish."""

import contextlib
import os
import select
import socket
import struct
import subprocess

from cli_peers import DEADLINE, Peer, Request6, AUTH_OK, client_environment, client_path, reply6

CONNECT, STATUS, GETSOCKOPT, SETSOCKOPT, RESOLVE, REVERSE, QUERY, DIRECT, UDP_DNS, NOTE = range(1, 11)
V_DIRECT, V_REFUSED, V_WAIT, V_CONVERTED, V_FAILED, V_STREAM, V_SOCKET = range(1, 8)
UNKNOWN, CONNECTING, CONNECTED, FAILED, BROKEN, ENDED = range(6)
NON_BLOCKING, MARKED = 1, 2
TAKE_ERROR = 1
SO_COOKIE = 57

ADDR = struct.Struct("=HHI16s")
CONNECTED_BODY = struct.Struct("=Ii24s24s")
STATE_BODY = struct.Struct("=Ii24s24s")


def addr(host, port=0):
    if not host:
        return bytes(24)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return ADDR.pack(family, port, 0, socket.inet_pton(family, host).ljust(16, b"\0"))


def from_addr(data):
    family, port, _, raw = ADDR.unpack(data)
    if family == 0:
        return None
    return socket.inet_ntop(family, raw[:4] if family == socket.AF_INET else raw), port


def cookie(sock):
    return struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]


class Connection:
    """What RUN_CONNECT has made: `verdict`, `error`, `peer`, `local`; `sock` is the program's from then on."""

    def __init__(self, talk, kind):
        self.talk, self.kind = talk, kind
        self.sock = talk
        self.verdict = self.error = self.peer = self.local = None
        self.cookie = cookie(talk)

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.talk, 8 + CONNECTED_BODY.size, 1)
        while data and len(data) < 8 + CONNECTED_BODY.size:
            data += self.talk.recv(8 + CONNECTED_BODY.size - len(data))
        length, status = struct.unpack("=Ii", data[:8])
        assert (length, status) == (8 + CONNECTED_BODY.size, 0)
        self.verdict, self.error, peer, local = CONNECTED_BODY.unpack(data[8:])
        self.peer, self.local = from_addr(peer), from_addr(local)
        if fds:
            self.talk.close()
            self.sock = socket.socket(fileno=fds[0])
            self.cookie = cookie(self.sock)
        return self


class Shim:
    """`variable`: what the environment says."""

    def __init__(self, variable):
        version, address, secret, self.flags = variable.strip().split(":")
        assert version == "1"
        self.address, self.secret = b"\0" + bytes.fromhex(address), bytes.fromhex(secret)

    def open(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(self.address)
        return sock

    def message(self, kind, body, secret=None, version=1):
        return struct.pack("=IHH16s", 24 + len(body), version, kind, secret or self.secret) + body

    def ask(self, kind, body):
        """(status, body of the reply); None if the helper closes without one."""
        with self.open() as sock:
            sock.sendall(self.message(kind, body))
            data = b""
            while piece := sock.recv(65536):
                data += piece
        if not data:
            return None
        length, status = struct.unpack("=Ii", data[:8])
        assert length == len(data)
        return status, data[8:]

    def start(self, host, port, flags=0, pad=0, own=None, old=0):
        """Sends RUN_CONNECT; the reply is to be received yet."""
        talk = self.open()
        body = addr(host, port) + struct.pack("=QQII", cookie(talk), old, flags, pad)
        mine = own or socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            socket.send_fds(talk, [self.message(CONNECT, body)], [mine.fileno()])
        finally:
            if own is None:
                mine.close()
        return Connection(talk, "")

    def connect(self, host, port, own=None, flags=0):
        """Blocking."""
        return self.start(host, port, flags=flags, own=own).receive()

    def connect_later(self, host, port, own=None, old=0):
        """Non-blocking: fills the socket with the pad, and makes it non-blocking."""
        talk = self.open()
        talk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
        pad = 2 * ((talk.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >> 1) - 64)
        body = addr(host, port) + struct.pack("=QQII", cookie(talk), old, NON_BLOCKING, pad)
        mine = own or socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        socket.send_fds(talk, [self.message(CONNECT, body)], [mine.fileno()])
        if own is None:
            mine.close()
        connection = Connection(talk, "").receive()
        connection.pad = pad
        if connection.verdict == V_WAIT:
            talk.setblocking(False)
            with contextlib.suppress(BrokenPipeError):
                assert talk.send(bytes(pad)) == pad
        return connection

    def status(self, number, flags=0):
        status, body = self.ask(STATUS, struct.pack("=QII", number, flags, 0))
        assert status == 0
        state, error, peer, local = STATE_BODY.unpack(body)
        return state, error, from_addr(peer), from_addr(local)

    def getsockopt(self, number, level, name, room=4):
        return self.ask(GETSOCKOPT, struct.pack("=QiiII", number, level, name, room, 0))

    def setsockopt(self, number, level, name, value):
        return self.ask(SETSOCKOPT, struct.pack("=QiiII", number, level, name, len(value), 0) + value)[0]

    def note(self, what, text):
        assert self.ask(NOTE, struct.pack("=II", what, 0) + text) is None


class PortProxy(Peer):
    """SOCKS 6: what it does with a request depends on its port. `plans`: port -> function(sock, request)."""

    def __init__(self, plans, context=None):
        self.plans, self.context, self.requests = plans, context, []
        super().__init__(self._converse)

    def _converse(self, sock):
        if self.context:
            sock = self.context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        try:
            request = Request6(sock)
        except EOFError:
            return
        self.requests.append(request)
        self.plans[request.port](sock, request)

    def url(self):
        return f"socks6{'s' if self.context else ''}://{self.host}:{self.port}"


def answer(code, **more):
    """A plan: this reply code, and with success an echo."""
    def plan(sock, request):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # the program may have given up
            sock.sendall(AUTH_OK + reply6(code, **more))
            if code == 0:
                echo(sock, request)
    return plan


def echo(sock, request):
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        sock.sendall(request.extra)
        while piece := sock.recv(65536):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)


def wait_for(sock, events):
    poller = select.poll()
    poller.register(sock, events)
    ready = poller.poll(DEADLINE * 1000)
    assert ready, "nothing happened"
    return ready[0][1]


def is_ready(sock, events):
    poller = select.poll()
    poller.register(sock, events)
    return poller.poll(0)


@contextlib.contextmanager
def helper(*options, env=None, wrapper=()):
    """`socks6 run` (behind a command that ends in exec of its arguments) with a shell that tells us how to reach the helper and then waits. Yields (process, Shim)."""
    program = ["/bin/sh", "-c", "echo $SOCKS6_RUN; read -r line; exit ${line:-0}"]
    with subprocess.Popen([*wrapper, client_path(), "run", *map(str, options), "--", *program],
                          env=client_environment(**(env or {})), bufsize=0,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            variable = b""
            while not variable.endswith(b"\n"):
                piece = os.read(process.stdout.fileno(), 512)
                assert piece, process.stderr.read().decode()
                variable += piece
            yield process, Shim(variable.decode())
        except BaseException:
            process.kill()
            raise
        finally:
            if process.poll() is None:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
                process.wait(DEADLINE)


def ends_well(process, status=0):
    """Ends the program; what was said on standard error."""
    process.stdin.write(b"%d\n" % status)
    text = process.stderr.read().decode()
    assert process.wait(DEADLINE) == status, text
    assert "Sanitizer" not in text and "runtime error" not in text, text
    return text
