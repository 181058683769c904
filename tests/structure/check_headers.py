#!/usr/bin/python3
"""Every header compiles alone, and twice in one unit. Public ones also as C99 and as C++.

usage: check_headers.py [ROOT [CC]]     TAP on standard output, exit status 1 if one does not
"""
import os
import shutil
import subprocess
import sys

from tap import Tap

WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wundef", "-Werror", "-fsyntax-only"]
C17 = ["-x", "c", "-std=c17", "-Wstrict-prototypes"]


def headers(root, top):
    for folder, folders, names in os.walk(os.path.join(root, top)):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".h"):
                yield os.path.relpath(os.path.join(folder, name), root)


def compile_alone(root, compiler, options, path):
    """The compiler's complaints as a list of lines; empty if it is content."""
    include = os.path.abspath(os.path.join(root, path))
    unit = f'#include "{include}"\n#include "{include}"\n'
    # What includes nothing but a header would be an empty unit, which C forbids.
    unit += "extern int structure_check;\n"
    command = compiler + options + WARNINGS
    command += [f"-I{os.path.join(root, top)}" for top in ("include", "lib", "src")] + ["-"]
    run = subprocess.run(command, input=unit, capture_output=True, text=True, timeout=60, check=False)
    if run.returncode == 0:
        return []
    return [f"{' '.join(compiler + options)}:"] + run.stderr.splitlines()[:12]


def cxx():
    for name in ("g++", "clang++", "c++"):
        if shutil.which(name):
            return [name]
    return None


def main(root, compiler):
    tap = Tap()
    for top in ("include", "lib", "src"):
        for path in headers(root, top):
            pure = path.startswith(("include/", "lib/")) and not path.startswith("lib/dial/")
            options = C17 if pure else C17 + ["-D_GNU_SOURCE"]
            tap.case(f"{path} compiles alone", compile_alone(root, compiler, options, path))
    cxx_compiler = cxx()
    for path in headers(root, "include"):
        tap.case(f"{path} is C99", compile_alone(root, compiler, ["-x", "c", "-std=c99"], path))
        if cxx_compiler:
            tap.case(f"{path} is C++", compile_alone(root, cxx_compiler, ["-x", "c++", "-std=c++11"], path))
        else:
            tap.skip(f"{path} is C++", "no C++ compiler")
    return tap.done()


if __name__ == "__main__":
    ROOT = sys.argv[1] if len(sys.argv) > 1 else "."
    sys.exit(main(ROOT, sys.argv[2:] or os.environ.get("CC", "cc").split()))
