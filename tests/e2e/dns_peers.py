"""A SOCKS 6 proxy with a DNS service made of Python, the same answers over plain TCP, and what the tests of `socks6 dns` ask."""

import contextlib
import re
import socket
import struct
import threading

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from cli_peers import AUTH_OK, Peer, Request6, read_exactly, reply6

# One record of each type that has a form of its own, and some without: name, type, data.
RECORDS = [
    ("A", "192.0.2.1"), ("AAAA", "2001:db8::1"), ("NS", "ns.x.test."), ("CNAME", "c.x.test."), ("DNAME", "d.x.test."),
    ("PTR", "p.x.test."), ("SOA", "ns.x.test. admin\\.of.x.test. 2026112301 7200 3600 1209600 300"),
    ("MX", "10 mx.x.test."), ("TXT", '"v=spf1 \\"quoted\\" back\\\\slash; \\255\\000\\027[31m" "second" ""'),
    ("SPF", '"v=spf1 -all"'), ("SRV", "1 2 443 srv.x.test."), ("NAPTR", '100 50 "u" "E2U+sip" "!^.*$!sip:a@x.test!" .'),
    ("CAA", '0 issue "ca.x.test; policy=\\"x\\""'), ("CAA", '128 iodef "mailto:a@x.test"'),
    ("SSHFP", "4 2 " + "ab" * 32), ("TLSA", "3 1 1 " + "0123456789abcdef" * 4), ("SMIMEA", "3 1 1 " + "00" * 32),
    ("OPENPGPKEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw=="),
    ("DS", "20326 8 2 " + "e06d44b80b8f1d39a95c0b0d7c65d08458e880409bbc683457104237c7f8ec8d"),
    ("CDS", "0 0 0 00"), ("DNSKEY", "257 3 8 AwEAAaz/tAm8yTn4Mfeh5eyI96WSVexTBAvkMgJzkKTOiW1vkIbzxeF3+/4RgWOq7HrxRixH"),
    ("CDNSKEY", "0 3 0 AA=="),
    ("RRSIG", "HTTPS 8 2 300 20231114221144 20200913122640 5 x.test. AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKis="),
    ("NSEC", "a.x.test. A MX RRSIG NSEC TYPE65281"), ("NSEC3PARAM", "1 0 10 ABCD"), ("NSEC3PARAM", "1 0 0 -"),
    ("HTTPS", '1 . alpn="h2,h3" no-default-alpn port="8443" ipv4hint="192.0.2.1,192.0.2.2" ech="AAEC" ipv6hint="2001:db8::1"'),
    ("HTTPS", "0 other.x.test."), ("SVCB", '16 s.x.test. mandatory="alpn,port" alpn="a\\\\,b,c" port="53" key65280="a\\000\\"b"'),
    ("LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"), ("HINFO", '"PDP 11" "UNIX"'),
    ("RP", "a.x.test. t.x.test."), ("URI", '10 1 "https://x.test/?\\"a\\""'), ("EUI48", "00-00-5e-00-53-2a"),
    ("EUI64", "00-00-5e-ef-10-00-00-2a"), ("CSYNC", "66 3 A NS AAAA"), ("AFSDB", "1 a.x.test."), ("KX", "10 k.x.test."),
    ("RT", "10 r.x.test."), ("PX", "10 m.x.test. n.x.test."), ("X25", '"311061700956"'), ("GPOS", '"1" "2" "3"'),
    ("DHCID", "AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="), ("APL", "!1:192.0.2.0/24 2:2001:db8::/32"),
    ("NID", "10 0014:4fff:ff20:ee64"), ("L32", "10 10.1.2.0"), ("L64", "10 2001:0db8:1140:1000"), ("LP", "10 l.x.test."),
    ("TYPE63", "\\# 54 000000050101" + "0123456789ab" * 8), ("TYPE65280", "\\# 3 00ff20"), ("TYPE65280", "\\# 0"),
    ("TYPE65281", "\\# 60 " + "0123456789" * 12),
]


def rrset(owner, rdtype, *data, ttl=300, rdclass="IN"):
    return dns.rrset.from_text(owner, ttl, rdclass, rdtype, *data)


