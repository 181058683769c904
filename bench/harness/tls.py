"""What the measures of TLS and logins need: one certificate for all, users, and what each proxy is told."""
import os
import subprocess

from .world import BenchError

NAME, PASSWORD = "bench", "secret"  # as socks6.h has them

# What socks6d does: TLS 1.3, no session cache (tickets are stateless in TLS 1.3 anyway), early data.
HAPROXY_BIND = "ssl crt {} ssl-min-ver TLSv1.3 allow-0rtt"


def _run(what, command, **more):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **more)
    except OSError as error:
        raise BenchError(f"{what}: {error}") from error
    if done.returncode != 0:
        raise BenchError(f"{what}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def certificate(world):
    """A PEM file with certificate and key: ECDSA on P-256, signed by itself. Made when first asked for."""
    path = os.path.join(world.work, "certificate.pem")
    if not os.path.exists(path):
        key, own = path + ".key", path + ".crt"
        _run("no certificate", ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                                "-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench.test", "-keyout", key,
                                "-out", own])
        parts = []
        for part in (own, key):
            with open(part, encoding="ascii") as file:
                parts.append(file.read())
        world.write("certificate.pem", "".join(parts))
    return path


def listener(world):
    """`tls:` of a listener of socks6d."""
    path = certificate(world)
    return f'{{certificate: "{path}", key: "{path}"}}'


def passwords(world):
    """`auth:` of socks6d, with the one user that the load generator logs in as; the hash is yescrypt."""
    path = os.path.join(world.work, "users")
    if not os.path.exists(path):
        _run("no users", [os.path.join(world.build, "src", "cli", "socks6"), "passwd", "-c", "-i", path, NAME], input=PASSWORD + "\n")
    return f'{{methods: [password], users: "{path}"}}'
