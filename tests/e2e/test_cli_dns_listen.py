"""`socks6 dns --listen` between clients (dig, kdig, dnspython, bare sockets) and a proxy made of Python."""

import contextlib
import re
import select
import signal
import socket
import struct
import subprocess
import threading

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from cli_peers import DEADLINE, client_environment, client_path, closed_port, read_exactly
from dns_peers import RECORDS, DnsProxy, DnsServer, answering, comparable, frame, rrset, serve
from lib.net import wait_until

A = rrset("x.test.", "A", "192.0.2.1")
LISTENING = re.compile(r"listening on (\[[0-9a-f:.]+\]|[0-9.]+):(\d+), UDP and TCP")


class Local:
    """One `socks6 dns --listen`, ready. Ends with SIGTERM, and must end well."""

    def __init__(self, url, *args, listen=("127.0.0.1:0",), expect=0, wrapper=(), env=None):
        words = [word for addr in listen for word in ("--listen", addr)]
        self.process = subprocess.Popen([*wrapper, client_path(), "-x", url, "dns", *words, *map(str, args)],
                                        stderr=subprocess.PIPE, env=client_environment(**(env or {})))
        self.expect = expect
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        wait_until(lambda: len(self.addrs()) == len(listen) or self.process.poll() is not None, "listening")
        assert self.process.poll() is None, self.text()
        self.host, self.port = self.addrs()[0]

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line.decode())

    def text(self):
        return "".join(self.lines)

    def addrs(self):
        return [(host.strip("[]"), int(port)) for host, port in LISTENING.findall(self.text())]

    def wait_text(self, text):
        wait_until(lambda: text in self.text(), lambda: f"{text!r} in {self.text()!r}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        assert code == self.expect, (code, self.text())
        assert "Sanitizer" not in self.text(), self.text()
        assert all(c == "\n" or " " <= c <= "~" for c in self.text())

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            self.process.kill()
            self.process.wait()

    # asking

    def udp(self, query, host=None):
        return dns.query.udp(query, host or self.host, port=self.port, timeout=DEADLINE)

    def tcp(self, query):
        return dns.query.tcp(query, self.host, port=self.port, timeout=DEADLINE)

    def raw_udp(self, message):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE)
            sock.sendto(message, (self.host, self.port))
            return sock.recv(65536)

    @contextlib.contextmanager
    def connection(self):
        with socket.create_connection((self.host, self.port), DEADLINE) as sock:
            yield sock


def read_message(sock):
    return dns.message.from_wire(read_exactly(sock, struct.unpack("!H", read_exactly(sock, 2))[0]))


def query(name="x.test", kind="A", **more):
    return dns.message.make_query(name, kind, **more)


# Content.

@pytest.mark.parametrize("kind,data", RECORDS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(RECORDS)])
def test_every_type_passes_unchanged(kind, data):
    answer = answering(rrset("x.test.", kind, data))
    with DnsProxy(answer) as proxy, Local(proxy.url()) as local:
        for ask in (local.udp, local.tcp):
            got = ask(query("x.test", kind))
            assert got.answer == answer(query("x.test", kind)).answer and got.edns == -1
            assert got.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA


@pytest.mark.parametrize("words", [[], ["+tcp"], ["+dnssec"], ["+noedns"], ["+norecurse", "+cdflag"], ["+tcp", "+keepopen", "+nsid"]])
def test_dig_gets_what_it_gets_directly(words):
    answer = answering(A, rrset("y.test.", "TXT", '"t"'), authority=[rrset("x.test.", "NS", "ns.x.test.")],
                       additional=[rrset("ns.x.test.", "A", "192.0.2.53")], flags=dns.flags.RA | dns.flags.AD,
                       options=[dns.edns.EDEOption(3, "stale")])
    with DnsProxy(answer) as proxy, Local(proxy.url()) as local, DnsServer(answer) as server:
        def dig(port, *more):
            return comparable(subprocess.run(["dig", "@127.0.0.1", "-p", str(port), "x.test", "+tries=1", "+nocookie", *words, *more],
                                             check=True, capture_output=True, timeout=DEADLINE).stdout.decode())
        assert dig(local.port) == dig(server.port, "+tcp")


def test_kdig_over_udp_and_tcp():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local:
        for words in ([], ["+tcp"], ["+tcp", "+keepopen"], ["+dnssec", "+cookie", "+padding=128"]):
            done = subprocess.run(["kdig", "@127.0.0.1", "-p", str(local.port), "+short", "x.test", "A", *words],
                                  check=True, capture_output=True, timeout=DEADLINE)
            assert done.stdout == b"192.0.2.1\n", words


