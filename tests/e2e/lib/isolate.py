"""Private copies of system files, and network namespaces, for what must not touch the machine. Needs root."""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading

from .net import Listener, wait_until

_CLONE_NEWNET = 0x40000000


def can_isolate():
    """None, or why not."""
    if os.geteuid() != 0:
        return "needs root for namespaces"
    done = subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False)
    return None if done.returncode == 0 else "namespaces are not allowed here: " + done.stderr.decode().strip()


def with_files(files):
    """A command prefix: runs the rest in a mount namespace where each system file (key) has the contents of another (value)."""
    script = 'n=$1; shift; while [ "$n" -gt 0 ]; do mount --bind "$1" "$2" || exit 125; shift 2; n=$((n - 1)); done; exec "$@"'
    arguments = []
    for target, path in files.items():
        arguments += [str(path), target]
    return ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(len(files)), *arguments]


def name_files(directory, hosts, nameserver):
    """
    Writes a hosts file (address -> names), a resolv.conf and an nsswitch.conf into `directory`; the dict for with_files().
    Every query is tried once, for a second.
    """
    directory = str(directory)
    paths = {}
    for target, text in {
            "/etc/hosts": "".join(f"{address} {names}\n" for address, names in hosts),
            "/etc/resolv.conf": f"nameserver {nameserver}\noptions timeout:1 attempts:1\n",
            "/etc/nsswitch.conf": "hosts: files dns\n"}.items():
        paths[target] = os.path.join(directory, os.path.basename(target))
        with open(paths[target], "w", encoding="ascii") as file:
            file.write(text)
    return paths


class NetNs:
    """A network namespace, alive as long as its holder process."""

    def __init__(self, name):
        self.name = name
        # cat ends when this process closes the pipe, or ends itself.
        self.holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.path = f"/proc/{self.holder.pid}/ns/net"
        ours = os.readlink("/proc/self/ns/net")

        def unshared():
            with contextlib.suppress(OSError):
                return os.readlink(self.path) != ours
            return False
        wait_until(unshared, "the namespace")
        self.ip("link set lo up")
        # Addresses are used at once: nobody else is on these links.
        self.run("sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0")

    @property
    def wrapper(self):
        return ["nsenter", f"--net={self.path}"]

    def run(self, *command):
        done = subprocess.run([*self.wrapper, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, arguments):
        return self.run("ip", *arguments.split())

    def nft(self, rule):
        return self.run("nft", rule)

    def sysctl(self, **settings):
        self.run("sysctl", "-qw", *(f"{key.replace('__', '.')}={value}" for key, value in settings.items()))

    def call(self, function):
        """`function()` in a thread inside of the namespace: sockets made there stay there, usable from anywhere."""
        result = []

        def inside():
            try:
                fd = os.open(self.path, os.O_RDONLY)
                try:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(fd, _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(fd)
                result.append((function(), None))
            except BaseException as error:  # handed to the caller below
                result.append((None, error))
        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        value, error = result[0]
        if error:
            raise error
        return value

    def tcp_socket(self, family):
        return self.call(lambda: Listener(family, socket.SOCK_STREAM))

    def link(self, own, other, other_name):
        """A cable between this namespace and another."""
        self.ip(f"link add dev {own} type veth peer name {other_name}")
        self.ip(f"link set {other_name} netns {other.holder.pid}")

    def address(self, device, *addresses):
        for address in addresses:
            self.ip(f"-6 addr add {address} dev {device} nodad" if ":" in address else f"addr add {address} dev {device}")
        self.ip(f"link set {device} up")

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()
