"""SOCKS 6, 5, 4 and 4a as bytes, written from the protocol documents alone.

This is the second opinion on the wire format: nothing here is shared with the C code, and replies are decoded strictly, so
whatever the daemon sends must be right to the byte.
"""

import ipaddress
import struct

VERSION = 6
NOOP, CONNECT, BIND, UDP_ASSOCIATE = range(4)
SUCCESS, FAILURE, RULES, NET_UNREACHABLE, HOST_UNREACHABLE, REFUSED, TTL_EXPIRED, COMMAND, ADDRESS_TYPE, TIMED_OUT = \
    range(10)
IPV4, NAME, IPV6 = 1, 3, 4

STACK, ADVERTISEMENT, SELECTION, AUTH_DATA, SESSION_REQUEST, SESSION_ID, SESSION_UNTRUSTED, SESSION_OK, \
    SESSION_INVALID, SESSION_TEARDOWN, WINDOW_REQUEST, WINDOW, EXPENDITURE, ACCEPTED, REJECTED = range(1, 16)

LEG_CLIENT, LEG_REMOTE, LEG_BOTH = 1, 2, 3
LEVEL_IP, LEVEL_IPV4, LEVEL_IPV6, LEVEL_TCP, LEVEL_UDP = 1, 2, 3, 4, 5


class ProtocolError(Exception):
    """The peer sent something that the protocol does not allow."""


class Ended(ProtocolError):
    """The stream ended in the middle of a message; `got` is what had come."""

    def __init__(self, got):
        super().__init__(f"stream ended after {got!r}")
        self.got = got


# Encoding -------------------------------------------------------------------------------------------------------------


def option(kind, data=b"", length=None):
    """One option; `data` is padded to a multiple of 4. `length` overrides the length field, for malformed ones."""
    data += b"\0" * (-len(data) % 4)
    return struct.pack("!HH", kind, 4 + len(data) if length is None else length) + data


def stack(leg, level, code, value=b"\0\0"):
    return option(STACK, bytes([leg << 6 | level, code]) + value)


def advertisement(initial_data_len=0, methods=(2,)):
    return option(ADVERTISEMENT, struct.pack("!H", initial_data_len) + bytes(methods))


def userpass(user, password):
    return option(AUTH_DATA, bytes([2]) + rfc1929(user, password))


def rfc1929(user, password):
    return bytes([1, len(user)]) + user + bytes([len(password)]) + password


def session_request():
    return option(SESSION_REQUEST)


def session_id(value):
    return option(SESSION_ID, value)


def session_teardown():
    return option(SESSION_TEARDOWN)


def window_request(size):
    return option(WINDOW_REQUEST, struct.pack("!I", size))


def expenditure(token):
    return option(EXPENDITURE, struct.pack("!I", token))


def address(host, draft=11):
    """(type, bytes). `host`: an ipaddress object, a literal, or a name (str or bytes; bytes are never taken for a literal)."""
    if isinstance(host, str):
        try:
            host = ipaddress.ip_address(host)
        except ValueError:
            host = host.encode("ascii")
    if isinstance(host, ipaddress.IPv4Address):
        return IPV4, host.packed
    if isinstance(host, ipaddress.IPv6Address):
        return IPV6, host.packed
    padding = -(1 + len(host)) % 4
    counted = len(host) + (padding if draft >= 12 else 0)
    if counted > 255:
        raise ValueError("name too long for this form")
    return NAME, bytes([counted]) + host + b"\0" * padding


def request(host, port, *, command=CONNECT, options=b"", draft=11, version=VERSION, atyp=None, raw_address=None, pad=0,
            options_len=None):
    """A Request. `options` is the concatenation of options; the keyword arguments allow every malformation."""
    if isinstance(options, (list, tuple)):
        options = b"".join(options)
    kind, data = (atyp, raw_address) if raw_address is not None else address(host, draft)
    if atyp is not None:
        kind = atyp
    if options_len is None:
        options_len = len(options)
    return struct.pack("!BBHHBB", version, command, options_len, port, pad, kind) + data + options


def noop(options=b"", host="0.0.0.0", port=0):
    return request(host, port, command=NOOP, options=options)


