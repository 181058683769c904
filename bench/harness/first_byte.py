#!/usr/bin/python3
"""
A client for the rows of `./dev bench rtt` that no program of ours makes: connects, sends one byte, prints the byte that comes
back. In the network namespace of whoever starts it; from which moment on the time counts is the capture's to say (wan.py).

  first_byte.py direct HOST PORT [tfo]
  first_byte.py socks5 HOST PORT VIA_HOST VIA_PORT [user=NAME:PASSWORD]
  first_byte.py socks6 HOST PORT VIA_HOST VIA_PORT [tfo] [server-tfo]
"""
import ipaddress
import os
import socket
import struct
import sys

MSG_FASTOPEN = 0x20000000
PAYLOAD = b"x"


def start(address, first, with_tfo):
    """A connection that has sent `first`, in its SYN if it may."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if with_tfo:
        sock.sendto(first, MSG_FASTOPEN, address)
    else:
        sock.connect(address)
        if first:
            sock.sendall(first)
    return sock


def take(sock, count):
    got = b""
    while len(got) < count:
        more = sock.recv(count - len(got))
        if not more:
            sys.exit("the connection ended early")
        got += more
    return got


def expect(sock, wanted):
    got = take(sock, len(wanted))
    if got != wanted:
        sys.exit(f"{got.hex()} instead of {wanted.hex()}")


def socks5(via, target, user):
    sock = start(via, b"", False)
    sock.sendall(b"\x05\x01\x02" if user else b"\x05\x01\x00")
    expect(sock, b"\x05\x02" if user else b"\x05\x00")
    if user:
        name, password = (part.encode() for part in user.split(":", 1))
        sock.sendall(bytes([1, len(name)]) + name + bytes([len(password)]) + password)
        expect(sock, b"\x01\x00")
    sock.sendall(b"\x05\x01\x00\x01" + ipaddress.ip_address(target[0]).packed + struct.pack("!H", target[1]))
    reply = take(sock, 4)
    if reply[1] != 0 or reply[3] != 1:
        sys.exit(f"refused: {reply.hex()}")
    take(sock, 6)
    sock.sendall(PAYLOAD)
    return sock


def socks6(via, target, with_tfo, with_server_tfo):
    """Request and payload in one segment, or in one SYN."""
    options = struct.pack("!HHBBH", 1, 8, 2 << 6 | 4, 1, 0) if with_server_tfo else b""
    request = struct.pack("!BBHHBB", 6, 1, len(options), target[1], 0, 1) + ipaddress.ip_address(target[0]).packed + options
    sock = start(via, request + PAYLOAD, with_tfo)
    head = take(sock, 4)
    take(sock, struct.unpack("!H", head[2:])[0])
    reply = take(sock, 8)
    if head[1] != 0 or reply[1] != 0:
        sys.exit(f"refused: {head.hex()} {reply.hex()}")
    take(sock, {1: 4, 4: 16}[reply[7]] + struct.unpack("!H", reply[2:4])[0])
    return sock


def main():
    kind, host, port, *rest = sys.argv[1:]
    target = host, int(port)
    if kind == "direct":
        sock = start(target, PAYLOAD, "tfo" in rest)
    else:
        via, flags = (rest[0], int(rest[1])), rest[2:]
        user = next((flag[5:] for flag in flags if flag.startswith("user=")), None)
        sock = socks5(via, target, user) if kind == "socks5" else socks6(via, target, "tfo" in flags, "server-tfo" in flags)
    os.write(1, take(sock, 1))
    sock.close()


if __name__ == "__main__":
    main()
