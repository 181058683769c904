"""A users file, and clients that log in."""

import contextlib
import os
import subprocess

from . import socks6
from .clients import Tunnel, closed_on_error, finish6
from .daemon import client_binary, environment
from .net import DEADLINE, dial

# What makes a hash quick, for tests that are about something else.
QUICK = ("-m", "bcrypt", "-C", "4")


class Users:
    """The file; names and passwords are text. Changes are as atomic as `socks6 passwd` makes them."""

    def __init__(self, directory, **passwords):
        self.path = os.path.join(str(directory), "users.passwd")
        with open(self.path, "w", encoding="ascii"):
            os.chmod(self.path, 0o600)
        for name, password in passwords.items():
            self.set(name, password)

    def set(self, name, password, *method):
        subprocess.run([client_binary(), "passwd", "-i", *(method or QUICK), self.path, name], input=password.encode() + b"\n",
                       env=environment(), timeout=DEADLINE, check=True, capture_output=True)

    def add_hash(self, name, text):
        """A line as another program would write it."""
        with open(self.path, "a", encoding="ascii") as file:
            file.write(f"{name}:{text}\n")

    def remove(self, name):
        subprocess.run([client_binary(), "passwd", "-D", self.path, name], env=environment(), timeout=DEADLINE, check=True,
                       capture_output=True)

    def auth(self, *methods):
        """The value of `auth:`."""
        return {"methods": list(methods or ("password",)), "users": self.path}


def noop_as(proxy, user, password, options=b"", source=None):
    """A NOOP with credentials: (Authentication Reply, code or None)."""
    with contextlib.closing(dial(proxy, source=source)) as sock:
        sock.sendall(socks6.noop(socks6.userpass(user, password) + options))
        tunnel = finish6(sock)
        return (tunnel.reply if tunnel.code is None else tunnel.reply.auth), tunnel.code


def socks5_login(sock, user, password, methods=(2,)):
    """The method and the status of RFC 1929, each None if it did not come to that."""
    sock.sendall(socks6.socks5_greeting(methods))
    method = socks6.read_socks5_method(sock)
    if method != 2:
        return method, None
    sock.sendall(socks6.rfc1929(user, password))
    version, status = socks6.Reader(sock).read(2)
    if version != 1:
        raise socks6.ProtocolError(f"negotiation of version {version}")
    return method, status


def socks5_as(proxy, user, password, host, port, early=b""):
    sock = dial(proxy)
    with closed_on_error(sock):
        if socks5_login(sock, user, password) != (2, 0):
            raise socks6.ProtocolError("not let in")
        sock.sendall(socks6.socks5_request(host, port) + early)
        reply = socks6.read_socks5_reply(sock)
        return Tunnel(sock, reply, reply.code)
