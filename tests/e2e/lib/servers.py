"""Servers behind the proxy: small ones made of threads, an nginx, an sshd, a name server. All on loopback, all gone afterwards."""

import contextlib
import getpass
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading

from .net import DEADLINE, DIES_WITH_US, Listener, dial, free_low_port, pattern, reset, wait_until


class Server:
    """Accepts in a thread and runs `handle(sock, peer_addr)` for each connection in one of its own."""

    def __init__(self, host="127.0.0.1", backlog=512, make_socket=None, port=0):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.listener = make_socket(family) if make_socket else Listener(family, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(backlog)
        self.addr = self.listener.getsockname()[:2]
        self.host, self.port = self.addr
        self.lock = threading.Condition()
        self.accepted = 0
        self.peers = []
        self._open = set()
        self._closing = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while True:
            try:
                sock, peer = self.listener.accept()
            except OSError:
                return
            with self.lock:
                if self._closing:
                    sock.close()
                    return
                self.accepted += 1
                self.peers.append(peer[:2])
                self._open.add(sock)
                self.lock.notify_all()
            threading.Thread(target=self._serve, args=(sock, peer), daemon=True).start()

    def _serve(self, sock, peer):
        with contextlib.suppress(OSError):
            self.handle(sock, peer)
        with self.lock:
            self._open.discard(sock)
            self.lock.notify_all()
        sock.close()

    def handle(self, sock, peer):
        raise NotImplementedError

    def wait(self, condition, what):
        with self.lock:
            assert self.lock.wait_for(condition, DEADLINE), f"waited for {what} in vain"

    def close(self):
        with self.lock:
            self._closing = True
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(DEADLINE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Echo(Server):
    """Sends back what comes, then its end."""

    def handle(self, sock, peer):
        while data := sock.recv(1 << 16):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


class Sink(Server):
    """Swallows; at the end of the stream it answers with the SHA-256 of everything, in hexadecimal."""

    def handle(self, sock, peer):
        digest = hashlib.sha256()
        while data := sock.recv(1 << 18):
            digest.update(data)
        sock.sendall(digest.hexdigest().encode())


class Source(Server):
    """Sends `data`, then its end, and waits for the client's."""

    def __init__(self, data, **more):
        self.data = data
        super().__init__(**more)

    def handle(self, sock, peer):
        sock.sendall(self.data)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass


class Resetting(Server):
    """Resets each connection at once."""

    def handle(self, sock, peer):
        reset(sock)


class HalfClosing(Server):
    """Sends its end at once, reads everything, keeps it in `received`."""

    def __init__(self, **more):
        self.received = []
        super().__init__(**more)

    def handle(self, sock, peer):
        sock.shutdown(socket.SHUT_WR)
        got = bytearray()
        while data := sock.recv(1 << 16):
            got += data
        with self.lock:
            self.received.append(bytes(got))
            self.lock.notify_all()


def full_listener(host="127.0.0.1"):
    """
    A listener whose queue is full: a further SYN is not answered until drain() is called (the kernel then takes the
    retransmission). A context manager.
    """
    return _FullListener(host)


class _FullListener:
    def __init__(self, host):
        self.sock = Listener(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.bind((host, 0))
        self.sock.listen(0)
        self.sock.settimeout(DEADLINE)
        self.addr = self.sock.getsockname()
        self.fillers = [dial(self.addr)]  # a queue of length 0 holds one

    def drain(self):
        self.sock.listen(16)
        for _ in self.fillers:
            self.sock.accept()[0].close()

    def accept_one(self):
        return self.sock.accept_one()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.fillers:
            sock.close()
        self.sock.close()


class EchoProcess:
    """An echo server in a process of its own, for thousands of connections: one epoll loop, its own descriptor limit."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-m", "lib.echo_process"], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, cwd=os.path.dirname(os.path.dirname(__file__)))
        self.addr = ("127.0.0.1", int(self.process.stdout.readline()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(DEADLINE)


# Real servers ---------------------------------------------------------------------------------------------------------


class Nginx:
    """nginx on 127.0.0.1 and ::1 with a directory to read from and, by PUT, to write to."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.root = os.path.join(self.directory, "www")
        for name in ("www", "body", "tmp"):
            os.makedirs(os.path.join(self.directory, name), exist_ok=True)
        self.port = free_low_port()
        config = os.path.join(self.directory, "nginx.conf")
        temporary = "\n".join(f"  {name}_temp_path {self.directory}/tmp;" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""{user}
daemon off; worker_processes 1; pid {self.directory}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; client_max_body_size 0; client_body_temp_path {self.directory}/body;
{temporary}
  server {{
    listen 127.0.0.1:{self.port}; listen [::1]:{self.port};
    root {self.root};
    location / {{ dav_methods PUT; }}
  }}
}}
""")
        self.process = subprocess.Popen([*DIES_WITH_US, "/usr/sbin/nginx", "-e", "stderr", "-p", self.directory, "-c", config],
                                        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for_port(self.process, self.port)

    def path(self, name):
        return os.path.join(self.root, name)

    def put(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data)

    def close(self):
        end(self.process)


class Sshd:
    """An sshd on 127.0.0.1 and ::1 with a host key and a user key of its own. `command()` is how to call ssh."""

    def __init__(self, directory):
        self.directory = str(directory)
        self.port = free_low_port()
        self.key = os.path.join(self.directory, "user_key")
        for path in (self.key, os.path.join(self.directory, "host_key")):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        config = os.path.join(self.directory, "sshd_config")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""ListenAddress 127.0.0.1:{self.port}
ListenAddress [::1]:{self.port}
HostKey {self.directory}/host_key
AuthorizedKeysFile {self.key}.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
""")
        self.made_run = False
        if os.geteuid() == 0 and not os.path.isdir("/run/sshd"):
            os.mkdir("/run/sshd", 0o755)
            self.made_run = True
        self.process = subprocess.Popen([*DIES_WITH_US, "/usr/sbin/sshd", "-D", "-e", "-f", config], stdin=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE)
        wait_for_port(self.process, self.port)

    def command(self, proxy_command, host="127.0.0.1"):
        return ["ssh", "-F", "none", "-o", f"ProxyCommand={proxy_command}", "-o", "StrictHostKeyChecking=no",
                "-o", f"UserKnownHostsFile={self.directory}/known_hosts", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", "LogLevel=ERROR", "-i", self.key, "-p", str(self.port), f"{getpass.getuser()}@{host}"]

    def close(self):
        end(self.process)
        if self.made_run:
            with contextlib.suppress(OSError):
                os.rmdir("/run/sshd")


def wait_for_port(process, port):
    def answers():
        if process.poll() is not None:
            raise AssertionError(process.stderr.read().decode())
        try:
            dial(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True
    wait_until(answers, f"port {port}")


def end(process):
    process.terminate()
    try:
        process.wait(DEADLINE)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


# Names ----------------------------------------------------------------------------------------------------------------

NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3


class NameServer:
    """
    A name server over UDP on port 53 of some loopback address. `hosts`: name -> list of addresses. Under servfail.test
    everything fails, under silent.test nothing is answered, under nodata.test names exist without addresses; the rest
    does not exist. `asked` counts the questions by name.
    """

    def __init__(self, hosts, addr="127.0.0.1", make_socket=None):
        self.hosts = {name.lower(): addresses for name, addresses in hosts.items()}
        self.asked = {}
        self.sock = make_socket() if make_socket else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((addr, 53))
        self.addr = addr
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._closing = False
        self._thread.start()

    def _run(self):
        while not self._closing:
            try:
                query, client = self.sock.recvfrom(4096)
            except OSError:
                return
            answer = self.answer(query)
            if answer and not self._closing:
                with contextlib.suppress(OSError):
                    self.sock.sendto(answer, client)

    def answer(self, query):
        at, labels = 12, []
        while at < len(query) and query[at]:
            labels.append(query[at + 1:at + 1 + query[at]])
            at += 1 + query[at]
        question = query[12:at + 5]
        if len(query) < at + 5:
            return None
        kind, = struct.unpack_from("!H", query, at + 1)
        name = b".".join(labels).decode("latin-1").lower()
        self.asked[name] = self.asked.get(name, 0) + 1
        if name.endswith("silent.test"):
            return None
        records = []
        if name.endswith("servfail.test"):
            code = SERVFAIL
        elif name.endswith("nodata.test"):
            code = NOERROR
        elif name in self.hosts:
            code = NOERROR
            for host in self.hosts[name]:
                family, number = (socket.AF_INET6, 28) if ":" in host else (socket.AF_INET, 1)
                if number == kind:
                    data = socket.inet_pton(family, host)
                    records.append(b"\xc0\x0c" + struct.pack("!HHIH", number, 1, 60, len(data)) + data)
        else:
            code = NXDOMAIN
        return query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + b"".join(records)

    def close(self):
        # A datagram to oneself wakes the thread: closing the socket alone would not.
        self._closing = True
        with contextlib.suppress(OSError):
            self.sock.sendto(b"", self.sock.getsockname())
        self._thread.join(5)
        self.sock.close()


def source(size, seed=1, **more):
    return Source(pattern(size, seed), **more)
