"""Where the benchmarks run: network namespaces, control groups, processes. All of it ends with the World.

Namespaces have no names: each is held by a process that dies with this one, and with the last process the kernel removes
the namespace and its interfaces. Nothing of the machine's own network is changed. Without root the machine's loopback is
used as it is, and the measures on veth are skipped.
"""
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import time

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
START_LIMIT_S = 15
NICENESS = -10
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something without which a measure, or the run, cannot go on."""


def _call(result, what):
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare_network():
    _call(LIBC.unshare(CLONE_NEWNET), "unshare")


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """A network namespace and the process that holds it."""

    def __init__(self):
        def prepare():
            die_with_parent()
            unshare_network()
        self.holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=prepare, stdin=subprocess.DEVNULL)
        self.fd = os.open(f"/proc/{self.holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self):
        """In a new process, before its program."""
        _call(LIBC.setns(self.fd, CLONE_NEWNET), "setns")

    def run(self, *command):
        done = subprocess.run(command, preexec_fn=self.enter, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"{' '.join(command)}: {done.stderr.strip()}")

    def set(self, key, value):
        self.run("sh", "-c", 'echo "$2" >"/proc/sys/$1"', "sh", key.replace(".", "/"), str(value))

    def close(self):
        self.holder.kill()
        self.holder.wait()
        os.close(self.fd)


class Group:
    """A control group (version 2) whose CPU time is that of a proxy, of its threads and children, dead ones too."""

    def __init__(self, base, name, is_new=True):
        self.path = os.path.join(base, name)
        if is_new:
            os.mkdir(self.path)
        self.cpu = os.path.join(self.path, "cpu.stat")

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as file:
            file.write("0")

    def pids(self):
        with open(os.path.join(self.path, "cgroup.procs"), encoding="ascii") as file:
            return [int(line) for line in file]

    def close(self):
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end:
            for pid in self.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.05)


def _cgroup_base():
    """A directory for our groups below the group that we are in, or None where that is not possible."""
    try:
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mount = next(line.split()[1] for line in file if line.split()[2] == "cgroup2")
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next(line.strip()[3:] for line in file if line.startswith("0::"))
        base = os.path.join(mount, own.lstrip("/"), f"socks6-bench-{os.getpid()}")
        os.mkdir(base)
        if not os.path.exists(os.path.join(base, "cpu.stat")):
            os.rmdir(base)
            return None
        return base
    except (OSError, StopIteration):
        return None


def children(pid):
    """The process and all below it."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                for child in file.read().split():
                    found += children(int(child))
    except OSError:
        pass
    return found


class Process:
    """A server: its processes, and where their CPU time is read."""

    def __init__(self, popen, group):
        self.popen = popen
        self.group = group

    def pids(self):
        return self.group.pids() if self.group else children(self.popen.pid)

    def cpu_source(self):
        return self.group.cpu if self.group else ",".join(map(str, self.pids()))

    def is_alive(self):
        return self.popen.poll() is None

    def close(self):
        pids = self.pids() if self.is_alive() else []
        self.popen.terminate()
        try:
            self.popen.wait(2)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        if self.group:
            self.group.close()
            return
        for pid in pids[1:]:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


class Place:
    """One set of addresses: where clients, proxy and backend live. `None` as a namespace is the machine's own."""

    def __init__(self, name, spaces, addresses):
        self.name = name
        self.client, self.proxy, self.server = spaces
        self.sources, self.source_count = addresses["from"]
        self.destinations, self.destination_count = addresses["to"]
        self.proxy_in, self.proxy_out = addresses["proxy"]
        self.backend = None
        self.ports = {}
        self.tally = ""

    def destination_list(self):
        first = self.destinations.rsplit(".", 1)
        return [f"{first[0]}.{int(first[1]) + i}" for i in range(self.destination_count)]


LOCAL = {"from": ("127.0.2.1", 32), "to": ("127.0.1.1", 32), "proxy": ("127.0.0.1", "127.0.0.1")}
VETH = {"from": ("10.201.1.2", 16), "to": ("10.201.2.2", 16), "proxy": ("10.201.1.1", "10.201.2.1")}


