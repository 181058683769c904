"""./dev bench in small: the tools run, the report is there, errors are refused, nothing is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import dns.message
import dns.name
import dns.rcode
import pytest

from lib.daemon import build_dir
from lib.dns_servers import Scripted
from lib.net import DIES_WITH_US, wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]


def bench(out, *arguments):
    """The environment as it is: sanitizers' settings do no harm to peers."""
    return [sys.executable, "-B", os.path.join(ROOT, "bench", "run.py"), "--out", str(out), *arguments]


# Peers that are not installed are skipped, and that is said.
OURS = {"direct", "socks5", "socks5-again", "socks6-once", "socks5-log", "bare", "socks6d", "socks6d-again"}
TARGETS = ",".join([*OURS, "haproxy", "unbound"])
# In so short a sample a stream may have to wait for its turn: not an error of anything.
STALLED = "connections did not move"


def marks_left():
    """What a run of any kind would leave: control groups, directories."""
    found = []
    for folder in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/tmp"):
        if os.path.isdir(folder):
            found += [os.path.join(folder, name) for name in os.listdir(folder) if name.startswith("socks6-bench-")]
    return set(found)


@pytest.fixture
def leaves_nothing():
    if not os.path.exists(os.path.join(build_dir(), "bench", "load")):
        pytest.fail("the build has no bench/load (meson option bench)")
    before = marks_left()
    yield
    assert marks_left() <= before


def test_a_quick_run_measures_everything_in_small(tmp_path, leaves_nothing):
    done = subprocess.run(bench(tmp_path, "--quick", "--rounds", "1", "--seconds", "0.05", "--idle-conns", "50", "--only", TARGETS),
                          capture_output=True, text=True, check=False)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    measures = results["measures"]
    local = {"hs64", "hs256", "rr64", "rr256", "up1", "down1", "up16", "down16", "log64", "log256",
             "dns-cached1", "dns-cached64", "dns-uncached1", "dns-uncached64"}
    assert local <= set(measures), done.stderr
    for name, measure in measures.items():
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")
        for target in set(measure["targets"]) & OURS:
            found = measure["targets"][target]
            assert not [p for p in found["problems"] if STALLED not in p], (name, target, done.stderr)
            if not found["problems"]:
                assert found["rate"]["median"] > 0 and (target == "direct" or found["cpu"]["median"] > 0)
    assert not measures["dns-cached1"]["targets"]["unbound"]["problems"], done.stderr
    assert {(r["ours"], r["other"], r["series"]) for r in measures["dns-uncached64"]["ratios"]} == {
        ("socks6d", "unbound", "rate"), ("socks6d", "unbound", "cpu")}
    assert results["idle"]["socks5"]["held"]["median"] == 50
    assert round(results["idle"]["socks5"]["descriptors"]["median"], 1) == 2.0
    ratios = [ratio for measure in measures.values() for ratio in measure["ratios"]]
    assert ratios and all(ratio["refused"] or ratio["indicative"] for ratio in ratios)
    assert "### Goals" in (tmp_path / "results.md").read_text(encoding="utf-8")


