#!/usr/bin/python3
"""Turns the reports of meson and pytest into one list of test cases, and that list into a summary.

Used by scripts/test.sh. A list has one line per case: status (pass, fail, skip), stage, name and a note, divided by
tabs.

    results.py meson STAGE BUILD_DIR     cases of the last `meson test` there, appended to standard output
    results.py pytest STAGE JUNIT_XML    the same for pytest --junitxml
    results.py counts LIST               one line for a stage
    results.py summary LIST...           the end of a run; exit status 1 if anything failed

With CI=true in the environment a skipped case counts as failed, here and in no other place.
"""
import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

GOOD = {"OK", "EXPECTEDFAIL"}
# What XML 1.0 does not allow, although a test's output may hold it and meson writes it as it came.
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TAP_NUMBER = re.compile(r"^\d+ - ")


def clean(text):
    return " ".join((text or "").split())


def line(status, stage, name, note=""):
    print("\t".join((status, stage, clean(name)[:200], clean(note)[:300])))


def read_xml(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return ElementTree.fromstring(NOT_XML.sub("?", file.read()).encode())


def outcome(case):
    """(status, note) of one JUnit test case."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return "fail", found.get("message") or clean(found.text) or clean(case.findtext("system-out"))
    found = case.find("skipped")
    if found is not None:
        return "skip", found.get("message") or clean(case.findtext("system-out")) or "no reason given"
    return "pass", ""


def from_meson(stage, build_dir):
    """JUnit has the cases inside of TAP tests; the JSON log knows programs that crashed, hung or said nothing."""
    logs = os.path.join(build_dir, "meson-logs")
    inner = {}
    for suite in read_xml(os.path.join(logs, "testlog.junit.xml")).iter("testsuite"):
        _, dot, test = suite.get("name").partition(".")
        if dot:
            inner[test] = [(TAP_NUMBER.sub("", case.get("name")), *outcome(case)) for case in suite.iter("testcase")]
    with open(os.path.join(logs, "testlog.json"), encoding="utf-8", errors="replace") as file:
        tests = [json.loads(row) for row in file if row.strip()]
    for test in tests:
        cases = inner.get(test["name"], [])
        # "project:suite / name", or the name alone
        name = test["name"].rpartition(" / ")[2]
        result = test["result"]
        for case, status, note in cases:
            line(status, stage, f"{name}: {case}", note)
        failed = any(status == "fail" for _, status, _ in cases)
        if result == "SKIP" and not cases:
            line("skip", stage, name, clean(test.get("stdout")) or "no reason given")
        elif result in GOOD and not cases:
            line("pass", stage, name)
        elif result not in GOOD and result != "SKIP" and not failed:
            last = clean(test.get("stderr"))[-200:]
            line("fail", stage, f"{name}: program" if cases else name, f"{result}, exit status {test.get('returncode')}; {last}")


def from_pytest(stage, path):
    for case in read_xml(path).iter("testcase"):
        # An interrupted run names neither the file nor the case that it stopped in.
        name = f"{(case.get('classname') or 'interrupted').rpartition('.')[2]}: {case.get('name') or 'unknown'}"
        line(*(lambda status, note: (status, stage, name, note))(*outcome(case)))


def read_lists(paths):
    cases = []
    for path in paths:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                cases += [(row.rstrip("\n").split("\t") + ["", "", ""])[:4] for row in file if row.strip()]
    return cases


def count(cases):
    return [sum(1 for case in cases if case[0] == status) for status in ("pass", "fail", "skip")]


def counts(path):
    passed, failed, skipped = count(read_lists([path]))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


def summary(paths):
    cases = read_lists(paths)
    passed, failed, skipped = count(cases)
    strict = os.environ.get("CI") == "true"
    for status, stage, name, note in cases:
        if status == "skip":
            verdict = "SKIPPED, which CI counts as failed" if strict else "skipped"
            print(f"{verdict}: {stage}: {name} ({note})")
    for status, stage, name, note in cases:
        if status == "fail":
            print(f"FAILED: {stage}: {name}" + (f" ({note})" if note else ""))
    if strict:
        failed, skipped = failed + skipped, 0
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if failed == 0 and passed > 0 else 1


def main(args):
    commands = {"meson": from_meson, "pytest": from_pytest, "counts": counts}
    if len(args) >= 2 and args[0] == "summary":
        return summary(args[1:])
    if not args or args[0] not in commands:
        print(__doc__, file=sys.stderr)
        return 2
    commands[args[0]](*args[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
