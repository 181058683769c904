#!/usr/bin/python3
"""A helper for the hooks of sockets alone: speaks src/run/protocol.h, and does with a connection what its address says.

usage: fake_helper.py PRELOAD PROGRAM [ARGS]   runs the program with the library and this helper; its exit status

Addresses, of any port but 53, where all of them are an echo server:
  192.0.2.1 or 2001:db8::1   an echo server; a blocking connect of an IPv4 socket gets the socket itself
  192.0.2.2 or 2001:db8::2   the same, always as a stream
  192.0.2.3     refused after a while           192.0.2.4     never an answer
  192.0.2.5     direct, to what the port says   192.0.2.6     not allowed (EACCES)
  192.0.2.7     connected, then broken (ECONNRESET) as soon as something has been received
  192.0.2.8     sends "bye" and ends            192.0.2.9     the helper goes away instead of an answer
  192.0.2.10    connected when something connects to 192.0.2.11 (which is refused)
  192.0.2.12    as 192.0.2.2, at once as with --early
  192.0.2.13    fails; errno is 1000 and how often this process has asked for the helper's memory
There is no such memory, so that all goes through the helper.
Port 53 over UDP: a datagram comes back as it is. Notes go to the program's file FAKE_NOTES names.
"""
import collections
import errno
import fcntl
import os
import secrets
import select
import socket
import struct
import subprocess
import sys
import threading
import time

REQUEST = struct.Struct("=IHH16s")
ADDR = struct.Struct("=HHI16s")
CONNECT = struct.Struct("=24sQQII")
STATUS = struct.Struct("=QII")
OPTION = struct.Struct("=QiiII")
(KIND_CONNECT, KIND_STATUS, KIND_GETSOCKOPT, KIND_SETSOCKOPT, KIND_RESOLVE, KIND_REVERSE, KIND_QUERY, KIND_DIRECT,
 KIND_UDP_DNS, KIND_NOTE, KIND_SHARE) = range(1, 12)
DIRECT, REFUSED, WAIT, CONVERTED, FAILED, STREAM, SOCKET = range(1, 8)
UNKNOWN, CONNECTING, CONNECTED, STATE_FAILED, BROKEN, ENDED = range(6)
SO_COOKIE = 57
LOCAL = ADDR.pack(socket.AF_INET, 4242, 0, socket.inet_aton("198.51.100.1").ljust(16, b"\0"))


def cookie_of(sock):
    return struct.unpack("=Q", sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))[0]


def pid_of(sock):
    return struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]


def receive(sock, count):
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


class Known:
    """What is known of one connection."""

    def __init__(self, peer, twin):
        self.peer, self.twin, self.state, self.error = peer, twin, CONNECTING, 0
        self.local = LOCAL if struct.unpack("=H", peer[:2])[0] == socket.AF_INET else \
            ADDR.pack(socket.AF_INET6, 4242, 0, socket.inet_pton(socket.AF_INET6, "2001:db8:1::1"))


