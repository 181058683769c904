#!/usr/bin/python3
"""No source file is forgotten: each .c file is named in the meson.build of its folder or of one above it, each manual page
in man/meson.build, and each folder with sources is reached.

usage: check_sources.py [ROOT]     TAP on standard output, exit status 1 if one is forgotten
"""
import os
import re
import sys

from tap import Tap

TOPS = ("lib", "src", "tests", "fuzz", "bench", "man")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def above(folder):
    """The folder and those above it, up to the root."""
    while folder:
        yield folder
        folder = os.path.dirname(folder)
    yield ""


def all_builds(root):
    """The text of every meson.build below the tops, in one."""
    found = []
    for top in TOPS:
        for folder, _, names in os.walk(os.path.join(root, top)):
            found += [read(os.path.join(folder, name)) for name in names if name == "meson.build"]
    return "\n".join(found)


def is_named(root, path, builds):
    """A meson.build of its folder or above names the file, whole or without its ending (test programs are often listed by
    name); or one elsewhere names it together with its folder."""
    elsewhere = os.path.join("/" + os.path.basename(os.path.dirname(path)), os.path.basename(path))
    if f"..{elsewhere}'" in builds:
        return True
    name = os.path.basename(path)
    stem = name.rsplit(".", 1)[0]
    short = re.sub(r"^(test|fuzz)_", "", stem)
    for folder in above(os.path.dirname(path)):
        build = os.path.join(root, folder, "meson.build")
        if os.path.exists(build):
            text = re.sub(r"#.*", "", read(build))
            if any(re.search(rf"(?<![A-Za-z0-9_-]){re.escape(word)}(?![A-Za-z0-9_-])", text) for word in {name, stem, short}):
                return True
    return False


def is_reached(root, folder):
    """The meson.build above has a subdir() for it."""
    return not folder or any(
        re.search(rf"subdir\(\s*'{re.escape(os.path.relpath(folder, upper) if upper else folder)}'", read(build))
        for upper in above(os.path.dirname(folder))
        for build in [os.path.join(root, upper, "meson.build")] if os.path.exists(build))


def main(root):
    tap = Tap()
    builds = all_builds(root)
    for top in TOPS:
        sources, unreached = [], []
        for folder, folders, names in os.walk(os.path.join(root, top)):
            folders.sort()
            where = os.path.relpath(folder, root)
            sources += [os.path.join(where, name) for name in sorted(names) if name.endswith((".c", ".scd"))]
            if "meson.build" in names and not is_reached(root, where):
                unreached.append(f"{where}/meson.build: no subdir() leads there")
        if sources:
            tap.case(f"sources of {top} are built ({len(sources)} files)",
                     [f"{path}: in no meson.build" for path in sources if not is_named(root, path, builds)] + unreached)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