@pytest.mark.parametrize("rcode", [0, 2, 3, 5, 9])
def test_rcodes_pass(rcode):
    with DnsProxy(answering(rcode=rcode)) as proxy, Local(proxy.url()) as local:
        assert local.udp(query()).rcode() == rcode
        assert local.tcp(query(use_edns=0)).rcode() == rcode


def test_an_rcode_that_needs_edns_is_servfail_without():
    with DnsProxy(answering(rcode=23)) as proxy, Local(proxy.url()) as local:
        assert local.udp(query(use_edns=0)).rcode() == 23
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL


def test_listens_on_several_addresses_and_both_families():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url(), listen=("127.0.0.1:0", "127.0.0.2:0", "[::1]:0")) as local:
        for host, port in local.addrs():
            assert dns.query.udp(query(), host, port=port, timeout=DEADLINE).answer == [A]
            assert dns.query.tcp(query(), host, port=port, timeout=DEADLINE).answer == [A]


@pytest.mark.parametrize("wildcard,hosts", [("0.0.0.0:0", ["127.0.0.1", "127.3.2.1"]), ("[::]:0", ["::1"])])
def test_udp_answers_come_from_the_address_that_was_asked(wildcard, hosts):
    with DnsProxy(answering(A)) as proxy, Local(proxy.url(), "--open", listen=(wildcard,)) as local:
        for host in hosts:
            assert local.udp(query(), host).answer == [A]  # dnspython refuses answers from elsewhere


# EDNS, hop by hop.

def test_edns_options_of_each_hop_stay_there():
    sent = [dns.edns.GenericOption(10, b"c" * 8), dns.edns.GenericOption(12, bytes(20)), dns.edns.GenericOption(11, b""),
            dns.edns.ECSOption("192.0.2.0", 24, 0), dns.edns.GenericOption(65001, b"mine")]
    got = [dns.edns.GenericOption(10, b"s" * 16), dns.edns.GenericOption(12, bytes(30)), dns.edns.GenericOption(11, b"\0\x64"),
           dns.edns.EDEOption(3), dns.edns.GenericOption(65002, b"yours")]
    with DnsProxy(answering(A, options=got)) as proxy, Local(proxy.url()) as local:
        answer = local.udp(query(use_edns=0, payload=4000, want_dnssec=True, options=sent))
        asked = proxy.queries[0]
        assert [o.otype for o in asked.options] == [11, 8, 65001] and asked.options[0].to_wire() == b""
        assert asked.ednsflags == dns.flags.DO and asked.payload == 1232
        assert [o.otype for o in answer.options] == [15, 65002] and answer.ednsflags == dns.flags.DO
        answer = local.tcp(query(use_edns=0, options=sent))
        assert [(o.otype, o.to_wire()) for o in answer.options if o.otype == 11] == [(11, b"\x01\x2c")]
        assert local.tcp(query()).edns == -1 and proxy.queries[-1].edns == 0
        assert local.tcp(query(use_edns=0)).options[0].otype == 15


def test_flags_pass():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local:
        for flags in (0, dns.flags.RD, dns.flags.CD, dns.flags.AD | dns.flags.RD):
            one = query()
            one.flags = flags
            local.udp(one)
            assert proxy.queries[-1].flags == flags


def test_an_opt_record_in_the_middle_is_taken_out_whole():
    """No server does this; what follows it is dropped, what precedes stays readable."""
    def answer(one):
        message = answering(A, additional=[rrset("ns.x.test.", "A", "192.0.2.53")], edns=False)(one).to_wire()
        last = message[-16:]
        assert last[-4:] == bytes([192, 0, 2, 53])
        opt = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
        return message[:10] + b"\0\3" + message[12:] + opt + b"\1b\xc0\x0c" + last[-14:]
    with DnsProxy(answer) as proxy, Local(proxy.url()) as local:
        for edns in (-1, 0):
            got = local.udp(query(use_edns=edns))
            assert got.answer == [A] and [str(r.name) for r in got.additional] == ["ns.x.test."] and got.edns == edns


# Sizes.

def texts(count):
    return rrset("x.test.", "TXT", *[f'"{"t" * 200}{i:03}"' for i in range(count)])