class Helper:
    def __init__(self):
        self.secret, self.address = secrets.token_bytes(16), secrets.token_bytes(16)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(b"\0" + self.address)
        self.listener.listen(128)
        self.echo = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.known, self.udp, self.go = {}, {}, threading.Event()
        self.share_counts = collections.Counter() # by process
        self.notes = open(os.environ["FAKE_NOTES"], "w", buffering=1) if "FAKE_NOTES" in os.environ else None

    def variable(self, flags=""):
        return f"1:{self.address.hex()}:{self.secret.hex()}:{flags}"

    def serve(self):
        threading.Thread(target=self.serve_echo, daemon=True).start()
        while True:
            sock, _ = self.listener.accept()
            threading.Thread(target=self.answer, args=(sock,), daemon=True).start()

    def serve_echo(self):
        while True:
            sock, _ = self.echo.accept()
            threading.Thread(target=self.echo_one, args=(sock,), daemon=True).start()

    @staticmethod
    def echo_one(sock):
        try:
            while True:
                data = sock.recv(65536)
                if not data:
                    break
                sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            sock.close()

    def answer(self, sock):
        try:
            data, fds, _, _ = socket.recv_fds(sock, REQUEST.size, 4)
            data += receive(sock, REQUEST.size - len(data))
            length, version, kind, secret = REQUEST.unpack(data)
            assert version == 1 and secret == self.secret
            body = receive(sock, length - REQUEST.size)
            if kind == KIND_CONNECT:
                self.connect(sock, body, fds)
                return
            if kind == KIND_SHARE:
                self.share_counts[pid_of(sock)] += 1
            reply = self.reply(kind, body)
            if reply is not None:
                status, body = reply
                sock.sendall(struct.pack("=Ii", 8 + len(body), status) + body)
        except (EOFError, OSError) as error:
            if os.environ.get("FAKE_DEBUG"):
                print("fake helper:", repr(error), file=sys.stderr)
        sock.close()

    def reply(self, kind, body):
        if kind == KIND_STATUS:
            return 0, self.status(*STATUS.unpack(body)[:2])
        if kind == KIND_GETSOCKOPT:
            cookie, level, name, room, _ = OPTION.unpack(body)
            return self.option(cookie, lambda twin: twin.getsockopt(level, name, room))
        if kind == KIND_SETSOCKOPT:
            cookie, level, name, length, _ = OPTION.unpack(body[:OPTION.size])
            return self.option(cookie, lambda twin: twin.setsockopt(level, name, body[OPTION.size:]) or b"")
        if kind == KIND_UDP_DNS:
            return self.udp_dns(body)
        if kind == KIND_SHARE:
            return errno.ENOENT, b""
        if kind == KIND_NOTE and self.notes:
            self.notes.write(f"{struct.unpack('=I', body[:4])[0]} {body[8:].decode()}\n")
        return None

    def status(self, cookie, flags):
        known = self.known.get(cookie)
        if known is None:
            return struct.pack("=Ii", UNKNOWN, 0) + bytes(48)
        error = known.error
        if flags & 1:
            known.error = 0
        return struct.pack("=Ii", known.state, error) + known.peer + known.local

    def option(self, cookie, call):
        known = self.known.get(cookie)
        if known is None:
            return errno.ENOENT, b""
        try:
            return 0, call(known.twin)
        except OSError as error:
            return error.errno, b""

    def udp_dns(self, body):
        family, port, _, _ = ADDR.unpack(body)
        if family == 0:
            found = [key for key, ports in self.udp.items() if port in ports]
            return 0, struct.pack("=HHI", 0, 0, 0) + (found[0] if found else bytes(24))
        if body not in self.udp:
            ports = []
            for kind, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                sock = socket.socket(kind, socket.SOCK_DGRAM)
                sock.bind((host, 0))
                ports.append(sock.getsockname()[1])
                threading.Thread(target=self.echo_datagrams, args=(sock,), daemon=True).start()
            self.udp[body] = ports
        return 0, struct.pack("=HHI", *self.udp[body], 0) + body

    @staticmethod
    def echo_datagrams(sock):
        while True:
            data, source = sock.recvfrom(65536)
            sock.sendto(data, source)

    # connections

    def say(self, sock, verdict, error, known, pass_fd=None):
        message = struct.pack("=Ii", 8 + 56, 0) + struct.pack("=Ii", verdict, error) + known.peer + known.local
        if pass_fd is None:
            sock.sendall(message)
        else:
            socket.send_fds(sock, [message], [pass_fd])

    def connect(self, sock, body, fds):
        peer, cookie, _, flags, pad_len = CONNECT.unpack(body)
        family, port, _, raw = ADDR.unpack(peer)
        host = raw[3] if family == socket.AF_INET else raw[15]
        twin = socket.socket(fileno=fds[0])
        known = Known(peer, twin)
        self.known[cookie] = known
        how = 2 if port == 53 else host
        job = Job(self, sock, known, pad_len, flags & 1, flags & 2)
        if how in (5, 6):
            self.say(sock, DIRECT if how == 5 else REFUSED, errno.EACCES if how == 6 else 0, known)
            sock.close()
        elif how == 9:
            sock.close()
        elif how == 13:
            self.say(sock, FAILED, 1000 + self.share_counts[pid_of(sock)], known)
            sock.close()
        elif how == 12:
            self.say(sock, STREAM, 0, known)
            job.take_mark()
            job.relay()
        else:
            job.run(how)


