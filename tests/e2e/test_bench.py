"""./dev bench in small: the tools run, the report is there, errors are refused, nothing is left behind."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

import dns.message
import dns.name
import dns.rcode
import pytest

from lib.daemon import build_dir
from lib.dns_servers import Scripted
from lib.net import DIES_WITH_US, listening, recv_until_end, wait_until
from lib.tls import Authority

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


TLS_OURS = {"tls-socks6", "tls-socks6-again", "tls-socks6-token", "tls-pump", "anonymous", "anonymous-again", "password"}


def test_tls_and_logins_in_small(tmp_path, leaves_nothing):
    done = subprocess.run(bench(tmp_path, "tls", "--quick", "--rounds", "1", "--seconds", "0.1"), capture_output=True, text=True,
                          check=False)
    measures = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["measures"]
    assert {f"tls-{kind}" for kind in ("up1", "down1", "up16", "down16", "full64", "resumed64", "early64")} | {"login64"} == \
        set(measures), done.stderr
    seen = set()
    for name, measure in measures.items():
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8").startswith("<svg")
        for target, found in measure["targets"].items():
            # HAProxy, if it is there, is held to the same.
            assert not [p for p in found["problems"] if STALLED not in p], (name, target, done.stderr)
            if not found["problems"]:
                assert found["rate"]["median"] > 0 and found["cpu"]["median"] > 0
            seen.add(target)
    assert TLS_OURS <= seen
    assert "/ two bare pumps" in (tmp_path / "results.md").read_text(encoding="utf-8")


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
                                       ["--profile", "socks5", "dns-cached1"], ["--profile", "socks5", "tls-up1"]])
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


def test_wrapped_programs_in_small(tmp_path, isolation, leaves_nothing):
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("no /dev/net/tun")
    targets = ["direct", "run", "run-again", "run-early", "run-tls"]
    done = subprocess.run([*bench(tmp_path)[:-2], "wrap", "--rounds", "1", "--seconds", "0.2", "--only", ",".join(targets), "--out",
                           str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    measures = json.loads((tmp_path / "wrap.json").read_text(encoding="utf-8"))["measures"]
    assert set(measures) == {f"{place}-{kind}" for place in ("link", "loopback") for kind in ("connect", "request", "keep")}
    for name, measure in measures.items():
        # connect() of --early says nothing.
        assert set(measure["targets"]) == set(targets) - ({"run-early"} if name.endswith("-connect") else set()), name
        for target, found in measure["targets"].items():
            assert found["rate"] > 0 and not found["problems"], (name, target)
            if name.startswith("link"):  # nothing is faster than its round trips: connect, request
                trips = {"connect": 1, "keep": 1, "request": 1 if target == "run-early" else 2}[name.partition("-")[2]]
                assert found["mean_us"] >= 50_000 * trips - 500, (name, target)


@pytest.mark.parametrize("arguments", [["--only", "nonsense"], ["--measure", "nonsense"], ["--seconds", "-1"], ["--rounds", "-1"]])
def test_wrapping_with_bad_arguments_is_refused(tmp_path, arguments):
    done = subprocess.run([*bench(tmp_path)[:-2], "wrap", "--out", str(tmp_path), *arguments], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 2 and "usage:" in done.stderr


def test_the_wrapped_load_counts_errors(leaves_nothing):
    with listening() as closed:
        port = closed.addr[1]
    done = subprocess.run([os.path.join(build_dir(), "bench", "wrap_load"), "kind=request", "host=127.0.0.1", f"port={port}", "workers=2",
                           "seconds=0.1", "warm=0"], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert found["ops"] == 0 and found["errors"] > 0 and "refused" in found["first_error"]


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


# --- the TLS load generator ---

@pytest.fixture(scope="session")
def tls_authority(tmp_path_factory):
    one = Authority(tmp_path_factory.mktemp("bench-tls"))
    one.server = one.issue("proxy.test")
    return one


@pytest.fixture
def ports(tmp_path):
    """Those of the backend."""
    with subprocess.Popen([*DIES_WITH_US, os.path.join(build_dir(), "bench", "backend"), str(tmp_path / "tally")],
                          stdout=subprocess.PIPE) as process:
        yield json.loads(process.stdout.readline())
        process.kill()


def tls_proxy(daemon, authority, early_data=True, **more):
    pem, key = authority.server
    return daemon(listeners=[{"address": "127.0.0.1:0", "tls": {"certificate": pem, "key": key, "early_data": early_data}}], **more)


def tls_load(authority, addr, port, *arguments):
    return subprocess.run([os.path.join(build_dir(), "bench", "tls_load"), "seconds=0.3", "warm=0", "conns=4", "from=127.0.2.1",
                           "to=127.0.1.1", f"port={port}", f"via={addr[0]}", f"via_port={addr[1]}", f"ca={authority.pem}",
                           *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kind, proto", [("full", "socks6"), ("resumed", "socks6"), ("early", "socks6"), ("early", "socks6-token"),
                                         ("full", "socks6-token")])
def test_handshakes_are_what_they_are_called(daemon, tls_authority, ports, leaves_nothing, kind, proto):
    proxy = tls_proxy(daemon, tls_authority)
    raw = json.loads(tls_load(tls_authority, proxy.addr, ports["echo"], f"kind={kind}", f"proto={proto}").stdout)
    assert (raw["errors"], raw["first_error"], raw["stalled"]) == (0, "", 0) and raw["ops"] > 0
    proxy.signal(10)
    line = proxy.wait_line("counters:")
    counted = {name: int(value) for name, _, value in (word.partition("=") for word in line.split()) if value.isdigit()}
    # The first connection, which gets the ticket, has a full handshake.
    assert counted["tls_resumed"] >= raw["ops"] if kind != "full" else counted["tls_resumed"] == 0
    assert counted["tls_early_data_accepted"] >= raw["ops"] if kind == "early" else counted["tls_early_data_accepted"] == 0


def test_early_data_that_is_not_accepted_is_an_error(daemon, tls_authority, ports, leaves_nothing):
    proxy = tls_proxy(daemon, tls_authority, early_data=False)
    raw = json.loads(tls_load(tls_authority, proxy.addr, ports["echo"], "kind=early", "proto=socks6").stdout)
    assert raw["ops"] == 0 and raw["errors"] > 0 and raw["first_error"].startswith("early data")


def test_tls_refusals_and_strangers_are_errors(daemon, tls_authority, ports, tmp_path, leaves_nothing):
    proxy = tls_proxy(daemon, tls_authority, rules=[{"deny": {"to": "127.0.1.1"}}])
    raw = json.loads(tls_load(tls_authority, proxy.addr, ports["echo"], "kind=full", "proto=socks6").stdout)
    assert raw["ops"] == 0 and raw["errors"] > 0 and raw["first_error"] == "the proxy refused with code 2"
    stranger = Authority(tmp_path, "Stranger")
    raw = json.loads(tls_load(stranger, proxy.addr, ports["echo"], "kind=full", "proto=socks6").stdout)
    assert raw["ops"] == 0 and raw["first_error"] == "handshake: certificate verify failed"


def test_bulk_over_tls_is_checked(daemon, tls_authority, ports, leaves_nothing):
    proxy = tls_proxy(daemon, tls_authority)
    raw = json.loads(tls_load(tls_authority, proxy.addr, ports["source"], "kind=down", "proto=socks6").stdout)
    assert raw["errors"] == 0 and raw["bytes"] > 0
    with listening("127.0.1.1") as server:
        def talk():
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(server.accept_one()) for _ in range(4)]
                for peer in peers:
                    peer.sendall(b"no zeros")
                for peer in peers:
                    recv_until_end(peer)
        talker = threading.Thread(target=talk)
        talker.start()
        raw = json.loads(tls_load(tls_authority, proxy.addr, server.addr[1], "kind=down", "proto=socks6").stdout)
        talker.join()
    assert raw["errors"] == 4 and raw["first_error"] == "other data than was sent"


def test_tokens_are_for_handshakes_only(tls_authority, leaves_nothing):
    done = tls_load(tls_authority, ("127.0.0.1", 1), 1, "kind=up", "proto=socks6-token")
    assert done.returncode == 2 and "socks6-token is for handshakes" in done.stderr


@pytest.mark.parametrize("password, error", [("secret", ""), ("other", "the proxy refused with code 255")])
def test_logins_are_real(daemon, ports, tmp_path, leaves_nothing, password, error):
    users = str(tmp_path / "users")
    subprocess.run([os.path.join(build_dir(), "src", "cli", "socks6"), "passwd", "-c", "-i", "-C", "1", users, "bench"],
                   input=password + "\n", text=True, check=True)
    proxy = daemon(auth={"methods": ["password"], "users": users})
    done = load("kind=hs", "proto=socks6-login", "conns=3", "seconds=0.2", "from=127.0.2.1", "to=127.0.1.1",
                f"port={ports['echo']}", f"via={proxy.addr[0]}", f"via_port={proxy.addr[1]}")
    raw = json.loads(done.stdout)
    assert raw["first_error"] == error and (raw["ops"] > 0) == (not error)


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
