#!/usr/bin/python3
"""Writes the seeds of the wire decoders' fuzz targets, fuzz/corpus/TARGET/NAME, from tests/vectors/*.hex.

usage: make_corpus.py            write what is missing or differs
       make_corpus.py --check    TAP: is each seed there and as its vector says? Other files are left alone, in both
                                 cases: inputs that once broke something are kept beside the seeds.

The targets' inputs begin with a byte that chooses a variant; here it is made from the words behind a vector's verdict.
"""
import os
import re
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
    return found


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
