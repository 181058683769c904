"""
The world of `socks6 run`: network namespaces in which everything also works without a proxy, so that what passes the proxy by is
not stopped but counted.

    client 10.50.1.2 -- 10.50.1.1 proxy 10.50.3.2 -- 10.50.3.1 world
    client 10.50.2.2 ------- (default route) ------- 10.50.2.1 world
    control 10.50.4.2 ------ (default route) ------- 10.50.4.1 world

and fd50:1:: to fd50:4:: alike. What is done without `run`, to compare, is done in `control`: what it leaves behind, connections that go
on after their program, would be counted in `client`. The servers listen on all addresses of `world`; SERVER is what the proxy's resolver says for
*.run.test, and ELSEWHERE what the client's own, a decoy, says. SILENT answers nothing, UNREACHABLE with ICMP, and REFUSING with a reset.
"""

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

from . import isolate
from .daemon import Daemon, base_config, client_binary, environment
from .dns_servers import Scripted
from .net import DEADLINE, DIES_WITH_US, dial, wait_until
from .servers import Echo, end

PROXY, PROXY6, PROXY_PORT = "10.50.1.1", "fd50:1::1", 1080
PROXY_OUT, PROXY_OUT6 = "10.50.3.2", "fd50:3::2"
SERVER, SERVER6 = "10.60.0.1", "fd60::1"
ELSEWHERE, ELSEWHERE6 = "10.60.0.2", "fd60::2"
DECOY, RESOLVER = "10.60.0.53", "10.60.0.54"
REFUSING, REFUSING6 = "10.60.0.97", "fd60::97"
UNREACHABLE, UNREACHABLE6 = "10.60.0.98", "fd60::98"
SILENT, SILENT6 = "10.60.0.99", "fd60::99"
HTTP, SSH, ECHO = 80, 22, 7
NAMES = ("web", "ssh", "echo", "redis", "sql", "mirror", "www.sub")
TEXT = "what the proxy's resolver knows"
# Packets that the kernel sends by itself: how neighbours and groups find each other.
OWN_ICMPV6 = ("nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, nd-router-advert, mld-listener-query, mld-listener-report, "
              "mld-listener-done, mld2-listener-report")
LEAKS = f"""
table inet leaks {{
  counter away {{ }}
  counter names {{ }}
  set where4 {{ type ipv4_addr . inet_proto . inet_service; flags dynamic; size 1024; }}
  set where6 {{ type ipv6_addr . inet_proto . inet_service; flags dynamic; size 1024; }}
  chain out {{
    type filter hook output priority 0;
    ip daddr {PROXY} accept
    ip6 daddr {PROXY6} accept
    oifname "lo" meta l4proto {{ tcp, udp }} th dport 53 counter name names accept
    oifname "lo" accept
    icmpv6 type {{ {OWN_ICMPV6} }} accept
    counter name away
    update @where4 {{ ip daddr . meta l4proto . th dport }}
    update @where6 {{ ip6 daddr . meta l4proto . th dport }}
  }}
  chain in {{
    type filter hook input priority 0;
    ip saddr {PROXY} accept
    ip6 saddr {PROXY6} accept
    iifname "lo" accept
    icmpv6 type {{ {OWN_ICMPV6} }} accept
    counter name away
  }}
}}
"""
WORLD_RULES = f"""
table inet world {{
  chain in {{
    type filter hook input priority 0;
    ip daddr {{ {SILENT}, {UNREACHABLE} }} drop
    ip6 daddr {{ {SILENT6}, {UNREACHABLE6} }} drop
    ip daddr {REFUSING} meta l4proto tcp reject with tcp reset
    ip6 daddr {REFUSING6} meta l4proto tcp reject with tcp reset
  }}
}}
"""


def zone(ipv4, ipv6, text):
    """What a resolver of this world answers: *.run.test, sub.run.test below it, both ways; all else does not exist."""
    def answer(query):
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        question = query.question[0]
        owner = question.name
        name = owner.to_text(omit_final_dot=True).lower()
        host = name.removesuffix(".run.test")
        data = None
        if name == "no-data.run.test":
            pass
        elif host != name and (host in NAMES or host == "alias"):
            if host == "alias":
                response.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", "web.run.test."))
                owner = dns.name.from_text("web.run.test.")
            data = {dns.rdatatype.A: ipv4, dns.rdatatype.AAAA: ipv6, dns.rdatatype.TXT: f'"{text}"',
                    dns.rdatatype.MX: "10 web.run.test."}.get(question.rdtype)
        elif name == ".".join(reversed(ipv4.split("."))) + ".in-addr.arpa":
            data = "web.run.test." if question.rdtype == dns.rdatatype.PTR else None
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        if data:
            response.answer.append(dns.rrset.from_text(owner, 60, "IN", question.rdtype, data))
        return response
    return answer


