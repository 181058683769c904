"""The statistics of ./dev bench, and when it refuses to print a ratio: pure functions of bench/harness."""

import json
import os
import re
import sys
from xml.etree import ElementTree

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))

from harness import cases, chart, publish, report, rtt_report, rtt_rows, sampling, stats, wrap, wrap_report  # noqa: E402
from harness import campaign as harness_campaign  # noqa: E402
from harness.campaign import Journal  # noqa: E402
from harness.world import BenchError  # noqa: E402


def series(*values):
    return dict(enumerate(values))


QUIET = series(100, 102, 99, 101, 100), series(100, 100, 100, 100, 100)  # A/A 0.99..1.02


def test_spread_is_median_and_extremes():
    assert stats.spread([3, 1, 10, 2]) == stats.Spread(2.5, 1, 10, 4)
    with pytest.raises(ValueError):
        stats.spread([])


def test_ratios_are_taken_within_rounds():
    # The machine is twice as fast in the second round: the ratio does not see it, that of the medians would.
    assert stats.paired({0: 10, 1: 20, 2: 30}, {0: 5, 1: 10, 3: 1}) == [2, 2]
    assert stats.paired({0: 10}, {0: 0}) == []


def test_control_interval_always_holds_the_truth():
    assert stats.control_interval([1.1]) == (1.0, 1.1)
    assert stats.control_interval([0.9, 0.95]) == (0.9, 1.0)
    assert stats.control_interval([2.0, -1.0], 0.0) == (-1.0, 2.0)
    with pytest.raises(ValueError):
        stats.control_interval([])


def test_control_interval_leaves_out_extremes_from_seven_rounds_on():
    values = [0.5, 0.97, 0.99, 1.0, 1.02, 1.03]
    assert stats.control_interval(values) == (0.5, 1.03)
    assert stats.control_interval([*values, 3.0]) == (0.97, 1.03)


def test_a_clear_ratio_is_printed():
    found = stats.compare(series(130, 140, 150, 140, 140), series(100, 100, 100, 100, 100), QUIET)
    assert found.refused == "" and found.text() == "1.40 [1.30..1.50]"
    assert found.control == (0.99, 1.02)


def test_errors_refuse_a_ratio():
    found = stats.compare(series(*[140] * 5), series(*[100] * 5), QUIET, problems=["dante: 3 x connect: refused"])
    assert found.text() == "n/s (errors: dante: 3 x connect: refused)" and found.value is None


def test_errors_refuse_even_an_indicative_ratio():
    assert stats.compare(series(2), series(1), (series(1), series(1)), problems=["x"], is_quick=True).refused


@pytest.mark.parametrize("rounds", [1, 4])
def test_too_few_rounds_refuse_a_ratio_unless_quick(rounds):
    values, ones = series(*[140] * rounds), series(*[100] * rounds)
    assert stats.compare(values, ones, (ones, ones)).refused == f"too few rounds: {rounds}"
    quick = stats.compare(values, ones, (ones, ones), is_quick=True)
    assert quick.is_indicative and quick.text().startswith("~1.40 ")


def test_a_control_with_too_few_rounds_refuses_as_well():
    control = series(100, 100), series(100, 100)
    assert stats.compare(series(*[140] * 5), series(*[100] * 5), control).refused == "too few rounds: 2"


def test_rounds_that_do_not_overlap_refuse_a_ratio():
    assert stats.compare({0: 1, 1: 1}, {2: 1}, QUIET).refused == "not measured together"


def test_no_control_refuses_a_ratio():
    assert stats.compare(series(*[140] * 5), series(*[100] * 5), ({}, {})).refused == "no A/A control"


def test_a_control_wider_than_the_difference_refuses_a_ratio():
    noisy = series(90, 100, 110, 100, 100), series(*[100] * 5)
    wide = stats.compare(series(*[115] * 5), series(*[100] * 5), noisy)
    assert wide.text() == "n/s (not separable: A/A 0.90..1.10)"
    assert stats.compare(series(*[85] * 5), series(*[100] * 5), noisy).refused.startswith("not separable")
    assert stats.compare(series(*[125] * 5), series(*[100] * 5), noisy).refused == ""
    assert stats.compare(series(*[75] * 5), series(*[100] * 5), noisy).refused == ""


