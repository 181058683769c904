#!/usr/bin/python3
"""Writes the seeds of the wire decoders' fuzz targets, fuzz/corpus/TARGET/NAME, from tests/vectors/*.hex, and those of
the DNS targets.

usage: make_corpus.py            write what is missing or differs
       make_corpus.py --check    TAP: is each seed there and as its vector says? Other files are left alone, in both
                                 cases: inputs that once broke something are kept beside the seeds.

The targets' inputs begin with a byte that chooses a variant; here it is made from the words behind a vector's verdict.
"""
import os
import re
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Long inputs slow a fuzzer down and teach it little: the unit tests have them.
SEED_MAX = 1500

WHERE = {"request": 0, "auth-success": 1, "auth-failure": 2, "reply": 3}
FRAMING = {"08": 0, "11": 1, "12": 2}
TRANSPORT = {"datagram": 0, "stream": 4, "stream-init-seen": 12}

# vector file -> (target, the choosing bytes for the words behind a verdict)
TARGETS = {
    "request.hex": ("request", lambda words: [0, 1, 2]),
    "auth_reply.hex": ("auth_reply", lambda words: [1]),
    "reply.hex": ("reply", lambda words: [0, 1, 2]),
    "options.hex": ("options", lambda words: [WHERE[words[0]]]),
    "userpass.hex": ("userpass", lambda words: [["request", "reply"].index(words[0])]),
    "udp.hex": ("udp", lambda words: [FRAMING[words[0]] | TRANSPORT[words[1]]]),
}

TOKEN = re.compile(r'\s+|#.*|(?P<canonical>=>)|"(?P<text>[^"]*)"|(?P<hex>(?:[0-9a-fA-F]{2})+)(?:\*(?P<count>\d+))?(?=\s|$)')


def vectors(path):
    """(name, words behind the verdict, bytes) of each vector in a file."""
    found = []
    with open(path, encoding="ascii") as file:
        for number, line in enumerate(file, 1):
            if line.startswith("@"):
                name, _verdict, *words = line[1:].split("#")[0].split()
                found.append((name, words, bytearray()))
                canonical = False
                continue
            at = 0
            while at < len(line):
                token = TOKEN.match(line, at)
                if not token:
                    sys.exit(f"{path}:{number}: not understood: {line[at:].strip()}")
                at = token.end()
                if token["canonical"]:
                    canonical = True
                elif token["text"] is not None and not canonical:
                    found[-1][2].extend(token["text"].encode())
                elif token["hex"] and not canonical:
                    found[-1][2].extend(bytes.fromhex(token["hex"]) * int(token["count"] or 1))
    return found


def seeds():
    """path below fuzz/corpus -> bytes"""
    found = {}
    for file, (target, choose) in TARGETS.items():
        for name, words, data in vectors(os.path.join(ROOT, "tests", "vectors", file)):
            choices = choose(words)
            for choice in choices:
                suffix = f"-{choice}" if len(choices) > 1 else ""
                if len(data) <= SEED_MAX:
                    found[os.path.join(target, name + suffix)] = bytes([choice]) + bytes(data)
    return found | dns_seeds() | run_names_seeds() | run_handshake_seeds()


# DNS ------------------------------------------------------------------------------------------------------------------


def dns_name(text):
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".") if label) + b"\0"


def dns_record(owner, rdtype, rdata, ttl=300, rdclass=1):
    return owner + struct.pack("!HHIH", rdtype, rdclass, ttl, len(rdata)) + rdata


def dns_opt(options=b"", flags=0x8000, udp_len=1232):
    return dns_record(b"\0", 41, options, flags, udp_len)


def dns_message(name, rdtype=1, flags=0x0100, sections=((), (), ()), identity=0x1234, questions=1):
    head = struct.pack("!HHHHHH", identity, flags, questions, *(len(section) for section in sections))
    body = b"".join(record for section in sections for record in section)
    return head + dns_name(name) + struct.pack("!HH", rdtype, 1) + body


