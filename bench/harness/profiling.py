"""Where a proxy's time goes: perf's cpu-clock and strace's counts while a measure loads it.

Both slow the proxy down: what they say is where, not how much.
"""
import os
import re
import signal
import subprocess
import time

from .cases import MEASURES
from .sampling import arguments_of
from .servers import find
from .world import BenchError

PERF_S, STRACE_S, WARM_S = 4.0, 2.0, 1.0
TOP_LINES = 25


def _run_perf(world, pids, folder):
    data = os.path.join(folder, "perf.data")
    record = subprocess.run(["perf", "record", "-q", "-e", "cpu-clock", "-F", "999", "-o", data, "-p", ",".join(map(str, pids)),
                             "--", "sleep", str(PERF_S)], capture_output=True, text=True, check=False, cwd=world.work)
    if record.returncode != 0:
        return f"perf record failed: {record.stderr.strip()}"
    report = subprocess.run(["perf", "report", "-i", data, "--stdio", "--no-children", "--percent-limit", "0.5", "--sort",
                             "symbol"], capture_output=True, text=True, check=False)
    lines = [line for line in report.stdout.splitlines() if line.strip() and not line.startswith("#")]
    # The last columns, for branch and inline information, are empty.
    return "\n".join(re.sub(r"(\s+-)+\s*$", "", line) for line in lines[:TOP_LINES]) or f"perf report says nothing: {report.stderr.strip()}"


def _run_strace(world, pids, folder):
    path = os.path.join(folder, "strace.txt")
    attached = [word for pid in pids for word in ("-p", str(pid))]
    tracer = world.start(["strace", "-c", "-f", "-q", "-o", path, *attached], None, stderr=subprocess.DEVNULL)
    time.sleep(STRACE_S)
    tracer.popen.send_signal(signal.SIGINT)
    try:
        tracer.popen.wait(10)
    except subprocess.TimeoutExpired:
        return "strace does not end"
    finally:
        world.stop(tracer)
    if not os.path.exists(path):
        return "strace could not attach"
    with open(path, encoding="utf-8") as file:
        return "\n".join(file.read().rstrip().splitlines()[:TOP_LINES])


TOOLS = (("perf", "perf cpu-clock, share of the proxy's samples", _run_perf),
         ("strace", f"strace -c, {STRACE_S:g} s", _run_strace))


def profile(world, servers, target, name, say):
    """Text. A tool that is missing is said in its place."""
    measure = MEASURES[name]
    place = world.place(measure.world)
    server = servers.get(place, target)
    if server is None:
        raise BenchError("there is no proxy in 'direct' to be profiled")
    parts = []
    for tool, title, run in TOOLS:
        say(f"{tool} of {target} in {name}")
        if find(tool) is None:
            parts.append(f"{title}: {tool} is not installed")
            continue
        command = arguments_of(world, place, measure, target, server, seconds=60)
        load = world.start(command, place.client)
        try:
            time.sleep(WARM_S)
            parts.append(f"{title}:\n\n{run(world, server.process.pids(), world.work)}")
        finally:
            world.stop(load)
    lines = "\n\n".join(parts).splitlines()
    return "\n".join(line.expandtabs().rstrip() for line in lines)
