#!/usr/bin/python3
"""How ./dev installs packages, on a copy of the scripts and with stand-ins for apt-get, dpkg-query, sudo and the like.

usage: check_dev.py [ROOT]     TAP on standard output
"""
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from tap import Tap

BUILD_PACKAGES = "gcc libc6-dev meson ninja-build pkg-config libyaml-dev libcrypt-dev libssl-dev"

# Each stand-in writes what it was called with to $LOG.
FAKES = {
    # Knows the packages in $INSTALLED, and after a successful install those of $LOG.installed.
    "dpkg-query": """
for name; do :; done
status=1
for name; do
    case $name in -*) continue ;; esac
    case " $INSTALLED $(cat "$LOG.installed" 2>/dev/null) " in
    *" $name "*) printf 'ii %s ' "$name"; status=0 ;;
    esac
done
exit $status
""",
    "apt-get": """
echo "apt-get $*" >>"$LOG"
[ ! -e "$POLICY_RC_D" ] || echo "policy: $(sh "$POLICY_RC_D"; echo $?)" >>"$LOG"
case " $* " in
*" --simulate "*) printf '%s' "$SIMULATED"; exit 0 ;;
*" update "*) exit 0 ;;
esac
[ -z "$APT_SLEEP" ] || { : >"$LOG.sleeping"; sleep "$APT_SLEEP"; }
if [ -n "$APT_FAILS" ] && [ "$(grep -c 'apt-get.* install' "$LOG")" -le "$APT_FAILS" ]; then exit 100; fi
echo "$*" >>"$LOG.installed"
""",
    "id": 'echo "${FAKE_UID:-0}"',
    "systemctl": 'echo "systemctl $*" >>"$LOG"',
    "update-rc.d": 'echo "update-rc.d $*" >>"$LOG"',
    "meson": 'echo "meson $*" >>"$LOG"; mkdir -p "$2/src/proxyd"; : >"$2/build.ninja"',
    "ninja": 'echo "ninja $*" >>"$LOG"',
}
SUDO = """
echo "sudo $*" >>"$LOG"
[ "$1" != -n ] || { shift; [ -z "$SUDO_ASKS" ] || exit 1; }
FAKE_UID=0 exec "$@"
"""


class Sandbox:
    def __init__(self, root, with_sudo=False):
        self.folder = tempfile.mkdtemp(prefix="socks6-dev-")
        self.tree = os.path.join(self.folder, "tree")
        os.makedirs(os.path.join(self.tree, "scripts"))
        shutil.copy(os.path.join(root, "dev"), self.tree)
        for name in os.listdir(os.path.join(root, "scripts")):
            if name.endswith(".sh"):
                shutil.copy(os.path.join(root, "scripts", name), os.path.join(self.tree, "scripts"))
        with open(os.path.join(self.tree, "scripts", "test.sh"), "w", encoding="utf-8") as file:
            file.write('echo "tests $*" >>"$LOG"\n')
        with open(os.path.join(self.tree, "scripts", "bench.sh"), "w", encoding="utf-8") as file:
            file.write('echo "bench $*" >>"$LOG"\n')
        self.bin = os.path.join(self.folder, "bin")
        os.makedirs(self.bin)
        for name, text in {**FAKES, **({"sudo": SUDO} if with_sudo else {})}.items():
            self.command(name, text)
        self.log = os.path.join(self.folder, "log")
        self.policy = os.path.join(self.folder, "policy-rc.d")
        self.lists = os.path.join(self.folder, "lists")
        os.makedirs(self.lists)
        with open(os.path.join(self.lists, "mirror_Packages"), "w", encoding="utf-8"):
            pass
        # No sudo of this machine, whatever it has: only what the scripts need.
        for name in ("sh dirname readlink cat grep sed tr ls rm mkdir printf head chmod sleep true").split():
            os.symlink(shutil.which(name), os.path.join(self.bin, name))

    def command(self, name, text):
        path = os.path.join(self.bin, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)

    def environment(self, settings):
        settings = {"INSTALLED": "", "APT_FAILS": "", "APT_SLEEP": "", "SIMULATED": "", "SUDO_ASKS": "", **settings}
        return {"PATH": self.bin, "LOG": self.log, "POLICY_RC_D": self.policy, "APT_LISTS": self.lists, **settings}

    def run(self, *args, tty=False, **settings):
        """(exit status, all output, what the stand-ins were called with) of ./dev ARGS."""
        command = ["sh", os.path.join(self.tree, "dev"), *args]
        stdin = subprocess.DEVNULL
        if tty:
            master, stdin = pty.openpty()
        done = subprocess.run(command, stdin=stdin, stdout=subprocess.PIPE, stderr=stdin if tty else subprocess.STDOUT,
                              env=self.environment(settings), text=True, timeout=60, check=False)
        output = done.stdout or ""
        if tty:
            os.close(stdin)
            output += read_all(master)
        return done.returncode, output, self.called()

    def called(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="utf-8") as file:
            return file.read().splitlines()

    def close(self):
        shutil.rmtree(self.folder)


