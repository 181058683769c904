"""What the programs of test_run_programs.py talk to, all on the addresses of `world`."""

import getpass
import hashlib
import os
import shutil
import struct
import subprocess

from . import run_world
from .net import pattern
from .servers import Server

PAGE = pattern(200_000, 6)
GREETING = b"fetched through git\n"
PACKAGE = "socks6-run-test"


class Postgres(Server):
    """As much of PostgreSQL's protocol (version 3) as psql -c needs: the answer to each query is its own text in capitals."""

    def handle(self, sock, peer):
        def read(count):
            got = b""
            while len(got) < count:
                piece = sock.recv(count - len(got))
                if not piece:
                    raise ConnectionError("it has gone")
                got += piece
            return got

        def message(kind, body=b""):
            return kind + struct.pack("!I", len(body) + 4) + body
        while True:
            length, code = struct.unpack("!II", read(8))
            rest = read(length - 8)
            if code == 196608:  # 3.0
                break
            sock.sendall(b"N")  # neither TLS nor GSSAPI
        assert b"user\0" in rest
        ready = message(b"Z", b"I")
        sock.sendall(message(b"R", struct.pack("!I", 0)) + message(b"S", b"server_version\x0015.0\0")
                     + message(b"S", b"client_encoding\0UTF8\0") + ready)
        while True:
            kind, length = struct.unpack("!cI", read(5))
            body = read(length - 4)
            if kind == b"X":
                return
            value = body.rstrip(b"\0").upper()
            sock.sendall(message(b"T", struct.pack("!H", 1) + b"said\0" + struct.pack("!IHIhIh", 0, 0, 25, -1, 0xffffffff >> 1, 0))
                         + message(b"D", struct.pack("!HI", 1, len(value)) + value) + message(b"C", b"SELECT 1\0") + ready)


def start_web(world):
    """nginx for the page, git's objects and the mirror; its folder."""
    root = world.folder("www")
    folder = world.folder("nginx")
    with open(os.path.join(root, "page"), "wb") as file:
        file.write(PAGE)
    config = os.path.join(folder, "nginx.conf")
    temporary = " ".join(f"{name}_temp_path {folder}/tmp;" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(config, "w", encoding="ascii") as file:
        file.write(f"""user root; daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; {temporary}
  server {{
    listen {run_world.HTTP}; listen [::]:{run_world.HTTP} ipv6only=on;
    root {root};
    location = /ip {{ return 200 "$remote_addr\\n"; }}
  }}
}}
""")
    world.serve(["/usr/sbin/nginx", "-e", "stderr", "-p", folder, "-c", config], run_world.HTTP)
    return root


def make_repository(world, root):
    """A bare repository that can be had over http as well: (its path, the commit)."""
    work, bare = world.folder("git"), os.path.join(root, "repository.git")
    env = {**world.environment(), "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HOME": work}

    def git(*arguments):
        done = subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@run.test", *arguments], cwd=work, env=env,
                              capture_output=True, text=True, check=True)
        return done.stdout.strip()
    git("init", "-q", ".")
    with open(os.path.join(work, "greeting"), "wb") as file:
        file.write(GREETING)
    git("add", "greeting")
    git("commit", "-q", "-m", "first")
    git("clone", "-q", "--bare", work, bare)
    git("--git-dir", bare, "update-server-info")
    return bare, git("rev-parse", "HEAD")


class Sshd:
    """On port 22 of the world; `options` are what ssh needs to be let in."""

    def __init__(self, world):
        folder = world.folder("sshd", 0o700)
        self.key = os.path.join(folder, "user_key")
        for path in (self.key, os.path.join(folder, "host_key")):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        config = os.path.join(folder, "sshd_config")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"""ListenAddress 0.0.0.0:{run_world.SSH}
HostKey {folder}/host_key
AuthorizedKeysFile {self.key}.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
AcceptEnv PROBE
""")
        if not os.path.isdir("/run/sshd"):
            os.mkdir("/run/sshd", 0o755)
            world.stack.callback(shutil.rmtree, "/run/sshd", ignore_errors=True)
        world.serve(["/usr/sbin/sshd", "-D", "-e", "-f", config], run_world.SSH)
        self.options = ["-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes",
                        "-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-i", self.key]
        self.user = getpass.getuser()


def make_mirror(world, root):
    """A flat repository with one package in it. (Folder of apt's, its configuration file, the package's SHA-256)"""
    tree = world.folder("package")
    os.makedirs(os.path.join(tree, "DEBIAN"))
    control = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: A <a@run.test>\nDescription: nothing\n"
    with open(os.path.join(tree, "DEBIAN", "control"), "w", encoding="ascii") as file:
        file.write(control)
    mirror = os.path.join(root, "mirror")
    os.mkdir(mirror)
    deb = os.path.join(mirror, f"{PACKAGE}_1_all.deb")
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
    with open(deb, "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    packages = f"{control}Filename: ./{os.path.basename(deb)}\nSize: {len(data)}\nSHA256: {digest}\n".encode()
    with open(os.path.join(mirror, "Packages"), "wb") as file:
        file.write(packages)
    with open(os.path.join(mirror, "Release"), "w", encoding="ascii") as file:
        file.write("Date: Thu, 01 Jan 2026 00:00:00 UTC\nSHA256:\n"
                   f" {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n")
    return digest


def apt_folder(world, name):
    """A place of its own for apt, written by its sandbox user, too: (folder for downloads, environment)."""
    folder = world.folder(name)
    for sub in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "log", "here"):
        os.makedirs(os.path.join(folder, sub))
    here = os.path.join(folder, "here")
    os.chmod(here, 0o777)
    with open(os.path.join(folder, "status"), "w", encoding="ascii"):
        pass
    with open(os.path.join(folder, "etc/sources.list"), "w", encoding="ascii") as file:
        file.write("deb [trusted=yes] http://mirror.run.test/mirror ./\n")
    config = os.path.join(folder, "apt.conf")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"""Dir::State "{folder}/state"; Dir::State::status "{folder}/status"; Dir::Cache "{folder}/cache";
Dir::Etc "{folder}/etc"; Dir::Log "{folder}/log"; Acquire::Languages "none"; Acquire::Retries "0"; Acquire::http::Proxy "DIRECT";
APT::Sandbox::User "_apt"; Acquire::AllowInsecureRepositories "true";
""")
    return here, {"APT_CONFIG": config}