def dns_seeds():
    """Messages, each for all three variants of dns_message; streams of them for dns_service; texts for dns_files."""
    here = b"\xc0\x0c"
    option = lambda code, data: struct.pack("!HH", code, len(data)) + data
    soa = dns_name("ns.example") + dns_name("me.example") + struct.pack("!IIIII", 1, 2, 3, 4, 60)
    a = dns_record(here, 1, b"\xc0\0\2\1")
    messages = {
        "query": dns_message("www.example"),
        "query-edns": dns_message("www.example", 65, sections=((), (), (dns_opt(),))),
        "query-options": dns_message("WWW.example", sections=((), (), (dns_opt(
            option(8, b"\0\1\x18\0\xc0\0\2") + option(10, b"12345678") + option(11, b"") + option(12, b"\0" * 9)),))),
        "query-localhost": dns_message("localhost"),
        "query-axfr": dns_message("example", 252),
        "query-update": dns_message("example", 6, 0x2800),
        "query-version": dns_message("example", sections=((), (), (dns_opt(flags=0x10000),))),
        "query-two": dns_message("example", questions=2),
        "answer": dns_message("www.example", flags=0x8180, sections=((a, a), (), (dns_opt(option(15, b"\0\3")),))),
        "answer-chain": dns_message("www.example", flags=0x8180, sections=(
            (dns_record(here, 5, b"\1x\xc0\x10"), dns_record(b"\xc0\x29", 1, b"\xc0\0\2\1")), (), ())),
        "answer-negative": dns_message("no.example", flags=0x8183, sections=((), (dns_record(here, 6, soa),), (dns_opt(),))),
        "answer-opt-first": dns_message("www.example", 15, 0x8180, ((), (), (
            dns_opt(), dns_record(here, 15, b"\0\x0a\4mail\xc0\x0c"), dns_record(b"\xc0\x3a", 1, b"\xc0\0\2\1")))),
        "answer-loop": dns_message("www.example", flags=0x8180, sections=((b"\xc0\x1d" + a[2:],), (), ())),
        "answer-error": struct.pack("!HHHHHH", 1, 0x8181, 0, 0, 0, 0),
        "root": dns_message("", 2),
        "long-name": dns_message(".".join(["x" * 63] * 3 + ["y" * 61])),
    }
    found = {f"dns_message/{name}-{variant}": bytes([variant]) + data
             for name, data in messages.items() for variant in range(3)}
    frame = lambda data: struct.pack("!H", len(data)) + data
    streams = {"all": b"".join(frame(messages[name]) for name in messages if name.startswith("query")),
               "junk": frame(b"") + frame(messages["query"]), "cut": frame(messages["query-localhost"])[:-3],
               "response": frame(messages["query-localhost"]) + frame(messages["answer"]),
               "many": frame(messages["query-localhost"]) * 60}
    for name, data in streams.items():
        for size in (0, 5, 255):
            found[f"dns_service/{name}-{size}"] = bytes([size]) + data
    found["dns_files/resolv.conf"] = (b"# one\nnameserver 192.0.2.1\nnameserver fe80::1%1\nnameserver [::1]:5353\n"
                                      b"search a b\noptions timeout:3 attempts:4 rotate use-vc ndots:2 edns0\n")
    found["dns_files/hosts"] = (b"127.0.0.1 localhost\n192.0.2.1\twww.example  a.example. # c\r\n::1 www.example\n"
                                b"::ffff:192.0.2.3 www.example\nx y\n192.0.2.4\n")
    return found