def read_all(master):
    """What was written to a terminal whose other end is closed."""
    text = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(master)
    return text.decode()


def installs(calls):
    return [row for row in calls if row.startswith("apt-get") and " install " in row and "--simulate" not in row]


def judge(checks, output, calls):
    """Names of the checks that are false, and what was seen."""
    bad = [name for name, good in checks.items() if not good]
    return bad + [f"output: {row}" for row in output.splitlines()] + calls if bad else []


def nothing_missing(box):
    status, output, calls = box.run("build", INSTALLED=BUILD_PACKAGES)
    return judge({"status 0": status == 0, "no apt-get": not any("apt-get" in row for row in calls),
                  "ninja ran": any(row.startswith("ninja") for row in calls)}, output, calls)


def root_installs(box):
    status, output, calls = box.run("build", INSTALLED="gcc libc6-dev")
    wanted = "meson ninja-build pkg-config libyaml-dev libcrypt-dev libssl-dev"
    one = installs(calls)
    return judge({"status 0": status == 0, "one install": len(one) == 1, "only what is missing": one[0].endswith(wanted),
                  "nothing recommended": "--no-install-recommends" in one[0],
                  "nothing removed": "--no-remove" in one[0] and "--no-upgrade" in one[0],
                  "no update": "apt-get update" not in calls,
                  "services are kept down meanwhile": "policy: 101" in calls,
                  "the shield is gone": not os.path.exists(box.policy),
                  "no service touched": not any("disable" in row for row in calls)}, output, calls)


def second_run_is_quiet(box):
    box.run("build", INSTALLED="gcc")
    os.remove(box.log)
    status, output, calls = box.run("build", INSTALLED="gcc")
    return judge({"status 0": status == 0, "no apt-get": not any("apt-get" in row for row in calls)}, output, calls)


def user_without_sudo(box):
    status, output, calls = box.run("run", INSTALLED="gcc", FAKE_UID="1000")
    command = ("    apt-get install --no-install-recommends libc6-dev meson ninja-build pkg-config libyaml-dev libcrypt-dev "
               "libssl-dev\n")
    return judge({"status 1": status == 1, "exact command": command in output, "nothing tried": not calls}, output, calls)


def user_without_sudo_test(box):
    status, output, calls = box.run("test", INSTALLED=BUILD_PACKAGES, FAKE_UID="1000")
    return judge({"status 1": status == 1, "command keeps servers down": "apt-install.sh clang " in output,
                  "nothing tried": not calls}, output, calls)


def bench_without_peers(box):
    status, output, calls = box.run("bench", "hs", INSTALLED=BUILD_PACKAGES + " python3 iproute2 openssl", FAKE_UID="1000")
    return judge({"status 0": status == 0, "goes on": calls == ["bench hs"],
                  "command keeps servers down": "apt-install.sh dante-server " in output}, output, calls)


def bench_installs_peers(box):
    status, output, calls = box.run("bench", INSTALLED=BUILD_PACKAGES + " python3 iproute2 openssl nginx-light")
    disabled = {row.split()[-1] for row in calls if row.startswith("systemctl disable")}
    return judge({"status 0": status == 0, "one install": len(installs(calls)) == 1, "runs": calls[-1] == "bench ",
                  "services are kept down meanwhile": "policy: 101" in calls,
                  "new servers stay off, those that were there stay": disabled == {"danted", "haproxy", "unbound"}}, output, calls)


def present_server_is_left_alone(box):
    box.command("nginx", "exit 0")  # from another package than nginx-light
    status, output, calls = box.run("bench", INSTALLED=BUILD_PACKAGES + " python3 iproute2 openssl")
    disabled = {row.split()[-1] for row in calls if row.startswith("systemctl disable")}
    return judge({"status 0": status == 0, "nginx is not disabled": disabled == {"danted", "haproxy", "unbound"}}, output, calls)


def user_with_sudo(box):
    status, output, calls = box.run("build", INSTALLED="gcc", FAKE_UID="1000")
    return judge({"status 0": status == 0, "by sudo": any(row.startswith("sudo sh ") for row in calls),
                  "one install": len(installs(calls)) == 1}, output, calls)


def sudo_wants_password_no_tty(box):
    status, output, calls = box.run("build", INSTALLED="gcc", FAKE_UID="1000", SUDO_ASKS="1")
    return judge({"status 1": status == 1, "said so": "apt-get install" in output,
                  "only asked whether": calls == ["sudo -n true"]}, output, calls)


