#!/usr/bin/python3
"""Throughput, round trips and connection set-up through socks6d (SOCKS 5 clients), beside the same without a proxy.

Samples of both are taken in turn, so that what else the machine does hits both; medians are printed. CPU per
operation is the proxy's own and repeats best. A proxy does the TCP work of a connection twice: on a machine whose
cores are all busy, half of "direct" is the limit for rr and hs.

usage: relay.py [ROUNDS [SECONDS]]   (5 and 1 unless told; SOCKS6_BUILD is the build directory, ./dev bench sets it)
"""
import os
import platform
import socket
import statistics
import subprocess
import sys
import time

CASES = [("down", 1), ("up", 1), ("down", 16), ("up", 16), ("rr", 1), ("rr", 64), ("hs", 64)]
START_LIMIT_S = 10


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_proxy(build, port):
    """The daemon, ready: it answers a SOCKS 5 greeting."""
    program = os.path.join(build, "src", "proxyd", "socks6d")
    proxy = subprocess.Popen([program, "-l", f"127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end and proxy.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as client:
                client.sendall(b"\5\1\0")
                if client.recv(2) == b"\5\0":
                    return proxy
        except OSError:
            time.sleep(0.02)
    proxy.kill()
    sys.exit("relay: socks6d does not start")


def sample(load, mode, connections, seconds, proxy=()):
    """(rate, proxy's CPU per unit): MB/s and s/GB for bulk, operations/s and us per operation otherwise."""
    out = subprocess.run(
        [load, mode, str(connections), str(seconds), *map(str, proxy)], check=True, capture_output=True, text=True
    ).stdout
    operations, size, took, proxy_cpu, _ = map(float, out.split())
    if mode in ("up", "down"):
        return size / took / 1e6, proxy_cpu / max(size, 1) * 1e9
    return operations / took, proxy_cpu / max(operations, 1) * 1e6


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    build = os.environ.get("SOCKS6_BUILD", "build/bench")
    load = os.path.join(build, "bench", "load")
    port = free_port()
    proxy = start_proxy(build, port)
    figures = {case: ([], []) for case in CASES}
    try:
        for _ in range(rounds):
            for case in CASES:
                figures[case][0].append(sample(load, *case, seconds))
                figures[case][1].append(sample(load, *case, seconds, (port, proxy.pid)))
    finally:
        proxy.terminate()
        proxy.wait()

    print(f"Linux {platform.release()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; "
          f"median of {rounds} x {seconds:g} s, loopback")
    print(f"{'case':<8}{'direct':>12}{'socks6d':>12}{'':>8}{'ratio':>8}   proxy CPU")
    for (mode, connections), (direct, proxied) in figures.items():
        is_bulk = mode in ("up", "down")
        base, rate = (statistics.median(rate for rate, _ in samples) for samples in (direct, proxied))
        cpu = statistics.median(cpu for _, cpu in proxied)
        unit, cpu_text = ("MB/s", f"{cpu:.3f} s/GB") if is_bulk else ("op/s", f"{cpu:.1f} us/op")
        print(f"{mode + str(connections):<8}{base:>12.0f}{rate:>12.0f} {unit:<7}{rate / base:>8.2f}   {cpu_text}")


if __name__ == "__main__":
    main()
