"""
A SOCKS 6 proxy for the tests of `socks6 probe`, of any revision of the draft and with any of the options: strict where a
revision is strict, and wrong where a test wants it. Written on the tests' own codec; shares nothing with the C code.
"""

import contextlib
import os
import socket
import struct
import threading

from cli_peers import Peer, connect_upstream, read_exactly, read_to_end, relay
from lib import socks6 as s6

ID = b"0123456789abcdef"

# (level, code) of Stack options.
TOS, HAPPY_EYEBALLS, TTL, NO_FRAGMENTATION = (1, 1), (1, 2), (1, 3), (1, 4)
FAST_OPEN, MULTIPATH, BACKLOG = (4, 1), (4, 2), (4, 3)
UDP_ERROR, PORT_PARITY = (5, 1), (5, 2)

SINCE = {TOS: 8, HAPPY_EYEBALLS: 8, TTL: 9, NO_FRAGMENTATION: 10, FAST_OPEN: 8, MULTIPATH: 8, BACKLOG: 8, UDP_ERROR: 9,
         PORT_PARITY: 10}
# Their value is an availability from -11 on, padding before.
UNVALUED = {HAPPY_EYEBALLS, NO_FRAGMENTATION, UDP_ERROR}


class Malformed(Exception):
    """The request is not one of this revision."""


def read_request(sock, draft):
    """As a proxy that knows one revision only reads it."""
    head = read_exactly(sock, 8)
    version, command, length, port, _, kind = struct.unpack("!BBHHBB", head)
    assert version == 6, "the probe sends this proxy other versions in connections of their own only"
    if kind == s6.NAME:
        size = read_exactly(sock, 1)[0]
        name = read_exactly(sock, size)
        if draft >= 12:
            name = name.rstrip(b"\0")
        else:
            read_exactly(sock, -(1 + size) % 4)
        host = name.decode("latin-1")
    else:
        host = s6.read_address(s6.Reader(sock), kind)
    if length > (20480 if draft >= 12 else 16384):
        raise Malformed
    try:
        options = s6.decode_options(read_exactly(sock, length))
    except s6.ProtocolError as error:
        raise Malformed from error
    return command, host, port, options


