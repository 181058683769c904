#!/usr/bin/python3
"""Manual pages: each builds, mandoc finds no error, its name section fits its file, pages of ours that it refers to exist,
and socks6d(8) has every option that socks6d --help lists.

usage: check_man.py ROOT [SOCKS6D]     TAP on standard output
"""
import os
import re
import shutil
import subprocess
import sys

from tap import Tap

OPTION = re.compile(r"(?<![\w-])(--?[a-zA-Z][a-zA-Z0-9-]*)")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def build(source):
    """(page as roff, complaints)"""
    done = subprocess.run(["scdoc"], input=source, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout, done.stderr.splitlines() if done.returncode else []


def lint(page):
    """What is worse than style and warnings: scdoc's own macros cause many of these."""
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "error"], input=page, capture_output=True, text=True, timeout=60,
                          check=False)
    return done.stdout.splitlines() + ([] if done.returncode == 0 else [f"exit status {done.returncode}"])


def plain(page):
    done = subprocess.run(["mandoc", "-T", "ascii", "-O", "width=200"], input=page, capture_output=True, text=True,
                          timeout=60, check=True)
    return re.sub(r".\x08", "", done.stdout)


def wrong_name(name, section, text):
    title = rf"^{re.escape(name)}\({section}\)"
    found = re.search(r"^NAME\n\s+(.*)$", text, re.MULTILINE)
    problems = [] if re.search(title, text, re.IGNORECASE) else [f"the title is not {name}({section})"]
    if not found or not found.group(1).startswith(name + " - "):
        problems.append(f"its NAME section is not '{name} - ...'")
    return problems


def missing_pages(text, pages):
    ours = set(re.findall(r"\b(socks6[a-z.-]*)\((\d)\)", text))
    return [f"refers to {name}({section})" for name, section in sorted(ours) if f"{name}.{section}" not in pages]


def check_options(tap, text, socks6d):
    done = subprocess.run([socks6d, "--help"], capture_output=True, text=True, timeout=60, check=True)
    options = sorted(set(OPTION.findall(done.stdout)))
    problems = [f"{option} is not documented" for option in options
                if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text)]
    tap.case("socks6d(8) has every option of --help", problems if options else ["--help lists no option"])


def main(root, socks6d=None):
    tap = Tap()
    folder = os.path.join(root, "man")
    pages = {name[:-4] for name in os.listdir(folder) if name.endswith(".scd")}
    tap.case("there are manual pages", [] if pages else ["none in man/"])
    if not (shutil.which("scdoc") and shutil.which("mandoc")):
        tap.skip("manual pages", "scdoc or mandoc is not installed")
        return tap.done()
    for page in sorted(pages):
        name, _, section = page.rpartition(".")
        roff, complaints = build(read(os.path.join(folder, page + ".scd")))
        tap.case(f"{page} builds", complaints)
        if complaints:
            continue
        text = plain(roff)
        tap.case(f"{page} has no errors", lint(roff))
        tap.case(f"{page} has its name", wrong_name(name, section, text))
        tap.case(f"{page} refers to pages that exist", missing_pages(text, pages))
        if page == "socks6d.8" and socks6d:
            check_options(tap, text, socks6d)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
