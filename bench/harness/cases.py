"""What is measured, of what, and what the goals are: tables."""
from dataclasses import dataclass

# Protocol that the load generator speaks, by target; the server process that it speaks to.
PLAIN, SOCKS5, SOCKS6, ONCE, FAST = "plain", "socks5", "socks6", "socks6-once", "socks6-tfo"
LOGIN, TOKEN = "socks6-login", "socks6-token"


@dataclass(frozen=True)
class Target:
    name: str
    title: str
    proto: str
    server: str = ""  # name of the process in servers.py; "" is none
    group: str = "peer"  # ours, socks, plain, tls, dns, none
    always: bool = True  # part of a run unless asked for by name


TARGETS = {target.name: target for target in [
    Target("direct", "direct (no proxy)", PLAIN, "", "none"),
    Target("socks5", "socks6d, SOCKS 5", SOCKS5, "socks6d", "ours"),
    Target("socks5-again", "socks6d, SOCKS 5 (again: A/A)", SOCKS5, "socks6d-again", "ours"),
    Target("socks6", "socks6d, SOCKS 6", SOCKS6, "socks6d", "ours"),
    Target("socks6-once", "socks6d, SOCKS 6 in one segment", ONCE, "socks6d", "ours"),
    Target("socks6-tfo", "socks6d, SOCKS 6 in a SYN, Fast Open on both legs", FAST, "socks6d-tfo", "ours"),
    Target("socks5-log", "socks6d, SOCKS 5, access log", SOCKS5, "socks6d-log", "ours"),
    Target("socks5-copy", "socks6d, relay: copy", SOCKS5, "socks6d-copy", "ours", False),
    Target("socks5-splice", "socks6d, relay: splice", SOCKS5, "socks6d-splice", "ours", False),
    Target("bare", "bare relay (bench/bare.c)", SOCKS5, "bare", "none"),
    Target("dante", "dante", SOCKS5, "dante", "socks"),
    Target("microsocks", "microsocks", SOCKS5, "microsocks", "socks"),
    Target("haproxy", "HAProxy, splice (no SOCKS)", PLAIN, "haproxy", "plain"),
    Target("haproxy-auto", "HAProxy, splice-auto (no SOCKS)", PLAIN, "haproxy-auto", "plain"),
    Target("nginx", "nginx stream (no SOCKS)", PLAIN, "nginx", "plain"),
    Target("unbound", "unbound, asked directly", PLAIN, "unbound", "dns"),
    Target("socks6d", "socks6d, DNS service", SOCKS6, "socks6d", "ours"),
    Target("socks6d-again", "socks6d, DNS service (again: A/A)", SOCKS6, "socks6d-again", "ours"),
    Target("tls-socks6", "socks6d, SOCKS 6 over TLS", SOCKS6, "socks6d-tls", "ours"),
    Target("tls-socks6-again", "socks6d, SOCKS 6 over TLS (again: A/A)", SOCKS6, "socks6d-tls-again", "ours"),
    Target("tls-socks6-token", "socks6d, SOCKS 6 over TLS, tokens", TOKEN, "socks6d-tls", "ours"),
    Target("tls-haproxy", "HAProxy, TLS (no SOCKS)", PLAIN, "haproxy-tls", "tls"),
    Target("tls-pump", "two bare pumps (bench/tls_pump.c)", PLAIN, "tls-pump", "none"),
    Target("anonymous", "socks6d, anonymous", ONCE, "socks6d", "ours"),
    Target("anonymous-again", "socks6d, anonymous (again: A/A)", ONCE, "socks6d-again", "ours"),
    Target("password", "socks6d, name and password", LOGIN, "socks6d-password", "ours"),
]}
RELAY_CONTROL, DNS_CONTROL = ("socks5", "socks5-again"), ("socks6d", "socks6d-again")
TLS_CONTROL, LOGIN_CONTROL = ("tls-socks6", "tls-socks6-again"), ("anonymous", "anonymous-again")


