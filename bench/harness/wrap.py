"""`./dev bench wrap`: a program that knows no proxy, wrapped by `socks6 run`, proxychains4 and torsocks (doc/performance.md)."""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from . import wrap_report
from .servers import find
from .world import BenchError, World

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SAMPLE_LIMIT_S = 60
LINK_MS = 50
# No loopback addresses: those every wrapper leaves alone.
LOOPBACK = {"from": ("10.203.0.1", 1), "to": ("10.203.1.1", 8), "proxy": ("10.203.0.1", "10.203.0.1")}
LINK = {"from": ("10.203.2.2", 1), "to": ("10.203.3.2", 8), "proxy": ("10.203.2.1", "10.203.3.1")}


@dataclass(frozen=True)
class Target:
    title: str
    command: tuple  # before the load; {...} are filled in
    needs: str = ""  # a program that may be missing
    is_tls: bool = False
    is_early: bool = False  # connect() returns before there is a connection: it alone is no measure


RUN = ("{socks6}", "run", "-x", "{url}")
TARGETS = {
    "direct": Target("no proxy", ()),
    "run": Target("socks6 run", (*RUN, "--")),
    "run-again": Target("socks6 run, once more (control)", (*RUN, "--")),
    "run-early": Target("socks6 run --early", (*RUN, "--early", "--"), is_early=True),
    "run-tls": Target("socks6 run, TLS", (*RUN, "--"), is_tls=True),
    "run-tls-early": Target("socks6 run --early, TLS", (*RUN, "--early", "--"), is_tls=True, is_early=True),
    "proxychains4": Target("proxychains4", ("proxychains4", "-q", "-f", "{proxychains}"), "proxychains4"),
    "torsocks": Target("torsocks", ("torsocks",), "torsocks"),
}


@dataclass(frozen=True)
class Measure:
    title: str
    place: str
    kind: str
    workers: int


MEASURES = {
    "link-connect": Measure(f"New connections, a link of {LINK_MS} ms to the proxy", "link", "connect", 16),
    "link-request": Measure(f"A request on each connection, a link of {LINK_MS} ms", "link", "request", 16),
    "link-keep": Measure(f"Requests on standing connections, a link of {LINK_MS} ms", "link", "keep", 16),
    "loopback-connect": Measure("New connections, loopback", "loopback", "connect", 8),
    "loopback-request": Measure("A request on each connection, loopback", "loopback", "request", 8),
    "loopback-keep": Measure("Requests on standing connections, loopback", "loopback", "keep", 8),
}


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench wrap", description="socks6 run beside proxychains4, torsocks and no proxy; "
                                                                          "doc/performance.md explains how. Needs root and /dev/net/tun.")
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9; ratios are indicative")
    parser.add_argument("--rounds", type=int, help="how often each sample is taken")
    parser.add_argument("--seconds", type=float, help="length of a sample on loopback (1; --quick 0.4); over the link three times that")
    parser.add_argument("--only", metavar="TARGETS", help=f"names with commas in between, of {', '.join(TARGETS)}")
    parser.add_argument("--measure", action="append", choices=list(MEASURES), help="this alone; may be repeated")
    parser.add_argument("--publish", action="store_true", help="put the tables into doc/performance.md")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"), metavar="DIR", help="build/bench unless told")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (3 if options.quick else 9)
    options.seconds = options.seconds or (0.4 if options.quick else 1)
    options.targets = options.only.split(",") if options.only else list(TARGETS)
    options.measures = options.measure or list(MEASURES)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("numbers must be positive")
    for name in options.targets:
        if name not in TARGETS:
            parser.error(f"no target '{name}'; there are: {', '.join(TARGETS)}")
    return options