class Unreachables:
    """
    Answers TCP segments to UNREACHABLE with ICMP, as a router some way off does. nftables' own `reject` would answer inside of
    connect(2), while the kernel holds the socket: then it goes on trying.
    """

    def __init__(self):
        self.sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.icmp6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        self.sniffer.settimeout(0.2)
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        dead, dead6 = (ipaddress.ip_address(one).packed for one in (UNREACHABLE, UNREACHABLE6))
        while not self._closing:
            try:
                packet, where = self.sniffer.recvfrom(2048)
            except TimeoutError:
                continue
            if where[2] != socket.PACKET_HOST:
                continue
            if packet[0] >> 4 == 4 and packet[9] == socket.IPPROTO_TCP and packet[16:20] == dead:
                time.sleep(0.003)  # connect(2) has returned by then
                body = struct.pack("!BBHI", 3, 1, 0, 0) + packet[:28]
                total = sum(struct.unpack(f"!{len(body) // 2}H", body))
                total = (total & 0xffff) + (total >> 16)
                total = ~(total + (total >> 16)) & 0xffff
                self.icmp.sendto(body[:2] + struct.pack("!H", total) + body[4:], (str(ipaddress.ip_address(packet[12:16])), 0))
            elif packet[0] >> 4 == 6 and packet[6] == socket.IPPROTO_TCP and packet[24:40] == dead6:
                time.sleep(0.003)
                self.icmp6.sendto(struct.pack("!BBHI", 1, 3, 0, 0) + packet[:1000], (str(ipaddress.ip_address(packet[8:24])), 0))

    def close(self):
        self._closing = True
        self._thread.join(DEADLINE)
        for sock in (self.sniffer, self.icmp, self.icmp6):
            sock.close()


