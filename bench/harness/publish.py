"""Puts the results of a run into doc/performance.md, between its marks, and the charts beside it.

The DNS service, and TLS and authentication, have marks of their own, so that a run of one part leaves what is said of the others.
"""
import os
import re
import shlex

from . import report
from .cases import TARGETS, part_of

DOCUMENT, CHARTS = os.path.join("doc", "performance.md"), os.path.join("doc", "performance")
PRIVATE_PATH = re.compile(r"/(?:home|root|work|farm|tmp)/\S*")


def between(text, name, body):
    """`text` with what stands between the marks of `name` replaced."""
    begin, end = f"<!-- {name}: written by ./dev bench --publish -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"no marks for {name}")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{body.strip()}\n\n{end}{rest.split(end)[1]}"


def profile_text(profiles):
    if not profiles:
        return "The last published run missed no goal that a profile could explain."
    parts = []
    for (target, name), text in profiles.items():
        clean = PRIVATE_PATH.sub("...", text)
        parts.append(f"### {TARGETS[target].title}, `{name}`\n\n```\n{clean}\n```")
    return "\n\n".join(parts)


PARTS = ("", "DNS", "TLS")


def results_of(results, part):
    """The results of one part; None if the run has nothing of it."""
    measures = {name: result for name, result in results["measures"].items() if part_of(name) == part}
    idle = {} if part else results["idle"]
    return results | {"measures": measures, "idle": idle} if measures or idle else None


def publish(root, results, profiles, arguments):
    path = os.path.join(root, DOCUMENT)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    command = f"Command: `{shlex.join(['./dev', 'bench', *arguments])}`"
    for part in PARTS:
        own_results = results_of(results, part)
        if own_results:
            prefix = f"{part} " if part else ""
            text = between(text, f"{prefix}results", command + "\n\n" + report.markdown(own_results, "performance"))
            own = {key: value for key, value in profiles.items() if part_of(key[1]) == part}
            text = between(text, f"{prefix}profiles", profile_text(own))
            _replace_charts(os.path.join(root, CHARTS), report.charts(own_results), part)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _replace_charts(folder, charts, part):
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        stem, end = os.path.splitext(name)
        if end == ".svg" and part_of(stem) == part:
            os.remove(os.path.join(folder, name))
    for name, svg in charts:
        with open(os.path.join(folder, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write(svg)
