"""From the samples of `./dev bench wrap` to tables and JSON."""
import datetime
import json
import os
import shlex
import statistics

from . import stats
from .publish import DOCUMENT, between
from .report import machine, table

CONTROL = ("run", "run-again")
PEERS = ("proxychains4", "torsocks")
AHEAD = None
# (text, measure, peer, at least how many times)
GOALS = [
    *((f"new connections over the link: / {peer}", "link-connect", peer, 2.0) for peer in PEERS),
    *((f"{what} on loopback: ahead of {peer}", measure, peer, AHEAD) for peer in PEERS
      for what, measure in (("new connections", "loopback-connect"), ("a request on each connection", "loopback-request"))),
    # Bytes take the same way with all of them.
    *((f"standing connections on loopback: level with {peer}", "loopback-keep", peer, 1.0) for peer in PEERS),
]


class Samples:
    def __init__(self, samples):
        self.samples = samples

    def of(self, measure, target):
        return [s for s in self.samples if (s["measure"], s["target"]) == (measure, target)]

    def problems(self, measure, *targets):
        return [f"{target}: {s['problem']}" for target in targets for s in self.of(measure, target) if "problem" in s]

    def series(self, measure, target, field="rate"):
        return {s["round"]: s[field] for s in self.of(measure, target) if "problem" not in s}

    def compare(self, measure, ours, peer, is_quick):
        control = self.series(measure, CONTROL[1]), self.series(measure, CONTROL[0])
        return stats.compare(self.series(measure, ours), self.series(measure, peer), control,
                             problems=self.problems(measure, ours, peer, *CONTROL), is_quick=is_quick)


    def judge(self, measure, peer, goal, is_quick):
        """`socks6 run` beside a peer: (what was measured, verdict)."""
        if goal is AHEAD:
            return stats.judge_order([self.series(measure, name) for name in CONTROL], self.series(measure, peer),
                                     problems=self.problems(measure, peer, *CONTROL))
        comparison = self.compare(measure, CONTROL[0], peer, is_quick)
        return comparison.text(), stats.judge(comparison, ">=", goal)


def evaluate_target(samples, measure, target, is_quick):
    rates = samples.series(measure, target)
    problems = samples.problems(measure, target)
    entry = {"problems": problems[:3]}
    if rates:
        rate = stats.spread(rates.values())
        entry |= {"rate": rate.median, "rate_low": rate.low, "rate_high": rate.high, "rounds": rate.count, "rates": rates}
        for field in ("mean_us", "p50_us", "p99_us"):
            entry[field] = statistics.median(samples.series(measure, target, field).values())
        if target not in PEERS:
            entry["ratios"] = {peer: samples.compare(measure, target, peer, is_quick).text() for peer in PEERS if samples.of(measure, peer)}
    return entry


def evaluate(samples, targets, measures, options, left_out, link_ms):
    found = Samples(samples)
    is_quick = options.rounds < stats.LEAST_ROUNDS
    results = {"date": datetime.date.today().isoformat(), "machine": machine(), "rounds": options.rounds, "seconds": options.seconds,
               "link_ms": link_ms, "left_out": left_out, "measures": {}, "goals": []}
    for name in measures:
        if name in options.measures:
            measured = [target for target in targets if found.of(name, target)]
            results["measures"][name] = {"title": measures[name].title, "place": measures[name].place, "workers": measures[name].workers,
                                         "targets": {target: {"title": targets[target].title, **evaluate_target(found, name, target, is_quick)}
                                                     for target in measured}}
    for text, measure, peer, goal in GOALS:
        if found.of(measure, CONTROL[0]) and found.of(measure, peer):
            measured, verdict = found.judge(measure, peer, goal, is_quick)
            results["goals"].append({"text": text, "goal": goal, "measured": measured, "verdict": verdict})
    return results


def rows(measure, link_ms):
    for entry in measure["targets"].values():
        if "rate" not in entry:
            yield [entry["title"], "**failed**", *["-"] * (5 if measure["place"] == "link" else 4)]
            continue
        line = [entry["title"] + (" (errors)" if entry["problems"] else ""),
                f"{entry['rate']:.0f} [{entry['rate_low']:.0f}..{entry['rate_high']:.0f}]",
                f"{entry['mean_us'] / 1000:.2f}", f"{entry['p99_us'] / 1000:.2f}"]
        if measure["place"] == "link":
            line.append(f"{entry['mean_us'] / 1000 / link_ms:.1f}")
        yield line + [entry.get("ratios", {}).get(peer, "-") for peer in PEERS]


def markdown(results):
    about = results["machine"]
    parts = [f"{results['date']}: {about['processor']}, {about['cores']} cores, Linux {about['kernel']}. {results['rounds']} rounds, "
             f"samples of {results['seconds']:g} s (over the link three times that): medians [lowest..highest]. Ratios are of the rates, "
             "taken within each round; those that differ by less than `socks6 run` does from itself are not printed (n/s)."]
    for name, measure in results["measures"].items():
        head = ["", "1/s", "mean ms", "99 % ms"]
        if measure["place"] == "link":
            head.append("round trips")
        parts.append(f"### {measure['title']} (`{name}`)\n\n{measure['workers']} processes at once.")
        parts.append(table([*head, *(f"/ {peer}" for peer in PEERS)], list(rows(measure, results["link_ms"]))))
        parts += [f"`{target}`: {problem}" for target, entry in measure["targets"].items() for problem in entry["problems"]]
    if results["goals"]:
        parts.append("### Goals of wrapping")
        parts.append(table(["goal", "at least", "measured", ""], [[goal["text"], "ahead" if goal["goal"] is AHEAD else f"{goal['goal']:g}",
                                                                   goal["measured"], goal["verdict"]] for goal in results["goals"]]))
    parts += [f"Left out: {why}." for why in results["left_out"]]
    return "\n\n".join(parts)


def write(results, folder):
    with open(os.path.join(folder, "wrap.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "wrap.md"), "w", encoding="utf-8") as file:
        file.write(markdown(results) + "\n")


def publish(root, results, arguments):
    path = os.path.join(root, DOCUMENT)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    text = between(text, "wrapping", f"Command: `{shlex.join(['./dev', 'bench', *arguments])}`\n\n{markdown(results)}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
