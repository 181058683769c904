"""Clients of the proxy in every protocol, behind one face, and the steps of a SOCKS 6 conversation one by one."""

import contextlib

from . import socks6
from .net import DEADLINE, dial


class Tunnel:
    """A connection to the proxy after its reply. `code` is in terms of SOCKS 6 (SOCKS 4 knows success and failure only)."""

    def __init__(self, sock, reply, code):
        self.sock, self.reply, self.code = sock, reply, code

    @property
    def ok(self):
        return self.code == socks6.SUCCESS

    def __enter__(self):
        return self.sock

    def __exit__(self, *_):
        self.sock.close()


def socks6_dial(proxy, host, port, early=b"", options=b"", timeout=DEADLINE, source=None, draft=11):
    sock = dial(proxy, timeout, source)
    with closed_on_error(sock):
        sock.sendall(socks6.request(host, port, options=options, draft=draft) + early)
        return finish6(sock)


def finish6(sock):
    """Reads both replies behind a Request that has been sent."""
    auth = socks6.read_auth_reply(sock)
    if not auth.success:
        return Tunnel(sock, auth, None)
    reply = socks6.read_op_reply(sock)
    reply.auth = auth
    return Tunnel(sock, reply, reply.code)


def socks5_dial(proxy, host, port, early=b"", timeout=DEADLINE, source=None):
    sock = dial(proxy, timeout, source)
    with closed_on_error(sock):
        sock.sendall(socks6.socks5_greeting())
        if socks6.read_socks5_method(sock) != 0:
            raise socks6.ProtocolError("method 0 was not selected")
        sock.sendall(socks6.socks5_request(host, port) + early)
        reply = socks6.read_socks5_reply(sock)
        return Tunnel(sock, reply, reply.code)


def socks4_dial(proxy, host, port, early=b"", timeout=DEADLINE, source=None, user=b""):
    sock = dial(proxy, timeout, source)
    with closed_on_error(sock):
        sock.sendall(socks6.socks4_request(host, port, user) + early)
        reply = socks6.read_socks4_reply(sock)
        return Tunnel(sock, reply, socks6.SUCCESS if reply.code == socks6.SOCKS4_GRANTED else socks6.FAILURE)


@contextlib.contextmanager
def closed_on_error(sock):
    try:
        yield
    except BaseException:
        sock.close()
        raise


DIALERS = {"socks6": socks6_dial, "socks5": socks5_dial, "socks4": socks4_dial}


def noop6(proxy):
    """A whole NOOP; the cheapest proof that the daemon serves."""
    with contextlib.closing(dial(proxy)) as sock:
        sock.sendall(socks6.noop())
        tunnel = finish6(sock)
        return tunnel.code


def expect_code(proxy, protocol, host, port, code, **options):
    """Asks and checks the code in that protocol's terms; the stream must end after a failure."""
    tunnel = DIALERS[protocol](proxy, host, port, **options)
    with tunnel as sock:
        expected = code
        if protocol == "socks4":
            expected = min(code, socks6.FAILURE)
        assert tunnel.code == expected, f"{protocol} {host}:{port}: {tunnel.reply}"
        if code != socks6.SUCCESS:
            assert sock.recv(1) == b"", "nothing may follow a failure"
        return tunnel.reply