@dataclass(frozen=True)
class Measure:
    name: str
    title: str
    kind: str  # as load.c, dns_load.c or tls_load.c has it
    conns: int
    world: str = "local"
    targets: tuple = ()
    always: bool = True
    in_flight: int = 0  # DNS: questions of each connection at a time
    is_tls: bool = False  # of tls_load.c
    control: tuple = RELAY_CONTROL  # the target that is measured twice, and its second name
    per_round: int = 1  # samples of each target, one after the other

    @property
    def is_bulk(self):
        return self.kind in ("up", "down")

    @property
    def is_dns(self):
        return self.kind in ("cached", "uncached")

    @property
    def part(self):
        """Of the results: those of the DNS service, of TLS and authentication, and the others are published apart."""
        return "DNS" if self.is_dns else "TLS" if self.is_tls or self.control == LOGIN_CONTROL else ""

    @property
    def rate_unit(self):
        return "GiB/s" if self.is_bulk else "1/s"

    @property
    def cpu_unit(self):
        return "CPU s/GiB" if self.is_bulk else "CPU us"


# HAProxy is measured as it does best: always splicing where bytes move in bulk; both ways for small messages, where
# "auto" is faster; where connections are set up it makes no difference.
# After the handshake there is one relay for all protocols: SOCKS 6 in one segment is measured where connections are set
# up, and so is the log, which has one line for each of them.
SETUP = ("direct", "socks5", "socks5-again", "socks6", "socks6-once", "socks6-tfo", "bare", "dante", "microsocks", "haproxy",
         "nginx")
REQUESTS = ("direct", "socks5", "socks5-again", "socks6", "bare", "dante", "microsocks", "haproxy", "haproxy-auto", "nginx")
BULK = ("direct", "socks5", "socks5-again", "socks6", "dante", "microsocks", "haproxy", "nginx")
LOG = ("socks5", "socks5-again", "socks5-log")
DNS = ("unbound", "socks6d", "socks6d-again")
# Questions in flight on each connection, by the number of connections: one connection is that of a busy forwarder, 64 are
# those of as many hosts. Neither fills what a resolver lets wait.
DNS_IN_FLIGHT = {1: 16, 64: 4}


def _dns_measures():
    for kind in ("cached", "uncached"):
        for conns, in_flight in DNS_IN_FLIGHT.items():
            title = f"DNS over TCP, {kind}, {_connections(conns)}, {in_flight} questions in flight on each"
            yield Measure(f"dns-{kind}{conns}", title, kind, conns, targets=DNS, in_flight=in_flight,
                          control=DNS_CONTROL)
    for conns in DNS_IN_FLIGHT:
        title = f"DNS over TCP, cached, {_connections(conns)}, one question after the other"
        yield Measure(f"dns-single{conns}", title, "cached", conns, targets=DNS, always=False, in_flight=1, control=DNS_CONTROL)


TLS_RELAYS = (*TLS_CONTROL, "tls-haproxy")
TLS_BULK = (*TLS_RELAYS, "tls-pump")
TLS_HANDSHAKES = {"full": "full handshakes", "resumed": "resumed handshakes", "early": "early data"}
LOGINS = (*LOGIN_CONTROL, "password")
LOGIN_PAIRS = 15  # of samples, for the goal to be judged


def _tls_measures():
    for conns, streams in ((1, "1 stream"), (16, "16 streams")):
        for kind, way in (("up", "to the server"), ("down", "to the client")):
            yield Measure(f"tls-{kind}{conns}", f"Bulk over TLS {way}, {streams}", kind, conns, targets=TLS_BULK, always=False,
                          is_tls=True, control=TLS_CONTROL)
    for kind, what in TLS_HANDSHAKES.items():
        targets = (*TLS_RELAYS, "tls-socks6-token") if kind == "early" else TLS_RELAYS
        yield Measure(f"tls-{kind}64", f"New connections over TLS, {what}, 64 at once", kind, 64, targets=targets, always=False,
                      is_tls=True, control=TLS_CONTROL)
    yield Measure("login64", "Logins with a password, 64 connections at once", "hs", 64, targets=LOGINS, always=False,
                  control=LOGIN_CONTROL, per_round=2)


