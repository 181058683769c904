"""A name server over UDP whose answers, and the time they take, are written by the test."""

import contextlib
import heapq
import ipaddress
import socket
import struct
import threading
import time

_A, _SOA, _AAAA = 1, 6, 28


class ScriptedNames:
    """
    `sock`: a UDP socket bound to port 53. names["x.test"] = Answers(...) may be changed at any time. `log` has
    (time.time(), "ask" or "answer", name, "A" or "AAAA") in their order.
    """

    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(0.01)
        self.names, self.log = {}, []
        self._due = []
        self._closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def set(self, name, addresses, slow_a=0, slow_aaaa=0, ttl=60):
        """`slow_...`: seconds until the answer of that type; None = it never comes."""
        self.names[name] = (list(addresses), {_A: slow_a, _AAAA: slow_aaaa}, ttl)

    def asked(self, name):
        return sum(1 for _, what, one, _ in self.log if what == "ask" and one == name)

    def time_of(self, what, name, kind):
        """When that was first asked or answered; None = it was not."""
        return next((at for at, *rest in self.log if rest == [what, name, kind]), None)

    def _run(self):
        while not self._closing:
            while self._due and self._due[0][0] <= time.monotonic():
                _, _, message, client, name, kind = heapq.heappop(self._due)
                # First the log: what the answer causes comes after it.
                self.log.append((time.time(), "answer", name, kind))
                with contextlib.suppress(OSError):
                    self.sock.sendto(message, client)
            try:
                query, client = self.sock.recvfrom(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            self._take(query, client)

    def _take(self, query, client):
        at, labels = 12, []
        while at < len(query) and query[at]:
            labels.append(query[at + 1:at + 1 + query[at]])
            at += 1 + query[at]
        if len(query) < at + 5:
            return
        kind, = struct.unpack_from("!H", query, at + 1)
        name = b".".join(labels).decode("latin-1").lower()
        text = {_A: "A", _AAAA: "AAAA"}.get(kind, str(kind))
        self.log.append((time.time(), "ask", name, text))
        addresses, slow, ttl = self.names.get(name, (None, {}, 0))
        records = b""
        count = 0
        for address in addresses or ():
            packed = ipaddress.ip_address(address).packed
            if len(packed) == {_A: 4, _AAAA: 16}.get(kind):
                records += b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(packed)) + packed
                count += 1
        code = 0 if addresses is not None else 3
        if not count:  # a negative answer may be kept for as long as the zone says
            soa = b"\0\0" + struct.pack("!IIIII", 1, 60, 60, 60, ttl)
            records = b"\xc0\x0c" + struct.pack("!HHIH", _SOA, 1, ttl, len(soa)) + soa
        message = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, count, not count, 0) + query[12:at + 5] + records
        delay = slow.get(kind, 0)
        if delay is not None:
            heapq.heappush(self._due, (time.monotonic() + delay, len(self.log), message, client, name, text))

    def close(self):
        self._closing = True
        self._thread.join(5)
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def name_socket(host="127.0.0.1"):
    """To be called inside of the namespace."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 53))
    return sock
