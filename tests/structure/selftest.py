#!/usr/bin/python3
"""The structural tests and the text rules can fail: each is run on small trees with one planted breach each.

usage: selftest.py     TAP on standard output
"""
import os
import shutil
import subprocess
import sys
import tempfile

from tap import Tap

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "..", "..", "scripts")
MARK = "TO" + "DO"
MACHINE = "/" + "root" + "/socks6"

# what is planted: {path: text}, and a piece of the complaint that must follow
INCLUDES = [
    ("wire includes core", {"lib/wire/a.c": '#include "core/server.h"\n'}, 'may not include "core/..."'),
    ("base includes wire", {"lib/base/a.h": '#include "wire/addr.h"\n'}, 'may not include "wire/..."'),
    ("core includes io", {"lib/core/a.c": '#include "io/loop.h"\n'}, 'may not include "io/..."'),
    ("core includes <stdio.h>", {"lib/core/a.c": "#include <stdio.h>\n"}, "may not include <stdio.h>"),
    ("core includes <errno.h>", {"lib/core/a.c": "#  include <errno.h>\n"}, "may not include <errno.h>"),
    ("wire includes <sys/socket.h>", {"lib/wire/a.c": "#include <sys/socket.h>\n"}, "may not include <sys/socket.h>"),
    ("core includes <stdlib.h>", {"lib/core/a.c": "#include <stdlib.h>\n"}, "may not include <stdlib.h>"),
    ("wire includes the dialer", {"lib/wire/a.c": "#include <socks6/dial.h>\n"}, "may not include <socks6/dial.h>"),
    ("io includes a SOCKS header", {"src/io/a.c": "#include <socks6/server.h>\n"}, "may not include <socks6/server.h>"),
    ("io includes the daemon", {"src/io/a.c": '#include "proxyd/conn.h"\n'}, 'may not include "proxyd/..."'),
    ("the daemon includes wire", {"src/proxyd/a.c": '#include "wire/message.h"\n'}, 'may not include "wire/..."'),
    ("the client includes core", {"src/cli/a.h": '#include "core/client.h"\n'}, 'may not include "core/..."'),
    ("the client includes the daemon", {"src/cli/a.c": '#include "proxyd/log.h"\n'}, 'may not include "proxyd/..."'),
    ("no layer spelled", {"src/io/a.c": '#include "loop.h"\n'}, "does not spell its layer"),
    ("computed include", {"src/io/a.c": "#include HEADER\n"}, "is computed"),
    ("public header in quotes", {"src/cli/a.c": '#include "socks6/types.h"\n'}, "is public"),
    ("public header includes the system", {"include/socks6/a.h": "#include <sys/types.h>\n"}, "no system header but"),
    ("own header comes second", {"src/io/a.h": "", "src/io/a.c": '#include <errno.h>\n#include "io/a.h"\n'},
     "is not its first include"),
    ("own header is missing", {"lib/base/a.h": "", "lib/base/a.c": "int a;\n"}, "is not its first include"),
    ("feature macro in a pure layer", {"lib/wire/a.c": "#define _GNU_SOURCE\n"}, "defines _GNU_SOURCE"),
    ("file outside of the layers", {"src/new/a.c": "int a;\n"}, "in no layer"),
]
HEADERS = [
    ("header needs another one", {"src/io/a.h": "uint32_t a(void);\n"}, "not ok 1 - src/io/a.h compiles alone"),
    ("no include guard", {"lib/wire/a.h": "struct a { int b; };\n"}, "not ok 1 - lib/wire/a.h compiles alone"),
    ("POSIX in a pure header", {"lib/base/a.h": "#include <signal.h>\nextern sigset_t a;\n"},
     "not ok 1 - lib/base/a.h compiles alone"),
    ("public header is not C99", {"include/socks6/a.h": "_Static_assert(1, \"\");\n"}, "a.h is C99"),
    ("public header is not C++", {"include/socks6/a.h": "int a(int class);\n"}, "a.h is C++"),
]
TEXTS = [
    ("trailing space", {"doc/a.md": "text \n"}, "doc/a.md:1: white space"),
    ("path of a machine", {"src/a.c": f"/* see {MACHINE} */\n"}, "src/a.c:1: path of one"),
    ("mark of unfinished work", {"lib/a.c": f"int a;\n/* {MARK}: more */\n"}, "lib/a.c:2: mark of"),
    ("tab", {"lib/a.c": "\tint a;\n"}, "lib/a.c:1: tab"),
    ("no newline at the end", {"README.md": "text"}, "README.md:1: no newline"),
]
DOCS = [
    ("link to nowhere", {"README.md": "[a](doc/gone.md)\n"}, "link to doc/gone.md"),
    ("file that is not there", {"doc/a.md": "`lib/base/gone.c`\n"}, "lib/base/gone.c does not exist"),
    ("name that is not there", {"doc/a.md": "`lib/base/a.c: f, g`\n", "lib/base/a.c": "int f;\n"}, "no g in lib/base/a.c"),
    ("rule without a test", {"doc/conformance.md": "| rule | `lib/a.c` | none |\n", "lib/a.c": ""}, "names no code or no test"),
    ("code in place of a test", {"doc/conformance.md": "| rule | `lib/a.c` | `lib/a.c` |\n", "lib/a.c": ""}, "the test is none"),
    ("test without code", {"doc/conformance.md": "| rule | not yet | `tests/a.c` |\n", "tests/a.c": ""}, "a test without code"),
    ("row of another shape", {"doc/conformance.md": "| rule | `lib/a.c` |\n", "lib/a.c": ""}, "2 columns"),
]
PAGES = [
    ("name that is not the file's", {"man/a.1.scd": "a(1)\n\n# NAME\n\nb - text\n"}, "a.1 has its name"),
    ("another section", {"man/a.1.scd": "a(8)\n\n# NAME\n\na - text\n"}, "a.1 has its name"),
    ("page that is not there", {"man/a.1.scd": "a(1)\n\n# NAME\n\na - text, see socks6x(3)\n"}, "pages that exist"),
    ("page that does not build", {"man/a.1.scd": "a\n"}, "a.1 builds"),
]
SOURCES = [
    ("source in no meson.build", {"src/io/meson.build": "files('a.c')", "src/meson.build": "subdir('io')",
                                  "meson.build": "subdir('src')", "src/io/a.c": "", "src/io/b.c": ""},
     "src/io/b.c: in no meson.build"),
    ("commented out", {"src/meson.build": "# 'a.c'", "meson.build": "subdir('src')", "src/a.c": ""}, "src/a.c: in no"),
    ("page in no meson.build", {"man/meson.build": "'b.1'", "meson.build": "subdir('man')", "man/a.1.scd": ""}, "man/a.1.scd"),
    ("folder that nothing leads to", {"lib/a/meson.build": "files('a.c')", "lib/meson.build": "", "meson.build": "subdir('lib')",
                                      "lib/a/a.c": ""}, "lib/a/meson.build: no subdir"),
]
GOOD_TREE = {
    "meson.build": "subdir('lib')\nsubdir('src')\nsubdir('tests')\n",
    "lib/meson.build": "files('base/a.c')\n",
    "src/meson.build": "subdir('io')\n",
    "src/io/meson.build": "files('b.c')\n",
    "tests/meson.build": "foreach name : ['a']\n",
    "README.md": "[a](doc/conformance.md), [b](https://example.org/)\n",
    "doc/conformance.md": "| rule | code | test |\n|---|---|---|\n| a | `lib/base/a.c: include` | `tests/a.c` |\n"
                          "| b | not yet | not yet |\n",
    "tests/a.c": "int a;\n",
    "include/socks6/types.h": "#ifndef T\n#define T\n#include <stdint.h>\nstruct t { uint32_t a; };\n#endif\n",
    "lib/base/a.h": "#ifndef A\n#define A\n#include <stddef.h>\nstruct a { size_t a; };\n#endif\n",
    "lib/base/a.c": '#include "base/a.h"\n\n#include <string.h>\n',
    "src/io/b.c": "#include <sys/socket.h>\n\n#include <socks6/types.h>\n",
}