def unknown_options(count, size=4, kind=0x7000):
    """`count` options of `size` bytes each that nobody knows."""
    return option(kind, b"\xa5" * (size - 4)) * count


# Decoding -------------------------------------------------------------------------------------------------------------


class Reader:
    """Reads exactly so many bytes from a socket, or from bytes."""

    def __init__(self, source):
        self.source = source
        self.is_bytes = isinstance(source, (bytes, bytearray))
        self.at = 0

    def read(self, count, before=b""):
        got = bytearray()
        while len(got) < count:
            if self.is_bytes:
                piece = bytes(self.source[self.at:self.at + count - len(got)])
                self.at += len(piece)
            else:
                piece = self.source.recv(count - len(got))
            if not piece:
                raise Ended(bytes(before) + bytes(got))
            got += piece
        return bytes(got)


class Message:
    def __repr__(self):
        return f"{type(self).__name__}({vars(self)})"

    def kinds(self):
        return [kind for kind, _ in self.options]

    def get(self, kind):
        for k, data in self.options:
            if k == kind:
                return data
        return None


class AuthReply(Message):
    pass


class OpReply(Message):
    pass


class Request(Message):
    pass


def decode_options(data):
    """[(kind, data)]; strict: lengths are multiples of 4, at least 4, and fill the field exactly."""
    options = []
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            raise ProtocolError("options end in half a header")
        kind, length = struct.unpack_from("!HH", data, at)
        if length < 4 or length % 4 or at + length > len(data):
            raise ProtocolError(f"option {kind} with length {length}")
        options.append((kind, data[at + 4:at + length]))
        at += length
    return options


_AUTH_REPLY_LENGTHS = {SELECTION: 4, SESSION_UNTRUSTED: 0, SESSION_OK: 0, SESSION_INVALID: 0, WINDOW: 8, ACCEPTED: 0,
                       REJECTED: 0}


def read_auth_reply(source):
    reader = source if isinstance(source, Reader) else Reader(source)
    head = reader.read(1)
    if head != b"\x06":
        raise ProtocolError(f"reply starts with {head!r}")
    head = reader.read(3, head)
    reply = AuthReply()
    reply.type, length = struct.unpack("!BH", head)
    if reply.type > 1:
        raise ProtocolError(f"Authentication Reply type {reply.type}")
    if length % 4 or length > 20480:
        raise ProtocolError(f"options length {length}")
    reply.options = decode_options(reader.read(length))
    reply.success = reply.type == 0
    for kind, data in reply.options:
        if kind in _AUTH_REPLY_LENGTHS and len(data) != _AUTH_REPLY_LENGTHS[kind]:
            raise ProtocolError(f"option {kind} with {len(data)} bytes")
        if kind not in _AUTH_REPLY_LENGTHS and kind not in (AUTH_DATA, SESSION_ID):
            raise ProtocolError(f"option {kind} in an Authentication Reply")
        if kind == SESSION_ID and not data:
            raise ProtocolError("empty session id")
    if len(set(reply.kinds()) - {AUTH_DATA}) != len([k for k in reply.kinds() if k != AUTH_DATA]):
        raise ProtocolError("an option twice in an Authentication Reply")
    return reply