def ratio(median, low=0.99, high=1.01, refused=""):
    return stats.Comparison(stats.Spread(median, median, median, 5), refused, (low, high))


@pytest.mark.parametrize("comparison, sense, goal, verdict", [
    (ratio(1.5), ">=", 1.4, stats.MET),
    (ratio(1.3), ">=", 1.4, stats.MISSED),
    (ratio(1.41), ">=", 1.4, stats.UNCLEAR),
    (ratio(1.39), ">=", 1.4, stats.UNCLEAR),
    (ratio(0.5), "<=", 0.65, stats.MET),
    (ratio(0.8), "<=", 0.65, stats.MISSED),
    (ratio(1.005), ">=", 1.0, stats.MET),
    (ratio(0.995, refused="not separable: A/A 0.99..1.01"), ">=", 1.0, stats.MET),
    (ratio(0.9), ">=", 1.0, stats.MISSED),
    (ratio(1.1), "<=", 1.0, stats.MISSED),
    # Refused as a ratio (too close to 1) and yet far from the goal.
    (ratio(1.005, refused="not separable: A/A 0.99..1.01"), ">=", 1.4, stats.MISSED),
    # A control too wide to say that two are level.
    (ratio(0.95, 0.9, 1.1, "not separable: A/A 0.90..1.10"), ">=", 1.0, stats.UNCLEAR),
    (ratio(1.5, refused="too few rounds: 3"), ">=", 1.4, stats.UNKNOWN),
    (stats.Comparison(refused="errors: x"), ">=", 1.4, stats.UNKNOWN),
    (stats.Comparison(stats.Spread(2, 2, 2, 5), "no A/A control"), ">=", 1.4, stats.UNKNOWN),
])
def test_goals(comparison, sense, goal, verdict):
    assert stats.judge(comparison, sense, goal) == verdict


def test_differences_are_paired_and_judged_by_their_own_control():
    control = series(70, 71, 70, 69, 70), series(70, 70, 70, 70, 70)
    found = stats.compare_difference(series(72, 82, 72, 72, 72), series(70, 80, 70, 70, 70), control)
    assert found.value.median == 2 and found.control == (-1, 1)
    assert stats.judge_difference(found, 5) == stats.MET
    assert stats.judge_difference(found, 3) == stats.UNCLEAR
    assert stats.judge_difference(found, -1) == stats.MISSED
    few = stats.compare_difference(series(1), series(1), (series(1), series(1)))
    assert few.refused == "too few rounds: 1" and stats.judge_difference(few, 5) == stats.UNKNOWN


# --- from samples to a report ---

RAW = {"ops": 1000, "bytes": 2 << 30, "seconds": 0.5, "proxy_cpu_s": 0.07, "client_cpu_s": 0.03, "backend_cpu_s": 0.03,
       "p50_us": 10.0, "p99_us": 20.0, "stalled": 0, "errors": 0, "first_error": ""}


def test_units_of_a_sample():
    one = sampling.refine(RAW, "hs", 64)
    assert (one["rate"], one["cpu"], one["ends_cpu"], one["problem"]) == (2000, pytest.approx(70), pytest.approx(60), "")
    bulk = sampling.refine(RAW, "up", 1)
    assert (bulk["rate"], bulk["cpu"]) == (4, pytest.approx(0.035))


@pytest.mark.parametrize("change, problem", [
    ({"errors": 2, "first_error": "recv: reset"}, "2 x recv: reset"),
    ({"ops": 0}, "nothing came through"),
    ({"stalled": 7}, "7 of 64 connections did not move"),
    ({"stalled": 6}, ""),
])
def test_what_makes_a_sample_unusable(change, problem):
    assert sampling.refine(RAW | change, "hs", 64)["problem"] == problem


class Options:
    rounds, seconds, warm, idle_conns, quick = 5, 1.0, 0.3, 9000, False


def campaign(rates, problems=None, rounds=5):
    """Samples of hs256 with the same rate of each target in every round, a little apart."""
    return [{"measure": "hs256", "target": target, "round": r, "rate": rate + r, "cpu": 1e6 / rate, "ends_cpu": 1.0,
             "p50_us": 5.0, "p99_us": 9.0, "stalled": 0, "problem": (problems or {}).get((target, r), "")}
            for target, rate in rates.items() for r in range(rounds)]


RATES = {"direct": 26000, "socks5": 11000, "socks5-again": 11010, "socks6-once": 13000, "microsocks": 7000, "nginx": 14000}


