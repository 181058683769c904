"""A wide area network in small: client -- C -- proxy -- S -- server, each in a namespace, over two delay links (delaylink.c)."""
import contextlib
import os
import socket
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from .world import CLONE_NEWNET, LIBC, BenchError, Place

ADDRESSES = {"from": ("10.202.1.2", 1), "to": ("10.202.2.2", 1), "proxy": ("10.202.1.1", "10.202.2.1")}
CLIENT_DEVICE, SERVER_DEVICE = "to-proxy", "from-proxy"
SAMPLE_LIMIT_S = 20
_SO_TIMESTAMPNS = 35
_SYN, _ACK = 0x02, 0x10
_PACKET_OUTGOING = 4
_ETH_P_ALL = 3  # others see nothing that goes out


@dataclass(frozen=True)
class Geometry:
    """Round trip times in ms: client to proxy, proxy to server."""
    c: int
    s: int

    @property
    def name(self):
        return f"{self.c}/{self.s}"


class Capture:
    """The SYNs that go over one device of a namespace."""

    def __init__(self, space, device):
        self._sock = None

        def inside():
            with contextlib.suppress(OSError):
                if LIBC.setns(space.fd, CLONE_NEWNET) == 0:
                    self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        thread = threading.Thread(target=inside)  # the namespace is a thread's
        thread.start()
        thread.join()
        if self._sock is None:
            raise BenchError("no packet socket in a namespace")
        self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._sock.bind((device, _ETH_P_ALL))
        self._sock.setblocking(False)

    def syns(self):
        """(time in s, bytes of data, whether the device sent it) of each that has gone by since the last call."""
        found = []
        while True:
            try:
                packet, control, _, address = self._sock.recvmsg(2048, 128)
            except BlockingIOError:
                return found
            at = (packet[0] & 15) * 4
            if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP or packet[at + 13] & (_SYN | _ACK) != _SYN:
                continue
            seconds, nanoseconds = struct.unpack_from("ll", control[0][2])
            length, = struct.unpack_from("!H", packet, 2)
            found.append((seconds + nanoseconds / 1e9, length - at - (packet[at + 12] >> 4) * 4,
                          address[2] == _PACKET_OUTGOING))

    def close(self):
        self._sock.close()


@dataclass
class Sample:
    """Times in ms. The time to the first byte begins with the client's SYN; what it did before is the start-up."""
    first_byte: float
    startup: float
    client_syn_data: bool  # our request travelled in the SYN to the proxy (or, without one, to the server)
    server_syn_data: bool  # what reached the server came with a SYN


class Wan:
    """The three namespaces of one geometry. It ends with the World."""

    def __init__(self, world, geometry):
        self.world, self.geometry = world, geometry
        self.client, self.proxy, self.server = spaces = [world.space() for _ in range(3)]
        for space in spaces:
            space.set("net.ipv6.conf.all.disable_ipv6", 1)
        self._cable(self.client, CLIENT_DEVICE, self.proxy, "to-client", geometry.c)
        self._cable(self.proxy, "to-server", self.server, SERVER_DEVICE, geometry.s)
        self._address(self.client, CLIENT_DEVICE, ADDRESSES["from"][0])
        self._address(self.proxy, "to-client", ADDRESSES["proxy"][0])
        self._address(self.proxy, "to-server", ADDRESSES["proxy"][1])
        self._address(self.server, SERVER_DEVICE, ADDRESSES["to"][0])
        self.client.run("ip", "route", "add", "default", "dev", CLIENT_DEVICE)
        self.server.run("ip", "route", "add", "default", "dev", SERVER_DEVICE)
        self.proxy.set("net.ipv4.ip_forward", 1)  # for "direct"
        self.place = world.add_place(f"wan-{geometry.c}-{geometry.s}", spaces, ADDRESSES)
        self.captures = Capture(self.client, CLIENT_DEVICE), Capture(self.server, SERVER_DEVICE)

    def _cable(self, a, device_a, b, device_b, round_trip_ms):
        command = [self.world.program("delaylink"), f"/proc/{a.holder.pid}/ns/net", device_a, f"/proc/{b.holder.pid}/ns/net",
                   device_b, str(round_trip_ms * 500)]
        link = self.world.start(command, None, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if link.popen.stdout.readline() != b"ready\n":
            raise BenchError(f"delaylink: {link.popen.stderr.read().decode().strip()}")

    @staticmethod
    def _address(space, device, address):
        space.run("ip", "address", "add", f"{address}/24", "dev", device)
        space.run("ip", "link", "set", device, "up")

    def forget_cookies(self):
        """What the client's kernel knows of its peers: cookies of TCP Fast Open above all."""
        self.client.run("ip", "tcp_metrics", "flush", "all")

    def sample(self, command, env, stdin):
        """Runs a client, which is to print one byte; BenchError says why there was none."""
        for capture in self.captures:
            capture.syns()

        def prepare():
            self.client.enter()
            if self.world.can_be_nice:
                os.setpriority(os.PRIO_PROCESS, 0, -10)
        got, said, spawned = b"", "", time.time()
        with subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=prepare, cwd=self.world.work) as client:
            limit = threading.Timer(SAMPLE_LIMIT_S, client.kill)
            limit.start()
            try:
                if stdin:
                    client.stdin.write(stdin)
                    client.stdin.flush()
                got = os.read(client.stdout.fileno(), 1)
                arrived = time.time()
                client.stdin.close()
                said = client.stderr.read().decode(errors="replace").strip()
            finally:
                limit.cancel()
                client.kill()
        ours, theirs = (capture.syns() for capture in self.captures)
        ours = [syn for syn in ours if syn[2]]
        if not got or not ours:
            raise BenchError(f"{os.path.basename(command[0])}: no answer: {(said.splitlines() or ['it says nothing'])[-1]}")
        return Sample(first_byte=(arrived - ours[0][0]) * 1e3, startup=(ours[0][0] - spawned) * 1e3,
                      client_syn_data=ours[0][1] > 0, server_syn_data=any(syn[1] > 0 for syn in theirs))

    def close(self):
        for capture in self.captures:
            capture.close()
