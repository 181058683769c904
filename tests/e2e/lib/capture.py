"""What goes over a network interface, seen by a packet socket inside of its namespace: TCP segments in their order."""

import ipaddress
import socket
import struct
import threading

from .net import DEADLINE, wait_until

_ETH_P_ALL = 0x0003
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_MARKER_PORT = 9

SYN, RST, ACK = 0x02, 0x04, 0x10


class Segment:
    """One TCP segment. `time` is the kernel's, in seconds; `size` are the bytes of data in it, `data` they themselves in a SYN."""

    def __init__(self, time, source, target, flags, data):
        self.time, self.source, self.target, self.flags, self.size = time, source, target, flags, len(data)
        self.data = data if flags & SYN else None

    def __repr__(self):
        names = "".join(letter for bit, letter in ((SYN, "S"), (RST, "R"), (ACK, "."), (1, "F")) if self.flags & bit)
        return f"{self.time:.3f} {self.source[0]}:{self.source[1]} > {self.target[0]}:{self.target[1]} {names}"


def _decode(frame):
    """((source, port), (target, port), protocol, flags, data of TCP) of a TCP or UDP packet, or None."""
    kind, = struct.unpack_from("!H", frame, 12)
    if kind == 0x0800:
        at, protocol = 14 + (frame[14] & 15) * 4, frame[23]
        ends = frame[26:30], frame[30:34]
        end = 14 + struct.unpack_from("!H", frame, 16)[0]
    elif kind == 0x86dd:
        at, protocol = 54, frame[20]
        ends = frame[22:38], frame[38:54]
        end = at + struct.unpack_from("!H", frame, 18)[0]
    else:
        return None
    if protocol not in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) or len(frame) < at + 8:
        return None
    source, target = (str(ipaddress.ip_address(bytes(end))) for end in ends)
    source_port, target_port = struct.unpack_from("!HH", frame, at)
    if protocol == socket.IPPROTO_UDP:
        return (source, source_port), (target, target_port), protocol, 0, b""
    return (source, source_port), (target, target_port), protocol, frame[at + 13], frame[at + (frame[at + 12] >> 4) * 4:end]


class Capture:
    """
    Records from its creation on. `network` is the isolate.NetNs, `device` the interface; `marker` an address behind it to
    which a datagram may be sent: everything that went out before it has been recorded once it is seen.
    """

    def __init__(self, network, device, marker):
        self.network, self.marker = network, marker
        self._segments, self._markers = [], 0
        self._lock = threading.Lock()
        self._sock = network.call(self._open)
        self._sock.bind((device, 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @staticmethod
    def _open():
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 26)
        sock.settimeout(0.02)
        return sock

    def _run(self):
        while True:
            try:
                frame, control, _, _ = self._sock.recvmsg(1 << 16, 128)
            except TimeoutError:
                continue
            except OSError:
                return
            packet = _decode(frame)
            if packet is None:
                continue
            seconds, nanoseconds = struct.unpack_from("ll", control[0][2])
            source, target, protocol, flags, data = packet
            with self._lock:
                if protocol == socket.IPPROTO_TCP:
                    self._segments.append(Segment(seconds + nanoseconds / 1e9, source, target, flags, data))
                elif target == (self.marker, _MARKER_PORT):
                    self._markers += 1

    def segments(self):
        """Everything that has gone by up to now."""
        with self._lock:
            before = self._markers
        family = socket.AF_INET6 if ":" in self.marker else socket.AF_INET
        with self.network.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
            sock.sendto(b"", (self.marker, _MARKER_PORT))
        wait_until(lambda: self._markers > before, "the marker in the capture")
        _, dropped = struct.unpack("II", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        assert dropped == 0, f"{dropped} packets were not recorded"
        with self._lock:
            return list(self._segments)

    def attempts(self, port):
        """The connection attempts to this port: the first SYN of each, without retransmissions."""
        seen, found = set(), []
        for segment in self.segments():
            key = segment.source, segment.target
            if segment.flags & (SYN | ACK) == SYN and segment.target[1] == port and key not in seen:
                seen.add(key)
                found.append(segment)
        return found

    def close(self):
        self._sock.close()
        self._thread.join(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
