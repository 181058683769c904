"""`./dev bench rtt`: time to first byte over long ways, in milliseconds and in round trips (doc/performance.md)."""
import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

from . import rtt_report
from .rtt_rows import PASSWORD, USER, needs_of, rows_for
from .servers import find
from .wan import Geometry, Wan
from .world import BenchError, World

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GEOMETRIES = [Geometry(50, 10), Geometry(200, 5), Geometry(20, 80)]
PRIMING = 3  # connections before a warm one: session, token window and ticket, cookies on both legs
FIRST_BYTE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "first_byte.py")


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench rtt", description="Time to first byte over long ways; doc/performance.md "
                                                                         "explains how. Needs root and /dev/net/tun.")
    parser.add_argument("--quick", action="store_true", help="3 samples of each row instead of 7")
    parser.add_argument("--samples", type=int, help="how often each row is measured")
    parser.add_argument("--geometry", action="append", metavar="C/S", help="round trip times in ms, client to proxy and proxy to "
                                                                           "server (50/10, 200/5 and 20/80)")
    parser.add_argument("--only", metavar="ROWS", help="these rows alone: names with commas in between")
    parser.add_argument("--publish", action="store_true", help="put the table into doc/performance.md")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"), metavar="DIR", help="build/bench unless told")
    options = parser.parse_args(arguments)
    options.samples = options.samples or (3 if options.quick else 7)
    try:
        options.geometries = [Geometry(*map(int, text.split("/"))) for text in options.geometry or []] or GEOMETRIES
    except (TypeError, ValueError):
        parser.error("a geometry is two numbers, such as 50/10")
    if options.samples < 1 or any(g.c < 2 or g.s < 2 for g in options.geometries):
        parser.error("numbers must be positive, round trips at least 2 ms")
    return options


# --- what this build can do ---

