#!/usr/bin/python3
"""The library exports what tests/structure/symbols.txt lists, and nothing else; all of it begins with socks6_.

usage: check_symbols.py LIST FOLDER           compare; the library is searched for below FOLDER, a build directory
       check_symbols.py --write LIST FOLDER   write the list anew
       check_symbols.py --preload LIST FILE   the same for what `socks6 run` loads: it replaces functions of libc, and needs libc alone

TAP on standard output, exit status 1 if they differ.
"""
import os
import re
import subprocess
import sys

from tap import Tap

HEAD = """\
# Functions that libsocks6.so exports: its binary interface. To write this list anew after a change that is meant:
#     tests/structure/check_symbols.py --write tests/structure/symbols.txt build/release
"""
# What sanitizers and the linker add by themselves.
FOREIGN = ("__odr_asan", "__asan", "__ubsan", "__sanitizer", "__gcov", "__llvm", "__start_", "__stop_",
           "_init", "_fini", "__bss_start", "_edata", "_end")


def find(folder, name):
    found = [os.path.join(where, name) for where, _, names in os.walk(folder) if name in names]
    return found[0] if len(found) == 1 else None


def names(path, options):
    """Defined global symbols."""
    run = subprocess.run(["nm", *options, "--defined-only", "--format=posix", path], capture_output=True, text=True,
                         timeout=60, check=True)
    rows = [row.split() for row in run.stdout.splitlines()]
    return sorted({row[0] for row in rows if len(row) >= 2 and not row[0].startswith(FOREIGN)})


def read_list(path):
    with open(path, encoding="utf-8") as file:
        return [row.strip() for row in file if row.strip() and not row.startswith("#")]


def write_list(path, folder):
    with open(path, "w", encoding="utf-8") as file:
        file.write(HEAD)
        file.writelines(f"{name}\n" for name in names(find(folder, "libsocks6.so"), ["-D"]))
    return 0


def main(path, folder):
    tap = Tap()
    shared = find(folder, "libsocks6.so")
    if shared is None:
        tap.case("libsocks6.so is built", [f"not found, or found twice, below {folder}"])
        return tap.done()
    exported = names(shared, ["-D"])
    listed = read_list(path)
    tap.case("libsocks6.so exports something", [] if exported else ["nothing"])
    tap.case("exported names begin with socks6_", [n for n in exported if not n.startswith("socks6_")])
    tap.case("every exported function is listed", [n for n in exported if n not in listed])
    tap.case("every listed function is exported", [n for n in listed if n not in exported])
    tap.case("the list is in order and has no duplicates", [] if listed == sorted(set(listed)) else ["sort it"])
    static = find(folder, "libsocks6.a")
    if static is not None:
        tap.case("global names in libsocks6.a begin with socks6_ or s6_",
                 [n for n in names(static, ["-g"]) if not n.startswith(("socks6_", "s6_")) and "[" not in n])
    return tap.done()


def main_preload(path, shared):
    tap = Tap()
    exported, listed = names(shared, ["-D"]), read_list(path)
    run = subprocess.run(["readelf", "-d", "-W", shared], capture_output=True, text=True, timeout=60, check=True)
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run.stdout)
    tap.case("the preloaded library exports something", [] if exported else ["nothing"])
    tap.case("every function that it exports is listed", [n for n in exported if n not in listed])
    tap.case("every listed function is exported", [n for n in listed if n not in exported])
    tap.case("the list is in order and has no duplicates", [] if listed == sorted(set(listed)) else ["sort it"])
    tap.case("it needs libc and no other library", [n for n in needed if not n.startswith(("libc.so", "ld-linux"))])
    return tap.done()


if __name__ == "__main__":
    if sys.argv[1] == "--preload":
        sys.exit(main_preload(sys.argv[2], sys.argv[3]))
    if sys.argv[1] == "--write":
        sys.exit(write_list(sys.argv[2], sys.argv[3]))
    sys.exit(main(sys.argv[1], sys.argv[2]))