class Job:
    """One connect() that takes its time."""

    def __init__(self, helper, sock, known, pad_len, is_waiting, is_marked):
        self.helper, self.sock, self.known, self.pad_len = helper, sock, known, pad_len
        self.is_padded, self.is_marked = bool(is_waiting), bool(is_marked)
        self.lock = threading.Lock()
        self.is_over = False

    def run(self, how):
        if self.is_padded:
            self.helper.say(self.sock, WAIT, 0, self.known)
        else:
            threading.Thread(target=self.watch, daemon=True).start()
        if how in (3, 11):
            time.sleep(0.1)
            self.helper.go.set()
            self.fail(errno.ECONNREFUSED)
        elif how == 4:
            threading.Event().wait()
        elif how == 10:
            self.helper.go.wait()
            self.succeed(False)
        else:
            time.sleep(0.05 if self.is_padded else 0)
            self.succeed(how == 1 and self.known.twin.family == socket.AF_INET, how)

    def watch(self):
        """A byte before the answer is the wish to go on in the background."""
        waiting = select.poll()
        waiting.register(self.sock, select.POLLIN)
        while not waiting.poll(5): # not recv(): another thread's close() would not be the end of the socket then
            if self.is_over:
                return
        with self.lock:
            if not self.is_over and self.sock.recv(1) == b"c":
                self.is_padded, self.is_marked = True, False
                self.helper.say(self.sock, CONVERTED, 0, self.known)

    def take_mark(self):
        if self.is_marked:
            assert self.sock.recv(1) == b"c"
            self.is_marked = False

    def fail(self, error):
        with self.lock:
            self.is_over = True
            if self.is_padded:
                while struct.unpack("=i", fcntl.ioctl(self.sock, 0x541B, bytes(4)))[0] < self.pad_len:
                    time.sleep(0.001)
                self.known.state, self.known.error = STATE_FAILED, error
            else:
                self.helper.say(self.sock, FAILED, error, self.known)
            self.sock.close()

    def succeed(self, as_socket, how=2):
        with self.lock:
            self.is_over = True
            if self.is_padded:
                self.known.state = CONNECTED
                receive(self.sock, self.pad_len)
            elif as_socket:
                made = socket.create_connection(self.helper.echo.getsockname())
                self.known.state = CONNECTED
                self.helper.known[cookie_of(made)] = self.known
                self.helper.say(self.sock, SOCKET, 0, self.known, made.fileno())
                made.close()
                self.sock.close()
                return
            else:
                self.helper.say(self.sock, STREAM, 0, self.known)
                self.take_mark()
        if how == 7:
            self.known.state = CONNECTED
            self.sock.recv(65536)
            self.known.state, self.known.error = BROKEN, errno.ECONNRESET
            self.sock.close()
        elif how == 8:
            self.known.state = CONNECTED
            self.sock.sendall(b"bye")
            self.sock.shutdown(socket.SHUT_WR)
            while self.sock.recv(65536):
                pass
            self.known.state = ENDED
            self.sock.close()
        else:
            self.relay()

    def relay(self):
        self.known.state = CONNECTED
        Helper.echo_one(self.sock)
        self.known.state = ENDED


def main(preload, *command):
    helper = Helper()
    threading.Thread(target=helper.serve, daemon=True).start()
    environment = dict(os.environ, SOCKS6_RUN=helper.variable(os.environ.get("FAKE_FLAGS", "")), LD_PRELOAD=preload)
    status = subprocess.run(command, env=environment, check=False).returncode
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.stdout.flush()
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)
