"""`socks6 dns NAME TYPE` against a proxy made of Python; its text against that of dig for the same bytes."""

import json
import struct
import subprocess

import dns.edns
import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import pytest

from cli_peers import AUTH_FAILED, DEADLINE, Proxy5, Scripted, client_environment, client_path, closed_port
from dns_peers import RECORDS, DnsProxy, DnsServer, answering, comparable, frame, rrset, serve


def socks6(*args, data=b"", env=None):
    return subprocess.run([client_path(), *map(str, args)], input=data, env=client_environment(**(env or {})),
                          capture_output=True, timeout=DEADLINE, check=False)


def ask(proxy, *args, **more):
    done = socks6("-x", proxy.url(), "dns", *args, **more)
    assert b"Sanitizer" not in done.stderr, done.stderr.decode()
    return done


def dig(server, *args):
    return subprocess.run(["dig", "+tcp", "+time=20", "+tries=1", f"@{server.host}", "-p", str(server.port), *args],
                          capture_output=True, timeout=DEADLINE, check=True, env=client_environment()).stdout.decode()


def lines(done):
    assert done.returncode == 0, done
    return done.stdout.decode().splitlines()


A = rrset("x.test.", "A", "192.0.2.1")


# The same text as dig's, for the same bytes.

@pytest.mark.parametrize("kind,data", RECORDS, ids=[f"{kind}-{i}" for i, (kind, _) in enumerate(RECORDS)])
def test_every_type_is_shown_as_dig_shows_it(kind, data):
    answer = answering(rrset("x.test.", kind, data))
    with DnsProxy(answer) as proxy, DnsServer(answer) as server:
        ours = lines(ask(proxy, "x.test", kind))
        theirs = dig(server, "+nocookie", "x.test", kind)
        assert "WARN" not in theirs and "bad packet" not in theirs
        assert comparable("\n".join(ours)) == comparable(theirs)
        short = lines(ask(proxy, "+short", "x.test", kind))
        assert short == dig(server, "+short", "x.test", kind).splitlines()
        assert short


def test_sections_flags_and_columns_are_those_of_dig():
    long_name = ".".join(["l" * 60] * 4) + "."
    answer = answering(
        A, rrset("x.test.", "A", "192.0.2.2", ttl=0), rrset(long_name, "TXT", '"t"', ttl=2147483647),
        rrset("a\\.b\\\"\\;\\@.\\000\\255.x.test.", "A", "192.0.2.3"), rrset("seven.x.", "A", "192.0.2.4", ttl=12345678),
        authority=[rrset("x.test.", "NS", "ns.x.test.", "\\$.x.test.")], additional=[rrset("ns.x.test.", "AAAA", "::1")],
        flags=dns.flags.RA | dns.flags.AA | dns.flags.AD | dns.flags.CD | dns.flags.TC)
    with DnsProxy(answer) as proxy, DnsServer(answer) as server:
        for words in (["+nocookie"], ["+nocookie", "+norecurse"], ["+nocookie", "+dnssec"], ["+nocookie", "+noedns"],
                      ["+nocookie", "+nocomments"], ["+nocookie", "+noall", "+answer"], ["+nocookie", "+nosplit", "+noquestion"]):
            ours = ask(proxy, "x.test", "A", *words[1:])
            ignored = "+ignore" # TC is no reason to ask again: it is TCP already
            theirs = dig(server, "x.test", "A", ignored, *words)
            # dig sorts by name and type, and mixes records of one kind; our order is that of the message
            assert sorted(comparable(ours.stdout.decode())) == sorted(comparable(theirs)), words


@pytest.mark.parametrize("rcode", [0, 1, 2, 3, 4, 5, 9, 11, 16, 23])
def test_the_status_is_that_of_dig(rcode):
    answer = answering(rcode=rcode)
    with DnsProxy(answer) as proxy, DnsServer(answer) as server:
        done = ask(proxy, "x.test")
        assert done.returncode == (0 if rcode in (0, 3) else 1)
        theirs = dig(server, "+nocookie", "+noednsneg", "+nobadcookie", "x.test")
        assert comparable(done.stdout.decode()) == comparable(theirs)