def read_address(reader, kind, draft=11):
    if kind == IPV4:
        return ipaddress.IPv4Address(reader.read(4))
    if kind == IPV6:
        return ipaddress.IPv6Address(reader.read(16))
    if kind == NAME:
        length = reader.read(1)[0]
        data = reader.read((1 + length + 3) // 4 * 4 - 1)
        name, padding = data[:length], data[length:]
        if draft >= 12 and padding:
            raise ProtocolError("padding outside of the name's length")
        if padding.strip(b"\0"):
            raise ProtocolError("padding that is not zero")
        name = name.rstrip(b"\0")
        if not name or b"\0" in name:
            raise ProtocolError(f"name {name!r}")
        return name
    raise ProtocolError(f"address type {kind}")


def read_op_reply(source):
    reader = source if isinstance(source, Reader) else Reader(source)
    head = reader.read(8)
    version, code, length, port, pad, kind = struct.unpack("!BBHHBB", head)
    if version != VERSION:
        raise ProtocolError(f"Operation Reply of version {version}")
    if code > TIMED_OUT:
        raise ProtocolError(f"reply code {code}")
    if pad:
        raise ProtocolError("padding that is not zero")
    if length % 4:
        raise ProtocolError(f"options length {length}")
    reply = OpReply()
    reply.code, reply.port, reply.type = code, port, kind
    reply.host = read_address(reader, kind)
    reply.options = decode_options(reader.read(length))
    for option_kind, data in reply.options:
        if option_kind != STACK:
            raise ProtocolError(f"option {option_kind} in an Operation Reply")
        if len(data) != 4:
            raise ProtocolError("Stack option with a wrong length")
    return reply


def read_request(source):
    """For the tests of this module and for proxies made of Python."""
    reader = source if isinstance(source, Reader) else Reader(source)
    version, command, length, port, _, kind = struct.unpack("!BBHHBB", reader.read(8))
    if version != VERSION:
        raise ProtocolError(f"version {version}")
    message = Request()
    message.command, message.port, message.type = command, port, kind
    message.host = read_address(reader, kind)
    message.options = decode_options(reader.read(length))
    return message


def auth_reply(kind=0, options=b""):
    return struct.pack("!BBH", VERSION, kind, len(options)) + options


def op_reply(code, host="0.0.0.0", port=0, options=b""):
    kind, data = address(host)
    return struct.pack("!BBHHBB", VERSION, code, len(options), port, 0, kind) + data + options


# The older ones -------------------------------------------------------------------------------------------------------


def socks5_greeting(methods=(0,)):
    return bytes([5, len(methods)]) + bytes(methods)


def socks5_request(host, port, command=1, atyp=None, raw_address=None):
    if raw_address is not None:
        kind, data = atyp, raw_address
    else:
        kind, data = address(host)
        if kind == NAME:
            name = host if isinstance(host, bytes) else host.encode("ascii")
            data = bytes([len(name)]) + name
    return bytes([5, command, 0, kind]) + data + struct.pack("!H", port)


def read_socks5_method(source):
    reader = source if isinstance(source, Reader) else Reader(source)
    version, method = reader.read(2)
    if version != 5:
        raise ProtocolError(f"method reply of version {version}")
    return method


def read_socks5_reply(source):
    reader = source if isinstance(source, Reader) else Reader(source)
    version, code, reserved, kind = reader.read(4)
    if version != 5 or reserved:
        raise ProtocolError(f"SOCKS 5 reply starts with {version} .. {reserved}")
    if code > 8:
        raise ProtocolError(f"SOCKS 5 reply code {code}")
    reply = OpReply()
    reply.code, reply.type, reply.options = code, kind, []
    if kind == IPV4:
        reply.host = ipaddress.IPv4Address(reader.read(4))
    elif kind == IPV6:
        reply.host = ipaddress.IPv6Address(reader.read(16))
    elif kind == NAME:
        reply.host = reader.read(reader.read(1)[0])
    else:
        raise ProtocolError(f"address type {kind}")
    reply.port, = struct.unpack("!H", reader.read(2))
    return reply


def socks4_request(host, port, user=b"", command=1):
    """4 for an IPv4 literal, 4a for everything else."""
    name = b""
    try:
        packed = ipaddress.IPv4Address(host if isinstance(host, str) else "x").packed
    except ValueError:
        packed = bytes([0, 0, 0, 1])
        name = (host if isinstance(host, bytes) else host.encode("ascii")) + b"\0"
    return bytes([4, command]) + struct.pack("!H", port) + packed + user + b"\0" + name


SOCKS4_GRANTED, SOCKS4_FAILED = 90, 91


def read_socks4_reply(source):
    reader = source if isinstance(source, Reader) else Reader(source)
    version, code, port, packed = struct.unpack("!BBH4s", reader.read(8))
    if version != 0:
        raise ProtocolError(f"SOCKS 4 reply of version {version}")
    if not 90 <= code <= 93:
        raise ProtocolError(f"SOCKS 4 reply code {code}")
    reply = OpReply()
    reply.code, reply.port, reply.type, reply.options = code, port, IPV4, []
    reply.host = ipaddress.IPv4Address(packed)
    return reply