def test_fast_open_is_measured_only_if_syns_carry_data(tmp_path, isolation, leaves_nothing):
    done = subprocess.run(bench(tmp_path, "hs64", "--quick", "--rounds", "1", "--seconds", "1", "--only", "socks6-tfo"),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["measures"]["hs64"]["targets"]["socks6-tfo"]
    assert found["rate"]["median"] > 0 and not found["problems"]


def test_one_round_alone_prints_no_ratio_unless_quick(tmp_path, leaves_nothing):
    done = subprocess.run(bench(tmp_path, "hs64", "--rounds", "1", "--seconds", "0.05", "--only", "direct,socks5,socks5-again"),
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "n/s (too few rounds: 1)" in done.stdout


def test_an_interrupted_run_reports_resumes_and_leaves_nothing(tmp_path, leaves_nothing):
    arguments = ["hs64", "--rounds", "6", "--seconds", "0.3", "--only", "direct,socks5,socks5-again"]
    samples = tmp_path / "samples.jsonl"
    with subprocess.Popen(bench(tmp_path, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: samples.exists() and len(samples.read_text(encoding="utf-8").splitlines()) > 2, "three samples")
        first.send_signal(signal.SIGINT)
        out, said = first.communicate()
    assert first.returncode == 130 and "interrupted before its end" in out, said
    taken = samples.read_text(encoding="utf-8").splitlines()
    assert 3 <= len(taken) < 1 + 6 * 3
    done = subprocess.run(bench(tmp_path, *arguments, "--resume"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    resumed = samples.read_text(encoding="utf-8").splitlines()
    assert resumed[:len(taken)] == taken and len(resumed) == 1 + 6 * 3


@pytest.mark.parametrize("arguments", [["nonsense"], ["--only", "nobody"], ["--profile", "socks5", "nothing"], ["--rounds", "0"],
                                       ["--profile", "socks5", "dns-cached1"]])
def test_what_there_is_not_is_refused(tmp_path, arguments, leaves_nothing):
    done = subprocess.run(bench(tmp_path, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage:" in done.stderr


def test_round_trips_in_small(tmp_path, isolation, leaves_nothing):
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun")
    rows = "direct,direct-tfo,socks5,socks6-cold,socks6-tokenless-tfo,socks6-tokenless-act-tfo"
    done = subprocess.run([*bench(tmp_path)[:-2], "rtt", "--samples", "2", "--geometry", "40/20", "--only", rows, "--out",
                           str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = {row["name"]: row for row in json.loads((tmp_path / "rtt.json").read_text(encoding="utf-8"))["rows"]}
    assert set(results) == set(rows.split(","))
    # Nothing is faster than its round trips; a busy machine may be slower.
    for name, (c, s) in {"direct": (2, 2), "direct-tfo": (1, 1), "socks5": (4, 2), "socks6-cold": (2, 2),
                         "socks6-tokenless-tfo": (2, 1), "socks6-tokenless-act-tfo": (1, 1)}.items():
        assert results[name]["geometries"]["40/20"]["low_ms"] >= 40 * c + 20 * s - 0.5, name
    for name, found in results.items():
        has_data = 2 if name.endswith("tfo") else 0
        assert found["geometries"]["40/20"]["client_syn_data"] == has_data
        assert found["geometries"]["40/20"]["server_syn_data"] == has_data
    assert "handshake (tfo_without_token: wait)" in (tmp_path / "rtt.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("arguments", [["--geometry", "50"], ["--geometry", "a/b"], ["--geometry", "1/5"], ["--samples", "-1"]])
def test_round_trips_with_bad_arguments_are_refused(tmp_path, arguments):
    done = subprocess.run([*bench(tmp_path)[:-2], "rtt", "--out", str(tmp_path), *arguments], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2 and "usage:" in done.stderr


def load(*arguments):
    return subprocess.run([os.path.join(build_dir(), "bench", "load"), *arguments], capture_output=True, text=True, check=False)


def test_the_load_generator_counts_errors(leaves_nothing):
    """Nothing listens on port 1; so every connection fails, and that is what it says."""
    done = load("kind=hs", "proto=plain", "conns=2", "seconds=0.1", "from=127.0.2.1", "to=127.0.1.1", "port=1")
    raw = json.loads(done.stdout)
    assert raw["ops"] == 0 and raw["errors"] >= 2 and "refused" in raw["first_error"]


def test_the_load_generator_counts_refusals_of_the_proxy(daemon, leaves_nothing):
    proxy = daemon(rules=[{"deny": {"to": "127.0.1.1"}}])
    host, port = proxy.addr
    for proto, code in (("socks5", 2), ("socks6", 2), ("socks6-once", 2)):
        done = load("kind=rr", f"proto={proto}", "conns=3", "seconds=0.1", "from=127.0.2.1", "to=127.0.1.1", "port=1",
                    f"via={host}", f"via_port={port}")
        raw = json.loads(done.stdout)
        assert (raw["ops"], raw["errors"], raw["first_error"]) == (0, 3, f"the proxy refused with code {code}"), done


# --- the DNS load generator ---

def dns_load(*arguments):
    done = subprocess.run([os.path.join(build_dir(), "bench", "dns_load"), "from=127.0.2.1", "seconds=0.2", "warm=0.1", *arguments],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def backend(tmp_path):
    """(port of its name server, file in which it counts questions)"""
    tally = str(tmp_path / "tally")
    with subprocess.Popen([*DIES_WITH_US, os.path.join(build_dir(), "bench", "backend"), tally], stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())["dns"], tally
        process.kill()


@pytest.mark.parametrize("conns, in_flight", [(1, 16), (7, 64)])
def test_dns_through_the_proxy_is_cached_or_not(daemon, backend, leaves_nothing, conns, in_flight):
    port, tally = backend
    proxy = daemon(dns={"upstream": f"udp://127.0.0.1:{port}", "queries_in_flight": 1024})
    target = ["proto=socks6", f"via={proxy.addr[0]}", f"via_port={proxy.addr[1]}", f"tally={tally}", f"conns={conns}",
              f"in_flight={in_flight}"]
    cached, uncached = dns_load("kind=cached", *target), dns_load("kind=uncached", *target)
    for raw in (cached, uncached):
        assert (raw["errors"], raw["first_error"], raw["stalled"]) == (0, "", 0)
        assert raw["ops"] > 0 and raw["p99_us"] >= raw["p50_us"] > 0
        assert raw["bytes"] == raw["ops"] * (12 + 36 + 16 + 11)  # header, question, address, OPT


def test_a_resolver_that_asks_although_it_was_told_is_noticed(daemon, backend, leaves_nothing):
    port, tally = backend
    proxy = daemon(dns={"upstream": f"udp://127.0.0.1:{port}", "cache": "none"})
    raw = dns_load("kind=cached", "proto=socks6", f"via={proxy.addr[0]}", f"via_port={proxy.addr[1]}", f"tally={tally}", "in_flight=16")
    assert raw["errors"] == 1 and "questions at the backend for" in raw["first_error"]


def test_dns_refused_by_the_proxy_is_an_error(daemon, leaves_nothing):
    proxy = daemon(dns={"service": False})
    raw = dns_load("kind=cached", "proto=socks6", f"via={proxy.addr[0]}", f"via_port={proxy.addr[1]}", "conns=2")
    assert (raw["ops"], raw["errors"], raw["first_error"]) == (0, 2, "the proxy refused with code 5")


def with_rcode(rcode):
    def answer(query):
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        return response
    return answer


def other_id(query):
    response = Scripted.address(query)
    response.id ^= 1 << 15
    return response


def other_name(query):
    response = Scripted.address(query)
    response.question[0].name = dns.name.from_text("fedcba9876543210.bench.example.")
    return response


@pytest.mark.parametrize("answer, error", [
    (with_rcode(dns.rcode.SERVFAIL), "SERVFAIL"),
    (with_rcode(dns.rcode.NXDOMAIN), "an error as an answer"),
    (with_rcode(dns.rcode.NOERROR), "a wrong answer"),
    (Scripted.address, "a wrong answer"),
    (other_id, "an answer to nothing that was asked"),
    (other_name, "an answer to another question"),
])
def test_every_answer_is_checked(answer, error, leaves_nothing):
    with contextlib.closing(Scripted(answer)) as server:
        raw = dns_load("kind=uncached", "proto=plain", "via=127.0.0.1", f"via_port={server.port}", "in_flight=3")
    assert (raw["ops"], raw["errors"], raw["first_error"]) == (0, 1, error)
    assert str(server.queries[0].question[0]).endswith(".bench.example. IN A") and server.queries[0].edns == 0