@pytest.mark.parametrize("option", [
    dns.edns.EDEOption(22, "no one home"), dns.edns.EDEOption(18), dns.edns.EDEOption(9999, "x"),
    dns.edns.GenericOption(3, b"ns1\x01"), dns.edns.GenericOption(11, b"\x00\x64"), dns.edns.GenericOption(12, bytes(7)),
    dns.edns.ECSOption("192.0.2.0", 24, 20), dns.edns.ECSOption("2001:db8::", 32, 0),
    dns.edns.GenericOption(65001, b"\x00a\x1b"), dns.edns.GenericOption(65002, b"")])
def test_edns_options_are_shown_as_dig_shows_them(option):
    answer = answering(A, options=[option])
    with DnsProxy(answer) as proxy, DnsServer(answer) as server:
        assert comparable("\n".join(lines(ask(proxy, "x.test")))) == comparable(dig(server, "+nocookie", "x.test"))


def test_nothing_that_a_server_says_reaches_the_terminal_as_it_is():
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\u202e\u009b31m".encode()
    options = [dns.edns.GenericOption(15, b"\0\0" + evil), dns.edns.GenericOption(3, evil), dns.edns.GenericOption(65001, evil)]
    label = "".join(f"\\{byte:03}" for byte in evil)
    answer = answering(rrset(label + ".test.", "TXT", f'"{label}"'), rrset("x.test.", "NS", label + "."),
                       rrset("x.test.", "CAA", f'0 issue "{label}"'), options=options)
    with DnsProxy(answer) as proxy:
        for words in ([], ["+short"], ["+json"]):
            done = ask(proxy, "x.test", *words)
            assert done.stdout and all(byte == 10 or byte == 9 or 32 <= byte < 127 for byte in done.stdout)


# What is asked.

def asked(*args, **more):
    """The questions that reach the proxy, as text."""
    with DnsProxy(answering(rcode=3)) as proxy:
        done = ask(proxy, *args, **more)
        assert done.returncode == 0, done.stderr
        return [f"{q.question[0].name} {dns.rdataclass.to_text(q.question[0].rdclass)} "
                f"{dns.rdatatype.to_text(q.question[0].rdtype)}" for q in proxy.queries]


@pytest.mark.parametrize("args,questions", [
    (["x.test"], ["x.test. IN A"]),
    (["."], [". IN A"]),
    (["x.test", "MX"], ["x.test. IN MX"]),
    (["mx", "x.test"], ["x.test. IN MX"]),
    (["-q", "mx", "-t", "aaaa"], ["mx. IN AAAA"]),
    (["x.test", "A", "AAAA", "TYPE65280"], ["x.test. IN A", "x.test. IN AAAA", "x.test. IN TYPE65280"]),
    (["x.test", "MX", "y.test", "z.test", "TXT"], ["x.test. IN MX", "y.test. IN A", "z.test. IN TXT"]),
    (["NS", "SOA", "x.test", "y.test", "MX"], ["x.test. IN NS", "x.test. IN SOA", "y.test. IN MX"]),
    (["version.bind", "CH", "TXT"], ["version.bind. CH TXT"]),
    (["-c", "CH", "x.test", "TXT", "y.test"], ["x.test. CH TXT", "y.test. CH A"]),
    (["-c", "class77", "x.test"], ["x.test. CLASS77 A"]),
    (["x.test", "ANY", "HTTPS", "SVCB", "TLSA", "CAA"], [f"x.test. IN {t}" for t in ("ANY", "HTTPS", "SVCB", "TLSA", "CAA")]),
    (["-x", "192.0.2.1"], ["1.2.0.192.in-addr.arpa. IN PTR"]),
    (["--reverse", "2001:db8::1"], [f"{dns.reversename.from_address('2001:db8::1')} IN PTR"]),
    (["-x", "192.0.2.1", "SOA", "x.test"], ["1.2.0.192.in-addr.arpa. IN SOA", "x.test. IN A"]),
    (["MX", "-x", "192.0.2.1", "x.test"], ["1.2.0.192.in-addr.arpa. IN PTR", "x.test. IN MX"]),
    (["a\\.b\\032c.test."], ["a\\.b\\032c.test. IN A"]),
    (["--", "-x.test"], ["-x.test. IN A"]),
])
def test_names_types_and_classes_in_any_order(args, questions):
    assert asked(*args) == questions


