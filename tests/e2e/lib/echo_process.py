"""Run as a process: echoes on a port that it prints, until its standard input ends. One loop, thousands of connections."""

import contextlib
import select
import socket
import sys


def main():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(4096)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
    connections = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        sock, _ = listener.accept()
                        connections[sock.fileno()] = sock
                        poll.register(sock, select.EPOLLIN)
            elif fd == sys.stdin.fileno():
                return
            else:
                sock = connections[fd]
                try:
                    data = sock.recv(4096)
                    if data:
                        sock.sendall(data)  # small messages only: never blocks for long
                except OSError:
                    data = b""
                if not data:
                    poll.unregister(fd)
                    del connections[fd]
                    sock.close()


if __name__ == "__main__":
    main()