def _connections(count):
    return "1 connection" if count == 1 else f"{count} connections"


def _measures():
    for conns in (64, 256):
        yield Measure(f"hs{conns}", f"New connections, {conns} at once", "hs", conns, targets=SETUP)
    for conns in (64, 256):
        yield Measure(f"rr{conns}", f"Requests and responses of 64 bytes, {conns} connections", "rr", conns, targets=REQUESTS)
    for world, where in (("local", "loopback"), ("veth", "veth, MTU 1500")):
        for conns, streams in ((1, "1 stream"), (16, "16 streams")):
            for kind, way in (("up", "to the server"), ("down", "to the client")):
                name = f"{kind}{conns}" if world == "local" else f"veth-{kind}{conns}"
                yield Measure(name, f"Bulk {way}, {streams}, {where}", kind, conns, world, BULK)
    for conns in (64, 256):
        yield Measure(f"log{conns}", f"Access log off and on: new connections, {conns} at once", "hs", conns, targets=LOG)
    yield from _dns_measures()
    yield from _tls_measures()
    for kind, title in (("hs", "New connections"), ("rr", "Requests and responses of 64 bytes")):
        targets = SETUP if kind == "hs" else REQUESTS
        yield Measure(f"veth-{kind}64", f"{title}, 64 at once, veth, MTU 1500", kind, 64, "veth", targets, False)


MEASURES = {measure.name: measure for measure in _measures()}


def part_of(name):
    """As Measure.part; of the memory of idle connections as well."""
    return MEASURES[name].part if name in MEASURES else ""


SPECIAL_TARGETS = frozenset(t for m in MEASURES.values() if m.part for t in m.targets)


def fits(name, target):
    """Whether the measure says anything about the target."""
    return target in MEASURES[name].targets if part_of(name) else target not in SPECIAL_TARGETS


IDLE = "idle"
IDLE_TITLE = "Memory and descriptors of an idle connection"
IDLE_TARGETS = ("direct", "socks5", "socks6", "dante", "microsocks", "haproxy", "nginx")
GROUPS = {
    "hs": ["hs64", "hs256"],
    "rr": ["rr64", "rr256"],
    "bulk": [m.name for m in MEASURES.values() if m.is_bulk and not m.is_tls],
    "loopback-bulk": [m.name for m in MEASURES.values() if m.is_bulk and not m.is_tls and m.world == "local"],
    "veth": [m.name for m in MEASURES.values() if m.is_bulk and m.world == "veth"],
    "log": ["log64", "log256"],
    "dns": [m.name for m in MEASURES.values() if m.is_dns and m.always],
    "tls": [m.name for m in MEASURES.values() if m.part == "TLS"],
    IDLE: [IDLE],
    "all": [m.name for m in MEASURES.values() if m.always] + [IDLE],
}


def select(names):
    """The measures that names (of measures and groups) stand for, in the order of the tables; None if one is unknown."""
    wanted = set()
    for name in names or ["all"]:
        if name in GROUPS:
            wanted.update(GROUPS[name])
        elif name in MEASURES:
            wanted.add(name)
        else:
            return None
    return [name for name in [*MEASURES, IDLE] if name in wanted]


@dataclass(frozen=True)
class Goal:
    """`ours` against `peers` (the best of them) in one series of the samples: "rate" or "cpu"."""
    text: str
    measure: str
    ours: str
    peers: tuple
    series: str
    sense: str
    value: float
    pairs: int = 0  # that it takes at least; 0 = as many as any ratio


@dataclass(frozen=True)
class Overhead:
    """CPU microseconds of socks6d beyond those of the bare relay."""
    text: str
    measure: str
    at_most_us: float


@dataclass(frozen=True)
class Footprint:
    text: str
    field: str
    at_most: float


