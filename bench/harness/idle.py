"""What an idle connection costs: the same proxy, just started, before and with thousands of connections that have each had one
byte there and back."""
import json
import os
import re
import select
import subprocess
import time

from . import servers
from .cases import TARGETS
from .sampling import load_arguments
from .world import BenchError

HOLD_LIMIT_S = 30
SETTLE_S = 0.5
WARM_CONNS = 64  # connections before the first look, so that code and first buffers are in memory by then


def pss_bytes(pids):
    """Proportional set size: memory shared with other processes is counted once in all."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                total += 1024 * int(re.search(r"^Pss:\s+(\d+) kB", file.read(), re.M).group(1))
        except OSError:
            continue
    return total


def descriptor_count(pids):
    total = 0
    for pid in pids:
        try:
            total += len(os.listdir(f"/proc/{pid}/fd"))
        except OSError:
            continue
    return total


def kernel_bytes():
    """Slab and stacks of threads, of the whole machine: what else happens on it counts, too."""
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = dict(re.findall(r"^(\w+):\s+(\d+)", file.read(), re.M))
    return 1024 * (int(fields["Slab"]) + int(fields["KernelStack"]))


def _look(server):
    pids = server.process.pids() if server else []
    return {"user": pss_bytes(pids), "descriptors": descriptor_count(pids), "kernel": kernel_bytes()}


def _warm_up(world, place, target, server):
    command = load_arguments(world, place, target, server, kind="hs", conns=WARM_CONNS, seconds=0.2)
    process = world.start(command, place.client)
    try:
        process.popen.wait(HOLD_LIMIT_S)
    finally:
        world.stop(process)
    time.sleep(SETTLE_S)


def _hold(process):
    """What the load generator says once all connections stand."""
    if not select.select([process.popen.stdout], [], [], HOLD_LIMIT_S + 5)[0]:
        raise BenchError("the load generator does not answer")
    line = process.popen.stdout.readline()
    if not line:
        raise BenchError("the load generator failed")
    return json.loads(line)


def take(world, target, conns):
    """Bytes and descriptors for each connection. "kernel_bytes" has the sockets of client and backend in it: those of "direct"
    are to be taken off."""
    place = world.place("local")
    server = servers.start(world, place, TARGETS[target].server) if TARGETS[target].server else None
    try:
        _warm_up(world, place, target, server)
        before = _look(server)
        command = load_arguments(world, place, target, server, kind="idle", conns=conns, seconds=HOLD_LIMIT_S)
        process = world.start(command, place.client, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
        try:
            held = _hold(process)
            time.sleep(SETTLE_S)
            after = _look(server)
        finally:
            process.popen.stdin.close()
            world.stop(process)
    finally:
        if server:
            world.stop(server.process)
    count = held["held"]
    problem = ""
    if held["errors"] or count < conns:
        problem = f"{count} of {conns} connections: {held['first_error'] or 'no more in time'}"
    if not count:
        return {"problem": problem}
    return {
        "user_bytes": (after["user"] - before["user"]) / count,
        "descriptors": (after["descriptors"] - before["descriptors"]) / count,
        "kernel_bytes": (after["kernel"] - before["kernel"]) / count,
        "base_bytes": before["user"], "held": count, "problem": problem,
    }