def test_questions_from_a_file(tmp_path):
    path = tmp_path / "names"
    path.write_text("; comment\nx.test\n\n  y.test MX TXT # more\nNS z.test\nw.test CH TXT\n")
    expected = ["x.test. IN AAAA", "y.test. IN MX", "y.test. IN TXT", "z.test. IN AAAA", "z.test. IN NS", "w.test. CH TXT"]
    assert asked("AAAA", "-f", path) == expected
    assert asked("AAAA", "-f", "-", data=path.read_bytes()) == expected
    assert asked("v.test", "AAAA", "-f", path)[:2] == ["v.test. IN AAAA", "x.test. IN A"]


@pytest.mark.parametrize("words,check", [
    ([], lambda q: q.flags == dns.flags.RD | dns.flags.AD and q.edns == 0 and q.payload == 1232 and not q.ednsflags),
    (["+norecurse"], lambda q: q.flags == dns.flags.AD),
    (["--no-recurse", "+noad"], lambda q: q.flags == 0),
    (["+cd"], lambda q: q.flags & dns.flags.CD),
    (["--cd"], lambda q: q.flags & dns.flags.CD),
    (["+dnssec"], lambda q: q.ednsflags & dns.flags.DO),
    (["--dnssec"], lambda q: q.ednsflags & dns.flags.DO),
    (["+dnssec", "+nodnssec"], lambda q: not q.ednsflags),
    (["+noedns"], lambda q: q.edns == -1),
    (["--no-edns"], lambda q: q.edns == -1),
    (["+bufsize=4096"], lambda q: q.payload == 4096),
    (["+nsid"], lambda q: [(o.otype, o.to_wire()) for o in q.options] == [(3, b"")]),
    (["+subnet=192.0.2.255/25"], lambda q: [(o.otype, o.to_wire()) for o in q.options] == [(8, bytes([0, 1, 25, 0, 192, 0, 2, 128]))]),
    (["+subnet=2001:db8::/33"], lambda q: [o.to_wire() for o in q.options] == [bytes([0, 2, 33, 0, 0x20, 1, 0xd, 0xb8, 0])]),
    (["+subnet=0.0.0.0/0"], lambda q: [o.to_wire() for o in q.options] == [bytes([0, 1, 0, 0])]),
    (["--ednsopt", "65001:00fF", "+ednsopt=65002"], lambda q: [(o.otype, o.to_wire()) for o in q.options] == [(65001, b"\0\xff"), (65002, b"")]),
])
def test_what_the_words_change_in_a_question(words, check):
    with DnsProxy(answering()) as proxy:
        assert ask(proxy, *words, "x.test").returncode == 0
        assert check(proxy.queries[0]), proxy.queries[0]


@pytest.mark.parametrize("args,what", [
    ([], "NAME is missing"), (["MX"], "NAME is missing"), (["a..b"], "not a domain name"), (["x" * 64], "not a domain name"),
    (["b\u00fccher.example"], "ASCII form"), (["@192.0.2.1", "x.test"], "the proxy's choice"), (["-x", "x.test"], "neither"),
    (["--reverse", "x"], "not an IP address"), (["-t", "NOTYPE", "x.test"], "not a type"), (["-t", "TYPE65536", "x"], "not a type"),
    (["-t", "OPT", "x"], "no type to ask"), (["-c", "XX", "x.test"], "not a class"), (["+shrot", "x.test"], "did you mean '+short'"),
    (["+short=1", "x.test"], "takes no value"), (["+edns=1", "x.test"], "only version"), (["+bufsize=65536", "x"], "+bufsize"),
    (["+subnet=1.2.3.4/33", "x"], "prefix length"), (["+subnet=x", "x"], "not an IP address"), (["+subnet", "x"], "+subnet="),
    (["+ednsopt=5:0", "x"], "hexadecimal"), (["+ednsopt=65536", "x"], "CODE"), (["+ednsopt=8:" + "00" * 1100, "x"], "EDNS option"),
    (["-w", "0", "x"], "-w"), (["-4", "-6", "x"], "exclude"), (["-f", "/nonexistent"], "/nonexistent"), (["--bogus", "x"], "--bogus"),
    (["--open", "x"], "--open goes with"), (["--listen", "127.0.0.1:0", "x.test"], "does not go together"),
    (["--listen", "x.test:53"], "--listen"), (["--listen", "127.0.0.1:99999"], "--listen"), (["--listen", "127.0.0.1:"], "--listen"),
    (["--listen", "192.0.2.1:53"], "--open"), (["--listen", "0.0.0.0:0"], "--open"),
])
def test_usage_errors(args, what):
    done = socks6("-x", "socks6://127.0.0.1:1", "dns", *args)
    assert done.returncode == 2, done
    assert what in done.stderr.decode() and not done.stdout