class World:
    """Made once per run. `work` is a directory for its files, `build` the one with the programs."""

    def __init__(self, build, work, say):
        self.build, self.work, self.say = build, work, say
        self.spaces, self.processes, self.places = [], [], {}
        self.cgroup = _cgroup_base()
        self.next_port = 9100
        self.group_count = 0
        self.notes = []
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit[1], limit[1]))
        self.can_isolate = self._try_isolation()
        self.can_be_nice = os.geteuid() == 0
        if not self.cgroup:
            self.notes.append("no control group can be made: dante's CPU is not known, since its processes come and go")
        if not self.can_isolate:
            self.notes.append("no network namespaces (not root): the machine's own loopback is used, veth is skipped")

    @staticmethod
    def _try_isolation():
        probe = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
        return probe.returncode == 0

    def space(self):
        space = Namespace()
        self.spaces.append(space)
        space.run("ip", "link", "set", "lo", "up")
        space.set("net.ipv4.ip_local_port_range", "10240 65535")
        # Who takes part is a matter of each target: see servers.py and load.c.
        space.set("net.ipv4.tcp_fastopen", 3)
        space.set("net.ipv4.tcp_fastopen_blackhole_timeout_sec", 0)
        return space

    def place(self, name):
        """'local' or 'veth', made when first asked for."""
        if name not in self.places:
            made = self._local() if name == "local" else self._veth()
            self.places[name] = made
            self._start_backend(made)
        return self.places[name]

    def _local(self):
        space = self.space() if self.can_isolate else None
        return Place("local", (space, space, space), LOCAL)

    def _veth(self):
        if not self.can_isolate:
            raise BenchError("no network namespaces")
        client, proxy, server = self.space(), self.space(), self.space()
        ends = ((client, "10.201.1.1", VETH["from"]), (server, "10.201.2.1", VETH["to"]))
        for number, (space, gateway, (first, count)) in enumerate(ends):
            space.run("ip", "link", "add", "out", "type", "veth", "peer", "name", f"in{number}", "netns", str(proxy.holder.pid))
            prefix, host = first.rsplit(".", 1)
            for i in range(count):
                space.run("ip", "address", "add", f"{prefix}.{int(host) + i}/24", "dev", "out")
            space.run("ip", "link", "set", "out", "mtu", "1500", "up")
            proxy.run("ip", "address", "add", f"{gateway}/24", "dev", f"in{number}")
            proxy.run("ip", "link", "set", f"in{number}", "mtu", "1500", "up")
            space.run("ip", "route", "add", "default", "via", gateway)
        proxy.set("net.ipv4.ip_forward", 1)  # for "direct"
        return Place("veth", (client, proxy, server), VETH)

    def add_place(self, name, spaces, addresses):
        """A Place of somebody else's making, with a backend."""
        made = Place(name, spaces, addresses)
        self.places[name] = made
        self._start_backend(made)
        return made

    def _start_backend(self, place):
        place.tally = os.path.join(self.work, f"tally-{place.name}")
        place.backend = self.start([self.program("backend"), place.tally], place.server, stdout=subprocess.PIPE)
        line = place.backend.popen.stdout.readline()
        place.ports = json.loads(line)

    def write(self, name, text):
        """A file of the run, readable by all; returns its path."""
        path = os.path.join(self.work, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def program(self, name):
        return os.path.join(self.build, "bench", name)

    def start(self, command, space, *, group=None, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL):
        """A process in the namespace, and in a control group of its own if `group` names one."""
        made = None
        if group and self.cgroup:
            self.group_count += 1
            made = Group(self.cgroup, f"{group}-{self.group_count}")

        def prepare():
            die_with_parent()
            if made:
                made.enter()
            if space:
                space.enter()
            if self.can_be_nice:
                os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
        # A group of processes of its own: Ctrl-C is for us to handle.
        process = Process(subprocess.Popen(command, preexec_fn=prepare, stdin=stdin, stdout=stdout, stderr=stderr,
                                           cwd=self.work, start_new_session=True), made)
        self.processes.append(process)
        return process

    def stop(self, process):
        self.processes.remove(process)
        process.close()

    def free_port(self):
        """One below those that outgoing connections take."""
        while True:
            self.next_port += 1
            if self.next_port >= 10240:
                raise BenchError("no free port below 10240")
            with socket.socket() as probe:
                try:
                    probe.bind(("0.0.0.0", self.next_port))
                    return self.next_port
                except OSError:
                    continue

    def wait_ready(self, process, place, port):
        """Until something listens on the proxy's address; a connection is opened and closed."""
        end = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end and process.is_alive():
            probe = subprocess.run([self.program("load"), "kind=probe", f"via={place.proxy_in}", f"via_port={port}"],
                                   preexec_fn=place.client.enter if place.client else None, capture_output=True, check=False)
            if probe.returncode == 0:
                return True
            time.sleep(0.05)
        return False

    def close(self):
        for process in reversed(self.processes):
            process.close()
        self.processes.clear()
        for space in self.spaces:
            space.close()
        self.spaces.clear()
        if self.cgroup:
            # An interrupt may have come between the making of a group and that of its process.
            for entry in [entry for entry in os.scandir(self.cgroup) if entry.is_dir()]:
                Group(self.cgroup, entry.name, False).close()
            try:
                os.rmdir(self.cgroup)
            except OSError as error:
                self.say(f"left behind: {self.cgroup}: {error}")