def goal(results, text):
    return next(g for g in results["goals"] if text in g["text"])


def test_report_has_ratios_goals_and_what_is_missing():
    results = report.evaluate(campaign(RATES), Options, ["skipped: dante is not installed"])
    assert goal(results, "SOCKS 5 / microsocks")["verdict"] == stats.MET
    assert goal(results, "nginx stream")["verdict"] == stats.MET
    assert goal(results, "in one segment / HAProxy")["verdict"] == stats.UNKNOWN
    text = report.markdown(results)
    assert "1.57 [1.57..1.57]" in text and "dante is not installed" in text and "A/A control: rate 1.00..1.00" in text
    assert "n/s" not in text.split("### Goals")[1]


def test_one_bad_sample_keeps_a_ratio_out_of_table_and_json():
    results = report.evaluate(campaign(RATES, {("microsocks", 3): "1 x recv: reset"}), Options, [])
    assert goal(results, "SOCKS 5 / microsocks")["verdict"] == stats.UNKNOWN
    ratios = [r for r in results["measures"]["hs256"]["ratios"] if r["other"] == "microsocks"]
    assert ratios and all("median" not in r and "errors" in r["text"] for r in ratios)
    assert "(**1 samples with errors**)" in report.markdown(results)
    clean = [r for r in results["measures"]["hs256"]["ratios"] if r["other"] == "nginx"]
    assert all("median" in r for r in clean)


def test_an_error_in_the_control_refuses_every_ratio():
    results = report.evaluate(campaign(RATES, {("socks5-again", 0): "1 x connect: refused"}), Options, [])
    assert all(r["refused"] for r in results["measures"]["hs256"]["ratios"])


def test_missed_goals_are_the_ones_to_profile():
    results = report.evaluate(campaign(RATES | {"microsocks": 10000, "nginx": 20000}), Options, [])
    assert report.to_profile(results) == [("socks5", "hs256"), ("socks6-once", "hs256")]


def test_results_are_json():
    results = report.evaluate(campaign(RATES), Options, [])
    assert json.loads(json.dumps(results))["measures"]["hs256"]["targets"]["socks5"]["rate"]["rounds"] == 5


def test_idle_memory_has_the_ends_taken_off():
    samples = [{"measure": "idle", "target": t, "round": r, "user_bytes": user, "descriptors": 2.0003, "base_bytes": 1e6,
                "kernel_bytes": kernel, "held": 9000, "problem": ""}
               for t, user, kernel in (("direct", 0, 7000), ("socks5", 250, 15000)) for r in range(3)]
    results = report.evaluate(samples, Options, [])
    assert results["idle"]["socks5"]["kernel_bytes"]["median"] == 8000
    assert goal(results, "user memory")["verdict"] == goal(results, "descriptors")["verdict"] == stats.MET
    samples[-1]["problem"] = "100 of 9000 connections: recv: reset"
    assert goal(report.evaluate(samples, Options, []), "user memory")["verdict"] == stats.UNKNOWN


# --- charts ---