@pytest.mark.parametrize("edns,payload,fits", [(-1, 512, 2), (0, 512, 2), (0, 1232, 5), (0, 4096, 18), (0, 65535, 250), (0, 100, 2)])
def test_udp_answers_end_at_the_clients_size(edns, payload, fits):
    for count in (fits, fits + 1) if payload < 65535 else (fits,):
        answer = answering(texts(count))
        with DnsProxy(answer) as proxy, Local(proxy.url()) as local:
            one = query("x.test", "TXT", use_edns=edns, payload=payload)
            raw = local.raw_udp(one.to_wire())
            got = dns.message.from_wire(raw)
            assert len(raw) <= max(512, payload) and got.edns == edns and one.is_response(got)
            if count == fits:
                assert got.answer == answer(one).answer and not got.flags & dns.flags.TC
            else:
                assert got.answer == [] and got.flags & dns.flags.TC
                assert local.tcp(one).answer == answer(one).answer


def test_additional_records_go_first_and_without_tc():
    answer = answering(A, additional=[rrset("n.x.test.", "TXT", *[f'"{"a" * 200}{i}"' for i in range(4)])])
    with DnsProxy(answer) as proxy, Local(proxy.url()) as local:
        got = local.udp(query())
        assert got.answer == [A] and got.additional == [] and not got.flags & dns.flags.TC
    referral = answering(authority=[rrset("x.test.", "NS", "n.x.test.")],
                         additional=[rrset("n.x.test.", "A", *[f"192.0.2.{i}" for i in range(60)])])
    with DnsProxy(referral) as proxy, Local(proxy.url()) as local:
        got = local.udp(query())
        assert got.authority and got.additional == [] and got.flags & dns.flags.TC


def test_64_kib_over_tcp_and_dig_comes_back_for_it():
    big = texts(300)
    with DnsProxy(answering(big)) as proxy, Local(proxy.url()) as local:
        assert local.tcp(query("x.test", "TXT")).answer == [big]
        done = subprocess.run(["dig", "@127.0.0.1", "-p", str(local.port), "x.test", "TXT", "+short"], check=True,
                              capture_output=True, timeout=DEADLINE)
        assert len(done.stdout.splitlines()) == 300


def test_an_answer_of_65535_bytes_without_edns_reaches_a_client_with_edns():
    def answer(one):
        message = answering(edns=False)(one).to_wire()
        room = 65535 - len(message) - 12
        return message[:6] + b"\0\1" + message[8:] + b"\xc0\x0c" + struct.pack("!HHIH", 65280, 1, 1, room) + b"x" * room
    with DnsProxy(answer) as proxy, Local(proxy.url()) as local:
        assert len(local.tcp(query()).answer) == 1
        got = local.tcp(query(use_edns=0))
        assert got.flags & dns.flags.TC and got.edns == 0


# Bad queries.

