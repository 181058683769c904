"""TLS for the tests: certificates made with openssl(1), and a client that can do what Python's SSLSocket cannot."""

import os
import re
import select
import ssl
import subprocess

from .net import DEADLINE, dial


def openssl(*args, **more):
    more.setdefault("timeout", DEADLINE)
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, check=False, **more)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Authority:
    """A folder with an authority (ca.pem) and what it has signed."""

    def __init__(self, directory, name="Test Authority"):
        self.directory = str(directory)
        self.pem = self.path("ca.pem")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
                f"/CN={name}", "-keyout", self.path("ca.key"), "-out", self.pem)

    def path(self, name):
        return os.path.join(self.directory, name)

    def issue(self, name, subject=None, alternatives="DNS:proxy.test,IP:127.0.0.1", days=30, prefix=None):
        """Makes PREFIX.pem and PREFIX.key; returns both paths."""
        prefix = prefix or name
        pem, key, request, extensions = (self.path(prefix + end) for end in (".pem", ".key", ".csr", ".ext"))
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject or f"/CN={name}",
                "-keyout", key, "-out", request)
        with open(extensions, "w", encoding="ascii") as file:
            file.write("basicConstraints=CA:FALSE\n" + (f"subjectAltName={alternatives}\n" if alternatives else ""))
        openssl("x509", "-req", "-in", request, "-CA", self.pem, "-CAkey", self.path("ca.key"), "-CAcreateserial", "-days",
                days, "-extfile", extensions, "-out", pem)
        return pem, key


def client_context(authority, alpn=("socks6",), certificate=None, version=None):
    context = ssl.create_default_context(cafile=authority.pem)
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if certificate:
        context.load_cert_chain(*certificate)
    if version:
        context.minimum_version = context.maximum_version = version
    return context


class Tls:
    """
    A client's connection, over memory: the end of each direction is ours to say. recv() returns b"" after close_notify and
    raises ssl.SSLError after an end without it.
    """

    def __init__(self, addr, context, timeout=DEADLINE):
        self.sock = dial(addr, timeout)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.rest = b""
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="proxy.test")
        try:
            self._run(self.tls.do_handshake)
        except BaseException:
            self.sock.close()
            raise

    def _flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def _run(self, step, *args):
        while True:
            try:
                result = step(*args)
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                data = self.sock.recv(1 << 18)
                if data:
                    self.incoming.write(data)
                else:
                    self.incoming.write_eof()
            except ssl.SSLZeroReturnError:
                return b""

    def recv(self, size):
        return self._run(self.tls.read, size)

    def sendall(self, data):
        for at in range(0, len(data), 1 << 18):
            self._run(self.tls.write, data[at:at + (1 << 18)])

    def end(self):
        """close_notify; the connection stays open for what the peer says."""
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            pass
        self._flush()

    def move(self):
        """Waits for the socket and moves what can be moved between it and memory."""
        wants = [self.sock] if self.rest or self.outgoing.pending else []
        readable, writable, _ = select.select([self.sock], wants, [], DEADLINE)
        if readable:
            data = self.sock.recv(1 << 18)
            if data:
                self.incoming.write(data)
            else:
                self.incoming.write_eof()
        if writable:
            self.rest = self.rest or self.outgoing.read(1 << 18)
            self.rest = self.rest[self.sock.send(self.rest):]

    def cut(self):
        """The end of TCP without the end of TLS."""
        self.sock.close()

    def close(self):
        self.sock.close()

    def getsockname(self):
        return self.sock.getsockname()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class SClient:
    """openssl s_client: what goes to its input, what comes of it."""

    def __init__(self, addr, *args, early=None, session=None, new_session=None):
        command = ["openssl", "s_client", "-connect", "%s:%d" % addr, "-nocommands", "-ign_eof"]
        command = [*command, *args]
        if early:
            command += ["-early_data", early]
        if session:
            command += ["-sess_in", session]
        if new_session:
            command += ["-sess_out", new_session]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = b""

    def write(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read_until(self, wanted):
        while not re.search(wanted, self.output, re.DOTALL):
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"ended before {wanted!r}: {self.output!r}")
            self.output += data
        return self.output

    def read_to_end(self):
        self.output += self.process.stdout.read()
        return self.output

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(DEADLINE)
        self.process.stdin.close()
        self.process.stdout.close()
