"""A recorder of what clients send, who sends it again and again, and the server that counts what came of it."""

import collections
import contextlib
import select
import socket

from .net import dial, reset, wait_until
from .servers import Server
from .status import totals


class Recorder(Server):
    """Forwards each connection to the proxy, and keeps in `streams` what the client has sent on it."""

    def __init__(self, target):
        self.target, self.streams = target, []
        super().__init__()

    def handle(self, sock, peer):
        stream = bytearray()
        self.streams.append(stream)
        with contextlib.closing(dial(self.target)) as proxy:
            open_ends = {sock: proxy, proxy: sock}
            while open_ends:
                for source in select.select(list(open_ends), [], [])[0]:
                    data = source.recv(1 << 16)
                    if source is sock:
                        stream += data  # before it goes on: what has been answered has been recorded
                    if data:
                        open_ends[source].sendall(data)
                    else:
                        open_ends.pop(source).shutdown(socket.SHUT_WR)


class Ledger(Server):
    """Echoes, and keeps what came on each connection: what the requests have brought about."""

    def __init__(self):
        self.streams = []
        super().__init__()

    def handle(self, sock, peer):
        stream = bytearray()
        with self.lock:
            self.streams.append(stream)
        while data := sock.recv(1 << 16):
            stream += data
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    def violations(self, connected, payloads):
        """
        What is not as it would be if each of `payloads` had come once, as texts. The proxy says that it has `connected` so often; it does
        not count connections that are made in the moment in which it gives them up, since their client has gone.
        """
        self.wait(lambda: self.accepted >= connected and not self._open, f"{connected} connections that have ended")
        came = collections.Counter(bytes(stream) for stream in self.streams)
        found = [f"{payload!r} acted {came[payload]} times" for payload in payloads if came[payload] != 1]
        if connected != len(payloads):
            found.append(f"{connected} connections for {len(payloads)} requests")
        if self.accepted != connected:
            found.append(f"{self.accepted} connections, of which {connected} are known to the proxy")
        size, wanted = sum(map(len, self.streams)), sum(map(len, payloads))
        if size != wanted:
            found.append(f"{size} bytes for {wanted}")
        return found


def first_flight(stream):
    """Of what a client has sent over TLS what is there before the server answers: up to the first record of (early) data."""
    at = 0
    while stream[at] != 0x17:
        at += 5 + int.from_bytes(stream[at + 3:at + 5], "big")
    end = at + 5 + int.from_bytes(stream[at + 3:at + 5], "big")
    assert end <= len(stream)
    return bytes(stream[:end])


AT_ONCE = 250


def repeat(addr, path, data, count, counter):
    """
    Sends `data` over `count` connections of their own, many at once, and leaves none of them before `counter` has counted it,
    or does so no more: tickets age. There must be no other clients. Returns how often it was counted.
    """
    wait_until(lambda: totals(path)["connections"] == 0, "the end of the recorded connection")
    before = totals(path)[counter]
    for at in range(0, count, AT_ONCE):
        socks = [dial(addr) for _ in range(min(AT_ONCE, count - at))]
        for sock in socks:
            with contextlib.suppress(ConnectionError):
                sock.sendall(data)
        sent = at + len(socks)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: totals(path)[counter] - before >= sent, "all of them", 5)  # pylint: disable=cell-var-from-loop
        for sock in socks:
            reset(sock)
    wait_until(lambda: totals(path)["connections"] == 0, lambda: f"their end: {totals(path)}")
    return totals(path)[counter] - before
