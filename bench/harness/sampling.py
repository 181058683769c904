"""One sample: the load generator run once, and its figures."""
import json
import subprocess

from . import tls
from .cases import FAST, TARGETS

STALLED_SHARE = 0.1  # of the connections; more than that did not move: the sample is one of something else
# Linux remembers about five peers for each remote address, whichever the own one; of more the oldest goes, and its cookie.
# To the backend the remote address is the proxy's, too.
FAST_ADDRESSES_MAX = 2
SYN_DATA_SHARE = 0.9  # of what is to be measured with Fast Open, but for the first ones, which get the cookies
GIB = float(1 << 30)
FORKING = ("dante",)  # servers whose children come and go
ROLE_OF_KIND = {"hs": "echo", "rr": "echo", "idle": "echo", "full": "echo", "resumed": "echo", "early": "echo", "up": "sink",
                "down": "source"}


def load_arguments(world, place, target, server, *, kind, conns, seconds, warm=0.0):
    role = ROLE_OF_KIND[kind]
    arguments = {
        "kind": kind, "proto": TARGETS[target].proto, "conns": conns, "seconds": seconds, "warm": warm,
        "from": place.sources, "from_count": place.source_count,
        "to": place.destinations, "to_count": place.destination_count, "port": place.ports[role],
        "tally": place.tally, "backend": place.backend.popen.pid,
    }
    if TARGETS[target].proto == FAST:
        for count in ("from_count", "to_count"):
            arguments[count] = min(FAST_ADDRESSES_MAX, arguments[count])
    if server:
        arguments |= {"via": place.proxy_in, "via_port": server.ports[role], "cpu": server.process.cpu_source()}
    return [world.program("load"), *(f"{key}={value}" for key, value in arguments.items())]


def arguments_of(world, place, measure, target, server, *, seconds, warm=0.0):
    """The load generator's command line for a measure."""
    if measure.is_dns:
        return _dns_arguments(world, place, measure, target, server, seconds, warm)
    command = load_arguments(world, place, target, server, kind=measure.kind, conns=measure.conns, seconds=seconds, warm=warm)
    if measure.is_tls:
        return [world.program("tls_load"), *command[1:], f"ca={tls.certificate(world)}"]
    return command


def _dns_arguments(world, place, measure, target, server, seconds, warm):
    arguments = {
        "kind": measure.kind, "proto": TARGETS[target].proto, "conns": measure.conns, "in_flight": measure.in_flight,
        "seconds": seconds, "warm": warm, "from": place.sources, "from_count": place.source_count,
        "via": place.proxy_in, "via_port": server.ports["dns"], "cpu": server.process.cpu_source(),
        "tally": place.tally, "backend": place.backend.popen.pid,
    }
    return [world.program("dns_load"), *(f"{key}={value}" for key, value in arguments.items())]


def refine(raw, kind, conns):
    """The figures of one sample from what the load generator printed: rate, CPU per operation or GiB, and `problem`, why it
    must not be used ("" if it may)."""
    is_bulk = kind in ("up", "down")
    amount = raw["bytes"] / GIB if is_bulk else raw["ops"]
    problem = ""
    if raw["errors"]:
        problem = f"{raw['errors']} x {raw['first_error']}"
    elif not amount:
        problem = "nothing came through"
    elif raw["stalled"] > STALLED_SHARE * conns:
        problem = f"{raw['stalled']} of {conns} connections did not move"
    elif "syn_data" in raw and raw["syn_data"] < SYN_DATA_SHARE * raw["ops"] - conns:
        problem = f"only {raw['syn_data']} SYNs for {raw['ops']} connections carried a request"
    cpu_unit = 1.0 if is_bulk else 1e6
    per = cpu_unit / amount if amount else 0.0
    return {
        "rate": amount / raw["seconds"] if amount else 0.0, "cpu": raw["proxy_cpu_s"] * per,
        "ends_cpu": (raw["client_cpu_s"] + raw["backend_cpu_s"]) * per,
        "p50_us": raw["p50_us"], "p99_us": raw["p99_us"], "stalled": raw["stalled"], "problem": problem,
    }


def take(world, servers, measure, target, seconds, warm):
    """One sample as refine() has it. A proxy that is missing is a BenchError."""
    place = world.place(measure.world)
    server = servers.get(place, target)
    command = arguments_of(world, place, measure, target, server, seconds=seconds, warm=warm)
    process = world.start(command, place.client, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, said = process.popen.communicate(timeout=seconds + warm + 20)
    except subprocess.TimeoutExpired:
        return {"problem": "the load generator did not end"}
    finally:
        world.stop(process)
    if process.popen.returncode != 0:
        return {"problem": f"the load generator failed: {said.decode(errors='replace').strip()}"}
    sample = refine(json.loads(out), measure.kind, measure.conns)
    if server and not server.process.group and TARGETS[target].server in FORKING:
        del sample["cpu"]  # that of children that ended is not known, and a figure without it would be wrong
    return sample
