"""From samples to results: medians, ratios where they may be printed, goals; as JSON, Markdown and charts."""
import datetime
import json
import os
import platform
import subprocess

from . import chart, stats
from .cases import FOOTPRINTS, GOALS, IDLE, IDLE_TITLE, MEASURES, OVERHEADS, TARGETS

SERIES = ("rate", "cpu")
LOAD_AT_START = os.getloadavg()[0]  # a second later it would be our own
INDICATIVE = "indicative: fewer than 5 rounds"


class Samples:
    """Those of one measure."""

    def __init__(self, samples, name):
        self.of_target = {}
        self.control = MEASURES[name].control if name in MEASURES else ()
        for sample in samples:
            if sample["measure"] == name:
                self.of_target.setdefault(sample["target"], []).append(sample)

    def targets(self):
        return [name for name in TARGETS if name in self.of_target]

    def problems(self, *targets):
        return [f"{target}: {s['problem']}" for target in targets for s in self.of_target.get(target, []) if s.get("problem")]

    def series(self, target, field):
        return {s["round"]: s[field] for s in self.of_target.get(target, []) if not s.get("problem") and field in s}

    def _control(self, field):
        return self.series(self.control[1], field), self.series(self.control[0], field)

    def compare(self, ours, peer, field, is_quick, pairs=0):
        """The ratio ours / peer. The control must be clean as well. `pairs`: at least; 0 = as many as any ratio."""
        problems = self.problems(ours, peer, *self.control)
        return stats.compare(self.series(ours, field), self.series(peer, field), self._control(field), problems=problems,
                             is_quick=is_quick, least=max(pairs, stats.LEAST_ROUNDS))

    def compare_difference(self, ours, peer, field, is_quick):
        problems = self.problems(ours, peer, *self.control)
        return stats.compare_difference(self.series(ours, field), self.series(peer, field), self._control(field),
                                        problems=problems, is_quick=is_quick)

    def control_intervals(self):
        checks = {field: stats.paired(*self._control(field)) for field in SERIES}
        return {field: stats.control_interval(ratios) for field, ratios in checks.items() if ratios}


def spread_of(series):
    if not series:
        return None
    value = stats.spread(series.values())
    return {"median": value.median, "low": value.low, "high": value.high, "rounds": value.count}


def pairs(targets, control):
    """(ours, other) of the ratios that a measure is about."""
    ours = [t for t in targets if TARGETS[t].group == "ours" and t != control[1]]
    others = [t for t in targets if TARGETS[t].group != "ours"]
    if not others:
        return [(t, control[0]) for t in ours if t != control[0]]
    variants = [(t, control[0]) for t in ours if t in ("socks5-copy", "socks5-splice")]
    return [(one, other) for one in ours for other in others] + variants


def comparison_entry(comparison):
    """A ratio that is refused keeps its numbers to itself, in the JSON as well."""
    entry = {"text": comparison.text(), "refused": comparison.refused, "indicative": comparison.is_indicative}
    if not comparison.refused:
        entry |= {"median": comparison.value.median, "low": comparison.value.low, "high": comparison.value.high,
                  "rounds": comparison.value.count}
    if comparison.control:
        entry["control"] = comparison.control
    return entry


def evaluate_measure(measure, samples, is_quick):
    targets = {}
    for target in samples.targets():
        fields = ("rate", "cpu", "ends_cpu", "p50_us", "p99_us", "stalled")
        if not TARGETS[target].server:
            fields = tuple(f for f in fields if f != "cpu")
        targets[target] = {field: spread_of(samples.series(target, field)) for field in fields}
        targets[target]["problems"] = samples.problems(target)
    ratios = []
    for ours, other in pairs(samples.targets(), samples.control):
        for field in SERIES if TARGETS[other].server else ("rate",):
            entry = comparison_entry(samples.compare(ours, other, field, is_quick))
            ratios.append({"ours": ours, "other": other, "series": field, **entry})
    return {"title": measure.title, "rate_unit": measure.rate_unit, "cpu_unit": measure.cpu_unit, "bulk": measure.is_bulk,
            "targets": targets, "ratios": ratios, "control": samples.control_intervals()}


def evaluate_idle(samples):
    base = samples.series("direct", "kernel_bytes")
    results = {}
    for target in samples.targets():
        kernel = stats.paired(samples.series(target, "kernel_bytes"), base, lambda a, b: a - b)
        results[target] = {field: spread_of(samples.series(target, field))
                           for field in ("user_bytes", "descriptors", "base_bytes", "held")}
        results[target]["kernel_bytes"] = spread_of(dict(enumerate(kernel)))
        results[target]["problems"] = samples.problems(target)
    return results