class ProbedProxy(Peer):
    """
    `users`: name -> password, or None for everybody. `stack`: which options are known (default: all of the revision).
    `sessions`, `dns`, `bind`, `udp`: what is offered. `change`: ways to be wrong or odd, each named where it is looked up.
    """

    def __init__(self, draft=11, users=None, stack=None, sessions=True, dns=True, bind=True, udp=True, host="127.0.0.1",
                 **change):
        self.draft, self.users, self.sessions = draft, users, sessions
        self.dns, self.bind, self.udp, self.change = dns, bind, udp, change
        self.known = set(SINCE if stack is None else stack)
        self.known = {option for option in self.known if SINCE[option] <= draft}
        self.lock = threading.Lock()
        self.session, self.base, self.spent = None, 100, set()
        self.requests = []  # (command, host, port, options)
        self.versions = []  # first bytes of connections
        self.asked_hosts = []
        super().__init__(self._converse, host)

    # One connection.

    def _converse(self, sock):
        with contextlib.suppress(ConnectionError, EOFError):
            first = sock.recv(1, 2)  # MSG_PEEK
            self.versions.append(first)
            if not first:
                return
            if first != b"\x06":
                sock.sendall(b"\x06")
                return
            try:
                request = read_request(sock, self.draft)
            except Malformed:
                self._refuse(sock)
                return
            self.requests.append(request)
            self._answer(sock, *request)

    @staticmethod
    def _refuse(sock, options=b""):
        sock.sendall(s6.auth_reply(1, options))

    def _answer(self, sock, command, host, port, options):
        answer = self._judge(options)
        if answer is None:
            if self.change.get("selects") and any(kind == s6.ADVERTISEMENT for kind, _ in options):
                offered = dict(options)[s6.ADVERTISEMENT][2:]
                for method in self.change["selects"]:
                    if method in offered:
                        self._refuse(sock, s6.option(s6.SELECTION, bytes([method])))
                        return
            self._refuse(sock)
            return
        if isinstance(answer, Exception):
            self._refuse(sock, answer.args[0])
            return
        sock.sendall(s6.auth_reply(0, self.change.get("auth_options", b"") + answer))
        {s6.NOOP: self._noop, s6.CONNECT: self._connect, s6.BIND: self._bind,
         s6.UDP_ASSOCIATE: self._udp}[command](sock, host, port, options)

    # Who may. Options of the Authentication Reply; None: a login is wanted; an Exception: its argument is said.

    def _judge(self, options):
        kinds = dict(options)
        if s6.SESSION_ID in kinds and self.sessions:
            return self._in_session(kinds)
        if self.users is not None:
            data = kinds.get(s6.AUTH_DATA, b"")
            if data[:1] != b"\x02":
                return None
            user = data[3:3 + data[2]]
            password = data[4 + len(user):4 + len(user) + data[3 + len(user)]]
            if self.users.get(user.decode()) != password.decode():
                return None
        said = b""
        if s6.SESSION_REQUEST in kinds and self.sessions:
            self.session, self.spent = self.change.get("session_id", ID), set()
            if not self.change.get("id_in_reply"):
                said += s6.session_id(self.session)
            if self.change.get("untrusted"):
                said += s6.option(s6.SESSION_UNTRUSTED)
            if s6.WINDOW_REQUEST in kinds and not self.change.get("no_window"):
                said += s6.option(s6.WINDOW, struct.pack("!II", self.base, 16))
        return said

    def _in_session(self, kinds):
        if kinds[s6.SESSION_ID] != self.session:
            return Exception(s6.option(s6.SESSION_INVALID))
        if s6.SESSION_TEARDOWN in kinds:
            if not self.change.get("immortal"):
                self.session = None
            return b""
        said = b"" if self.change.get("silent_session") else s6.option(s6.SESSION_OK)
        if s6.EXPENDITURE in kinds:
            token, = struct.unpack("!I", kinds[s6.EXPENDITURE])
            with self.lock:
                if token in self.spent and not self.change.get("spends_twice"):
                    return Exception(said + s6.option(s6.REJECTED))
                self.spent.add(token)
            said += s6.option(s6.ACCEPTED)
        return said

    # What they may do.

    def _values(self, options, command, by_name):
        """Stack options of the reply."""
        said = b""
        for kind, data in options:
            option = (data[0] & 0x3f, data[1]) if kind == s6.STACK else None
            if option not in self.known or option == HAPPY_EYEBALLS and not by_name:
                continue
            if (option == BACKLOG) != (command == s6.BIND) or \
                    (option in (UDP_ERROR, PORT_PARITY)) != (command == s6.UDP_ASSOCIATE):
                continue
            value = data[2:]
            if option in UNVALUED and self.draft < 11:
                value = b"\0\0"
            elif option == FAST_OPEN:
                value = b"\0\x0c"
            elif option == BACKLOG and self.session is None:
                value = b"\0\0"
            said += s6.stack(data[0] >> 6, *option, self.change.get("values", {}).get(option, value))
        return said

    def _reply(self, sock, code, options=b"", host="127.0.0.1", port=4660):
        sock.sendall(self.change.get("reply") or s6.op_reply(code, host, port, options))

    def _noop(self, sock, *_):
        extra = s6.session_id(self.session) if self.change.get("id_in_reply") and self.session else b""
        self._reply(sock, 0, extra)

    def _connect(self, sock, host, port, options):
        self.asked_hosts.append((str(host), port))
        by_name = isinstance(host, str)
        if port == 53 and str(host) in ("0.0.0.0", "::"):
            self._serve_dns(sock)
            return
        code = self.change.get("connect_code", 0)
        upstream = None
        if by_name and "\0" in host:
            code = s6.HOST_UNREACHABLE
        elif code == 0 and (str(host), port) != (self.host, self.port) and host != "localhost":
            upstream, code = connect_upstream(str(host), port)
        if self.change.get("chokes") and sum(kind == s6.STACK for kind, _ in options) > 1:
            return
        said = b"" if code == 2 else self._values(options, s6.CONNECT, by_name)
        self._reply(sock, code, said)
        if upstream:
            with upstream:
                relay(sock, upstream)
        elif code == 0:
            read_to_end(sock)

    def _serve_dns(self, sock):
        if not self.dns:
            self._reply(sock, s6.REFUSED)
            return
        self._reply(sock, 0, host="0.0.0.0", port=0)
        length, = struct.unpack("!H", read_exactly(sock, 2))
        query = read_exactly(sock, length)
        self.query = query
        answer = self.change.get("dns_answer")
        if answer is None:
            answer = query[:2] + b"\x81\x80\0\x01\0\x02\0\0\0\0" + query[12:] + 2 * b"\xc0\x0c\0\x02\0\x01\0\0\0\x3c\0\x01\0"
        sock.sendall(struct.pack("!H", len(answer)) + answer)
        read_to_end(sock)

    def _bind(self, sock, host, port, options):
        self._reply(sock, 0 if self.bind else s6.COMMAND, self._values(options, s6.BIND, False) if self.bind else b"")
        if self.bind:
            read_to_end(sock)

    def _udp(self, sock, host, port, options):
        if not self.udp:
            self._reply(sock, s6.COMMAND)
            return
        self._reply(sock, 0, self._values(options, s6.UDP_ASSOCIATE, False))
        if self.change.get("no_association"):
            return
        association = os.urandom(8)
        sock.sendall(association if self.draft == 8 else b"\x06\x01\0\x0c" + association)
        read_to_end(sock)

    def url(self, userinfo=""):
        return f"socks6://{userinfo}{self.host}:{self.port}"


class Anything(Peer):
    """Runs `talk(sock)` for each connection, whatever it sends; connections that break are no error."""

    def __init__(self, talk):
        def quietly(sock):
            with contextlib.suppress(OSError):
                talk(sock)
        super().__init__(quietly)

    def url(self):
        return f"socks6://{self.host}:{self.port}"
