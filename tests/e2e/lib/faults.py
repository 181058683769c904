"""Control of the fault-injection build (tests/faults/faults.c) through the file that both have mapped."""

import mmap
import struct

# In the order of enum fault.
NAMES = ["none", "malloc", "calloc", "realloc", "accept4", "socket", "connect", "setsockopt", "getsockopt", "getsockname",
         "getpeername", "epoll_ctl", "recv", "send", "shutdown", "recvmsg",
         "splice", "pipe2", "fcntl", "mmap"]
_ARMED, _SKIP, _COUNT, _ERROR, _HITS, _CALLS = (4 * n for n in range(6))
_NO_TOKEN_CHECK, _NO_WAIT, _HAS_BASE, _BASE = (_CALLS + 4 * (len(NAMES) + n) for n in range(4))


class Faults:
    def __init__(self, path):
        self.path = str(path)
        with open(path, "wb") as file:
            file.write(bytes(4096))
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 4096)

    def _put(self, offset, value):
        struct.pack_into("=i", self.map, offset, value)

    def _get(self, offset):
        return struct.unpack_from("=i", self.map, offset)[0]

    def arm(self, name, error, nth=1, count=1):
        """The `nth` call of `name` from now on fails with `error`, and the next ones until `count` have failed."""
        self._put(_ARMED, 0)
        self._put(_SKIP, nth - 1)
        self._put(_COUNT, count)
        self._put(_ERROR, error)
        self._put(_HITS, 0)
        self._put(_ARMED, NAMES.index(name))

    def disarm(self):
        """Returns how many calls have failed."""
        self._put(_ARMED, 0)
        return self._get(_HITS)

    @property
    def hits(self):
        return self._get(_HITS)

    def calls(self, name):
        return self._get(_CALLS + 4 * NAMES.index(name))

    def switch_off(self, *checks):
        """Of "token" (a token is accepted once) and "wait" (a request without one waits for the client's handshake) these; no names = none."""
        self._put(_NO_TOKEN_CHECK, "token" in checks)
        self._put(_NO_WAIT, "wait" in checks)

    def choose_base(self, base):
        """Windows of tokens begin there from now on."""
        struct.pack_into("=I", self.map, _BASE, base)
        self._put(_HAS_BASE, 1)