class RunWorld:
    """Its servers and its proxy run as long as it is open. `directory` is readable by every user."""

    def __init__(self, proxy_options=None):
        self.stack = contextlib.ExitStack()
        try:
            self._build(proxy_options or {})
        except BaseException:
            self.stack.close()
            raise

    def _build(self, proxy_options):
        self.directory = tempfile.mkdtemp(prefix="socks6-run-")
        os.chmod(self.directory, 0o755)
        self.stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.client, self.control, self.proxy, self.world = (
            self.stack.enter_context(contextlib.closing(isolate.NetNs(name))) for name in ("client", "control", "proxy", "world"))
        self._cables()
        self.client.nft(LEAKS)
        self.control.nft(LEAKS)
        self.world.nft(WORLD_RULES)
        self.stack.enter_context(contextlib.closing(self.world.call(Unreachables)))
        self.decoy = self._name_server(DECOY, zone(ELSEWHERE, ELSEWHERE6, "what the decoy says"))
        self.resolver = self._name_server(RESOLVER, zone(SERVER, SERVER6, TEXT))
        hosts = [("127.0.0.1", "localhost"), ("::1", "localhost"), (SERVER, "in-hosts.run.test hosts-alias.run.test")]
        self.files = isolate.with_files(isolate.name_files(self.folder("client"), hosts, DECOY))
        with open(os.path.join(self.directory, "client", "resolv.conf"), "a", encoding="ascii") as file:
            file.write("search sub.run.test run.test\n")
        self.proxy_files = isolate.with_files(isolate.name_files(self.folder("proxy"), hosts[:2], RESOLVER))
        self.daemon = None
        self.stack.callback(self.stop_proxy)
        self.start_proxy(**proxy_options)
        self.echo = self.stack.enter_context(Echo("0.0.0.0", port=ECHO, make_socket=self.world.tcp_socket))
        self.echo6 = self.stack.enter_context(Echo("::", port=ECHO, make_socket=self._ipv6_socket))

    def _cables(self):
        client, control, proxy, world = self.client, self.control, self.proxy, self.world
        for number, (one, name, other, other_name) in enumerate(
                ((client, "to-proxy", proxy, "to-client"), (client, "to-world", world, "world-client"),
                 (proxy, "to-world", world, "world-proxy"), (control, "to-world", world, "world-control")), 1):
            one.link(name, other, other_name)
            one.address(name, f"10.50.{number}.2/24", f"fd50:{number}::2/64")
            other.address(other_name, f"10.50.{number}.1/24", f"fd50:{number}::1/64")
        for space, number in ((client, 2), (proxy, 3), (control, 4)):
            space.ip(f"route add default via 10.50.{number}.1")
            space.ip(f"-6 route add default via fd50:{number}::1")
        for ipv4 in (SERVER, ELSEWHERE, DECOY, RESOLVER, REFUSING, UNREACHABLE, SILENT):
            world.ip(f"addr add {ipv4}/32 dev lo")
        for ipv6 in (SERVER6, ELSEWHERE6, REFUSING6, UNREACHABLE6, SILENT6):
            world.ip(f"-6 addr add {ipv6}/128 dev lo nodad")
        world.sysctl(net__ipv4__icmp_ratelimit=0, net__ipv6__icmp__ratelimit=0)

    def _ipv6_socket(self, family):
        sock = self.world.tcp_socket(family)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        return sock

    def _name_server(self, host, answer):
        server = self.world.call(lambda: Scripted(answer, host, 53))
        self.stack.callback(server.close)
        return server

    def folder(self, name, mode=0o755):
        path = os.path.join(self.directory, name)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        return path

    # The proxy --------------------------------------------------------------------------------------------------------

    def start_proxy(self, **options):
        listeners = options.pop("listeners", [{"address": f"{PROXY}:{PROXY_PORT}", "open": True},
                                              {"address": f"[{PROXY6}]:{PROXY_PORT}", "open": True}])
        self.daemon = Daemon(base_config(listeners, **options), wrapper=[*self.proxy.wrapper, *self.proxy_files])

    def stop_proxy(self):
        if self.daemon:
            one, self.daemon = self.daemon, None
            if one.alive():  # SILENT would be waited for
                one.signal(signal.SIGTERM)
                one.wait_line(lambda line: "draining" in line or "stopped" in line, "its end")
            one.stop()

    def url(self, userinfo="", port=PROXY_PORT):
        return f"socks6://{userinfo}{PROXY}:{port}"

    # Servers ----------------------------------------------------------------------------------------------------------

    def serve(self, command, port, **more):
        """A server's process in `world`, until the end; waits for its port."""
        process = subprocess.Popen([*DIES_WITH_US, *self.world.wrapper, *map(str, command)], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)
        self.stack.callback(end, process)

        def answers():
            assert process.poll() is None, process.stderr.read().decode()
            with contextlib.suppress(OSError):
                self.world.call(lambda: dial((SERVER, port))).close()
                return True
            return False
        wait_until(answers, f"port {port}")

    # The client -------------------------------------------------------------------------------------------------------

    def command(self, *argv, run=True, options=(), url=None, inside=()):
        """What runs a program under `socks6 run` in `client`, or without in `control`. `inside` comes before both."""
        head = [*DIES_WITH_US, *(self.client if run else self.control).wrapper, *self.files, *inside]
        if run:
            head += [client_binary(), "run", "-x", url or self.url(), *options, "--"]
        return [*head, *map(str, argv)]

    @staticmethod
    def environment(**variables):
        return environment(PYTHONDONTWRITEBYTECODE="1", **variables)

    def run(self, *argv, run=True, options=(), url=None, env=None, inside=(), **more):
        more.setdefault("timeout", 60)
        more.setdefault("stdin", None if "input" in more else subprocess.DEVNULL)
        if more["stdin"] is None:
            del more["stdin"]
        return subprocess.run(self.command(*argv, run=run, options=options, url=url, inside=inside), check=False, capture_output=True,
                              env=self.environment(**(env or {})), **more)

    # What has passed the proxy by -------------------------------------------------------------------------------------

    def settle(self):
        """Until the client has no connections past the proxy (of --allow-direct and the like). Then all counts are 0."""
        def rest():
            # Who waits after its FIN for the server's has nothing to say by itself.
            lines = self.client.run("ss", "-Htan", "state", "connected", "exclude", "time-wait").splitlines()
            return [line for line in lines if f"{PROXY}:" not in line and f"[{PROXY6}]:" not in line and "127.0.0.1:" not in line]
        wait_until(lambda: not rest(), lambda: f"the end of {rest()}", DEADLINE)
        for space in (self.client, self.control):
            for name in ("away", "names"):
                space.run("nft", "reset", "counter", "inet", "leaks", name)
            for name in ("where4", "where6"):
                space.run("nft", "flush", "set", "inet", "leaks", name)
        self.decoy.queries.clear()

    def leaks(self, space=None):
        """{} or what has gone past the proxy from `space` (the client): packets by counter, and where to."""
        found, where = {}, []
        for entry in json.loads((space or self.client).run("nft", "-j", "list", "table", "inet", "leaks"))["nftables"]:
            if "counter" in entry and entry["counter"]["packets"]:
                found[entry["counter"]["name"]] = entry["counter"]["packets"]
            if "set" in entry:
                where += [" ".join(map(str, one["elem"]["val"]["concat"] if "elem" in one else one["concat"]))
                          for one in entry["set"].get("elem", [])]
        if found:
            found["where"] = where
        return found

    def close(self):
        self.stack.close()