def sudo_wants_password_tty(box):
    status, output, calls = box.run("build", tty=True, INSTALLED="gcc", FAKE_UID="1000", SUDO_ASKS="1")
    return judge({"status 0": status == 0, "announced": "Running: sudo sh" in output,
                  "installed": len(installs(calls)) == 1}, output, calls)


def lists_missing(box):
    os.remove(os.path.join(box.lists, "mirror_Packages"))
    status, output, calls = box.run("build", INSTALLED="gcc")
    order = [row for row in calls if row.startswith("apt-get") and "--simulate" not in row]
    return judge({"status 0": status == 0, "update came first": order[0] == "apt-get update", "once": len(order) == 2},
                 output, calls)


def install_fails_once(box):
    status, output, calls = box.run("build", INSTALLED="gcc", APT_FAILS="2")
    return judge({"status 0": status == 0, "updated": "apt-get update" in calls, "tried again": len(installs(calls)) == 2},
                 output, calls)


def install_fails(box):
    status, output, calls = box.run("build", INSTALLED="gcc", APT_FAILS="9")
    return judge({"status 1": status == 1, "command said": "apt-get install" in output,
                  "the shield is gone": not os.path.exists(box.policy),
                  "nothing built": not any(row.startswith("ninja") for row in calls)}, output, calls)


def upgrades_are_said(box):
    status, output, calls = box.run("build", INSTALLED="gcc", SIMULATED="Inst libc6 [2.36-1] (2.36-2 Debian)\nInst meson (1)\n")
    return judge({"status 0": status == 0, "said": "newer versions of: libc6 \n" in output}, output, calls)


def servers_stay_disabled(box):
    status, output, calls = box.run("test", "--full", INSTALLED=BUILD_PACKAGES + " openssh-server")
    disabled = [row for row in calls if "disable" in row]
    return judge({"status 0": status == 0, "the new server is disabled": "systemctl disable nginx" in disabled,
                  "the old one is not": not any("ssh" in row for row in disabled),
                  "services were kept down": "policy: 101" in calls,
                  "the tests ran": calls[-1] == "tests --full"}, output, calls)


def own_policy_stays(box):
    with open(box.policy, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\nexit 104\n")
    status, output, calls = box.run("build", INSTALLED="gcc")
    return judge({"status 0": status == 0, "used": "policy: 104" in calls, "still there": os.path.exists(box.policy)},
                 output, calls)


def shield_falls_on_signal(box):
    command = ["sh", os.path.join(box.tree, "dev"), "build"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                               env=box.environment({"INSTALLED": "gcc", "APT_SLEEP": "30"}))
    limit = time.monotonic() + 30
    while not os.path.exists(box.log + ".sleeping") and time.monotonic() < limit:
        time.sleep(0.01)
    there = os.path.exists(box.policy)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(timeout=30)
    while os.path.exists(box.policy) and time.monotonic() < limit:
        time.sleep(0.01)
    return judge({"it was there": there, "it is gone": not os.path.exists(box.policy)}, "", box.called())


def unknown_command(box):
    status, output, calls = box.run("frobnicate")
    return judge({"status 2": status == 2, "usage": "usage: ./dev" in output, "nothing done": not calls}, output, calls)


CASES = [
    ("nothing missing: apt-get is not called", nothing_missing, False),
    ("root: installs what is missing and no more", root_installs, False),
    ("a second run does nothing", second_run_is_quiet, False),
    ("user without sudo: prints the command", user_without_sudo, False),
    ("user without sudo, servers among the packages: the command keeps them down", user_without_sudo_test, False),
    ("benchmarks without other proxies: goes on", bench_without_peers, False),
    ("benchmarks, root: installs other proxies, which stay off", bench_installs_peers, False),
    ("a server that is there already is left alone", present_server_is_left_alone, False),
    ("user with sudo: uses it", user_with_sudo, True),
    ("sudo asks, no terminal: prints the command", sudo_wants_password_no_tty, True),
    ("sudo asks, terminal: lets it ask", sudo_wants_password_tty, True),
    ("no package lists: updates first", lists_missing, False),
    ("install fails: once more after an update", install_fails_once, False),
    ("install fails for good: says so, leaves nothing", install_fails, False),
    ("upgrades that apt-get needs are announced", upgrades_are_said, False),
    ("servers installed for tests stay disabled", servers_stay_disabled, False),
    ("a policy of the machine stays", own_policy_stays, False),
    ("the shield falls when the run is ended", shield_falls_on_signal, False),
    ("an unknown command is refused", unknown_command, False),
]


def main(root):
    tap = Tap()
    for name, case, with_sudo in CASES:
        box = Sandbox(root, with_sudo)
        try:
            tap.case(name, case(box))
        finally:
            box.close()
    return tap.done()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "."))