def run(checker, tree):
    """(exit status, output) of a checker on a tree made for it."""
    folder = tempfile.mkdtemp(prefix="socks6-structure-")
    try:
        for path, text in tree.items():
            path = os.path.join(folder, path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        done = subprocess.run([sys.executable, "-B", checker, folder], capture_output=True, text=True, timeout=120,
                              check=False)
        return done.returncode, done.stdout + done.stderr
    finally:
        shutil.rmtree(folder)


def expect_failure(tap, what, checker, plants):
    for name, tree, complaint in plants:
        status, output = run(checker, tree)
        lines = [row for row in output.splitlines() if complaint in row and not row.startswith("ok ")]
        problems = [] if status == 1 and lines else [f"exit status {status}, and said:"] + output.splitlines()
        tap.case(f"{what} refuses: {name}", problems)


def expect_success(tap, what, checker):
    status, output = run(checker, GOOD_TREE)
    tap.case(f"{what} accepts a good tree", [] if status == 0 else output.splitlines())


def check_symbols(tap):
    """A library that exports one listed name, one unlisted, one with a foreign prefix, and lacks a listed one."""
    folder = tempfile.mkdtemp(prefix="socks6-structure-")
    try:
        source = os.path.join(folder, "a.c")
        listing = os.path.join(folder, "symbols.txt")
        with open(source, "w", encoding="utf-8") as file:
            file.write("int socks6_listed; int socks6_extra; int helper;\n")
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run(compiler + ["-shared", "-fPIC", "-o", os.path.join(folder, "libsocks6.so"), source], check=True)
        for names, expected in (
                (["socks6_gone", "socks6_listed"], {"begin with socks6_", "function is listed", "is exported"}),
                (["helper", "socks6_extra", "socks6_listed"], {"begin with socks6_"}),
                (["socks6_listed", "socks6_extra", "helper"], {"begin with socks6_", "in order"})):
            with open(listing, "w", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in names)
            done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "check_symbols.py"), listing, folder],
                                  capture_output=True, text=True, timeout=60, check=False)
            bad = [row for row in done.stdout.splitlines() if row.startswith("not ok")]
            right = len(bad) == len(expected) and all(any(part in row for row in bad) for part in expected)
            tap.case(f"symbols: {', '.join(names)}", [] if right and done.returncode == 1 else done.stdout.splitlines())
        os.remove(os.path.join(folder, "libsocks6.so"))
        done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "check_symbols.py"), listing, folder],
                              capture_output=True, text=True, timeout=60, check=False)
        tap.case("symbols: no library", [] if done.returncode == 1 else ["was content"])
        check_preload(tap, folder, listing, compiler)
    finally:
        shutil.rmtree(folder)