def _goals():
    connections = "new connections at 256"
    yield Goal(f"{connections}: SOCKS 5 / microsocks", "hs256", "socks5", ("microsocks",), "rate", ">=", 1.4)
    yield Goal(f"{connections}: CPU each, SOCKS 5 / microsocks", "hs256", "socks5", ("microsocks",), "cpu", "<=", 0.65)
    for peer in ("nginx", "haproxy"):
        yield Goal(f"{connections}: SOCKS 6 in one segment / {TARGETS[peer].title}", "hs256", "socks6-once", (peer,), "rate",
                   ">=", 0.8)
        yield Goal(f"{connections}: SOCKS 6 in a SYN, Fast Open on both legs: level with {TARGETS[peer].title}", "hs256",
                   "socks6-tfo", (peer,), "rate", ">=", 1.0)
    for conns in (64, 256):
        for peer in ("haproxy", "haproxy-auto"):
            yield Goal(f"request-response at {conns}: / {TARGETS[peer].title}", f"rr{conns}", "socks5", (peer,), "rate", ">=", 1.2)
        yield Goal(f"request-response at {conns}: level with nginx", f"rr{conns}", "socks5", ("nginx",), "rate", ">=", 1.0)
    for measure in (m for m in MEASURES.values() if m.is_bulk and not m.is_tls):
        yield Goal(f"{measure.title}: / best SOCKS peer", measure.name, "socks5", ("dante", "microsocks"), "rate", ">=", 1.3)
        if measure.world == "local":
            yield Goal(f"{measure.title}: / HAProxy", measure.name, "socks5", ("haproxy",), "rate", ">=", 1.15)
        else:
            yield Goal(f"{measure.title}: level with HAProxy", measure.name, "socks5", ("haproxy",), "rate", ">=", 1.0)
            yield Goal(f"{measure.title}: CPU per GiB level with HAProxy", measure.name, "socks5", ("haproxy",), "cpu", "<=",
                       1.0)
    for conns in DNS_IN_FLIGHT:
        where = f"DNS, cached, {_connections(conns)}"
        yield Goal(f"{where}: answers / unbound", f"dns-cached{conns}", "socks6d", ("unbound",), "rate", ">=", 1.0)
        yield Goal(f"{where}: CPU per answer / unbound", f"dns-cached{conns}", "socks6d", ("unbound",), "cpu", "<=", 1.0)
    yield from _tls_goals()


def _tls_goals():
    for measure in (m for m in MEASURES.values() if m.is_tls):
        if measure.is_bulk:
            yield Goal(f"{measure.title}: / HAProxy", measure.name, "tls-socks6", ("tls-haproxy",), "rate", ">=", 1.1)
            yield Goal(f"{measure.title}: CPU / two bare pumps", measure.name, "tls-socks6", ("tls-pump",), "cpu", "<=", 1.15)
        else:
            what = f"{TLS_HANDSHAKES[measure.kind]} at {measure.conns}"
            yield Goal(f"TLS, {what}: / HAProxy", measure.name, "tls-socks6", ("tls-haproxy",), "rate", ">=", 0.9)
            if "tls-socks6-token" in measure.targets:
                yield Goal(f"TLS, {what}, tokens: / HAProxy", measure.name, "tls-socks6-token", ("tls-haproxy",), "rate", ">=",
                           0.9)
    yield Goal("CPU per login with a password / anonymous", "login64", "password", ("anonymous",), "cpu", "<=", 1.1, LOGIN_PAIRS)


GOALS = list(_goals())
FOOTPRINTS = [
    Footprint("idle connection: bytes of user memory", "user_bytes", 256),
    Footprint("idle connection: descriptors", "descriptors", 2),
]
OVERHEADS = [
    Overhead("CPU us per connection beyond the bare relay, 64 at once", "hs64", 3.0),
    Overhead("CPU us per connection beyond the bare relay, 256 at once", "hs256", 3.0),
    Overhead("CPU us per message beyond the bare relay, 64 connections", "rr64", 0.3),
    Overhead("CPU us per message beyond the bare relay, 256 connections", "rr256", 0.3),
]
