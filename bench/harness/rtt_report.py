"""From the samples of `./dev bench rtt` to a table and JSON."""
import datetime
import json
import os
import shlex

from .publish import DOCUMENT, between
from .report import machine, table

TOLERANCE_MS = 3  # of the goal; also how far a row may be from what its rules ask for


def units(c, s):
    return "+".join(f"{count if count > 1 else ''}{leg}" for count, leg in ((c, "C"), (s, "S")) if count)


def off(times, counts):
    """How many ms the worst is away from so many C and S."""
    return max(abs(value - counts[0] * c - counts[1] * s) for (c, s), value in times.items())


def fit(times, expected):
    """
    The counts of C and S that come nearest to the lowest times of all geometries: what else a machine does can only add to
    them. With S = 5 ms or one geometry alone there are
    many that do, and what the rules ask for is believed if it does: within the tolerance, and a hundredth for what the
    programs take at each turn.
    """
    if off(times, expected) <= TOLERANCE_MS + max(times.values()) / 100:
        return expected
    return min(((c, s) for c in range(1, 11) for s in range(0, 9)),
               key=lambda counts: (round(off(times, counts), 1), sum(counts)))


def evaluate_row(row, found, geometries):
    times = {(g.c, g.s): found[g.name]["low_ms"] for g in geometries if "low_ms" in found.get(g.name, {})}
    entry = {"name": row.name, "title": row.title, "expected": units(*row.round_trips),
             "notes": [f"{leg}: {why}" for leg, why in row.costs if why], "geometries": found,
             "client": "socks6 connect" if row.proxy and not row.by_script and row.protocol == "socks6" else "first_byte.py"}
    if times:
        counts = fit(times, row.round_trips)
        entry |= {"measured": units(*counts), "off_ms": off(times, counts), "from_expected_ms": off(times, row.round_trips)}
    return entry


def goals(rows, geometries):
    """Warm SOCKS 6 with a token and Fast Open: C + S, within 3 ms, and below a direct connection."""
    by_name = {row["name"]: row for row in rows}
    for name in ("socks6-warm-tfo", "socks6-password-warm-tfo", "socks6-early-data-warm-tfo", "socks6-password-early-data-warm-tfo"):
        row = by_name.get(name)
        if row is None:
            continue
        for g in geometries:
            found, direct = row["geometries"].get(g.name, {}), by_name.get("direct", {}).get("geometries", {}).get(g.name, {})
            if "median_ms" not in found:
                continue
            beyond = found["median_ms"] - g.c - g.s
            yield {"row": row["title"], "geometry": g.name, "beyond_c_plus_s_ms": beyond, "met": beyond <= TOLERANCE_MS,
                   "below_direct": found["median_ms"] < direct["median_ms"] if "median_ms" in direct else None}


def evaluate(rows, found, left_out, options, is_cut):
    evaluated = [evaluate_row(row, found[row.name], options.geometries) for row in rows if row.name in found]
    return {"date": datetime.date.today().isoformat(), "machine": machine(), "samples": options.samples, "is_cut": is_cut,
            "geometries": [{"c_ms": g.c, "s_ms": g.s, "name": g.name} for g in options.geometries], "rows": evaluated,
            "left_out": left_out, "goals": list(goals(evaluated, options.geometries))}


def cell(found):
    if not found:
        return "-"
    if "problem" in found:
        return "**failed**"
    return f"{found['median_ms']:.1f} [{found['low_ms']:.1f}..{found['high_ms']:.1f}]"


def syn_cell(row, leg):
    found = [entry for entry in row["geometries"].values() if "samples" in entry]
    taken, count = sum(entry[leg] for entry in found), sum(entry["samples"] for entry in found)
    return "yes" if taken == count and count else "no" if taken == 0 else f"{taken} of {count}"


def measured_cell(row):
    if "measured" not in row:
        return "-"
    if row["measured"] == row["expected"]:
        return row["measured"]
    return f"**{row['measured']}** instead of {row['expected']}"


def markdown(results):
    about, names = results["machine"], [g["name"] for g in results["geometries"]]
    numbers = {}  # of the notes, in the order in which they come
    body = []
    for row in results["rows"]:
        marks = [str(numbers.setdefault(note, len(numbers) + 1)) for note in row["notes"]]
        body.append([row["title"] + ("" if row["client"] == "socks6 connect" else " *"),
                     *(cell(row["geometries"].get(name)) for name in names), measured_cell(row),
                     syn_cell(row, "client_syn_data"), syn_cell(row, "server_syn_data"), ", ".join(marks)])
    parts = [f"{results['date']}: {about['processor']}, {about['cores']} cores, Linux {about['kernel']}. "
             f"{results['samples']} samples of each row: median [lowest..highest] in ms, from the client's SYN to the first byte on "
             "its standard output. C and S are the round trip times, in ms, from the client to the proxy and from there to the "
             "server.",
             table(["client (* first_byte.py, else `socks6 connect`)", *(f"C/S = {name}" for name in names), "round trips",
                    "SYN data to the proxy", "to the server", "notes"], body),
             "\n".join(f"{number}. {note}" for note, number in numbers.items())]
    startups = [entry["startup_ms"] for row in results["rows"] for entry in row["geometries"].values()
                if row["client"] == "socks6 connect" and "startup_ms" in entry]
    if startups:
        parts.append(f"Before its SYN `socks6 connect` took {min(startups):.1f} to {max(startups):.1f} ms (medians; the start of the "
                     "process, its cache): not in the table.")
    if results["goals"]:
        parts.append(table(["goal: C+S within 3 ms", "C/S", "beyond C+S", "met", "below direct"], [
            [goal["row"], goal["geometry"], f"{goal['beyond_c_plus_s_ms']:.1f} ms", "yes" if goal["met"] else "**no**",
             {True: "yes", False: "**no**", None: "-"}[goal["below_direct"]]] for goal in results["goals"]]))
    for why, rows in results["left_out"].items():
        parts.append(f"Left out, because {why}: {', '.join(f'`{name}`' for name in rows)}.")
    if results["is_cut"]:
        parts.append("The run ended before all was measured.")
    return "\n\n".join(part for part in parts if part)


def write(results, folder):
    with open(os.path.join(folder, "rtt.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    with open(os.path.join(folder, "rtt.md"), "w", encoding="utf-8") as file:
        file.write(markdown(results) + "\n")


def publish(root, results, arguments):
    path = os.path.join(root, DOCUMENT)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    command = f"Command: `{shlex.join(['./dev', 'bench', *arguments])}`"
    text = between(text, "round trips", command + "\n\n" + markdown(results))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
