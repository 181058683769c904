"""One socks6d: started on a generated configuration, watched through its log, stopped and checked for what it leaves behind."""

import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

from .net import DEADLINE, DIES_WITH_US, wait_until

LISTENING = re.compile(r"(?<!no longer )listening on (\[[0-9a-fA-F:.]+\]|[0-9.]+):(\d+)")
REPORT = re.compile(r"(ERROR|WARNING): (Address|Leak|Memory|Thread)Sanitizer|runtime error:|Assertion .* failed|"
                    r"LeakSanitizer has encountered")


def build_dir():
    path = os.environ.get("SOCKS6_BUILD")
    if not path:
        raise RuntimeError("SOCKS6_BUILD must name the build directory")
    return os.path.abspath(path)


def daemon_binary():
    return os.path.join(build_dir(), "src/proxyd/socks6d")


def faults_binary():
    return os.path.join(build_dir(), "tests/faults/socks6d-faults")


def client_binary():
    return os.path.join(build_dir(), "src/cli/socks6")


def environment(**changes):
    """The environment for programs under test: sanitizers stop at the first report, and no proxy setting leaks in."""
    env = {k: v for k, v in os.environ.items()
           if k.upper() not in ("ALL_PROXY", "SOCKS6_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")}
    env["ASAN_OPTIONS"] = "abort_on_error=0:exitcode=98:detect_leaks=1:quarantine_size_mb=4:detect_stack_use_after_return=0"
    env["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1:exitcode=97"
    env["LC_ALL"] = "C.UTF-8"
    env["XDG_CACHE_HOME"] = "/dev/null"  # the client's cache: none, unless a test gives one
    env.update({k: v for k, v in changes.items() if v is not None})
    return env


def write_config(directory, config, name="socks6d.yaml"):
    """`config`: YAML text, or a dict (JSON is YAML)."""
    path = os.path.join(directory, name)
    text = config if isinstance(config, str) else json.dumps(config, indent=1)
    temporary = path + ".new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(temporary, path)
    return path


def base_config(listeners=("127.0.0.1:0",), log_format="json", **more):
    """A configuration for tests. Listeners: "ADDR:PORT" or whole dicts."""
    config = {"listeners": [entry if isinstance(entry, dict) else {"address": entry} for entry in listeners],
              "log": {"format": log_format, "level": "debug"},
              "status": {"socket": "none"}}  # not the machine's
    log = more.pop("log", None)
    if log:
        config["log"].update(log)
    config.update(more)
    return config


class Daemon:
    """
    `config`: dict or YAML text; None = no -c. `wrapper`: a command that ends in exec of its arguments (unshare, prlimit, ...).
    Waits until the daemon says it is ready, or fails with its log. `leaks=False` where leak checking cannot work (strace).
    """

    def __init__(self, config=None, *, args=(), wrapper=(), env=None, leaks=True, binary=None, wait=True):
        self.directory = tempfile.TemporaryDirectory(prefix="socks6d-test-")
        self.config_path = None
        command = [*DIES_WITH_US, *wrapper, binary or daemon_binary()]
        if config is not None:
            self.config_path = write_config(self.directory.name, config)
            command += ["-c", self.config_path]
        command += args
        self.raw = []
        self._more = threading.Condition()
        self._ended = False
        self.stopped = False
        variables = environment(**(env or {}))
        if not leaks:
            variables["ASAN_OPTIONS"] += ":detect_leaks=0"
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=variables)
        self._readers = [threading.Thread(target=self._read, args=(stream,), daemon=True)
                         for stream in (self.process.stderr, self.process.stdout)]
        for reader in self._readers:
            reader.start()
        if wait:
            self.wait_line(re.compile(r'\binfo ready\b|"message":"ready\b'), "readiness")
            self.base_fds = self.fds()

    # The log ----------------------------------------------------------------------------------------------------------

    def _read(self, stream):
        for line in stream:
            with self._more:
                self.raw.append(line.decode("utf-8", "backslashreplace").rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    def text(self):
        with self._more:
            return "\n".join(self.raw)

    def mark(self):
        """A place in the log; look only behind it with `since`."""
        with self._more:
            return len(self.raw)

    def wait_line(self, wanted, what=None, since=0, deadline=DEADLINE):
        """The first line that `wanted` (regular expression, string, or function of a line) accepts; waits for it."""
        if isinstance(wanted, str):
            def accept(line):
                return wanted in line
        elif isinstance(wanted, re.Pattern):
            accept = wanted.search
        else:
            accept = wanted
        end = time.monotonic() + deadline
        at = since
        with self._more:
            while True:
                while at < len(self.raw):
                    line = self.raw[at]
                    at += 1
                    if accept(line):
                        return line
                rest = end - time.monotonic()
                if rest <= 0 or self._ended:
                    how = "ended" if self._ended else "is silent"
                    raise AssertionError(f"waited for {what or wanted} in the log; the daemon {how}:\n"
                                         + "\n".join(self.raw[-60:]))
                self._more.wait(min(rest, 1))

    def records(self, since=0):
        """The log as dicts; lines that are no JSON object are an error (sanitizer reports apart, see stop())."""
        with self._more:
            lines = self.raw[since:]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def access(self, count=1, since=0, match=None, deadline=DEADLINE):
        """Waits for `count` access records behind `since` (that `match` accepts) and returns them all."""
        def found():
            records = [r for r in self.records(since) if is_access(r) and (match is None or match(r))]
            return records if len(records) >= count else None
        return wait_until(found, lambda: f"{count} access records in:\n{self.text()[-4000:]}", deadline)

    # Where it listens -------------------------------------------------------------------------------------------------

    def listeners(self, since=0):
        found = []
        with self._more:
            for line in self.raw[since:]:
                match = LISTENING.search(line)
                if match:
                    found.append((match.group(1).strip("[]"), int(match.group(2))))
        return found

    @property
    def addr(self):
        return self.listeners()[0]

    @property
    def addr6(self):
        return next(a for a in self.listeners() if ":" in a[0])

    # What it holds ----------------------------------------------------------------------------------------------------

    @property
    def pid(self):
        return self.process.pid

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def fd_targets(self):
        targets = []
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                targets.append(os.readlink(f"/proc/{self.pid}/fd/{fd}"))
        return sorted(targets)

    def wait_fds(self, count=None, deadline=DEADLINE):
        """Until it holds `count` descriptors, by default as many as when it was ready and nobody had connected."""
        count = self.base_fds if count is None else count
        wait_until(lambda: self.fds() == count, lambda: f"{count} descriptors; there are {self.fds()}: {self.fd_targets()}",
                   deadline)

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def cpu_ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    # Life -------------------------------------------------------------------------------------------------------------

    def alive(self):
        return self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def rewrite(self, config):
        """Replaces the configuration file; the daemon learns of it at the next SIGHUP."""
        write_config(self.directory.name, config)

    def reload(self, config=None, good=True):
        """SIGHUP with a new file, and wait until the daemon has said what it made of it. Returns that line."""
        if config is not None:
            self.rewrite(config)
        mark = self.mark()
        self.signal(signal.SIGHUP)
        return self.wait_line("configuration reloaded" if good else "reload failed", "the reload", mark)

    def wait(self, deadline=DEADLINE):
        status = self.process.wait(deadline)
        for reader in self._readers:
            reader.join(deadline)
        self.process.stdout.close()
        self.process.stderr.close()
        self.stopped = True
        return status

    def check_reports(self):
        assert not REPORT.search(self.text()), self.text()[-20000:]

    def stop(self, status=0):
        """Ends it (as a drain; a second signal hurries) and checks its exit status and that no sanitizer said anything."""
        if self.stopped:
            self.check_reports()
            return
        if self.alive():
            self.signal(signal.SIGTERM)
        got = None
        try:
            got = self.wait(10)
        except subprocess.TimeoutExpired:
            if self.alive():
                self.signal(signal.SIGTERM)  # connections are still open: do not wait for them
            try:
                got = self.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("the daemon did not end:\n" + self.text()[-6000:]) from None
        finally:
            self.directory.cleanup()
        self.check_reports()
        assert got == status, f"exit status {got}:\n{self.text()[-6000:]}"

    def kill(self):
        if not self.stopped:
            self.process.kill()
            self.wait()
            self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            # The test has failed already: show the log, do not hide the reason behind another one.
            print("--- log of the daemon ---\n" + self.text()[-8000:])
            for _ in range(2):
                if self.alive():
                    self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(10)
            self.kill()
            return
        self.stop()


def is_access(record):
    return record.get("level") == "access"


def run_daemon(*args, deadline=DEADLINE, env=None, **more):
    """Runs the daemon to its end (-t, --print-config, a refusal to start); a CompletedProcess with text."""
    return subprocess.run([daemon_binary(), *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=deadline, env=environment(**(env or {})), check=False, **more)
