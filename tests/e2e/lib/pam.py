"""PAM for one daemon: the real libpam and real modules, with a folder of the test's own in the place of /etc/pam.d (pam_wrapper)."""

import os
import re
import subprocess
import sysconfig

from .daemon import Daemon, base_config, daemon_binary, run_daemon

_LIBRARIES = os.path.join("/usr/lib", sysconfig.get_config_var("MULTIARCH"))
_WRAPPER = os.path.join(_LIBRARIES, "libpam_wrapper.so")
_MODULES = os.path.join(_LIBRARIES, "pam_wrapper")

SERVICE = "socks6d"
BUILT_WITHOUT = "this socks6d was built without PAM"

# What a hook does before the password is looked at: it notes what it was told, and for some users it does not come back.
_HOOK = """#!/bin/sh
echo "$PAM_SERVICE $PAM_TYPE $PAM_USER $PAM_RHOST $PAM_TTY" >>"{folder}/seen"
case $PAM_USER in
hang*) while [ -d "{folder}" ] && [ ! -e "{folder}/open" ]; do sleep 0.05; done ;;
esac
"""


def is_built():
    """Whether the daemon under test knows PAM."""
    binary = subprocess.run(["ldd", daemon_binary()], capture_output=True, text=True, check=True).stdout
    return "libpam.so" in binary


def sanitizer():
    """The runtime that must come before whatever is preloaded; a list."""
    linked = subprocess.run(["ldd", daemon_binary()], capture_output=True, text=True, check=True).stdout
    return re.findall(r"=> (\S*lib[a-z]+san\.so\S*)", linked)[:1]


class Pam:
    """Services and users: users(alice="secret") let in alice by the service `socks6d`; services by other names have no users."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.services = os.path.join(self.folder, "services")
        self.database = os.path.join(self.folder, "users")
        self.hook = os.path.join(self.folder, "hook")
        os.mkdir(self.services)
        with open(self.hook, "w", encoding="ascii") as file:
            file.write(_HOOK.format(folder=self.folder))
        os.chmod(self.hook, 0o700)
        self.users()
        self.service("other", "auth required pam_deny.so", "account required pam_deny.so")
        self.service(SERVICE, self.matrix("auth"), self.matrix("account"))

    def module(self, name):
        """One of pam_wrapper's own."""
        return os.path.join(_MODULES, name)

    def matrix(self, kind, *options):
        """The module that looks into the database of users, and says a word about it."""
        return f"{kind} required {self.module('pam_matrix.so')} passdb={self.database} verbose {' '.join(options)}"

    def users(self, *lines, **passwords):
        """`lines` as the database has them: NAME:PASSWORD:SERVICE."""
        temporary = self.database + ".new"
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(f"{name}:{password}:{SERVICE}\n" for name, password in passwords.items())
            file.writelines(line + "\n" for line in lines)
        os.replace(temporary, self.database)

    def service(self, name, *lines):
        with open(os.path.join(self.services, name), "w", encoding="ascii") as file:
            file.writelines(line + "\n" for line in lines)

    def with_hook(self):
        """The service runs the hook before it looks at passwords."""
        self.service(SERVICE, f"auth required pam_exec.so quiet {self.hook}", self.matrix("auth"), self.matrix("account"))

    def seen(self):
        """What the hook was told: lists of SERVICE, TYPE, USER, RHOST, TTY."""
        try:
            with open(os.path.join(self.folder, "seen"), encoding="utf-8") as file:
                return [line.split(" ") for line in file.read().splitlines()]
        except FileNotFoundError:
            return []

    def let_go(self):
        """Whoever hangs in the hook goes on."""
        with open(os.path.join(self.folder, "open"), "w", encoding="ascii"):
            pass

    def wrapper(self, **variables):
        """A command that ends in exec of its arguments."""
        # Deep binding goes past the sanitizers' functions; the name of the variable is another one in some versions.
        settings = {"PAM_WRAPPER": "1", "PAM_WRAPPER_SERVICE_DIR": self.services, "PAM_WRAPPER_DISABLE_DEEPBIND": "1",
                    "UID_WRAPPER_DISABLE_DEEPBIND": "1", **variables,
                    "LD_PRELOAD": ":".join([*sanitizer(), _WRAPPER])}
        return ["env", *(f"{key}={value}" for key, value in settings.items())]

    def auth(self, *methods, **more):
        """The value of `auth:`."""
        return {"methods": list(methods or ("password",)), "pam": SERVICE, **more}

    def daemon(self, *, environment=None, auth=None, leaks=True, **settings):
        return Daemon(base_config(("127.0.0.1:0",), auth=auth or self.auth(), **settings), leaks=leaks,
                      wrapper=self.wrapper(**(environment or {})))


def is_refused(folder):
    """What `socks6d -t` says of a configuration with PAM."""
    path = os.path.join(str(folder), "pam.yaml")
    with open(path, "w", encoding="ascii") as file:
        file.write("auth:\n  methods: [password]\n  pam: socks6d\n")
    return run_daemon("-t", "-c", path)