def test_what_is_no_query_gets_no_answer_and_bad_queries_get_a_code():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local:
        good = query().to_wire()
        answer = good[:2] + bytes([good[2] | 0x80]) + good[3:]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(DEADLINE)
            for junk in (b"", b"x", good[:11], answer, b"\xff" * 600):
                sock.sendto(junk, (local.host, local.port))
            sock.sendto(good, (local.host, local.port))
            assert sock.recv(65535)[:2] == good[:2]
            assert not select.select([sock], [], [], 0)[0]
        cases = [
            (good[:-1], dns.rcode.FORMERR), (good[:12], dns.rcode.FORMERR), (good + b"x", dns.rcode.FORMERR),
            (good[:4] + b"\0\2" + good[6:] + good[12:], dns.rcode.FORMERR), (good[:4] + b"\0\0" + good[6:12], dns.rcode.FORMERR),
            (good[:12] + b"\xc0\x0c" + good[-4:], dns.rcode.FORMERR),
            (good[:10] + b"\0\1" + good[12:] + b"\0\0\x29", dns.rcode.FORMERR),
            (good + bytes(2100), dns.rcode.FORMERR),
            (good[:2] + b"\x10\0" + good[4:], dns.rcode.NOTIMP), (good[:2] + b"\x28\0" + good[4:], dns.rcode.NOTIMP),
            (good[:6] + b"\0\1" + good[8:] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4abcd", dns.rcode.NOTIMP),
        ]
        for message, rcode in cases:
            got = local.raw_udp(message)
            assert (got[:2], got[2] & 0x80, got[3] & 15) == (message[:2], 0x80, rcode), message
        future = query(use_edns=0).to_wire()
        got = dns.message.from_wire(local.raw_udp(future[:-5] + b"\1" + future[-4:]))
        assert got.rcode() == dns.rcode.BADVERS and got.edns == 0
        assert len(proxy.queries) == 1


def test_tcp_clients_that_send_no_queries_are_closed():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local:
        for junk in (b"\0\0", b"\0\x04abcd", b"\xff\xff" + bytes(100), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", frame(answering()(query()))):
            with local.connection() as sock:
                sock.sendall(junk)
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(100) == b""
        with local.connection() as sock:
            sock.sendall(frame(query().to_wire()[:-2]))
            assert read_message_rcode(sock) == dns.rcode.FORMERR
            sock.sendall(frame(query()))
            assert read_message(sock).answer == [A]


def read_message_rcode(sock):
    return read_exactly(sock, struct.unpack("!H", read_exactly(sock, 2))[0])[3] & 15


# Connections.

def test_one_connection_for_everybody_and_the_first_question_goes_with_the_request():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local:
        for _ in range(5):
            assert local.udp(query()).answer == [A]
            assert local.tcp(query()).answer == [A]
        assert len(proxy.requests) == 1 and b"\x01x\x04test" in proxy.early[0]


def test_a_thousand_queries_at_once_over_udp_are_matched():
    """From many clients, with the same id, answered in another order."""
    count = 1000

    def handler(stream):
        held = []
        while one := stream.query():
            held.append(one)
            if len(held) >= 100:
                for asked in reversed(held):
                    number = str(asked.question[0].name)[1:].split(".")[0]
                    stream.send(answering(rrset(asked.question[0].name.to_text(), "TXT", f'"{number}"'))(asked))
                held = []
    with DnsProxy(handler=handler) as proxy, Local(proxy.url(), "-w", 30) as local, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(100)]
        for i in range(count):
            one = query(f"n{i}.test", "TXT")
            one.id = 7
            socks[i % 100].sendto(one.to_wire(), (local.host, local.port))
        for i, sock in enumerate(socks):
            sock.settimeout(DEADLINE)
            got = [dns.message.from_wire(sock.recv(65535)) for _ in range(count // 100)]
            assert all(m.id == 7 for m in got)
            numbers = {str(m.answer[0][0]).strip('"') for m in got}
            assert numbers == {str(n) for n in range(i, count, 100)}
        assert len(proxy.requests) == 1


def test_queries_pipelined_over_tcp_are_answered_as_answers_come():
    release = threading.Event()

    def answer(one):
        return None if one.question[0].name.to_text().startswith("hang") else answering(A)(one)

    def handler(stream):
        hanging = []
        while one := stream.query():
            if one.question[0].name.to_text().startswith("hang"):
                hanging.append(one)
            else:
                stream.send(answer(one))
            if one.question[0].name.to_text().startswith("last"):
                release.wait(DEADLINE)
                for held in hanging:
                    stream.send(answering(A)(held))
    with DnsProxy(handler=handler) as proxy, Local(proxy.url(), "-w", 30) as local, local.connection() as sock:
        queries = [query("hang.test")] + [query(f"n{i}.test") for i in range(300)] + [query("last.test")]
        sender = threading.Thread(target=lambda: sock.sendall(b"".join(frame(one) for one in queries)), daemon=True)
        sender.start()
        got = [read_message(sock) for _ in range(301)]
        assert sorted(m.id for m in got) == sorted(q.id for q in queries[1:])
        release.set()
        assert read_message(sock).id == queries[0].id


def test_a_client_that_has_closed_its_side_gets_its_answers():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local, local.connection() as sock:
        sock.sendall(frame(query()) * 3)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert read_message(sock).answer == [A]
        assert sock.recv(1) == b""


def test_queries_in_pieces():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local, local.connection() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(query()) + frame(query("y.test")):
            sock.sendall(bytes([byte]))
        assert [str(read_message(sock).question[0].name) for _ in range(2)] == ["x.test.", "y.test."]


def test_clients_that_leave_take_their_queries_with_them():
    gate = threading.Event()

    def answer(one):
        if str(one.question[0].name) == "slow.test.":
            gate.wait(DEADLINE)
        return answering(A)(one)
    with DnsProxy(answer) as proxy, Local(proxy.url(), "-w", 30) as local:
        for _ in range(3):
            with local.connection() as sock:
                sock.sendall(frame(query("slow.test")) * 20)
                wait_until(lambda: proxy.queries, "the question")
        gate.set()
        assert local.tcp(query()).answer == [A]


def test_more_clients_than_allowed_close_the_quietest():
    with DnsProxy(answering(A)) as proxy, Local(proxy.url()) as local, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(local.connection()) for _ in range(200)]
        for sock in socks:
            sock.sendall(frame(query()))
            assert read_message(sock).answer == [A]
        socks[0].sendall(frame(query()))
        assert read_message(socks[0]).answer == [A]
        with local.connection() as sock:
            sock.sendall(frame(query()))
            assert read_message(sock).answer == [A]
            assert socks[1].recv(1) == b""
            socks[0].sendall(frame(query()))
            assert read_message(socks[0]).answer == [A]


def test_a_client_that_does_not_read_is_closed_and_harms_nobody():
    with DnsProxy(answering(texts(290))) as proxy, Local(proxy.url(), "-w", 60) as local, local.connection() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(ConnectionError, TimeoutError):
            sock.settimeout(2)
            while True:
                sock.sendall(frame(query("x.test", "TXT")) * 100)
        assert len(local.tcp(query("x.test", "TXT")).answer) == 1


# The proxy's ways to fail.

def test_no_proxy_is_servfail_at_once_and_said_once():
    with closed_port() as sock, Local(f"socks6://127.0.0.1:{sock.getsockname()[1]}") as local:
        for ask in (local.udp, local.tcp):
            assert ask(query()).rcode() == dns.rcode.SERVFAIL
        got = local.udp(query(use_edns=0))
        assert got.rcode() == dns.rcode.SERVFAIL and [o.code for o in got.options] == [23]
        local.wait_text("answered with SERVFAIL until that changes")
        assert local.text().count("SERVFAIL") == 1


def test_the_proxy_comes_and_goes():
    broken = threading.Event()

    def handler(stream):
        while (one := stream.query()) and not broken.is_set():
            stream.send(answering(A)(one))
    with DnsProxy(handler=handler) as proxy, Local(proxy.url()) as local:
        assert local.udp(query()).answer == [A]
        broken.set()
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        broken.clear()
        wait_until(lambda: local.udp(query()).answer == [A], "the service")


def test_a_proxy_without_the_service_is_servfail_and_said_once():
    with DnsProxy(code=5) as proxy, Local(proxy.url()) as local:
        for _ in range(3):
            assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        local.wait_text("this proxy offers no DNS service")
        assert local.text().count("no DNS service") == 1


def test_a_slow_proxy_is_servfail_in_time():
    with DnsProxy(lambda one: None) as proxy, Local(proxy.url(), "-w", 1) as local:
        for ask in (local.udp, local.tcp):
            assert ask(query()).rcode() == dns.rcode.SERVFAIL


def test_a_connection_that_ends_is_made_anew_without_an_error_for_the_client():
    def handler(stream):
        for _ in range(2):
            one = stream.query()
            if one is None:
                return
            stream.send(answering(A)(one))
        stream.query()  # read, and closed without an answer
    with DnsProxy(handler=handler) as proxy, Local(proxy.url()) as local:
        for _ in range(7):
            assert local.udp(query()).answer == [A]
        assert len(proxy.requests) >= 3


def test_the_proxys_idle_time_is_honoured():
    """RFC 7828: 0 tenths mean: close when there is nothing to do."""
    ended = threading.Event()

    def handler(stream):
        serve(stream, answering(A, options=[dns.edns.GenericOption(11, b"\0\0")]))
        ended.set()
    with DnsProxy(handler=handler) as proxy, Local(proxy.url()) as local:
        assert local.udp(query()).answer == [A]
        assert ended.wait(DEADLINE)
        assert local.udp(query()).answer == [A]
        assert len(proxy.requests) == 2


def hostile(name):
    """Handlers of a proxy that means harm."""
    def wrong_id(stream, one):
        message = answering(rrset("x.test.", "A", "203.0.113.66"))(one)
        for flip in (1, 0x1000, 0x8000, 0xffff):
            message.id = one.id ^ flip
            stream.send(message)
        stream.send(answering(A)(one))

    def wrong_question(stream, one):
        evil = dns.message.make_query("evil.test", "A", id=one.id)
        stream.send(answering(rrset("evil.test.", "A", "203.0.113.66"))(evil))
        stream.send(answering(A)(one))

    def twice(stream, one):
        stream.send(answering(A)(one))
        stream.send(answering(rrset("x.test.", "A", "203.0.113.66"))(one))

    def query_back(stream, one):
        stream.send(one)
        stream.send(answering(A)(one))
    return {"wrong id": wrong_id, "wrong question": wrong_question, "twice": twice, "a query": query_back}[name]


@pytest.mark.parametrize("name", ["wrong id", "wrong question", "twice", "a query"])
def test_answers_that_were_not_asked_for_reach_nobody(name):
    def handler(stream):
        while one := stream.query():
            hostile(name)(stream, one)
    with DnsProxy(handler=handler) as proxy, Local(proxy.url()) as local:
        for _ in range(20):
            assert local.udp(query()).answer == [A]
            assert local.tcp(query()).answer == [A]


@pytest.mark.parametrize("garbage", [
    b"\0\0" * 10, b"\0\x05abcde", b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 40000, b"\xff\xff" + b"\xff" * 1000,
    bytes(70000)], ids=["empty", "short", "http", "half", "zeros"])
def test_garbage_is_servfail_and_not_the_end(garbage):
    bad = threading.Event()
    bad.set()

    def handler(stream):
        while one := stream.query():
            if bad.is_set():
                with contextlib.suppress(OSError):
                    stream.sock.sendall(garbage)
                return
            stream.send(answering(A)(one))
    with DnsProxy(handler=handler) as proxy, Local(proxy.url(), "-w", 2) as local:
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        assert local.tcp(query()).rcode() == dns.rcode.SERVFAIL
        bad.clear()
        wait_until(lambda: local.udp(query()).answer == [A], "the service")


@pytest.mark.parametrize("spoil", [
    lambda wire: wire[:-1], lambda wire: wire[:4] + b"\0\1\xff\xff" + wire[8:], lambda wire: wire + b"\0" * 5,
    lambda wire: wire[:-4] + b"\xff" * 4, lambda wire: wire[:-16] + b"\xc0" * 16])
def test_malformed_answers_never_reach_the_client(spoil):
    with DnsProxy(lambda one: spoil(answering(A, edns=False)(one).to_wire())) as proxy, Local(proxy.url(), "-w", 2) as local:
        got = local.udp(query())
        assert got.rcode() == dns.rcode.SERVFAIL or got.answer == [A] or str(got.answer[0][0]) == "255.255.255.255"


def test_a_flood_of_strays_does_not_go_on_for_ever():
    ended = threading.Event()

    def handler(stream):
        one = stream.query()
        if one is None:
            return
        message = answering(A)(one)
        message.id ^= 1
        try:
            while True:
                stream.sock.sendall(frame(message) * 100)
        except OSError:
            ended.set()
    with DnsProxy(handler=handler) as proxy, Local(proxy.url()) as local:
        assert local.udp(query()).rcode() == dns.rcode.SERVFAIL
        assert ended.wait(DEADLINE)


# Beginning and end.

def test_an_address_in_use_is_said():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        done = subprocess.run([client_path(), "dns", "--listen", f"127.0.0.1:{sock.getsockname()[1]}"], capture_output=True,
                              timeout=DEADLINE, check=False, env=client_environment())
        assert done.returncode == 2 and b"in use" in done.stderr


def test_a_proxy_name_that_does_not_exist_is_said():
    done = subprocess.run([client_path(), "-x", "socks6://no-such-host.invalid", "dns", "--listen", "127.0.0.1:0"],
                          capture_output=True, timeout=DEADLINE, check=False, env=client_environment())
    assert done.returncode == 3 and b"no-such-host.invalid" in done.stderr


def test_a_proxy_by_name_is_found():
    with DnsProxy(answering(A)) as proxy, Local(f"socks6://localhost:{proxy.port}") as local:
        assert local.udp(query()).answer == [A]


def test_a_signal_answers_what_is_open_and_ends_with_0():
    with DnsProxy(lambda one: None) as proxy, Local(proxy.url(), "-w", 60) as local, local.connection() as sock, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(DEADLINE)
        udp.sendto(query().to_wire(), (local.host, local.port))
        sock.sendall(frame(query()))
        wait_until(lambda: len(proxy.queries) == 2, "both questions")
        local.process.send_signal(signal.SIGINT)
        assert dns.message.from_wire(udp.recv(65535)).rcode() == dns.rcode.SERVFAIL
        assert read_message(sock).rcode() == dns.rcode.SERVFAIL
        assert local.process.wait(DEADLINE) == 0