class Features:
    """What daemon and client of this build know, found by asking them."""

    def __init__(self, world):
        self.world = world
        self.daemon = os.path.join(world.build, "src", "proxyd", "socks6d")
        self.client = os.path.join(world.build, "src", "cli", "socks6")
        self.help = subprocess.run([self.client, "connect", "--help"], capture_output=True, text=True, check=False).stdout
        self.users = os.path.join(world.work, "rtt-users")
        self.certificate, self.key = (os.path.join(world.work, f"rtt-{what}.pem") for what in ("certificate", "key"))
        self.has = {name: test() for name, test in {
            "password": self._password, "sessions": self._sessions, "tls": self._tls, "early data": self._early_data,
            "client Fast Open": lambda: "--no-tfo" in self.help,
            "option Fast Open": lambda: "--remote-tfo" in self.help}.items()}

    def _takes(self, config):
        """Whether the daemon finds nothing wrong with it."""
        path = os.path.join(self.world.work, "rtt-probe.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return subprocess.run([self.daemon, "-t", "-c", path], capture_output=True, check=False).returncode == 0

    def _password(self):
        done = subprocess.run([self.client, "passwd", "--create", "--stdin", self.users, USER], input=PASSWORD + "\n", capture_output=True, text=True,
                              check=False)
        return done.returncode == 0 and self._takes({"auth": {"methods": ["password"], "users": self.users}})

    def _sessions(self):
        return "--no-session" in self.help and self._takes({"limits": {"sessions": 100}})

    def _tls(self):
        openssl = find("openssl")
        if openssl is None:
            return False
        subprocess.run([openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                        "-subj", "/CN=proxy", "-addext", "subjectAltName=IP:10.202.1.1", "-keyout", self.key, "-out",
                        self.certificate], capture_output=True, check=False)
        asked = subprocess.run([self.client, "-x", "socks6s://127.0.0.1:1", "connect", "127.0.0.1", "1"], capture_output=True,
                               check=False, stdin=subprocess.DEVNULL)
        return asked.returncode == 3 and self._takes({"listeners": [
            {"address": "127.0.0.1:0", "tls": {"certificate": self.certificate, "key": self.key}}]})

    def _early_data(self):
        return "--no-early-data" in self.help and self._takes({"listeners": [
            {"address": "127.0.0.1:0", "tls": {"certificate": self.certificate, "key": self.key, "early_data": True}}]})

    def missing(self, row):
        """The first that the row needs and that is not there, or None."""
        for need in needs_of(row):
            if need in ("dante", "microsocks"):
                if find({"dante": "danted"}.get(need, need)) is None:
                    return f"{need} is not installed"
            elif not self.has[need]:
                return f"this build has no {need}"
        return None


# --- servers ---

class Proxies:
    """Those of one geometry, each started when first used."""

    def __init__(self, wan, features):
        self.wan, self.features, self.ports = wan, features, {}

    def _socks6d(self, kind, port):
        host = self.wan.place.proxy_in
        listener = {"address": f"{host}:{port}", "open": True}
        config = {"listeners": [listener], "log": {"level": "error", "access": False}, "status": {"socket": "none"},
                  "limits": {"connections_per_client": "none"}}
        if "password" in kind:
            config["auth"] = {"methods": ["password"], "users": self.features.users}
        if "tls" in kind:
            listener["tls"] = {"certificate": self.features.certificate, "key": self.features.key}
            if self.features.has["early data"]:
                listener["tls"]["early_data"] = True
        if "act" in kind:
            listener["tfo_without_token"] = "act"
        path = os.path.join(self.wan.world.work, f"{'-'.join(kind)}-{self.wan.place.name}.yaml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        return [self.features.daemon, "-c", path]

    def _dante(self, port):
        path = os.path.join(self.wan.world.work, f"dante-{self.wan.place.name}.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"errorlog: stderr\ninternal: {self.wan.place.proxy_in} port = {port}\n"
                       f"external: {self.wan.place.proxy_out}\nclientmethod: none\nsocksmethod: none\n"
                       "user.privileged: root\nuser.unprivileged: nobody\n"
                       "client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\nsocks pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }\n")
        return [find("danted"), "-N", "1", "-f", path, "-p", path + ".pid"]

    def _microsocks(self, kind, port):
        login = ["-u", USER, "-P", PASSWORD] if "password" in kind else []
        return [find("microsocks"), *login, "-i", self.wan.place.proxy_in, "-p", str(port)]

    def port(self, kind):
        """`kind` is a tuple: the program, then what it is to do."""
        if kind not in self.ports:
            port = self.wan.world.free_port()
            command = {"socks6d": lambda: self._socks6d(kind, port), "dante": lambda: self._dante(port),
                       "microsocks": lambda: self._microsocks(kind, port)}[kind[0]]()
            process = self.wan.world.start(command, self.wan.proxy)
            if not self.wan.world.wait_ready(process, self.wan.place, port):
                raise BenchError(f"{' '.join(kind)} does not start")
            self.ports[kind] = port
        return self.ports[kind]


# --- clients ---

@dataclass
class Client:
    command: list
    stdin: bytes = b""
    env: dict = field(default_factory=dict)


def client_for(row, wan, proxies, features, cache):
    target = [wan.place.destinations, str(wan.place.ports["echo"])]
    env = {key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")}
    script = ["/usr/bin/python3", "-B", FIRST_BYTE]
    if row.proxy is None:
        return Client([*script, "direct", *target, *(["tfo"] if row.client_tfo else [])], env=env)
    host, port = wan.place.proxy_in, str(proxies.port(row.proxy))
    if row.protocol == "socks5":
        user = [f"user={USER}:{PASSWORD}"] if "password" in row.proxy else []
        return Client([*script, "socks5", *target, host, port, *user], env=env)
    if row.by_script:
        flags = [*(["tfo"] if row.client_tfo else []), *(["server-tfo"] if row.server_tfo else [])]
        return Client([*script, "socks6", *target, host, port, *flags], env=env)
    login = f"{USER}:{PASSWORD}@" if "password" in row.proxy else ""
    url = f"{'socks6s' if row.tls else 'socks6'}://{login}{host}:{port}" + (f"?ca={features.certificate}" if row.tls else "")
    flags = ["--early", "-q", "0"]
    if features.has["client Fast Open"] and not row.client_tfo:
        flags.append("--no-tfo")
    if row.tls and features.has["early data"] and not row.early_data:
        flags.append("--no-early-data")
    if row.server_tfo:
        flags.append("--remote-tfo")
    env |= {"HOME": cache, "XDG_CACHE_HOME": cache, "XDG_STATE_HOME": cache, "XDG_RUNTIME_DIR": cache}
    return Client([features.client, "-x", url, "connect", *flags, *target], b"x", env)


# --- samples ---

class Run:
    def __init__(self, options, say):
        self.options, self.say = options, say
        self.rows, self.left_out, self.results = [], {}, {}

    def _choose(self, features):
        wanted = self.options.only.split(",") if self.options.only else None
        rows = rows_for(features.has)
        if wanted and (unknown := [name for name in wanted if name not in {row.name for row in rows}]):
            raise BenchError(f"no row '{unknown[0]}'; there are: {', '.join(row.name for row in rows)}")
        for row in rows:
            if wanted and row.name not in wanted:
                continue
            missing = features.missing(row)
            if missing:
                self.left_out.setdefault(missing, []).append(row.name)
            else:
                self.rows.append(row)

    def _measure(self, row, wan, proxies, features):
        samples = []
        cache = tempfile.mkdtemp(dir=wan.world.work)
        client = client_for(row, wan, proxies, features, cache)
        wan.forget_cookies()
        for _ in range(PRIMING if row.warm else 0):
            wan.sample(client.command, client.env, client.stdin)
        for _ in range(self.options.samples):
            if not row.warm:
                wan.forget_cookies()
                shutil.rmtree(cache)
                os.mkdir(cache, 0o700)
            samples.append(wan.sample(client.command, client.env, client.stdin))
        return samples

    def _geometry(self, world, geometry, features):
        wan = Wan(world, geometry)
        proxies = Proxies(wan, features)
        for row in self.rows:
            entry = self.results.setdefault(row.name, {})
            try:
                samples = self._measure(row, wan, proxies, features)
            except BenchError as error:
                self.say(f"  {row.name}: {error}")
                entry[geometry.name] = {"problem": str(error)}
                continue
            times = [sample.first_byte for sample in samples]
            entry[geometry.name] = {
                "median_ms": statistics.median(times), "low_ms": min(times), "high_ms": max(times), "samples": len(times),
                "startup_ms": statistics.median(sample.startup for sample in samples),
                "client_syn_data": sum(sample.client_syn_data for sample in samples),
                "server_syn_data": sum(sample.server_syn_data for sample in samples)}
            self.say(f"  {geometry.name} {row.name}: {statistics.median(times):.1f} ms")
        wan.close()

    def run(self, world):
        features = Features(world)
        self._choose(features)
        for missing, names in self.left_out.items():
            self.say(f"left out: {', '.join(names)}: {missing}")
        if not self.rows:
            raise BenchError("nothing is left to be measured")
        for geometry in self.options.geometries:
            self.say(f"C = {geometry.c} ms, S = {geometry.s} ms: {len(self.rows)} rows, {self.options.samples} samples each")
            self._geometry(world, geometry, features)

    def failed(self):
        return any("problem" in entry for results in self.results.values() for entry in results.values())


def main(arguments, say):
    options = parse(arguments)
    os.makedirs(options.out, exist_ok=True)
    build = os.environ.get("SOCKS6_BUILD", os.path.join(ROOT, "build", "bench"))
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        say("error: the delay links need root and /dev/net/tun")
        return 1
    with tempfile.TemporaryDirectory(prefix="socks6-bench-") as work:
        os.chmod(work, 0o755)  # dante's processes are another user's
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
        if one.results:
            results = rtt_report.evaluate(one.rows, one.results, one.left_out, options, status != 0)
            rtt_report.write(results, options.out)
            print(rtt_report.markdown(results))
            say(f"written: {os.path.relpath(options.out)}/rtt.md and rtt.json")
            if options.publish and status == 0:
                rtt_report.publish(ROOT, results, sys.argv[1:])
        return status or (1 if one.failed() else 0)