def test_a_file_without_a_name_is_an_error_and_one_with_a_bad_line_says_which(tmp_path):
    path = tmp_path / "names"
    path.write_text("; nothing\n")
    done = socks6("dns", "-f", path)
    assert done.returncode == 2 and b"no NAME" in done.stderr
    path.write_text("x.test\nb..d\n")
    done = socks6("dns", "-f", path)
    assert done.returncode == 2 and b"line 2 of" in done.stderr


# How it is asked.

def test_request_and_all_questions_travel_together():
    with DnsProxy(answering(A)) as proxy:
        assert len(lines(ask(proxy, "+short", "a.test", "b.test", "c.test"))) == 3
        assert len(proxy.requests) == 1
        assert b"\x01a\x04test" in proxy.early[0] and b"\x01c\x04test" in proxy.early[0]


def test_credentials_go_along_and_a_refusal_ends_with_3():
    with DnsProxy(answering(A)) as proxy:
        done = socks6("-x", proxy.url("alice:secret@"), "dns", "+short", "x.test")
        assert lines(done) == ["192.0.2.1"]
        assert proxy.requests[0].credentials() == ("alice", "secret")
    with Scripted(AUTH_FAILED) as refusing:
        assert socks6("-x", refusing.url("alice:wrong@"), "dns", "x.test").returncode == 3


def test_a_socks5_proxy_can_be_asked():
    with DnsServer(answering(A)) as server, Proxy5() as proxy:
        done = socks6("-x", proxy.url(), "dns", "x.test")
        assert done.returncode == 3 and proxy.hosts == [(1, "0.0.0.0")]
        assert server.port


def test_many_questions_over_one_connection_in_their_order():
    """More than the window; answered in the wrong order, in groups."""
    names = [f"n{i}.test" for i in range(1000)]

    def handler(stream):
        held = []
        seen = 0
        while query := stream.query():
            held.append(query)
            seen += 1
            if len(held) == 50 or seen == len(names):
                for one in reversed(held):
                    number = str(one.question[0].name)[1:].split(".")[0]
                    stream.send(answering(rrset(one.question[0].name.to_text(), "TXT", f'"{number}"'))(one))
                held = []
    with DnsProxy(handler=handler) as proxy:
        done = ask(proxy, "+short", "TXT", "-f", "-", data="\n".join(names).encode())
        assert lines(done) == [f'"{i}"' for i in range(1000)]
        assert len(proxy.requests) == 1


def test_a_question_that_hangs_holds_no_other_up():
    def answer(query):
        return None if query.question[0].name.to_text().startswith("hang") else answering(A)(query)
    with DnsProxy(answer) as proxy:
        done = ask(proxy, "-w", 1, "+short", "a.test", "hang.test", "b.test")
        assert done.returncode == 1
        assert done.stdout == b"192.0.2.1\n192.0.2.1\n"
        assert b"hang.test. A: no answer in time" in done.stderr
        assert len(proxy.requests) == 1


def test_a_connection_that_the_proxy_closes_is_made_anew_for_the_rest():
    def handler(stream):
        query = stream.query()
        stream.send(answering(A)(query))
    with DnsProxy(handler=handler) as proxy:
        assert lines(ask(proxy, "+short", "a.test", "b.test", "c.test")) == ["192.0.2.1"] * 3
        assert len(proxy.requests) == 3