def run_names_seeds():
    """Requests of programs under `socks6 run`, in the machine's own byte order, with answers of the proxy."""
    here = b"\xc0\x0c"
    a = dns_record(here, 1, b"\xc0\0\2\1")
    aaaa = dns_record(here, 28, b"\x20\1\x0d\xb8" + b"\0" * 11 + b"\1")
    soa = dns_record(here, 6, dns_name("ns.example") + dns_name("me.example") + struct.pack("!IIIII", 1, 2, 3, 4, 60))
    alias = dns_record(here, 5, dns_name("target.example"))
    resolve = lambda name, family=0: struct.pack("<HHI", family, len(name), 1) + name
    reverse = lambda family, address: struct.pack("<HHI", family, 0, 0) + address.ljust(16, b"\0")

    def answer(flags=0x8180, sections=((), (), ())):
        head = struct.pack("!HHHHHH", 0, flags, 1, *(len(section) for section in sections))
        return head + b"".join(record for section in sections for record in section)

    frame = lambda data: struct.pack("!H", len(data)) + data
    whole = lambda kind, body, *answers: bytes([kind]) + frame(body) + b"".join(frame(one) for one in answers)
    both = (answer(sections=((aaaa,), (), ())), answer(sections=((a, a), (), ())))
    found = {
        "both": whole(0, resolve(b"www.example"), *both),
        "ipv4": whole(0, resolve(b"www.example.", 2), both[1]),
        "alias": whole(0, resolve(b"www.example", 2), answer(sections=((alias,), (), ())), both[1]),
        "alias-whole": whole(0, resolve(b"www.example", 2), answer(sections=(
            (alias, dns_record(dns_name("target.example"), 1, b"\xc0\0\2\1")), (), ()))),
        "negative": whole(0, resolve(b"no.example."), answer(0x8183, ((), (soa,), ())), answer(0x8180, ((), (soa,), ()))),
        "failure": whole(0, resolve(b"no.example."), answer(0x8182), answer(0x8185)),
        "silence": whole(0, resolve(b"www.example"), b"", b"1"),
        "numeric": whole(0, resolve(b"127.1")),
        "localhost": whole(0, resolve(b"localhost")),
        "nul": whole(0, resolve(b"a\0b")),
        "fake": whole(4, resolve(b"www.example")),
        "reverse": whole(1, reverse(2, b"\xc0\0\2\1"), answer(sections=(
            (dns_record(here, 12, dns_name("www.example")), dns_record(here, 12, dns_name("b.example"))), (), ()))),
        "reverse-alias": whole(1, reverse(2, b"\xc0\0\2\1"), answer(sections=((alias,), (), ())), answer(sections=(
            (dns_record(here, 12, dns_name("www.example")),), (), ()))),
        "reverse-ipv6": whole(1, reverse(10, b"\x20\1\x0d\xb8"), answer(0x8183)),
        "reverse-fake": whole(5, reverse(2, b"\xc6\x12\0\1")),
        "query": whole(2, dns_message("www.example"), both[1]),
        "query-edns": whole(2, dns_message("www.example", 16, sections=((), (), (dns_opt(),))), answer(0x8182)),
        "query-fake": whole(6, dns_message("www.example", 28)),
        "query-fake-ptr": whole(6, dns_message("1.0.18.198.in-addr.arpa", 12)),
        "resolv.conf": whole(8, b"search a.example b.example .\noptions ndots:2 timeout:3 no-tld-query\ndomain c\n"),
    }
    return {f"run_names/{name}": data for name, data in found.items()}


def run_handshake_seeds():
    """Streams from the proxy: each Authentication Reply of the vectors with a good reply behind it, each Operation Reply behind a good
    one of the other kind, with some of the remote end's data; and such as are as long as they may be, and longer."""
    auth = b"\6\0\0\0"
    reply = b"\6\0\0\0\0\x50\0\1\xc0\0\2\1"
    rest = b"\6data"
    found = {}
    for kind, before, after in (("auth_reply", b"", reply), ("reply", auth, b"")):
        for name, _words, data in vectors(os.path.join(ROOT, "tests", "vectors", f"{kind}.hex")):
            if len(data) <= SEED_MAX:
                found[f"{kind}-{name}"] = before + bytes(data) + after + rest
    area = lambda size: struct.pack("!HH", 0xfc00, size) + bytes(size - 4) if size else b""
    whole = lambda first, second: (b"\6\0" + struct.pack("!H", first) + area(first) + reply[:2] + struct.pack("!H", second) +
                                   reply[4:] + area(second))
    for first, second in ((1008, 0), (1012, 0), (1020, 0), (1028, 0), (0, 1008), (0, 1012), (0, 1028), (504, 504), (504, 508)):
        found[f"long-{first}-{second}"] = whole(first, second) + rest
    return {f"run_handshake/{name}": data for name, data in found.items()}


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def main():
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.exit(__doc__)
    stale = 0
    wanted = seeds()
    if check:
        print(f"1..{len(wanted)}")
    for number, (name, data) in enumerate(sorted(wanted.items()), 1):
        path = os.path.join(ROOT, "fuzz", "corpus", name)
        same = read(path) == data
        if check:
            print(f"{'ok' if same else 'not ok'} {number} - {name}")
            stale += not same
        elif not same:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
            print(f"fuzz/corpus/{name}")
    if stale:
        print(f"# {stale} seeds differ from their vectors: run fuzz/make_corpus.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
