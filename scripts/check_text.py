#!/usr/bin/python3
"""Plain-text rules for every text file of the tree: prints FILE:LINE: what for each breach; exit status 1 if any.

usage: check_text.py [ROOT]
"""
import os
import re
import sys

SKIP_DIRS = {".git", "__pycache__", ".pytest_cache", "node_modules"}
# Spelled in two halves so that this file passes its own rules.
UNFINISHED = re.compile(r"\b(TO" "DO|FIX" "ME|X" "XX)\\b")
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root)/")


def files(root):
    for folder, folders, names in os.walk(root):
        top = os.path.relpath(folder, root) == "."
        folders[:] = sorted(f for f in folders if f not in SKIP_DIRS and not (top and f.startswith("build")))
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def text_of(path):
    """The file's text, or None for what is not text (a fuzz input, a certificate in binary form)."""
    with open(path, "rb") as file:
        raw = file.read()
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def breaches(path, text):
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end of the file"
    if text.endswith("\n\n"):
        yield text.count("\n"), "empty line at the end of the file"
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip():
            yield number, "white space at the end of the line"
        if "\t" in line and path.endswith((".c", ".h", ".py", ".sh", ".yaml", ".md")):
            yield number, "tab (indent with spaces)"
        if MACHINE_PATH.search(line):
            yield number, "path of one particular machine"
        if UNFINISHED.search(line):
            yield number, "mark of unfinished work"


def main(root):
    found = 0
    for path in files(root):
        relative = os.path.relpath(path, root)
        # Inputs for tests are what they are.
        if relative.startswith(("fuzz/corpus/", "tests/vectors/")):
            continue
        text = text_of(path)
        for number, what in breaches(relative, text) if text is not None else ():
            print(f"{relative}:{number}: {what}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