def test_a_proxy_that_closes_without_an_answer_is_a_failure():
    with DnsProxy(handler=lambda stream: stream.query()) as proxy:
        done = ask(proxy, "a.test", "b.test")
        assert done.returncode == 1 and done.stderr.count(b"closed the connection without an answer") == 2
        assert b";; a.test. A: the proxy closed" in done.stdout
        assert len(proxy.requests) == 1


def test_a_proxy_without_the_service():
    with DnsProxy(code=5) as proxy:
        done = ask(proxy, "x.test")
        assert done.returncode == 3 and b"this proxy offers no DNS service" in done.stderr
    with DnsProxy(code=2) as proxy:
        done = ask(proxy, "x.test")
        assert done.returncode == 3 and b"refuses its DNS service" in done.stderr and b"reply 2" in done.stderr


def test_a_proxy_that_cannot_be_reached():
    with closed_port() as sock:
        done = socks6("-x", f"socks6://127.0.0.1:{sock.getsockname()[1]}", "dns", "x.test")
        assert done.returncode == 3 and b"refused" in done.stderr


def test_a_silent_proxy_is_given_up():
    with Scripted(b"") as proxy:
        done = socks6("-x", proxy.url(), "dns", "-w", 1, "x.test")
        assert done.returncode == 3 and b"timed out" in done.stderr


# Answers of all kinds.

def test_an_answer_of_64_kib():
    big = rrset("x.test.", "TXT", *[f'"{"x" * 250}{i:04}"' for i in range(240)])
    with DnsProxy(answering(big)) as proxy, DnsServer(answering(big)) as server:
        done = ask(proxy, "x.test", "TXT")
        theirs = dig(server, "+nocookie", "x.test", "TXT")
        assert sorted(comparable(done.stdout.decode())) == sorted(comparable(theirs))
        assert done.stdout.count(b"xxxx") >= 240
    full = answering(big)

    def fill(query):
        message = full(query)
        message.use_edns(False)
        wire = message.to_wire(max_size=65535)
        room = 65535 - len(wire) - 12
        return wire[:10] + b"\0\1" + wire[12:] + b"\xc0\x0c" + struct.pack("!HHIH", 65280, 1, 1, room) + b"x" * room
    with DnsProxy(fill) as proxy:
        out = ask(proxy, "x.test", "TXT")
        assert out.returncode == 0 and b"MSG SIZE  rcvd: 65535" in out.stdout


def test_answers_that_belong_to_no_question_are_ignored():
    def handler(stream):
        query = stream.query()
        good = answering(A)(query)
        wrong_id = dns.message.from_wire(good.to_wire())
        wrong_id.id = (query.id + 1) % 65536
        other = answering(rrset("evil.test.", "A", "203.0.113.1"))(dns.message.make_query("evil.test", "A", id=query.id, use_edns=0))
        no_answer = dns.message.make_query("x.test", "A", id=query.id)
        for message in (wrong_id, other, no_answer, b"", b"\0", query.id.to_bytes(2, "big") + b"\x80", good):
            stream.send(message)
        serve(stream, answering(A))
    with DnsProxy(handler=handler) as proxy:
        done = ask(proxy, "+short", "x.test")
        assert lines(done) == ["192.0.2.1"]
        assert b"belongs to no question" in done.stderr


def test_a_flood_of_answers_that_nobody_asked_for_ends():
    def handler(stream):
        query = stream.query()
        message = answering(A)(query)
        message.id = query.id ^ 1
        with pytest.raises(OSError):
            while True:
                stream.sock.sendall(frame(message) * 100)
    with DnsProxy(handler=handler) as proxy:
        assert ask(proxy, "x.test").returncode == 1


@pytest.mark.parametrize("spoil", [
    lambda wire: wire[:-1], lambda wire: wire[:len(wire) - 6], lambda wire: wire[:4] + b"\0\1\xff\xff" + wire[8:],
    lambda wire: wire[:-16] + b"\xff" * 16])
def test_a_malformed_answer_is_a_failure(spoil):
    with DnsProxy(lambda query: spoil(answering(A, edns=False)(query).to_wire())) as proxy:
        done = ask(proxy, "x.test")
        assert done.returncode == 1 and b"the answer is malformed" in done.stderr