def best_peer(samples, goal):
    """The peer with the best median; a goal against "the best SOCKS peer" is one against it."""
    present = {p: stats.spread(s.values()).median for p in goal.peers if (s := samples.series(p, goal.series))}
    if not present:
        return None
    return (max if goal.series == "rate" else min)(present, key=present.get)


def ratio_goals(samples, is_quick):
    for goal in GOALS:
        own = samples[goal.measure]
        row = {"text": goal.text, "goal": f"{goal.sense} {goal.value:g}", "measure": goal.measure, "ours": goal.ours}
        peer = best_peer(own, goal)
        if peer is None or not own.of_target.get(goal.ours):
            yield row | {"measured": "-", "verdict": stats.UNKNOWN}
            continue
        comparison = own.compare(goal.ours, peer, goal.series, is_quick, goal.pairs)
        verdict = stats.judge(comparison, goal.sense, goal.value)
        measured = comparison.text()
        if verdict == stats.UNCLEAR and not comparison.refused:
            measured += f" ({stats.control_text(comparison.control)})"
        if len(goal.peers) > 1:
            measured += f", {peer}"
        yield row | {"measured": measured, "verdict": verdict, "indicative": comparison.is_indicative}


def footprint_goals(idle, is_quick):
    for goal in FOOTPRINTS:
        row = {"text": goal.text, "goal": f"<= {goal.at_most:g}", "measure": IDLE, "ours": "socks5"}
        found = idle.get("socks5", {})
        value = found.get(goal.field)
        if not value or found["problems"]:
            yield row | {"measured": "; ".join(found.get("problems", [])) or "-", "verdict": stats.UNKNOWN}
            continue
        text = f"{value['median']:.1f} [{value['low']:.1f}..{value['high']:.1f}]"
        # Rounded: one descriptor among thousands of connections is one of the process, not of a connection.
        is_met = round(value["median"], 1) <= goal.at_most
        yield row | {"measured": text, "verdict": stats.MET if is_met else stats.MISSED, "indicative": is_quick}


def overhead_goals(samples, is_quick):
    for goal in OVERHEADS:
        own = samples[goal.measure]
        row = {"text": goal.text, "goal": f"<= {goal.at_most_us:g}", "measure": goal.measure, "ours": "socks5"}
        if not own.of_target.get("bare"):
            yield row | {"measured": "-", "verdict": stats.UNKNOWN}
            continue
        comparison = own.compare_difference("socks5", "bare", "cpu", is_quick)
        verdict = stats.judge_difference(comparison, goal.at_most_us)
        measured = comparison.text()
        if verdict == stats.UNCLEAR:
            measured = f"{comparison.value.median:.2f} ({stats.control_text(comparison.control)})"
        yield row | {"measured": measured, "verdict": verdict, "indicative": comparison.is_indicative}


def to_profile(results):
    """(target, measure) of the goals that are missed, each once; memory has no profile."""
    wanted = [(g["ours"], g["measure"]) for g in results["goals"] if g["verdict"] == stats.MISSED and g["measure"] != IDLE]
    return list(dict.fromkeys(wanted))


def version_of(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).strip().splitlines()[0]
    except (OSError, IndexError):
        return "unknown"


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    packages = version_of_packages(["dante-server", "microsocks", "haproxy", "nginx-light", "nginx", "unbound", "libssl3"])
    with open("/proc/sys/net/ipv4/tcp_congestion_control", encoding="ascii") as file:
        congestion_control = file.read().strip()
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release(), "peers": packages,
            "congestion_control": congestion_control, "load_average_at_start": LOAD_AT_START}


def version_of_packages(names):
    found = {}
    for name in names:
        text = version_of(["dpkg-query", "-W", "-f=${db:Status-Abbrev}${Version}\n", name])
        if text.startswith("ii"):
            found[name] = text[2:].strip()
    return found


def evaluate(journal, options, notes):
    samples = {name: Samples(journal, name) for name in [*MEASURES, IDLE]}
    idle = evaluate_idle(samples[IDLE])
    wanted = [name for name in MEASURES if samples[name].of_target]
    return {
        "date": datetime.date.today().isoformat(), "machine": machine(), "notes": notes,
        "settings": {"rounds": options.rounds, "seconds": options.seconds, "warm_up_seconds": options.warm,
                     "idle_connections": options.idle_conns, "quick": options.quick},
        "measures": {name: evaluate_measure(MEASURES[name], samples[name], options.quick) for name in wanted},
        "idle": idle,
        "goals": [*ratio_goals(samples, options.quick), *footprint_goals(idle, options.quick), *overhead_goals(samples, options.quick)],
    }


# --- Markdown ---

