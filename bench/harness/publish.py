"""Puts the results of a run into doc/performance.md, between its marks, and the charts beside it."""
import os
import re
import shlex

from . import report
from .cases import TARGETS

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


def publish(root, results, profiles, arguments):
    path = os.path.join(root, DOCUMENT)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    command = f"Command: `{shlex.join(['./dev', 'bench', *arguments])}`"
    text = between(text, "results", command + "\n\n" + report.markdown(results, "performance"))
    text = between(text, "profiles", profile_text(profiles))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    folder = os.path.join(root, CHARTS)
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        if name.endswith(".svg"):
            os.remove(os.path.join(folder, name))
    for name, svg in report.charts(results):
        with open(os.path.join(folder, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write(svg)
