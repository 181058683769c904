"""Proxies and servers that the tests of the client program talk to: small, independent of the C code, one thread per connection."""

import contextlib
import hashlib
import os
import random
import socket
import struct
import threading

DEADLINE = 60


class Peer:
    """Listens on a free port and runs `handler(sock)` for each connection in a thread. What a handler raises fails the test at stop()."""

    def __init__(self, handler, host="127.0.0.1", port=0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = socket.socket(family)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(128)
        self.host, self.port = self.listener.getsockname()[:2]
        self.handler = handler
        self.errors = []
        self.threads = []
        self.socks = []
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            sock.settimeout(DEADLINE)
            self.socks.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock):
        try:
            with sock:
                self.handler(sock)
        except Exception as error:  # pylint: disable=broad-except
            self.errors.append(error)

    def stop(self, quiet=False):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.acceptor.join(DEADLINE)
        for sock in self.socks if quiet else []:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a peer's connection never ended"
        if self.errors and not quiet:
            raise self.errors[0]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop(quiet=kind is not None)


def read_exactly(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError(f"{count} bytes expected, the stream ended after {len(data)}")
        data += piece
    return data


def read_to_end(sock):
    data = b""
    while piece := sock.recv(65536):
        data += piece
    return data


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def pattern(size, seed=1):
    return random.Random(seed).randbytes(size)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def closed_port(host="127.0.0.1"):
    """A bound socket that does not listen: its port refuses connections as long as the socket lives."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    return sock


# SOCKS 6 (draft-11): just enough of it.

AUTH_OK = bytes([6, 0, 0, 0])
AUTH_FAILED = bytes([6, 1, 0, 0])


def reply6(code=0, host="127.0.0.1", port=4660):
    return struct.pack("!BBHHBB4s", 6, code, 0, port, 0, 1, socket.inet_aton(host))


class Request6:
    """A request taken apart. `raw` is all of it; `extra` what came with it in the first recv()."""

    def __init__(self, sock):
        self.first = sock.recv(65536)
        data = self.first
        need = 8
        while True:
            while len(data) < need:
                piece = sock.recv(65536)
                if not piece:
                    raise EOFError("the request was cut")
                data += piece
            length = self._length(data)
            if length <= need:
                break
            need = length
        self.raw, self.extra = data[:length], data[length:]
        self.version, self.command, self.options_len, self.port, _, self.type = struct.unpack("!BBHHBB", data[:8])
        self.host = {1: lambda a: socket.inet_ntop(socket.AF_INET, a[:4]),
                     4: lambda a: socket.inet_ntop(socket.AF_INET6, a[:16]),
                     3: lambda a: a[1:1 + a[0]].rstrip(b"\0").decode("latin-1")}[self.type](data[8:])
        self.options = self._options(self.raw[len(self.raw) - self.options_len:])

    @staticmethod
    def _length(data):
        address = {1: 4, 4: 16}.get(data[7])
        if address is None:
            address = (1 + data[8] + 3) & ~3 if len(data) > 8 else 4
        return 8 + address + struct.unpack("!H", data[2:4])[0]

    @staticmethod
    def _options(data):
        options = []
        while data:
            kind, length = struct.unpack("!HH", data[:4])
            options.append((kind, data[4:length]))
            data = data[length:]
        return options

    def credentials(self):
        for kind, data in self.options:
            if kind == 4 and data[0] == 2:
                user_len = data[2]
                user = data[3:3 + user_len]
                password = data[4 + user_len:4 + user_len + data[3 + user_len]]
                return user.decode(), password.decode()
        return None

    def initial_data_len(self):
        for kind, data in self.options:
            if kind == 2:
                return struct.unpack("!H", data[:2])[0]
        return None


def relay(one, other):
    """Both ways until both have ended; each end is passed on by itself, a reset as a reset."""
    broken = threading.Event()

    def move(source, target):
        try:
            while piece := source.recv(262144):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            broken.set()
            for sock in (one, other):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
    thread = threading.Thread(target=move, args=(one, other), daemon=True)
    thread.start()
    move(other, one)
    thread.join(DEADLINE)
    assert not thread.is_alive()
    if broken.is_set():
        reset(one)
        reset(other)


def connect_upstream(host, port):
    """The server, or the reply code that says why not."""
    try:
        return socket.create_connection(("127.0.0.1" if host.lower().endswith(".test") else host, port), DEADLINE), 0
    except ConnectionRefusedError:
        return None, 5
    except OSError:
        return None, 4


class Proxy6(Peer):
    """Relays. Names that end in .test are this machine. `users`: name -> password, or None for everybody. Keeps the requests."""

    def __init__(self, users=None, host="127.0.0.1", port=0):
        self.users = users
        self.requests = []
        super().__init__(self._converse, host, port)

    def _converse(self, sock):
        request = Request6(sock)
        self.requests.append(request)
        assert request.version == 6 and request.command == 1
        if self.users is not None:
            user, password = request.credentials() or (None, None)
            if user is None or self.users.get(user) != password:
                sock.sendall(AUTH_FAILED)
                return
        upstream, code = connect_upstream(request.host, request.port)
        sock.sendall(AUTH_OK + reply6(code))
        if upstream:
            with upstream:
                upstream.sendall(request.extra)
                relay(sock, upstream)

    def url(self, userinfo=""):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"socks6://{userinfo}{host}:{self.port}"


class Proxy5(Peer):
    """The same in SOCKS 5."""

    def __init__(self, users=None):
        self.users = users
        self.hosts = []
        super().__init__(self._converse)

    def _converse(self, sock):
        version, count = read_exactly(sock, 2)
        methods = read_exactly(sock, count)
        assert version == 5
        wanted = 0 if self.users is None else 2
        if wanted not in methods:
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(bytes([5, wanted]))
        if wanted == 2:
            assert read_exactly(sock, 1) == b"\x01"
            user = read_exactly(sock, read_exactly(sock, 1)[0]).decode()
            password = read_exactly(sock, read_exactly(sock, 1)[0]).decode()
            good = self.users.get(user) == password
            sock.sendall(bytes([1, 0 if good else 1]))
            if not good:
                return
        _, command, _, kind = read_exactly(sock, 4)
        assert command == 1
        if kind == 3:
            host = read_exactly(sock, read_exactly(sock, 1)[0]).decode()
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == 1 else socket.AF_INET6,
                                    read_exactly(sock, 4 if kind == 1 else 16))
        port, = struct.unpack("!H", read_exactly(sock, 2))
        self.hosts.append((kind, host))
        upstream, code = connect_upstream(host, port)
        sock.sendall(bytes([5, code, 0, 1, 127, 0, 0, 1, 0x12, 0x34]))
        if upstream:
            with upstream:
                relay(sock, upstream)

    def url(self, userinfo=""):
        return f"socks5h://{userinfo}{self.host}:{self.port}"


class Scripted(Peer):
    """A proxy that sends fixed bytes for any request, then waits for the client to go, closes, or resets."""

    def __init__(self, answer, then="wait", pieces=False):
        self.answer, self.then, self.pieces = answer, then, pieces
        super().__init__(self._converse)

    def _converse(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.recv(65536)
        for piece in [self.answer[i:i + 1] for i in range(len(self.answer))] if self.pieces else [self.answer]:
            sock.sendall(piece)
        if self.then == "wait":
            with contextlib.suppress(ConnectionResetError):
                read_to_end(sock)
        elif self.then == "reset":
            reset(sock)

    def url(self, userinfo=""):
        return f"socks6://{userinfo}{self.host}:{self.port}"


def client_path():
    return os.path.join(os.path.abspath(os.environ["SOCKS6_BUILD"]), "src/cli/socks6")


def client_environment(**variables):
    """Without anybody's proxy settings; a sanitizer's finding has an exit status that no test expects."""
    env = {k: v for k, v in os.environ.items() if k.upper() not in ("ALL_PROXY", "SOCKS6_PROXY", "SOCKS6_PASSWORD")}
    env["ASAN_OPTIONS"] = "exitcode=98:detect_leaks=1"
    env["UBSAN_OPTIONS"] = "halt_on_error=1:print_stacktrace=1:exitcode=97"
    env["LC_ALL"] = "C.UTF-8"
    env["XDG_CACHE_HOME"] = "/dev/null"  # no cache, unless a test gives one
    env.update(variables)
    return env


def option6(kind, data=b""):
    return struct.pack("!HH", kind, 4 + len(data)) + data


def auth6(failed, *options):
    data = b"".join(options)
    return struct.pack("!BBH", 6, int(failed), len(data)) + data


SESSION_REQUEST, SESSION_ID, SESSION_UNTRUSTED, SESSION_OK, SESSION_INVALID = 5, 6, 7, 8, 9
WINDOW_REQUEST, WINDOW, TOKEN, TOKEN_ACCEPTED, TOKEN_REJECTED = 11, 12, 13, 14, 15


class SessionProxy6(Proxy6):
    """
    Proxy6 with sessions and tokens, kept as simply as can be: a token is good once. `window`: the size that is granted at
    most, 0 = none. `untrusted`: sessions need the login each time. `id_in_reply`: the id comes in the Operation Reply.
    `destination`: where all connections go, whatever the requests say.
    """

    def __init__(self, users=None, window=4096, untrusted=False, id_in_reply=False, port=0, host="127.0.0.1", destination=None):
        self.sessions = {}  # id -> {"base", "size", "spent"}
        self.window, self.untrusted, self.id_in_reply = window, untrusted, id_in_reply
        self.lock, self.destination = threading.Lock(), destination
        self.acted, self.rejected, self.invalid = 0, 0, 0
        super().__init__(users, host, port)

    def forget(self):
        with self.lock:
            self.sessions.clear()

    def _logged_in(self, request):
        if self.users is None:
            return True
        user, password = request.credentials() or (None, None)
        return user is not None and self.users.get(user) == password

    def _answer(self, request):
        """(whether to go on, the Authentication Reply, options of the Operation Reply)"""
        options = dict(reversed(request.options))
        session, answer, late = None, [], []
        if SESSION_ID in options:
            session = self.sessions.get(options[SESSION_ID])
            if session is None:
                self.invalid += 1
                return False, auth6(True, option6(SESSION_INVALID)), []
            answer.append(option6(SESSION_OK))
            if self.untrusted and not self._logged_in(request):
                return False, auth6(True), []
        else:
            if not self._logged_in(request):
                return False, auth6(True), []
            if SESSION_REQUEST in options:
                key = os.urandom(16)
                session = self.sessions[key] = {"base": random.getrandbits(32), "size": 0, "spent": set()}
                (late if self.id_in_reply else answer).append(option6(SESSION_ID, key))
        if session is not None and WINDOW_REQUEST in options and not session["size"]:
            session["size"] = min(self.window, struct.unpack("!I", options[WINDOW_REQUEST])[0])
        rejected = False
        if session is not None and TOKEN in options:
            token, = struct.unpack("!I", options[TOKEN])
            inside = (token - session["base"]) % 2**32 < session["size"]
            rejected = not inside or token in session["spent"]
            answer.append(option6(TOKEN_REJECTED if rejected else TOKEN_ACCEPTED))
            if not rejected:
                session["spent"].add(token)
                while session["base"] in session["spent"]:
                    session["spent"].discard(session["base"])
                    session["base"] = (session["base"] + 1) % 2**32
        if session is not None and session["size"]:
            answer.append(option6(WINDOW, struct.pack("!II", session["base"], session["size"])))
        if session is not None and self.untrusted:
            answer.append(option6(SESSION_UNTRUSTED))
        self.rejected += rejected
        return not rejected, auth6(rejected, *answer), late

    def _converse(self, sock):
        request = Request6(sock)
        with self.lock:
            self.requests.append(request)
            good, answer, late = self._answer(request)
            self.acted += good
        if not good:
            sock.sendall(answer)
            return
        upstream, code = connect_upstream(*(self.destination or (request.host, request.port)))
        data = b"".join(late)
        reply = reply6(code)
        sock.sendall(answer + reply[:2] + struct.pack("!H", len(data)) + reply[4:] + data)
        if upstream:
            with upstream:
                upstream.sendall(request.extra)
                relay(sock, upstream)