def test_charts_are_well_formed_and_labelled():
    results = report.evaluate(campaign(RATES), Options, [])
    (name, svg), = report.charts(results)
    texts = [node.text for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert name == "hs256" and "New connections, 256 at once" in texts
    assert "microsocks" in texts and "7,002" in texts and "per second (more is better)" in texts
    assert len(re.findall(r'stroke-width="1.4"', svg)) == 3 * (len(RATES) * 2 - 1)  # whiskers; direct has no proxy's CPU


def test_ticks_are_few_and_round():
    assert chart.ticks(27177) == [0, 10000, 20000]
    assert chart.ticks(4.2) == [0, 1, 2, 3, 4]
    assert all(2 <= len(chart.ticks(top)) <= 6 for top in (0.013, 0.99, 1, 7, 48, 301, 99999))


def test_an_axis_is_cut_for_one_giant_alone():
    assert chart.clip_of([1, 2, 20]) == 3
    assert chart.clip_of([1, 2, 7]) is None and chart.clip_of([1, 100]) is None


# --- names, journal, document ---

def test_names_select_measures_in_the_order_of_the_tables():
    assert cases.select(["rr256", "hs"]) == ["hs64", "hs256", "rr256"]
    assert cases.select([]) == cases.select(["all"]) and "idle" in cases.select([])
    assert cases.select(["bulk"]) == [*cases.select(["loopback-bulk"]), *cases.select(["veth"])]
    assert cases.select(["hs", "nonsense"]) is None


def test_goals_are_about_what_is_measured():
    for one in cases.GOALS:
        measured = cases.MEASURES[one.measure].targets
        assert one.ours in measured and set(one.peers) <= set(measured), one.text
    for one in cases.OVERHEADS:
        assert {"socks5", "bare"} <= set(cases.MEASURES[one.measure].targets)
    for measure in cases.MEASURES.values():
        assert set(measure.control) <= set(measure.targets), measure.name


def test_dns_targets_and_relays_do_not_mix():
    assert cases.select(["dns"]) == ["dns-cached1", "dns-cached64", "dns-uncached1", "dns-uncached64"]
    for measure in cases.MEASURES.values():
        assert all(cases.fits(measure.name, target) for target in measure.targets)
    assert not cases.fits("hs64", "unbound") and not cases.fits("dns-cached1", "socks5") and not cases.fits("idle", "socks6d")
    assert cases.fits("idle", "socks5-copy")


def test_tls_and_logins_are_a_part_of_their_own():
    names = cases.select(["tls"])
    assert names == [*(f"tls-{kind}" for kind in ("up1", "down1", "up16", "down16", "full64", "resumed64", "early64")), "login64"]
    assert not set(names) & {*cases.select(["all"]), *cases.select(["bulk"]), *cases.select(["hs"])}
    assert {cases.part_of(name) for name in names} == {"TLS"} and cases.part_of("dns-cached1") == "DNS"
    assert cases.part_of("hs64") == cases.part_of("idle") == ""
    assert not cases.fits("tls-up1", "socks6") and not cases.fits("hs64", "tls-haproxy") and not cases.fits("tls-up1", "password")
    assert {goal.measure for goal in cases.GOALS if goal.measure in names} == set(names)


def login_campaign(rounds, cpu):
    return [{"measure": "login64", "target": target, "round": r, "rate": 5000, "cpu": cpu.get(target, 100 + 0.01 * r),
             "ends_cpu": 1.0, "p50_us": 5.0, "p99_us": 9.0, "stalled": 0, "problem": ""}
            for target in ("anonymous", "anonymous-again", "password") for r in range(rounds)]


@pytest.mark.parametrize("rounds, cpu, verdict", [(15, 105, stats.MET), (15, 120, stats.MISSED), (14, 105, stats.UNKNOWN)])
def test_logins_are_judged_by_fifteen_pairs(rounds, cpu, verdict):
    results = report.evaluate(login_campaign(rounds, {"password": cpu}), Options, [])
    found = goal(results, "per login")
    assert found["verdict"] == verdict and ("too few rounds: 14" in found["measured"]) == (rounds == 14)
    ratios = {r["series"]: r["text"] for r in results["measures"]["login64"]["ratios"]}
    assert ratios["cpu"].startswith(f"{cpu / 100:.2f}")  # for a ratio as such five are enough


def test_a_measure_may_have_several_samples_in_a_round(tmp_path, monkeypatch):
    class Settings:
        rounds, seconds, warm, limit = 3, 0.01, 0.0, 1
    taken = []
    monkeypatch.setattr(harness_campaign, "take", lambda world, servers, measure, target, seconds, warm: taken.append(target) or {})
    journal = Journal(str(tmp_path / "samples.jsonl"), {}, False)
    one = harness_campaign.Campaign(None, None, journal, {"login64": ["anonymous", "password"]}, Settings, lambda text: None)
    monkeypatch.setattr(one, "_start_all", lambda: None)
    one.run()
    assert len(taken) == 12 and {s["round"] for s in journal.samples} == set(range(6))
    one.run()
    assert len(taken) == 12  # all of them are there


def test_dns_has_a_control_of_its_own():
    rates = {"unbound": 50000, "socks6d": 100000, "socks6d-again": 101000}
    samples = [sample | {"measure": "dns-cached1"} for sample in campaign(rates)]
    results = report.evaluate(samples, Options, [])
    assert results["measures"]["dns-cached1"]["control"]["rate"] == (1.0, pytest.approx(1.01))
    assert [(r["ours"], r["other"]) for r in results["measures"]["dns-cached1"]["ratios"]] == [("socks6d", "unbound")] * 2
    verdicts = {g["text"]: g["verdict"] for g in results["goals"] if g["measure"] == "dns-cached1"}
    assert verdicts == {"DNS, cached, 1 connection: answers / unbound": stats.MET,
                        "DNS, cached, 1 connection: CPU per answer / unbound": stats.MET}
    slow = [sample | {"measure": "dns-cached1"} for sample in campaign(rates | {"unbound": 200000})]
    assert report.to_profile(report.evaluate(slow, Options, [])) == [("socks6d", "dns-cached1")]


def test_a_journal_resumes_only_what_it_began(tmp_path):
    path = str(tmp_path / "samples.jsonl")
    first = Journal(path, {"rounds": 5}, False)
    first.add({"measure": "hs64", "target": "socks5", "round": 0, "rate": 1.0})
    again = Journal(path, {"rounds": 5}, True)
    assert again.has("hs64", "socks5", 0) and not again.has("hs64", "socks5", 1)
    with pytest.raises(BenchError):
        Journal(path, {"rounds": 7}, True)
    assert not Journal(path, {"rounds": 5}, False).samples


def test_publishing_rewrites_what_stands_between_the_marks(tmp_path):
    (tmp_path / "doc" / "performance").mkdir(parents=True)
    (tmp_path / "doc" / "performance" / "gone.svg").write_text("old")
    with open(os.path.join(ROOT, "doc", "performance.md"), encoding="utf-8") as file:
        (tmp_path / "doc" / "performance.md").write_text(file.read(), encoding="utf-8")
    results = report.evaluate(campaign(RATES | {"microsocks": 10000}), Options, [])
    for _ in range(2):  # the second time over the first
        publish.publish(str(tmp_path), results, {("socks5", "hs256"): "12 %  tcp_ack in /home/somebody/socks6d"}, ["hs256"])
    text = (tmp_path / "doc" / "performance.md").read_text(encoding="utf-8")
    assert text.count("Command: `./dev bench hs256`") == 1 and text.count("tcp_ack") == 1
    assert "/home/" not in text and "(performance/hs256.svg)" in text and text.endswith("<!-- end of TLS profiles -->\n")
    assert os.listdir(tmp_path / "doc" / "performance") == ["hs256.svg"]
    with pytest.raises(ValueError):
        publish.between("no marks", "results", "x")


def test_a_run_of_dns_alone_leaves_the_other_results(tmp_path):
    (tmp_path / "doc" / "performance").mkdir(parents=True)
    path = tmp_path / "doc" / "performance.md"
    with open(os.path.join(ROOT, "doc", "performance.md"), encoding="utf-8") as file:
        path.write_text(file.read(), encoding="utf-8")
    dns = [sample | {"measure": "dns-cached64"} for sample in campaign({"unbound": 1000, "socks6d": 4000, "socks6d-again": 4001})]
    publish.publish(str(tmp_path), report.evaluate(campaign(RATES), Options, []), {("socks5", "hs256"): "tcp_ack"}, ["hs256"])
    publish.publish(str(tmp_path), report.evaluate(dns, Options, []), {}, ["dns"])
    text = path.read_text(encoding="utf-8")
    assert text.count("Command: `./dev bench hs256`") == 1 and text.count("Command: `./dev bench dns`") == 1
    assert text.index("`./dev bench hs256`") < text.index("<!-- end of results -->") < text.index("Command: `./dev bench dns`")
    assert text.count("tcp_ack") == 1 and "answers / unbound | >= 1 | 3.9" in text.split("<!-- end of results -->")[1]
    assert sorted(os.listdir(tmp_path / "doc" / "performance")) == ["dns-cached64.svg", "hs256.svg"]
    publish.publish(str(tmp_path), report.evaluate(dns + campaign(RATES), Options, []), {}, ["both"])
    assert path.read_text(encoding="utf-8").count("Command: `./dev bench both`") == 2


def test_a_run_of_tls_alone_has_a_place_of_its_own(tmp_path):
    (tmp_path / "doc").mkdir()
    path = tmp_path / "doc" / "performance.md"
    with open(os.path.join(ROOT, "doc", "performance.md"), encoding="utf-8") as file:
        path.write_text(file.read(), encoding="utf-8")
    publish.publish(str(tmp_path), report.evaluate(campaign(RATES), Options, []), {}, ["hs256"])
    results = report.evaluate(login_campaign(15, {"password": 120}), Options, [])
    publish.publish(str(tmp_path), results, {("password", "login64"): "siphash"}, ["tls"])
    text = path.read_text(encoding="utf-8")
    own = text.split("<!-- TLS results: written by ./dev bench --publish -->")[1].split("<!-- end of TLS results -->")[0]
    assert "Command: `./dev bench tls`" in own and "per login with a password / anonymous | <= 1.1 | 1.20" in own
    assert text.count("Command: `./dev bench hs256`") == 1 and text.count("siphash") == 1
    assert text.index("<!-- TLS profiles") < text.index("siphash") < text.index("<!-- end of TLS profiles -->")
    assert sorted(os.listdir(tmp_path / "doc" / "performance")) == ["hs256.svg", "login64.svg"]


def test_samples_without_data_in_their_syns_are_refused():
    raw = {"ops": 1000, "bytes": 0, "seconds": 1.0, "proxy_cpu_s": 0.1, "client_cpu_s": 0.1, "backend_cpu_s": 0.1, "p50_us": 1,
           "p99_us": 2, "stalled": 0, "errors": 0, "first_error": ""}
    assert sampling.refine(raw, "hs", 64)["problem"] == ""
    assert sampling.refine(raw | {"syn_data": 836}, "hs", 64)["problem"] == ""
    assert "only 835 SYNs for 1000" in sampling.refine(raw | {"syn_data": 835}, "hs", 64)["problem"]


# Round trips ----------------------------------------------------------------------------------------------------------


def times(c, s, extra=0.0):
    return {(each_c, each_s): c * each_c + s * each_s + extra for each_c, each_s in ((50, 10), (200, 5), (20, 80))}


@pytest.mark.parametrize("counts", [(1, 1), (2, 1), (2, 2), (4, 2), (5, 2), (1, 2)])
def test_round_trips_are_told_from_the_times_of_three_geometries(counts):
    for extra in (0.0, 0.6, 2.0):
        assert rtt_report.fit(times(*counts, extra), (3, 3)) == counts
    assert rtt_report.units(*counts) == {(1, 1): "C+S", (2, 1): "2C+S", (2, 2): "2C+2S", (4, 2): "4C+2S", (5, 2): "5C+2S",
                                         (1, 2): "C+2S"}[counts]


def test_expected_round_trips_are_believed_only_if_the_times_agree():
    assert rtt_report.fit({(50, 5): 252.0}, (4, 2)) == (5, 0)
    assert rtt_report.fit({(50, 10): 224.0}, (4, 2)) == (4, 2)
    assert rtt_report.fit(times(2, 2), (1, 1)) == (2, 2)


def test_rows_pay_for_what_their_notes_say():
    rows = {row.name: row for row in rtt_rows.rows_for({})}
    assert len(rows) == len(rtt_rows.rows_for({}))
    for name, trips in {"direct": (2, 2), "direct-tfo": (1, 1), "dante": (4, 2), "microsocks-password": (5, 2), "socks6-cold": (2, 2),
                        "socks6-tokenless-tfo": (2, 1), "socks6-tokenless-act-tfo": (1, 1), "socks6-warm-tfo": (1, 1),
                        "socks6-password-warm": (2, 2), "socks6-tls-cold": (3, 2), "socks6-tls-warm-tfo": (2, 1),
                        "socks6-password-early-data-warm-tfo": (1, 1), "socks6-early-data-warm": (2, 2)}.items():
        assert rows[name].round_trips == trips, name
    for row in rows.values():
        assert (row.round_trips == (1, 1)) == (not row.costs)


def test_round_trip_report_names_what_differs_and_what_is_left_out():
    class Options:
        samples = 3
        geometries = [type("G", (), {"c": 50, "s": 10, "name": "50/10"})]
    row = next(row for row in rtt_rows.rows_for({}) if row.name == "socks6-warm-tfo")
    entry = {"median_ms": 112.0, "low_ms": 110.5, "high_ms": 113.0, "samples": 3, "startup_ms": 2.0, "client_syn_data": 3,
             "server_syn_data": 1}
    results = rtt_report.evaluate([row], {row.name: {"50/10": entry}}, {"there is no tls": ["socks6-tls-cold"]}, Options, False)
    text = rtt_report.markdown(results)
    assert "**2C+S** instead of C+S" in text and "| yes | 1 of 3 |" in text
    assert "| 52.0 ms | **no** | - |" in text
    assert "Left out, because there is no tls: `socks6-tls-cold`." in text


def wrap_samples(rates, **more):
    return [{"measure": "link-connect", "target": target, "round": number, "rate": rate + number, "mean_us": 50_000.0, "p50_us": 50_000.0,
             "p99_us": 60_000.0, **more.get(target, {})} for target, rate in rates.items() for number in range(5)]


class WrapOptions:
    rounds, seconds, measures = 5, 1, ["link-connect"]


def wrap_results(rates, **more):
    return wrap_report.evaluate(wrap_samples(rates, **more), wrap.TARGETS, wrap.MEASURES, WrapOptions, ["torsocks: it is not installed"], 50)


@pytest.mark.parametrize("ours, verdict", [(300, stats.MET), (150, stats.MISSED)])
def test_wrapping_is_judged_against_its_goal(ours, verdict):
    results = wrap_results({"run": ours, "run-again": ours, "proxychains4": 100})
    assert [goal["verdict"] for goal in results["goals"]] == [verdict]
    text = wrap_report.markdown(results)
    assert "| socks6 run |" in text and "| 50.00 | 60.00 | 1.0 |" in text and "Left out: torsocks: it is not installed." in text


def order_of(*counts, rounds=9):
    """Of rounds in which we are ahead, for each of our names."""
    ours = [{number: 2 if number < count else 0.5 for number in range(rounds)} for count in counts]
    return stats.judge_order(ours, dict.fromkeys(range(rounds), 1))


def test_being_ahead_takes_more_than_luck_under_each_name():
    assert stats.tail(0, 9) == 1 and stats.tail(9, 9) == 1 / 512 and stats.tail(8, 9) == 10 / 512
    assert order_of(9, 8) == ("in 9 of 9 and in 8 of 9 rounds", stats.MET)
    assert order_of(9, 7) == ("in 9 of 9 and in 7 of 9 rounds", stats.UNCLEAR)
    assert order_of(5, 5, rounds=5)[1] == stats.MET
    assert order_of(4, 4, rounds=4)[1] == order_of(9, 0)[1] == order_of(2, 1)[1] == stats.UNCLEAR
    assert order_of(1, 0)[1] == stats.MISSED


def test_being_ahead_is_not_judged_without_samples():
    assert stats.judge_order([{0: 1}, {}], {0: 2})[1] == stats.UNKNOWN
    assert stats.judge_order([{0: 1}, {0: 1}], {0: 1}) == ("n/s (not measured together)", stats.UNKNOWN)  # level in all
    assert stats.judge_order([{0: 1}], {0: 2}, problems=["run: 3 errors"]) == ("n/s (errors: run: 3 errors)", stats.UNKNOWN)


@pytest.mark.parametrize("again, verdict", [(101, stats.MET), (99, stats.UNCLEAR)])
def test_wrapping_on_loopback_is_to_be_ahead(again, verdict):
    class Options(WrapOptions):
        measures = ["loopback-connect"]
    samples = [{**sample, "measure": "loopback-connect"} for sample in wrap_samples({"run": 101, "run-again": again, "proxychains4": 100})]
    results = wrap_report.evaluate(samples, wrap.TARGETS, wrap.MEASURES, Options, [], 50)
    wins = 5 if again > 100 else 0
    measured = f"in 5 of 5 and in {wins} of 5 rounds"
    assert results["goals"] == [{"text": "new connections on loopback: ahead of proxychains4", "goal": None, "measured": measured,
                                 "verdict": verdict}]
    assert results["measures"]["loopback-connect"]["targets"]["run"]["rates"] == {number: 101 + number for number in range(5)}
    assert f"ahead of proxychains4 | ahead | {measured} | {verdict} |" in wrap_report.markdown(results)


def test_wrapping_with_errors_is_not_judged():
    results = wrap_results({"run": 300, "run-again": 300, "proxychains4": 100}, proxychains4={"problem": "3 errors"})
    assert results["goals"][0]["verdict"] == stats.UNKNOWN
    text = wrap_report.markdown(results)
    assert "| proxychains4 | **failed** |" in text and "`proxychains4`: proxychains4: 3 errors" in text