def check_preload(tap, folder, listing, compiler):
    """A library that replaces one function that is listed and one that is not, and needs libm."""
    source, library = os.path.join(folder, "b.c"), os.path.join(folder, "preload.so")
    with open(source, "w", encoding="utf-8") as file:
        file.write("double sin(double);\n"
                   "int connect(void) { return 0; } double bind(double x) { return sin(x); }\n")
    subprocess.run(compiler + ["-fno-builtin", "-w", "-shared", "-fPIC", "-o", library, source, "-Wl,--no-as-needed", "-lm"], check=True)
    with open(listing, "w", encoding="utf-8") as file:
        file.write("connect\ngone\n")
    done = subprocess.run([sys.executable, "-B", os.path.join(HERE, "check_symbols.py"), "--preload", listing, library],
                          capture_output=True, text=True, timeout=60, check=False)
    bad = [row for row in done.stdout.splitlines() if row.startswith("not ok")]
    expected = ("that it exports is listed", "listed function is exported", "needs libc")
    right = len(bad) == len(expected) and all(any(part in row for row in bad) for part in expected)
    tap.case("symbols: the preloaded library", [] if right and done.returncode == 1 else done.stdout.splitlines())


def main():
    tap = Tap()
    if shutil.which("scdoc") and shutil.which("mandoc"):
        expect_failure(tap, "manual pages", os.path.join(HERE, "check_man.py"), PAGES)
    else:
        tap.skip("manual pages", "scdoc or mandoc is not installed")
    for what, checker, plants in (("includes", os.path.join(HERE, "check_includes.py"), INCLUDES),
                                  ("headers", os.path.join(HERE, "check_headers.py"), HEADERS),
                                  ("texts", os.path.join(SCRIPTS, "check_text.py"), TEXTS),
                                  ("sources", os.path.join(HERE, "check_sources.py"), SOURCES),
                                  ("documents", os.path.join(HERE, "check_docs.py"), DOCS)):
        expect_success(tap, what, checker)
        expect_failure(tap, what, checker, plants)
    check_symbols(tap)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main())
