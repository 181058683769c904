#!/usr/bin/python3
"""What the documents point at exists: links, and in doc/conformance.md every `path: name` of code and tests.

usage: check_docs.py [ROOT]     TAP on standard output, exit status 1 if something is not there
"""
import os
import re
import sys

from tap import Tap

LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
# `lib/wire/addr.c`, `lib/wire/addr.c: s6_addr_decode` or `... : one, two`; glob-free on purpose
POINTER = re.compile(r"`((?:include|lib|src|tests|fuzz|bench|scripts|man|doc)/[A-Za-z0-9_./-]+)(?:: ([^`]+))?`")
PENDING = "not yet"


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def documents(root):
    for folder in (".", "doc", "tests/vectors"):
        where = os.path.join(root, folder)
        if os.path.isdir(where):
            for name in sorted(os.listdir(where)):
                if name.endswith(".md"):
                    yield os.path.normpath(os.path.join(folder, name))


def broken_links(root, document):
    for target in LINK.findall(read(os.path.join(root, document))):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not os.path.exists(os.path.join(root, os.path.dirname(document), target)):
            yield f"{document}: link to {target}"


def broken_pointers(root, document):
    """Pointers to files that do not exist, or to names that the file does not contain."""
    for path, names in POINTER.findall(read(os.path.join(root, document))):
        where = os.path.join(root, path)
        if not os.path.exists(where):
            yield f"{document}: {path} does not exist"
            continue
        for name in filter(None, (part.strip() for part in names.split(","))):
            if os.path.isdir(where) or not re.search(rf"\b{re.escape(name)}\b", read(where)):
                yield f"{document}: no {name} in {path}"


def rows(text):
    """(line number, cells) of every table row that is neither head nor rule."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        following = lines[number] if number < len(lines) else ""
        if line.startswith("|") and not line.startswith("|-") and not following.startswith("|-"):
            yield number, [cell.strip() for cell in line.strip().strip("|").split("|")]


def bad_rows(root, document):
    """Rows of the conformance table: rule, code, test. Each names code and a test, or says that it is not there yet."""
    for number, cells in rows(read(os.path.join(root, document))):
        if len(cells) != 3:
            yield f"{document}:{number}: {len(cells)} columns, not 3"
        elif PENDING in cells[1:]:
            if cells[2] != PENDING:
                yield f"{document}:{number}: a test without code"
        elif not POINTER.search(cells[1]) or not POINTER.search(cells[2]):
            yield f"{document}:{number}: names no code or no test"
        elif not re.search(r"`(tests|fuzz)/", cells[2]):
            yield f"{document}:{number}: the test is none"


def main(root):
    tap = Tap()
    for document in documents(root):
        tap.case(f"links in {document}", list(broken_links(root, document)))
        tap.case(f"files and names in {document}", list(broken_pointers(root, document)))
    conformance = os.path.join("doc", "conformance.md")
    if os.path.exists(os.path.join(root, conformance)):
        tap.case("every rule has code and a test, or says that it has not", list(bad_rows(root, conformance)))
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