def answering(*answers, authority=(), additional=(), rcode=0, flags=dns.flags.RA, edns=None, options=()):
    """A function that answers every query with these records. `edns`: None = as the query has it."""
    def answer(query):
        message = dns.message.make_response(query)
        message.flags |= flags
        message.answer = list(answers)
        message.authority = list(authority)
        message.additional = list(additional)
        if query.edns < 0 if edns is None else not edns:
            message.use_edns(False)
        else:
            message.use_edns(0, query.ednsflags & dns.flags.DO, 1232, options=list(options))
        message.set_rcode(rcode)
        return message
    return answer


def to_wire(message):
    return message if isinstance(message, bytes) else message.to_wire(max_size=65535)


def frame(message):
    message = to_wire(message)
    return struct.pack("!H", len(message)) + message


class Stream:
    """Queries out of a stream, of which `early` bytes have been read."""

    def __init__(self, sock, early=b""):
        self.sock, self.early = sock, early
        self.lock = threading.Lock()

    def read(self, count):
        data, self.early = self.early[:count], self.early[count:]
        return data + read_exactly(self.sock, count - len(data))

    def query(self):
        """The next one, or None at the end of the stream."""
        try:
            length, = struct.unpack("!H", self.read(2))
        except (EOFError, ConnectionResetError):
            return None
        return dns.message.from_wire(self.read(length))

    def send(self, message):
        with self.lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(frame(message))


def serve(stream, answer):
    """Answers in the order of the queries; None is no answer."""
    while query := stream.query():
        message = answer(query)
        if message is not None:
            stream.send(message)


class DnsProxy(Peer):
    """The service at 0.0.0.0:53. `answer(query)` gives a message, bytes or None; or `handler(stream)` has it all."""

    def __init__(self, answer=None, handler=None, code=0):
        self.answer, self.service, self.code = answer, handler, code
        self.requests, self.queries, self.early = [], [], []
        super().__init__(self._converse)

    def _converse(self, sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            request = Request6(sock)
        except (EOFError, ConnectionResetError):
            return
        self.requests.append(request)
        self.early.append(request.extra)
        assert (request.version, request.command, request.host, request.port) == (6, 1, "0.0.0.0", 53)
        sock.sendall(AUTH_OK + reply6(self.code, "0.0.0.0", 0))
        if self.code == 0:
            stream = Stream(sock, request.extra)
            if self.service:
                self.service(stream)
            else:
                serve(stream, self._keep)

    def _keep(self, query):
        self.queries.append(query)
        return self.answer(query)

    def url(self, userinfo=""):
        return f"socks6://{userinfo}{self.host}:{self.port}"


class DnsServer(Peer):
    """The same answers over plain TCP, for dig."""

    def __init__(self, answer):
        super().__init__(lambda sock: serve(Stream(sock), answer))


VARIABLE = re.compile(r"^(; <<>>|; \(\d+ server|;; global options|;; Query time|;; SERVER|;; WHEN|$)")


def comparable(text):
    """dig's output, or ours, without what is bound to differ."""
    return [re.sub(r"id: \d+", "id: N", line) for line in text.splitlines() if not VARIABLE.match(line)]


class NameServer:
    """A name server over UDP and TCP on one port of loopback; over UDP what is too long is cut."""

    def __init__(self, answer):
        self.answer = answer
        self.tcp = DnsServer(answer)
        self.port = self.tcp.port
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            data, peer = self.udp.recvfrom(65535)
            if not data:
                return
            query = dns.message.from_wire(data)
            threading.Thread(target=self._answer, args=(query, peer), daemon=True).start()

    def _answer(self, query, peer):
        message = self.answer(query)
        if message is None:
            return
        wire = to_wire(message)
        limit = max(512, query.payload) if query.edns >= 0 else 512
        if len(wire) > limit:
            message.flags |= dns.flags.TC
            message.answer, message.authority, message.additional = [], [], []
            wire = message.to_wire()
        self.udp.sendto(wire, peer)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join()
        self.udp.close()
        self.tcp.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