def test_an_answer_cut_by_the_end_of_the_stream():
    def handler(stream):
        query = stream.query()
        stream.sock.sendall(frame(answering(A)(query))[:-3])
    with DnsProxy(handler=handler) as proxy:
        assert ask(proxy, "x.test").returncode == 1


def test_an_answer_byte_by_byte():
    def handler(stream):
        query = stream.query()
        for byte in frame(answering(A)(query)):
            stream.sock.sendall(bytes([byte]))
        stream.query()
    with DnsProxy(handler=handler) as proxy:
        assert lines(ask(proxy, "+short", "x.test")) == ["192.0.2.1"]


def test_a_formerr_without_a_question_is_an_answer():
    with DnsProxy(lambda query: query.id.to_bytes(2, "big") + b"\x81\x81" + bytes(8)) as proxy:
        done = ask(proxy, "x.test")
        assert done.returncode == 1 and b"status: FORMERR" in done.stdout


# JSON.

def test_json_says_the_same():
    answer = answering(A, rrset("x.test.", "TXT", '"a\\"b\\\\c" "d\\200"'), authority=[rrset("x.test.", "NS", "ns.x.test.")],
                       additional=[rrset("ns.x.test.", "A", "192.0.2.53")], options=[dns.edns.EDEOption(3, 'old "x"')])
    with DnsProxy(answer) as proxy:
        done = ask(proxy, "--json", "x.test", "TXT", "AAAA")
        objects = [json.loads(line) for line in lines(done)]
        assert len(objects) == 2
        one = objects[0]
        assert (one["QNAME"], one["QTYPE"], one["QTYPEname"], one["QCLASS"], one["QCLASSname"]) == ("x.test.", 16, "TXT", 1, "IN")
        assert (one["QR"], one["RD"], one["RA"], one["AA"], one["RCODE"], one["RCODEname"]) == (1, 1, 1, 0, 0, "NOERROR")
        assert (one["QDCOUNT"], one["ANCOUNT"], one["NSCOUNT"], one["ARCOUNT"]) == (1, 2, 1, 2)
        assert one["answerRRs"][0] == {"NAME": "x.test.", "TYPE": 1, "TYPEname": "A", "CLASS": 1, "CLASSname": "IN", "TTL": 300,
                                       "RDLENGTH": 4, "RDATAHEX": "C0000201", "rdataA": "192.0.2.1"}
        assert one["answerRRs"][1]["rdataTXT"] == '"a\\"b\\\\c" "d\\200"'
        assert one["authorityRRs"][0]["rdataNS"] == "ns.x.test."
        assert [rr["rdataA"] for rr in one["additionalRRs"]] == ["192.0.2.53"]
        assert one["EDNS"]["udpPayload"] == 1232 and one["EDNS"]["DO"] == 0
        assert one["EDNS"]["options"][0] == {"code": 15, "HEX": "0003" + b'old "x"'.hex().upper(), "infoCode": 3,
                                             "purpose": "Stale Answer", "extraText": 'old \\"x\\"'}
        assert one["queryTimeMS"] >= 0 and one["messageLength"] > 0 and proxy.url() in one["server"]
        assert objects[1]["QTYPEname"] == "AAAA"


def test_json_of_a_failure():
    with DnsProxy(lambda query: None) as proxy:
        done = ask(proxy, "--json", "-w", 1, "x.test", "MX")
        assert done.returncode == 1
        assert json.loads(done.stdout) == {"QNAME": "x.test.", "QTYPE": 15, "QTYPEname": "MX", "QCLASS": 1, "QCLASSname": "IN",
                                           "error": "no answer in time"}


def test_output_that_cannot_be_written_is_an_error():
    with DnsProxy(answering(A)) as proxy, open("/dev/full", "wb") as full:
        done = subprocess.run([client_path(), "-x", proxy.url(), "dns", "x.test"], stdout=full, stderr=subprocess.PIPE,
                              env=client_environment(), timeout=DEADLINE, check=False)
        assert done.returncode == 1 and b"standard output" in done.stderr