class Stage:
    """Where a client, one socks6d for all wrappers, and a server are."""

    def __init__(self, world, name):
        self.world = world
        self.place = self._loopback() if name == "loopback" else self._link()
        self.name = name
        self.port, self.tls_port = world.free_port(), world.free_port()
        self.cache = os.path.join(world.work, f"cache-{name}")
        self.certificate, self.key = (world.work + f"/{name}-{what}.pem" for what in ("certificate", "key"))
        self._start_proxy()
        host = self.place.proxy_in
        self.proxychains = world.write(f"proxychains-{name}.conf", f"strict_chain\nquiet_mode\n[ProxyList]\nsocks5 {host} {self.port}\n")
        self.torsocks = world.write(f"torsocks-{name}.conf", f"TorAddress {host}\nTorPort {self.port}\n")

    def _add(self, name, spaces, addresses):
        for space in spaces:
            space.set("net.ipv4.tcp_tw_reuse", 1)  # ports between two addresses run out otherwise
        return self.world.add_place(f"wrap-{name}", spaces, addresses)

    def _loopback(self):
        space = self.world.space()
        for key in ("from", "to"):
            first, count = LOOPBACK[key]
            prefix, host = first.rsplit(".", 1)
            for i in range(count):
                space.run("ip", "address", "add", f"{prefix}.{int(host) + i}/32", "dev", "lo")
        return self._add("loopback", (space, space, space), LOOPBACK)

    def _link(self):
        client, proxy, server = spaces = [self.world.space() for _ in range(3)]
        for space in spaces:
            space.set("net.ipv6.conf.all.disable_ipv6", 1)
        link = self.world.start([self.world.program("delaylink"), f"/proc/{client.holder.pid}/ns/net", "to-proxy",
                                 f"/proc/{proxy.holder.pid}/ns/net", "to-client", str(LINK_MS * 500)], None, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        if link.popen.stdout.readline() != b"ready\n":
            raise BenchError(f"delaylink: {link.popen.stderr.read().decode().strip()}")
        proxy.run("ip", "link", "add", "to-server", "type", "veth", "peer", "name", "to-proxy", "netns", str(server.holder.pid))
        prefix, host = LINK["to"][0].rsplit(".", 1)
        servers = [f"{prefix}.{int(host) + i}" for i in range(LINK["to"][1])]
        for space, device, addresses in ((client, "to-proxy", [LINK["from"][0]]), (proxy, "to-client", [LINK["proxy"][0]]),
                                         (proxy, "to-server", [LINK["proxy"][1]]), (server, "to-proxy", servers)):
            for address in addresses:
                space.run("ip", "address", "add", f"{address}/24", "dev", device)
            space.run("ip", "link", "set", device, "up")
        client.run("ip", "route", "add", "default", "dev", "to-proxy")
        server.run("ip", "route", "add", "default", "via", LINK["proxy"][1])
        proxy.set("net.ipv4.ip_forward", 1)  # for "direct"
        return self._add("link", spaces, LINK)

    def _start_proxy(self):
        host = self.place.proxy_in
        made = subprocess.run([find("openssl") or "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                               "-days", "2", "-subj", "/CN=proxy", "-addext", f"subjectAltName=IP:{host}", "-keyout", self.key, "-out",
                               self.certificate], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise BenchError(f"openssl: {made.stderr.strip()}")
        config = {"listeners": [{"address": f"{host}:{self.port}", "open": True},
                                {"address": f"{host}:{self.tls_port}", "open": True,
                                 "tls": {"certificate": self.certificate, "key": self.key}}],
                  "log": {"level": "error", "access": False}, "status": {"socket": "none"},
                  "limits": {"connections_per_client": "none"}}
        if self.name == "loopback":  # servers have addresses of the proxy's own machine
            config["rules"] = [{"allow": {"to": [LOOPBACK["to"][0].rsplit(".", 1)[0] + ".0/24"]}}, {"allow": {}}]
        path = self.world.write(f"wrap-{self.name}.yaml", json.dumps(config))
        daemon = self.world.start([os.path.join(self.world.build, "src", "proxyd", "socks6d"), "-c", path], self.place.proxy)
        for port in (self.port, self.tls_port):
            if not self.world.wait_ready(daemon, self.place, port):
                raise BenchError("socks6d does not start")

    def sample(self, target, measure, seconds):
        """What the load says, as a dict; "problem" is in it if something went wrong."""
        scheme, port, query = ("socks6s", self.tls_port, f"?ca={self.certificate}") if target.is_tls else ("socks6", self.port, "")
        known = {"socks6": os.path.join(self.world.build, "src", "cli", "socks6"), "proxychains": self.proxychains,
                 "url": f"{scheme}://{self.place.proxy_in}:{port}{query}"}
        host, count = self.place.destinations, self.place.destination_count
        command = [part.format(**known) for part in target.command] + [
            self.world.program("wrap_load"), f"kind={measure.kind}", f"host={host}", f"count={count}", f"port={self.place.ports['echo']}",
            f"workers={measure.workers}", f"seconds={seconds}", f"warm={max(0.3, seconds / 4)}"]
        os.makedirs(self.cache, mode=0o700, exist_ok=True)
        env = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
        env |= {"HOME": self.cache, "XDG_CACHE_HOME": self.cache, "XDG_RUNTIME_DIR": self.cache, "TORSOCKS_CONF_FILE": self.torsocks,
                "LC_ALL": "C"}

        def prepare():
            self.place.client.enter()
            if self.world.can_be_nice:
                os.setpriority(os.PRIO_PROCESS, 0, -10)
        with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=prepare, cwd=self.world.work, start_new_session=True) as process:
            try:
                out, err = process.communicate(timeout=SAMPLE_LIMIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return {"problem": "it does not end"}
        try:
            found = json.loads(out)
        except ValueError:
            said = (err.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            return {"problem": f"exit status {process.returncode}: {said}"}
        if found["errors"]:
            found["problem"] = f"{found['errors']} errors, the first: {found['first_error']}"
        elif not found["ops"]:
            found["problem"] = "nothing was done"
        return found | {"rate": found["ops"] / found["seconds"]}


class Run:
    def __init__(self, options, say):
        self.options, self.say = options, say
        self.samples, self.left_out = [], []

    def _targets(self):
        for name in self.options.targets:
            if TARGETS[name].needs and find(TARGETS[name].needs) is None:
                self.left_out.append(f"{name}: {TARGETS[name].needs} is not installed")
                self.say(f"left out: {self.left_out[-1]}")
            else:
                yield name

    def run(self, world):
        targets = list(self._targets())
        stages = {}
        for name in self.options.measures:
            place = MEASURES[name].place
            if place not in stages:
                stages[place] = Stage(world, place)
        for number in range(self.options.rounds):
            self.say(f"round {number + 1} of {self.options.rounds}")
            for name in random.sample(self.options.measures, len(self.options.measures)):
                measure = MEASURES[name]
                seconds = self.options.seconds * (3 if measure.place == "link" else 1)
                fitting = [target for target in targets if measure.kind != "connect" or not TARGETS[target].is_early]
                for target in random.sample(fitting, len(fitting)):
                    sample = stages[measure.place].sample(TARGETS[target], measure, seconds)
                    if "problem" in sample:
                        self.say(f"  {name} {target}: {sample['problem']}")
                    self.samples.append({"measure": name, "target": target, "round": number, **sample})


def main(arguments, say):
    options = parse(arguments)
    os.makedirs(options.out, exist_ok=True)
    build = os.environ.get("SOCKS6_BUILD", os.path.join(ROOT, "build", "bench"))
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        say("error: namespaces and the delay link need root and /dev/net/tun")
        return 1
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="socks6-bench-") as work:
        world = World(os.path.abspath(build), work, say)
        one = Run(options, say)
        status = 0
        try:
            one.run(world)
        except BenchError as error:
            say(f"error: {error}")
            status = 1
        except KeyboardInterrupt:
            status = 130
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end takes a moment, and must be whole
            world.close()
    if one.samples:
        results = wrap_report.evaluate(one.samples, TARGETS, MEASURES, options, one.left_out, LINK_MS)
        wrap_report.write(results, options.out)
        print(wrap_report.markdown(results))
        say(f"written: {os.path.relpath(options.out)}/wrap.md and wrap.json, after {time.monotonic() - started:.0f} s")
        if options.publish and status == 0:
            wrap_report.publish(ROOT, results, sys.argv[1:])
    return status or (1 if any("problem" in sample for sample in one.samples) else 0)
