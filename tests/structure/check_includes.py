#!/usr/bin/python3
"""Who may include whom: every #include of the library and of the programs goes in the direction of doc/architecture.md.

usage: check_includes.py [ROOT]     TAP on standard output, exit status 1 if a rule is broken

Per folder it also checks that a .c file includes its own header first, that quoted includes spell their layer, and that
the library's pure layers ask for no feature-test macro. Long files are pointed out, but are no failure.
"""
import os
import re
import sys

from tap import Tap

# The C headers that hold no operating system. <stdlib.h> is there for the default allocator alone.
PURE = {"assert.h", "stdbool.h", "stddef.h", "stdint.h", "string.h"}
ANY_SYSTEM = None
PUBLIC = {"dial.h", "client.h", "error.h", "server.h", "socks6.h", "types.h", "udp.h", "session.h"}

# folder -> (first parts of quoted includes, public headers, system headers)
RULES = {
    "include/socks6": (set(), PUBLIC, {"stddef.h", "stdint.h"}),
    "lib/base": ({"base"}, {"types.h", "error.h"}, PURE | {"stdlib.h"}),
    "lib/wire": ({"base", "wire"}, PUBLIC - {"dial.h", "socks6.h"}, PURE),
    "lib/core": ({"base", "wire", "core"}, PUBLIC - {"dial.h", "socks6.h"}, PURE),
    "lib/dial": ({"dial"}, PUBLIC, ANY_SYSTEM),
    "src/io": ({"io"}, {"types.h"}, ANY_SYSTEM),
    "src/dns": ({"io", "dns"}, {"types.h"}, ANY_SYSTEM),
    "src/proxyd": ({"io", "dns", "proxyd"}, PUBLIC, ANY_SYSTEM),
    "src/run": ({"base", "wire", "run"}, {"types.h", "error.h"}, ANY_SYSTEM),
    "src/cli": ({"io", "dns", "run", "cli"}, PUBLIC, ANY_SYSTEM),
    "src/preload": ({"run", "preload"}, {"types.h"}, ANY_SYSTEM),
}
PURE_FOLDERS = ("lib/base", "lib/wire", "lib/core")

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(.*)$', re.MULTILINE)
TARGET = re.compile(r'([<"])([^>"]+)[>"]')
FEATURE_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(_GNU_SOURCE|_POSIX_C_SOURCE|_XOPEN_SOURCE|_DEFAULT_SOURCE)\b", re.MULTILINE)
LONG_FILE = 800


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def sources(root, top):
    """Paths below `top` of all C files, relative to root."""
    for folder, folders, names in os.walk(os.path.join(root, top)):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".c", ".h")):
                yield os.path.relpath(os.path.join(folder, name), root)


def includes(text):
    """(line number, '<' or '"', target) of every #include; the target of a computed one is its text, kind '?'."""
    for match in INCLUDE.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        target = TARGET.match(match.group(1).strip())
        yield (number, *target.groups()) if target else (number, "?", match.group(1).strip())


def judge(rule, kind, target):
    """Why this include is wrong, or None."""
    layers, public, system = rule
    first, slash, rest = target.partition("/")
    if kind == "?":
        return "is computed; write the header's name"
    if kind == '"':
        if not slash:
            return "does not spell its layer"
        if first == "socks6":
            return "is public: write <socks6/...>"
        return None if first in layers else f'may not include "{first}/..."'
    if first == "socks6" and slash:
        return None if rest in public else f"may not include <{target}>"
    if system is not ANY_SYSTEM and target not in system:
        return f"may not include <{target}>: no system header but {', '.join(sorted(system))}"
    return None


def check_file(root, folder, path):
    text = read(os.path.join(root, path))
    found = list(includes(text))
    problems = []
    for number, kind, target in found:
        why = judge(RULES[folder], kind, target)
        if why:
            problems.append(f"{path}:{number}: {target}: {why}")
    own = path[:-2] + ".h"
    if path.endswith(".c") and os.path.exists(os.path.join(root, own)):
        spelled = own.split("/", 1)[1]
        if not found or found[0][1:] != ('"', spelled):
            problems.append(f'{path}: "{spelled}", its own header, is not its first include')
    if folder in PURE_FOLDERS:
        for match in FEATURE_MACRO.finditer(text):
            problems.append(f"{path}: defines {match.group(1)}; this layer is plain C17")
    return problems


def folder_of(path):
    for folder in RULES:
        if path.startswith(folder + "/"):
            return folder
    return None


def main(root):
    tap = Tap()
    problems = {folder: [] for folder in RULES}
    seen = {folder: 0 for folder in RULES}
    homeless = []
    for top in ("include", "lib", "src"):
        for path in sources(root, top):
            folder = folder_of(path)
            if folder is None:
                homeless.append(f"{path}: in no layer of tests/structure/check_includes.py")
                continue
            seen[folder] += 1
            problems[folder] += check_file(root, folder, path)
            lines = read(os.path.join(root, path)).count("\n")
            if lines > LONG_FILE:
                tap.note(f"hint: {path} has {lines} lines; could it be two files?")
    for folder in RULES:
        if seen[folder]:
            tap.case(f"includes of {folder} ({seen[folder]} files)", problems[folder])
    tap.case("every source file belongs to a layer", homeless)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
