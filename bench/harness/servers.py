"""How each proxy is started. None of them writes a log (but socks6d-log), and all may have as many connections as the limit
on descriptors allows."""
import os
import shutil
import subprocess

from . import tls
from .cases import TARGETS
from .world import BenchError

NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")
ROLES = ("echo", "sink", "source")
DNS_ROLE = "dns"  # served by proxies with a resolver, and by resolvers
MOST_CONNECTIONS = 9500


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")


class Server:
    """A running proxy. `ports` has one port for each role of the backend; those of a SOCKS proxy are all the same."""

    def __init__(self, process, ports):
        self.process = process
        self.ports = ports


def _socks6d(world, place, name, port):
    program = os.path.join(world.build, "src", "proxyd", "socks6d")
    is_fast = name == "socks6d-tfo"
    if is_fast and not world.can_isolate:
        raise BenchError("TCP Fast Open has to be allowed to servers, which is done in namespaces only")
    with_tls = f", tls: {tls.listener(world)}" if name in ("socks6d-tls", "socks6d-tls-again") else ""
    auth = f"auth: {tls.passwords(world)}\n" if name == "socks6d-password" else ""
    config = f"""\
listeners:
  - {{address: "{place.proxy_in}:{port}", open: true, {"tfo: true, tfo_without_token: act" if is_fast else "tfo: false"}{with_tls}}}
{auth}limits:
  connections_per_client: none
log:
  level: error
  access: {"true" if name == "socks6d-log" else "false"}
dns:
  upstream: udp://127.0.0.1:{place.ports[DNS_ROLE]}
"""
    if name in ("socks6d-copy", "socks6d-splice"):
        config += f"relay: {name.rpartition('-')[2]}\n"
    path = world.write(f"{name}-{place.name}.yaml", config)
    check = subprocess.run([program, "-t", "-c", path], capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise BenchError(f"{name}: {(check.stdout + check.stderr).strip()}")
    return [program, "-c", path]


def _bare(world, place, name, port):
    del name
    return [world.program("bare"), place.proxy_in, str(port), str(os.cpu_count())]


def _microsocks(world, place, name, port):
    del world, name
    return ["microsocks", "-i", place.proxy_in, "-p", str(port)]


def _dante(world, place, name, port):
    user = "user.privileged: root\nuser.unprivileged: nobody" if os.geteuid() == 0 else ""
    path = world.write(f"{name}-{place.name}.conf", f"""\
errorlog: stderr
internal: {place.proxy_in} port = {port}
external: {place.proxy_out}
clientmethod: none
socksmethod: none
{user}
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
""")
    return ["danted", "-N", str(os.cpu_count()), "-f", path, "-p", os.path.join(world.work, f"{name}-{place.name}.pid")]


# "auto" hardly ever splices; which of the two is better depends on the measure.
SPLICE = {"haproxy": "  option splice-request\n  option splice-response", "haproxy-auto": "  option splice-auto", "haproxy-tls": ""}


def _haproxy(world, place, name, ports):
    blocks = []
    with_tls = f" {tls.HAPROXY_BIND.format(tls.certificate(world))}" if name == "haproxy-tls" else ""
    for role in ROLES:
        servers = "\n".join(f"  server s{i} {address}:{place.ports[role]}"
                            for i, address in enumerate(place.destination_list()))
        blocks.append(f"listen {role}\n  bind {place.proxy_in}:{ports[role]} backlog 4096{with_tls}\n{servers}\n")
    path = world.write(f"{name}-{place.name}.cfg", f"""\
global
  nbthread {os.cpu_count()}
  maxconn {MOST_CONNECTIONS}
  maxpipes 400
  tune.pipesize 1048576
defaults
  mode tcp
  maxconn {MOST_CONNECTIONS}
{SPLICE[name]}
  balance roundrobin
  timeout connect 10s
  timeout client 1h
  timeout server 1h
{''.join(blocks)}""")
    return ["haproxy", "-db", "-q", "-f", path]


def _nginx(world, place, name, ports):
    module = next((path for folder in NGINX_MODULES
                   if os.path.exists(path := os.path.join(folder, "ngx_stream_module.so"))), None)
    blocks = []
    for role in ROLES:
        servers = "\n".join(f"    server {address}:{place.ports[role]};" for address in place.destination_list())
        blocks.append(f"""\
  upstream {role} {{
{servers}
  }}
  server {{
    listen {place.proxy_in}:{ports[role]} reuseport backlog=4096;
    proxy_pass {role};
  }}
""")
    path = world.write(f"{name}-{place.name}.conf", f"""\
{f'load_module {module};' if module else ''}
daemon off;
worker_processes {os.cpu_count()};
worker_rlimit_nofile {2 * MOST_CONNECTIONS + 1000};
pid {world.work}/{name}-{place.name}.pid;
error_log stderr error;
events {{
  worker_connections {2 * MOST_CONNECTIONS + 500};
}}
stream {{
  access_log off;
  proxy_buffer_size 64k;
  proxy_connect_timeout 10s;
  proxy_timeout 1h;
{''.join(blocks)}}}
""")
    return ["nginx", "-p", world.work, "-e", "stderr", "-c", path]


def _unbound(world, place, name, port):
    """As its authors recommend it ("Howto Optimise"): a thread for each core, SO_REUSEPORT, slabs as many as threads, caches
    twice as large for records as for messages, many ports and questions. What costs time and is not wanted here is off:
    DNSSEC, statistics, logs; and so that it asks the backend as socks6d does, which is a recursive server for it."""
    slabs = 1 << max(0, os.cpu_count() - 1).bit_length()
    path = world.write(f"{name}-{place.name}.conf", f"""\
server:
  directory: "{world.work}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  verbosity: 0
  interface: {place.proxy_in}@{port}
  access-control: 0.0.0.0/0 allow
  do-ip6: no
  num-threads: {os.cpu_count()}
  so-reuseport: yes
  msg-cache-slabs: {slabs}
  rrset-cache-slabs: {slabs}
  infra-cache-slabs: {slabs}
  key-cache-slabs: {slabs}
  msg-cache-size: 50m
  rrset-cache-size: 100m
  outgoing-range: 8192
  num-queries-per-thread: 4096
  incoming-num-tcp: 1024
  tcp-idle-timeout: 60000
  module-config: "iterator"
  rrset-roundrobin: no
  do-not-query-localhost: no
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@{place.ports[DNS_ROLE]}
remote-control:
  control-enable: no
""")
    check = subprocess.run([find("unbound-checkconf") or "true", path], capture_output=True, text=True, check=False)
    if check.returncode != 0:
        raise BenchError(f"{name}: {(check.stdout + check.stderr).strip()}")
    return ["unbound", "-d", "-p", "-c", path]


def _tls_pump(world, place, name, ports):
    del name
    ports["echo"] = ports["sink"]  # nobody asks it for an echo; so it is seen to listen
    return [world.program("tls_pump"), tls.certificate(world), place.proxy_in, str(ports["sink"]), str(ports["source"]),
            place.destinations, str(place.ports["sink"]), str(place.ports["source"])]


ONE_PORT_COMMANDS = {"bare": _bare, "microsocks": _microsocks, "dante": _dante, "unbound": _unbound}
PLAIN_COMMANDS = {"haproxy": _haproxy, "haproxy-auto": _haproxy, "haproxy-tls": _haproxy, "nginx": _nginx,
                  "tls-pump": _tls_pump}


def _last_line(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip().splitlines()[-1]
    except (OSError, IndexError):
        return "it says nothing"


def start(world, place, name):
    """The proxy `name`, ready; BenchError says why there is none."""
    if name in PLAIN_COMMANDS:
        ports = {role: world.free_port() for role in ROLES}
        command = PLAIN_COMMANDS[name](world, place, name, ports)
    else:
        port = world.free_port()
        ports = dict.fromkeys((*ROLES, DNS_ROLE), port)
        command = ONE_PORT_COMMANDS.get(name, _socks6d)(world, place, name, port)
    program = find(command[0])
    if program is None:
        raise BenchError(f"{command[0]} is not installed")
    log_path = os.path.join(world.work, f"{name}-{place.name}.log")
    # microsocks tells of each client on standard error, and cannot be told not to; the others only of errors.
    with open(os.devnull if name == "microsocks" else log_path, "wb") as log:
        process = world.start([program, *command[1:]], place.proxy, group=name, stdout=log, stderr=log)
    if not world.wait_ready(process, place, ports["echo"]):
        world.stop(process)
        raise BenchError(f"{name} does not start: {_last_line(log_path)}")
    return Server(process, ports)


class Servers:
    """The proxies of a run, each started when first used and then kept. What cannot be started is told once."""

    def __init__(self, world):
        self.world = world
        self.running = {}
        self.missing = {}  # name of the server: why

    def get(self, place, target):
        """A Server, None for "direct"; BenchError if there is none."""
        name = TARGETS[target].server
        if not name:
            return None
        if name in self.missing:
            raise BenchError(self.missing[name])
        key = place.name, name
        if key in self.running and not self.running[key].process.is_alive():
            self.missing[name] = f"{name} ended by itself"
            self.world.say(self.missing[name])
            raise BenchError(self.missing[name])
        if key not in self.running:
            try:
                self.running[key] = start(self.world, place, name)
            except BenchError as error:
                self.missing[name] = str(error)
                self.world.say(f"skipped: {error}")
                raise
        return self.running[key]

    def check(self, places, targets):
        """Starts all of `targets` now, so that what is missing is said before anything is measured."""
        for place in places:
            for target in targets:
                try:
                    self.get(place, target)
                except BenchError:
                    continue