def number(value):
    """Three digits that count."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def spread_text(value):
    if not value:
        return "-"
    return f"{number(value['median'])} [{number(value['low'])}..{number(value['high'])}]"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def measure_table(result):
    rows = []
    for target, found in result["targets"].items():
        row = [TARGETS[target].title, spread_text(found["rate"]), spread_text(found.get("cpu")), spread_text(found["ends_cpu"])]
        if not result["bulk"]:
            row.append("-" if not found["p50_us"] else
                       f"{number(found['p50_us']['median'])} / {number(found['p99_us']['median'])}")
        if found["problems"]:
            row[0] += f" (**{len(found['problems'])} samples with errors**)"
        rows.append(row)
    head = ["target", result["rate_unit"], result["cpu_unit"] + ", proxy", result["cpu_unit"] + ", both ends"]
    return table(head if result["bulk"] else [*head, "p50 / p99 us"], rows)


def ratio_table(result):
    rows = {}
    for ratio in result["ratios"]:
        rows.setdefault((ratio["ours"], ratio["other"]), {})[ratio["series"]] = ratio["text"]
    return table(["ratio", "rate", "CPU"],
                 [[f"{TARGETS[ours].title} / {TARGETS[other].title}", texts.get("rate", "-"), texts.get("cpu", "-")]
                  for (ours, other), texts in rows.items()])


def idle_table(idle):
    rows = [[TARGETS[target].title + (f" (**{found['problems'][0]}**)" if found["problems"] else ""),
             *(spread_text(found[field]) for field in ("user_bytes", "descriptors", "kernel_bytes", "base_bytes"))]
            for target, found in idle.items() if target != "direct"]
    return table(["target", "user bytes", "descriptors", "kernel bytes", "the process before"], rows)


def goal_table(goals):
    def verdict(goal):
        return goal["verdict"] + (" (indicative)" if goal.get("indicative") else "")
    return table(["goal", "wanted", "measured", "verdict"],
                 [[goal["text"], goal["goal"], goal["measured"], verdict(goal)] for goal in goals])


def preamble(results):
    about, settings = results["machine"], results["settings"]
    peers = ", ".join(f"{name} {version}" for name, version in about["peers"].items())
    lines = [f"{results['date']}: {about['processor']}, {about['cores']} cores, Linux {about['kernel']}, "
             f"TCP {about['congestion_control']}, load average {about['load_average_at_start']:.1f} before the run. Up to {settings['rounds']} rounds of {settings['seconds']:g} s after "
             f"{settings['warm_up_seconds']:g} s; {settings['idle_connections']} idle connections. Peers: {peers or 'none'}.", "",
             "Values are medians with the lowest and highest in brackets; ratios are taken within each round. \"n/s\" is a ratio "
             "that is not printed, and why."]
    if settings["quick"]:
        lines.append(f"\"~\" marks ratios that are {INDICATIVE}.")
    notes = ["", *(f"- {note}" for note in results["notes"])] if results["notes"] else []
    return "\n".join(lines + notes)


def markdown(results, charts=None):
    """The whole report; `charts` is the folder that the text is to show them from."""
    parts = [preamble(results)]
    goals = [goal for goal in results["goals"] if goal["measure"] in results["measures"] or
             goal["measure"] == IDLE and results["idle"]]
    if goals:
        parts.append("### Goals\n\n" + goal_table(goals))
    for name, result in results["measures"].items():
        picture = f"![{result['title']}]({charts}/{name}.svg)\n\n" if charts else ""
        control = ", ".join(f"{'rate' if field == 'rate' else 'CPU'} {low:.2f}..{high:.2f}"
                            for field, (low, high) in result["control"].items())
        parts.append(f"### {result['title']} (`{name}`)\n\n{picture}{measure_table(result)}\n\n"
                     f"A/A control: {control or 'none'}.\n\n{ratio_table(result)}")
    if results["idle"]:
        picture = f"![{IDLE_TITLE}]({charts}/{IDLE}.svg)\n\n" if charts else ""
        parts.append(f"### {IDLE_TITLE} (`{IDLE}`)\n\n{picture}{idle_table(results['idle'])}")
    return "\n\n".join(parts)


# --- files ---

def charts(results):
    """(name, SVG) for each measure."""
    for name, result in results["measures"].items():
        yield name, chart.measure_chart(result)
    if results["idle"]:
        yield IDLE, chart.idle_chart(results["idle"])


def write(results, folder):
    with open(os.path.join(folder, "results.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(markdown(results, ".") + "\n")
    for name, svg in charts(results):
        with open(os.path.join(folder, f"{name}.svg"), "w", encoding="utf-8") as file:
            file.write(svg)
