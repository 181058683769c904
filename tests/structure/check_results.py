#!/usr/bin/python3
"""scripts/results.py counts right: on a small meson project and a small pytest run with cases of every outcome.

usage: check_results.py [ROOT]     TAP on standard output
"""
import os
import subprocess
import sys
import tempfile

from tap import Tap

MESON_BUILD = """
project('probe')
sh = find_program('sh')
test('good', sh, args: ['-c', 'printf "ok 1 - a\\\\nok 2 - b\\\\n1..2\\\\n"'], protocol: 'tap', suite: 'unit')
test('bad', sh, args: ['-c', 'printf "ok 1 - c\\\\nnot ok 2 - d\\\\n1..2\\\\n"'], protocol: 'tap', suite: 'unit')
test('skips', sh, args: ['-c', 'printf "ok 1 - e # SKIP no network\\\\n1..1\\\\n"'], protocol: 'tap')
test('crashes', sh, args: ['-c', 'printf "ok 1 - f\\\\n"; kill -SEGV $$'], protocol: 'tap')
test('too few', sh, args: ['-c', 'printf "ok 1 - g\\\\n1..3\\\\n"'], protocol: 'tap')
test('status', sh, args: ['-c', 'printf "ok 1 - h\\\\n1..1\\\\n"; exit 7'], protocol: 'tap')
test('hangs', sh, args: ['-c', 'printf "ok 1 - i\\\\n"; sleep 20'], protocol: 'tap', timeout: 1)
test('hangs silently', sh, args: ['-c', 'sleep 20'], timeout: 1)
test('plain good', sh, args: ['-c', 'exit 0'])
test('plain bad', sh, args: ['-c', 'exit 1'])
test('plain skip', sh, args: ['-c', 'exit 77'])
test('not xml', sh, args: ['-c', 'printf "# \\\\033\\\\001\\\\nok 1 - j\\\\n1..1\\\\n"'], protocol: 'tap')
"""
MESON_EXPECTED = {
    "good: a": "pass", "good: b": "pass", "bad: c": "pass", "bad: d": "fail", "skips: e": "skip",
    "crashes: f": "pass", "crashes: program": "fail", "too few: g": "pass", "too few: program": "fail",
    "status: h": "pass", "status: program": "fail", "hangs: i": "pass", "hangs: program": "fail",
    "hangs silently": "fail", "plain good": "pass", "plain bad": "fail", "plain skip": "skip", "not xml: j": "pass",
}
PYTEST_FILE = """
import pytest


def test_good():
    pass


def test_bad():
    assert False, "as planned"


@pytest.mark.skip(reason="no network")
def test_skipped():
    pass


@pytest.fixture
def broken():
    raise RuntimeError("fixture")


def test_error(broken):
    pass


@pytest.mark.parametrize("n", [1, 2])
def test_many(n):
    assert n
"""
PYTEST_EXPECTED = {
    "test_probe: test_good": "pass", "test_probe: test_bad": "fail", "test_probe: test_skipped": "skip",
    "test_probe: test_error": "fail", "test_probe: test_many[1]": "pass", "test_probe: test_many[2]": "pass",
}


def results(script, *args, **environment):
    done = subprocess.run([sys.executable, "-B", script, *args], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "CI": "", **environment}, check=False)
    return done.returncode, done.stdout


def compare(output, expected):
    found = {}
    for row in output.splitlines():
        status, stage, name, _ = row.split("\t")
        found.setdefault(name, []).append(f"{stage}:{status}")
    wanted = {name: [f"s:{status}"] for name, status in expected.items()}
    return [f"{name}: {found.get(name)}, expected {wanted.get(name)}"
            for name in sorted(found.keys() | wanted.keys()) if found.get(name) != wanted.get(name)]


def check_meson(tap, script, folder):
    with open(os.path.join(folder, "meson.build"), "w", encoding="utf-8") as file:
        file.write(MESON_BUILD)
    build = os.path.join(folder, "build")
    for command in (["setup", build, folder], ["test", "-C", build]):
        subprocess.run(["meson", *command], capture_output=True, timeout=100, check=False)
    status, output = results(script, "meson", "s", build)
    tap.case("meson: every outcome is seen", compare(output, MESON_EXPECTED) if status == 0 else [f"exit {status}"])
    return output


def check_pytest(tap, script, folder):
    name = "pytest: every outcome is seen"
    if subprocess.run(["/usr/bin/python3", "-c", "import pytest"], capture_output=True, check=False).returncode:
        tap.skip(name, "no pytest")
        return
    path = os.path.join(folder, "test_probe.py")
    with open(path, "w", encoding="utf-8") as file:
        file.write(PYTEST_FILE)
    report = os.path.join(folder, "report.xml")
    subprocess.run(["/usr/bin/python3", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", path],
                   capture_output=True, timeout=100, cwd=folder, check=False)
    status, output = results(script, "pytest", "s", report)
    tap.case(name, compare(output, PYTEST_EXPECTED) if status == 0 else [f"exit {status}"])


def check_summary(tap, script, folder, cases):
    def listing(name, text):
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def last(*args, **environment):
        status, output = results(script, "summary", *args, **environment)
        return status, output.splitlines()[-1]

    def case(name, seen, wanted):
        tap.case(f"summary: {name}", [] if seen == wanted else [f"{seen}, expected {wanted}"])

    everything = listing("all", cases)
    good = listing("good", "pass\ts\ta\t\npass\ts\tb\t\n")
    skips = listing("skips", "pass\ts\ta\t\nskip\ts\tb\tno network\n")
    nothing = listing("nothing", "")
    case("counts and fails", last(everything), (1, "9 passed, 7 failed, 2 skipped"))
    case("good", last(good), (0, "2 passed, 0 failed, 0 skipped"))
    case("a skip is no failure", last(skips), (0, "1 passed, 0 failed, 1 skipped"))
    case("with CI=true it is", last(skips, CI="true"), (1, "1 passed, 1 failed, 0 skipped"))
    case("several lists", last(good, skips), (0, "3 passed, 0 failed, 1 skipped"))
    case("nothing ran", last(nothing), (1, "0 passed, 0 failed, 0 skipped"))
    _, output = results(script, "summary", skips, CI="true")
    case("the skip is named", "SKIPPED, which CI counts as failed: s: b (no network)" in output, True)


def main(root):
    tap = Tap()
    script = os.path.join(os.path.abspath(root), "scripts", "results.py")
    with tempfile.TemporaryDirectory(prefix="socks6-results-") as folder:
        cases = check_meson(tap, script, folder)
        check_summary(tap, script, folder, cases)
        check_pytest(tap, script, folder)
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
