"""The resolver and the DNS service, against nsd and unbound as Debian has them, and against a server that misbehaves."""

import contextlib
import errno
import socket
import struct
import threading

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from lib import socks6 as s6
from lib.clients import expect_code, socks5_dial, socks6_dial
from lib.daemon import Daemon, base_config, faults_binary
from lib.dns_servers import (HUGE_COUNT, Nsd, Scripted, Unbound, ask, asked, essence, frame, read_answer,
                             read_message)
from lib.faults import Faults
from lib.net import DEADLINE, listening, wait_until

KEEPALIVE, PADDING, COOKIE, ECS = 11, 12, 10, 8


@pytest.fixture(scope="module")
def nsd(tmp_path_factory):
    server = Nsd(tmp_path_factory.mktemp("nsd"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def unbound(tmp_path_factory, nsd):
    server = Unbound(tmp_path_factory.mktemp("unbound"), nsd)
    yield server
    server.close()


@pytest.fixture
def scripted():
    servers = []

    def start(answer=None):
        servers.append(Scripted(answer))
        return servers[-1]
    yield start
    for server in servers:
        server.close()


def service(proxy, host="0.0.0.0", early=b""):
    """A stream to the DNS service."""
    tunnel = socks6_dial(proxy.addr, host, 53, early=early)
    assert tunnel.ok, tunnel.reply
    return tunnel


def upstream_of(kind, unbound):
    return {"udp": {"upstream": f"udp://127.0.0.1:{unbound.port}"},
            "tcp": {"upstream": f"tcp://127.0.0.1:{unbound.port}"},
            "tls": {"upstream": f"tls://127.0.0.1:{unbound.tls_port}#{unbound.NAME}", "ca": unbound.ca},
            "tls by address": {"upstream": f"tls://127.0.0.1:{unbound.tls_port}", "ca": unbound.ca}}[kind]


def scripted_dns(server, **more):
    return {"upstream": f"udp://127.0.0.1:{server.port}", **more}


def query(name, rdtype="A", **more):
    more.setdefault("use_edns", 0)
    return dns.message.make_query(name, rdtype, **more)


# Equal to a direct question -------------------------------------------------------------------------------------------

QUESTIONS = [
    ("www.dns.example", "A"), ("www.dns.example", "AAAA"), ("WwW.DnS.example", "A"), ("alias.dns.example", "A"),
    ("dns.example", "MX"), ("dns.example", "NS"), ("dns.example", "SOA"), ("dns.example", "CAA"),
    ("srv.dns.example", "SRV"), ("naptr.dns.example", "NAPTR"), ("_443._tcp.www.dns.example", "TLSA"),
    ("svcb.dns.example", "SVCB"), ("https.dns.example", "HTTPS"), ("unknown.dns.example", "TYPE65280"),
    ("ptr.dns.example", "PTR"), ("x.sub.dns.example", "A"), ("deep.wild.dns.example", "A"), ("dns.example", "DNSKEY"),
    ("signed.dns.example", "A"), ("big.dns.example", "TXT"), ("huge.dns.example", "TXT"), ("www.dns.example", "TXT"),
    ("nowhere.dns.example", "A"), ("x.broken.example", "A"), ("x.refused.example", "A"),
]


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls", "tls by address"])
def test_answers_are_those_of_a_direct_question(daemon, unbound, kind):
    proxy = daemon(dns=upstream_of(kind, unbound), workers=1)
    with service(proxy) as sock:
        for name, rdtype in QUESTIONS:
            for dnssec in (False, True):
                question = query(name, rdtype, want_dnssec=dnssec)
                direct = unbound.direct(question)
                for turn in ("asked", "from the cache"):
                    answer = asked(sock, question)
                    assert essence(answer) == essence(direct), f"{name} {rdtype} {turn}"
                    assert (answer.edns, bool(answer.ednsflags & dns.flags.DO)) == (0, dnssec)
    signed = essence(unbound.direct(query("signed.dns.example", want_dnssec=True)))
    assert any(rdtype == dns.rdatatype.RRSIG for _, rdtype, _, _ in signed[3]), "the zone has no signatures"


def test_long_answers_are_long(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    with service(proxy) as sock:
        big, huge = asked(sock, query("big.dns.example", "TXT")), asked(sock, query("huge.dns.example", "TXT"))
        assert len(big.to_wire()) > 3400
        assert len(huge.answer[0]) == HUGE_COUNT and len(huge.to_wire(max_size=65535)) > 58000


def test_flags_and_edns_are_the_clients_own(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    with service(proxy) as sock:
        for flags in (0, dns.flags.RD, dns.flags.RD | dns.flags.CD, dns.flags.RD | dns.flags.AD):
            for edns in (-1, 0):
                question = query("www.dns.example", use_edns=edns)
                question.flags = flags
                answer = asked(sock, question)
                assert answer.edns == edns
                assert answer.flags & (dns.flags.RD | dns.flags.CD) == flags & (dns.flags.RD | dns.flags.CD)


def test_ttls_count_down(daemon, scripted):
    upstream = scripted()
    proxy = daemon(dns=scripted_dns(upstream))
    with service(proxy) as sock:
        assert asked(sock, query("a.example")).answer[0].ttl == 300
        wait_until(lambda: asked(sock, query("a.example")).answer[0].ttl < 300, "a smaller TTL")
        assert len(upstream.queries) == 1


# Many at once ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["udp", "tcp", "tls"])
def test_a_thousand_questions_in_one_go(daemon, unbound, kind):
    proxy = daemon(dns=upstream_of(kind, unbound))
    questions = {}
    for i in range(1000):
        question = query(f"n{i}.dns.example", id=i)
        questions[i] = question
    with service(proxy) as sock:
        for _ in range(2):
            sender = threading.Thread(target=sock.sendall,
                                      args=(b"".join(frame(q.to_wire()) for q in questions.values()),))
            sender.start()
            left = dict(questions)
            while left:
                answer = read_answer(sock)
                question = left.pop(answer.id)
                assert answer.question == question.question
                assert [rdata.address for rdata in answer.answer[0]] == [f"198.51.100.{answer.id % 256}"]
            sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""


def test_questions_that_came_with_the_request(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    question = query("www.dns.example")
    with service(proxy, early=frame(question.to_wire())) as sock:
        assert read_answer(sock).id == question.id


def test_questions_byte_by_byte(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    questions = [query("www.dns.example"), query("alias.dns.example")]
    with service(proxy) as sock:
        for byte in b"".join(frame(q.to_wire()) for q in questions):
            sock.sendall(bytes([byte]))
        assert {read_answer(sock).id for _ in questions} == {q.id for q in questions}


def test_one_hanging_question_holds_up_no_other(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    hanging = query("x.hang.example")
    with service(proxy) as sock:
        ask(sock, hanging)
        for i in range(50):
            assert asked(sock, query(f"n{i}.dns.example")).rcode() == dns.rcode.NOERROR
        sock.shutdown(socket.SHUT_WR)
        answer = read_answer(sock)  # never silence
        assert answer.id == hanging.id and answer.rcode() == dns.rcode.SERVFAIL
        assert sock.recv(1) == b""


def test_the_same_question_is_asked_once_whoever_asks(daemon, scripted):
    gate = threading.Event()

    def answer(question):
        gate.wait(DEADLINE)
        return Scripted.address(question)
    upstream = scripted(answer)
    proxy = daemon(dns=scripted_dns(upstream, timeout="20s"), workers=4)
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(service(proxy)) for _ in range(20)]
        for sock in streams:
            ask(sock, query("merged.example"))
        wait_until(lambda: upstream.queries, "the question")
        proxy.process.send_signal(10)
        wait_until(lambda: "merged=19" in proxy.text() or proxy.process.send_signal(10), "nineteen that wait")
        gate.set()
        for sock in streams:
            assert read_answer(sock).answer
    assert upstream.names() == ["merged.example."]


# The proxy's own names ------------------------------------------------------------------------------------------------


def test_connect_and_the_service_share_their_answers(daemon, scripted, echo):
    upstream = scripted()
    proxy = daemon(dns=scripted_dns(upstream))
    with service(proxy) as sock:
        for rdtype in ("A", "AAAA"):
            asked(sock, query("shared.example", rdtype))
    for _ in range(3):
        with socks6_dial(proxy.addr, "shared.example", echo.port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
    assert sorted(upstream.names()) == ["shared.example."] * 2


def test_hosts_and_special_names(daemon, scripted, tmp_path):
    upstream = scripted()
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.77 mine.example\n")
    proxy = daemon(dns=scripted_dns(upstream, hosts=str(hosts)))
    with service(proxy) as sock:
        assert asked(sock, query("mine.example")).answer[0].to_text() == "mine.example. 0 IN A 192.0.2.77"
        assert not asked(sock, query("mine.example", "AAAA")).answer
        assert asked(sock, query("a.localhost")).answer[0][0].address == "127.0.0.1"
        assert asked(sock, query("localhost", "AAAA")).answer[0][0].address == "::1"
        for name in ("x.onion", "x.invalid"):
            assert asked(sock, query(name)).rcode() == dns.rcode.NXDOMAIN
        assert not upstream.queries
        hosts.write_text("192.0.2.78 mine.example\n")
        wait_until(lambda: asked(sock, query("mine.example")).answer[0][0].address == "192.0.2.78", "the new hosts file")


def test_resolv_conf_is_followed(daemon, scripted, tmp_path):
    first, second = scripted(), scripted(lambda q: Scripted.address(q, ttl=77))
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver [127.0.0.1]:{first.port}\n")
    proxy = daemon(dns={"resolv_conf": str(resolv_conf)})
    with service(proxy) as sock:
        assert asked(sock, query("a.example")).answer[0].ttl == 300
        resolv_conf.write_text(f"nameserver [127.0.0.1]:{second.port}\noptions use-vc\n")
        # also what was in the cache
        wait_until(lambda: asked(sock, query("a.example")).answer[0].ttl <= 77, "the new server")


def test_a_reload_changes_the_servers(daemon, scripted):
    first, second = scripted(), scripted(lambda q: Scripted.address(q, ttl=77))
    proxy = daemon(dns=scripted_dns(first))
    with service(proxy) as sock:
        assert asked(sock, query("a.example")).answer[0].ttl == 300
        proxy.reload({"listeners": [{"address": "127.0.0.1:0"}], "log": {"format": "json", "level": "debug"},
                      "dns": scripted_dns(second)})
        wait_until(lambda: asked(sock, query("a.example")).answer[0].ttl <= 77, "the new server")


# Malformed and unusual questions --------------------------------------------------------------------------------------


def malformed():
    """(name, message, rcode or None for a close)"""
    good = query("www.dns.example", use_edns=-1).to_wire()
    cut = [(f"cut at {at}", good[:at], dns.rcode.FORMERR if at >= 12 else None) for at in range(0, len(good), 5)]
    two = bytearray(good)
    two[5] = 2
    none = bytearray(good)
    none[5] = 0
    response = bytearray(good)
    response[2] |= 0x80
    loop = bytearray(good[:12]) + b"\xc0\x0c\0\1\0\1"
    update = dns.message.make_query("dns.example", "SOA")
    update.set_opcode(dns.opcode.UPDATE)
    version = query("www.dns.example")
    version.ednsflags |= 1 << 16
    return cut + [
        ("two questions", bytes(two), dns.rcode.FORMERR), ("no question", bytes(none), dns.rcode.FORMERR),
        ("a response", bytes(response), None), ("a compression loop", bytes(loop), dns.rcode.FORMERR),
        ("bytes behind it", good + b"x", dns.rcode.FORMERR), ("an update", update.to_wire(), dns.rcode.NOTIMP),
        ("a zone transfer", query("dns.example", "AXFR").to_wire(), dns.rcode.REFUSED),
        ("an incremental one", query("dns.example", "IXFR").to_wire(), dns.rcode.REFUSED),
        ("EDNS version 1", version.to_wire(), dns.rcode.BADVERS),
    ]


@pytest.mark.parametrize("name,message,rcode", malformed(), ids=lambda value: value if isinstance(value, str) else "")
def test_malformed_questions_get_an_error_or_a_close(proxy, name, message, rcode):
    with service(proxy) as sock:
        sock.sendall(frame(message))
        if rcode is None:
            with contextlib.suppress(ConnectionResetError):
                assert sock.recv(1) == b"", name
            return
        answer = read_message(sock)
        assert answer[:2] == message[:2]
        decoded = dns.message.from_wire(answer)
        assert decoded.rcode() == rcode
        assert decoded.flags & dns.flags.QR
        # and the stream goes on
        assert asked(sock, query("localhost")).answer


def test_garbage_is_survived(proxy):
    for seed in range(30):
        with service(proxy) as sock:
            sock.settimeout(5)
            with contextlib.suppress(OSError, EOFError):
                sock.sendall(struct.pack("!H", 600) + bytes((seed * 7 + i * i) % 256 for i in range(600)) * 3)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
    with service(proxy) as sock:
        assert asked(sock, query("localhost")).answer


# What is of one hop or of one client ----------------------------------------------------------------------------------


def option_codes(message):
    return [int(option.otype) for option in message.options]


def test_client_subnets_are_kept_apart(daemon, scripted):
    """The upstream server tells each subnet another address; nobody may see another's, nor spoil the common answer."""
    def answer(question):
        response = dns.message.make_response(question)
        subnet = next((o for o in question.options if int(o.otype) == ECS), None)
        address = f"192.0.2.{subnet.address.split('.')[2]}" if subnet else "192.0.2.200"
        response.answer.append(dns.rrset.from_text(question.question[0].name, 300, "IN", "A", address))
        if subnet:
            response.use_edns(0, options=[dns.edns.ECSOption(subnet.address, subnet.srclen, 24)])
        return response
    upstream = scripted(answer)
    proxy = daemon(dns=scripted_dns(upstream))

    def address(sock, subnet=None):
        options = [dns.edns.ECSOption(subnet, 24)] if subnet else []
        reply = asked(sock, query("cdn.example", options=options))
        assert option_codes(reply) == ([ECS] if subnet else [])
        return reply.answer[0][0].address
    with service(proxy) as one, service(proxy) as two:
        for _ in range(2):
            assert address(one, "10.0.1.0") == "192.0.2.1"
            assert address(two) == "192.0.2.200"
            assert address(two, "10.0.2.0") == "192.0.2.2"
            assert address(one) == "192.0.2.200"
    with_subnet = [q for q in upstream.queries if ECS in option_codes(q)]
    assert (len(with_subnet), len(upstream.queries)) == (4, 5)


def test_cookies_keepalive_and_padding_are_of_the_hop(daemon, scripted):
    def answer(question):
        response = Scripted.address(question)
        response.use_edns(0, options=[dns.edns.GenericOption(COOKIE, b"upstream-cookie!"),
                                      dns.edns.EDEOption(dns.edns.EDECode.STALE_ANSWER, "old")])
        return response
    upstream = scripted(answer)
    proxy = daemon(dns=scripted_dns(upstream, idle="2s"))
    options = [dns.edns.GenericOption(COOKIE, b"12345678"), dns.edns.GenericOption(KEEPALIVE, b""),
               dns.edns.GenericOption(PADDING, b"\0" * 20)]
    with service(proxy) as sock:
        for _ in range(2):
            question = query("a.example", options=options)
            ask(sock, question)
            wire = read_message(sock)
            assert len(wire) % 468 == 0
            reply = dns.message.from_wire(wire)
            assert option_codes(reply) == [15, KEEPALIVE, PADDING]
            assert reply.options[1].data == struct.pack("!H", 20)
    assert [option_codes(q) for q in upstream.queries] == [[]]


def test_a_client_without_edns_gets_none(daemon, scripted):
    upstream = scripted()
    proxy = daemon(dns=scripted_dns(upstream))
    with service(proxy) as sock:
        reply = asked(sock, query("a.example", use_edns=-1))
        assert reply.edns == -1 and reply.answer
    assert upstream.queries[0].edns == 0 and upstream.queries[0].payload == 1232


# Hostile upstream servers ---------------------------------------------------------------------------------------------


def test_a_silent_upstream_server_is_a_server_failure(daemon, scripted):
    upstream = scripted(lambda q: None)
    proxy = daemon(dns=scripted_dns(upstream, timeout="200ms", attempts=2))
    with service(proxy) as sock:
        reply = asked(sock, query("a.example"))
        assert reply.rcode() == dns.rcode.SERVFAIL and option_codes(reply) == [15]
    expect_code(proxy.addr, "socks6", "a.example", 80, s6.FAILURE)


@pytest.mark.parametrize("rcode, code", [(dns.rcode.SERVFAIL, s6.FAILURE), (dns.rcode.REFUSED, s6.FAILURE),
                                         (dns.rcode.NXDOMAIN, s6.HOST_UNREACHABLE),
                                         (dns.rcode.NOERROR, s6.HOST_UNREACHABLE)])
def test_what_the_upstream_server_says_is_the_reply_code(daemon, scripted, rcode, code):
    def answer(question):
        response = dns.message.make_response(question)
        response.set_rcode(rcode)
        return response
    proxy = daemon(dns=scripted_dns(scripted(answer)))
    for _ in range(2):
        expect_code(proxy.addr, "socks6", "a.example", 80, code)


# Failing calls --------------------------------------------------------------------------------------------------------

FAILING = [("malloc", errno.ENOMEM), ("calloc", errno.ENOMEM), ("realloc", errno.ENOMEM), ("socket", errno.EMFILE),
           ("connect", errno.ENETUNREACH), ("epoll_ctl", errno.ENOMEM), ("recv", errno.ECONNREFUSED),
           ("recv", errno.EINTR), ("send", errno.ENOBUFS), ("send", errno.EPIPE), ("getsockopt", errno.ENOBUFS)]


@pytest.fixture(scope="module", params=["udp", "tcp"])
def faulty(request, tmp_path_factory):
    """(daemon, faults): one worker, so that the n-th call is the n-th. At the end no descriptor may be left."""
    upstream = Scripted()
    faults = Faults(tmp_path_factory.mktemp("faults") / "control")
    config = base_config(workers=1, dns={"upstream": f"{request.param}://127.0.0.1:{upstream.port}", "timeout": "200ms"})
    with Daemon(config, binary=faults_binary(), env={"SOCKS6_FAULTS": faults.path}) as one:
        yield one, faults
        faults.disarm()
        one.wait_fds()  # idle sockets go after a while
        one.check_reports()
    upstream.close()


def try_question(proxy, name):
    """The answer, or None where the conversation or the stream ended before it."""
    with contextlib.suppress(s6.ProtocolError, EOFError, OSError), socks6_dial(proxy.addr, "0.0.0.0", 53) as sock:
        return asked(sock, query(name))
    return None


@pytest.mark.parametrize("name, error", FAILING, ids=lambda v: v if isinstance(v, str) else errno.errorcode[v])
def test_a_failing_call_is_survived(faulty, name, error):
    """Asked upstream for a fresh name each time: an answer, a server failure or the stream's end, and the next one is served."""
    proxy, faults = faulty
    for nth in range(1, 200):
        faults.arm(name, error, nth)
        reply = try_question(proxy, f"{name}-{error}-{nth}.example")
        hits = faults.disarm()
        assert reply is None or reply.rcode() == dns.rcode.SERVFAIL or reply.answer
        assert try_question(proxy, "localhost").answer
        if not hits:
            break
    else:
        raise AssertionError("the calls never end")
    assert reply.answer


def test_tls_is_verified_and_nothing_is_asked_without(daemon, unbound, scripted):
    impostor = scripted()
    for upstream in ({"upstream": f"tls://127.0.0.1:{unbound.tls_port}#other.example.net", "ca": unbound.ca},
                     {"upstream": f"tls://127.0.0.1:{unbound.tls_port}#{unbound.NAME}"},
                     {"upstream": f"tls://127.0.0.1:{impostor.port}#{unbound.NAME}", "ca": unbound.ca}):
        proxy = daemon(dns={**upstream, "timeout": "500ms", "attempts": 1})
        with service(proxy) as sock:
            assert asked(sock, query("www.dns.example")).rcode() == dns.rcode.SERVFAIL
    assert not impostor.queries


def test_endless_aliases_end(daemon, scripted):
    count = iter(range(10 ** 6))

    def answer(question):
        response = dns.message.make_response(question)
        response.answer.append(dns.rrset.from_text(question.question[0].name, 300, "IN", "CNAME",
                                                   f"n{next(count)}.example."))
        return response
    upstream = scripted(answer)
    proxy = daemon(dns=scripted_dns(upstream))
    expect_code(proxy.addr, "socks6", "a.example", 80, s6.FAILURE)
    assert len(upstream.queries) < 50


# Who may use it, and how much -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", b"0.0.0.0", "::ffff:0.0.0.0"])
def test_the_bound_address_is_unspecified(proxy, host):
    with socks6_dial(proxy.addr, host, 53) as sock:
        assert asked(sock, query("localhost")).answer
    reply = socks6_dial(proxy.addr, host, 53)
    with reply:
        assert (int(reply.reply.host), reply.reply.port) == (0, 0)


def test_older_clients_reach_it_where_they_may(daemon, proxy):
    expect_code(proxy.addr, "socks5", "0.0.0.0", 53, s6.RULES)
    other = daemon(dns={"service_socks5": True})
    for host in ("0.0.0.0", "::"):
        tunnel = socks5_dial(other.addr, host, 53)
        with tunnel as sock:
            assert tunnel.ok
            assert asked(sock, query("localhost")).answer
    expect_code(other.addr, "socks4", "0.0.0.0", 53, s6.RULES)
    expect_code(other.addr, "socks5", "0.0.0.0", 54, s6.RULES)


def test_rules_apply_to_the_service(daemon):
    expect_code(daemon(rules=[{"deny": {"to": ["dns"]}}]).addr, "socks6", "0.0.0.0", 53, s6.RULES)
    expect_code(daemon(rules=[{"deny": {}}]).addr, "socks6", "::", 53, s6.RULES)
    expect_code(daemon(rules=[{"allow": {"to": ["*.example"]}}]).addr, "socks6", "::", 53, s6.RULES)
    with service(daemon(rules=[{"deny": {"to": ["private"]}}])) as sock:
        assert asked(sock, query("localhost")).answer


def test_names_that_a_rule_denies_are_refused(daemon, scripted):
    upstream = scripted()
    proxy = daemon(dns=scripted_dns(upstream), rules=[
        {"allow": {"to": ["dns"]}}, {"allow": {"to": ["ok.denied.example"]}},
        {"deny": {"to": ["*.denied.example", "denied.example"]}}])
    with service(proxy) as sock:
        for name in ("denied.example", "x.denied.example", "X.Denied.EXAMPLE"):
            for rdtype in ("A", "TXT", "HTTPS"):
                reply = asked(sock, query(name, rdtype))
                assert reply.rcode() == dns.rcode.REFUSED and option_codes(reply) == [15]
        assert not upstream.queries
        for name in ("ok.denied.example", "other.example", "xdenied.example"):
            assert asked(sock, query(name)).answer


def test_the_stream_can_go_to_another_server(daemon, nsd):
    proxy = daemon(dns={"relay": f"127.0.0.1:{nsd.port}"})
    tunnel = socks6_dial(proxy.addr, "0.0.0.0", 53)
    with tunnel as sock:
        assert tunnel.ok and int(tunnel.reply.host) == 0 and tunnel.reply.port == 0
        assert asked(sock, query("www.dns.example")).flags & dns.flags.AA
    with listening() as nobody:
        closed = nobody.addr[1]
    expect_code(daemon(dns={"relay": f"127.0.0.1:{closed}"}).addr, "socks6", "0.0.0.0", 53, s6.REFUSED)
    by_name = daemon(dns={"relay": f"localhost:{nsd.port}"})
    with service(by_name) as sock:
        assert asked(sock, query("www.dns.example")).answer
    denied = daemon(dns={"relay": f"127.0.0.1:{nsd.port}"}, rules=[{"deny": {"to": ["dns"]}}])
    expect_code(denied.addr, "socks6", "0.0.0.0", 53, s6.RULES)


def test_questions_in_flight_are_limited_over_all_streams_of_a_client(daemon, scripted):
    gate = threading.Event()
    upstream = scripted(lambda q: Scripted.address(q) if gate.is_set() else None)
    proxy = daemon(dns=scripted_dns(upstream, queries_in_flight=5, timeout="300ms", attempts=5), workers=2)
    with service(proxy) as one, service(proxy) as two:
        for i in range(20):
            ask(one, query(f"one{i}.example"))
            ask(two, query(f"two{i}.example"))
        wait_until(lambda: len(set(upstream.names())) == 5, "five questions")
        # the upstream server hears the same five again and again, and no other
        wait_until(lambda: len(upstream.names()) >= 10, "retries")
        assert len(set(upstream.names())) == 5
        gate.set()
        got = {str(read_answer(sock).question[0].name) for sock in (one, two) for _ in range(20)}
        assert len(got) == 40


def test_questions_beyond_the_rate_wait(daemon, scripted):
    proxy = daemon(dns=scripted_dns(scripted(), queries_per_second=50))
    with service(proxy) as sock:
        for _ in range(100):
            ask(sock, query("localhost"))
        assert all(read_answer(sock).answer for _ in range(100))


def test_an_idle_stream_ends(daemon):
    proxy = daemon(dns={"idle": "300ms"})
    with service(proxy) as sock:
        assert asked(sock, query("localhost")).answer
        assert sock.recv(1) == b""
    proxy.wait_line(lambda line: '"reason":"idle"' in line)
    with service(proxy) as sock:
        sock.sendall(b"\0\x20half a question")
        assert sock.recv(1) == b""


def test_a_client_that_takes_nothing_holds_up_only_itself(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound), workers=1)
    with service(proxy) as greedy, service(proxy) as other:
        greedy.settimeout(1)
        question = frame(query("huge.dns.example", "TXT").to_wire())
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100000:
                greedy.sendall(question)
                sent += 1
        assert sent < 100000, "everything was taken from a client that reads nothing"
        assert asked(other, query("www.dns.example")).answer
        greedy.settimeout(DEADLINE)
        for _ in range(20):  # what was asked is answered as soon as it is read
            assert len(read_message(greedy)) > 58000


def test_half_a_stream_gets_all_its_answers(daemon, unbound):
    proxy = daemon(dns=upstream_of("udp", unbound))
    with service(proxy) as sock:
        for i in range(200):
            ask(sock, query(f"n{i}.dns.example"))
        sock.shutdown(socket.SHUT_WR)
        assert len({str(read_answer(sock).question[0].name) for _ in range(200)}) == 200
        assert sock.recv(1) == b""


def test_an_urgent_byte_in_the_stream_holds_nothing_up(daemon):
    """Linux ends a read before it, though there is more."""
    proxy = daemon()
    question = frame(query("localhost").to_wire())
    with service(proxy) as sock:
        for _ in range(20):
            sock.sendall(100 * question + question[:-1])
            sock.send(question[-1:], socket.MSG_OOB)
            for _ in range(101):
                assert read_answer(sock).answer


def test_the_access_log_counts_bytes(daemon):
    proxy = daemon()
    question = query("localhost", use_edns=-1)
    with service(proxy) as sock:
        ask(sock, question)
        answer = read_message(sock)
    line = proxy.wait_line(lambda line: '"reason":"done"' in line)
    assert f'"bytes_up":{len(question.to_wire()) + 2}' in line
    assert f'"bytes_down":{len(answer) + 2}' in line


def test_a_drain_answers_what_was_asked_and_ends_streams(daemon, scripted):
    release = threading.Event()

    def answer(question):
        release.wait(DEADLINE)
        return dns.message.make_response(question)
    upstream = scripted(answer)
    proxy = daemon(dns=scripted_dns(upstream, idle="1h"))
    with service(proxy) as idle, service(proxy) as busy:
        ask(busy, query("a.example"))
        wait_until(lambda: upstream.queries, "the question at the server")
        proxy.process.terminate()
        proxy.wait_line("draining")
        assert idle.recv(1) == b""
        release.set()
        assert read_answer(busy).rcode() == dns.rcode.NOERROR
        assert busy.recv(1) == b""
        proxy.process.wait(DEADLINE)
