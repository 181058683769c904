#!/usr/bin/python3
"""Measures socks6d beside other proxies: see doc/performance.md. `./dev bench` builds what it needs and runs it."""
import argparse
import os
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from harness import campaign, profiling, publish, report, rtt, wrap  # noqa: E402
from harness.cases import GROUPS, IDLE, IDLE_TARGETS, MEASURES, TARGETS, fits, select  # noqa: E402
from harness.servers import Servers  # noqa: E402
from harness.world import BenchError, World  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STARTED = time.monotonic()


def say(text):
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", file=sys.stderr, flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="./dev bench", description="Measures socks6d beside other proxies; doc/performance.md explains how.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"names: {', '.join(GROUPS)}, or single measures:\n  {', '.join([*MEASURES, IDLE])}\n"
               f"targets:\n  {', '.join(TARGETS)}\n"
               "only when named: tls (TLS beside HAProxy, and what a login costs)\n"
               "time to first byte over long ways: ./dev bench rtt (rtt --help)\n"
               "socks6 run beside other wrappers: ./dev bench wrap (wrap --help)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="minutes instead of half an hour; ratios are indicative")
    parser.add_argument("--rounds", type=int, help="how often each sample is taken (9; --quick 3)")
    parser.add_argument("--seconds", type=float, help="length of a sample (0.8; --quick 0.3)")
    parser.add_argument("--limit", type=float, metavar="MINUTES", help="stop measuring then (25; --quick 4)")
    parser.add_argument("--target", action="append", default=[], metavar="TARGET",
                        help="measure this as well (socks5-copy, socks5-splice); may be repeated")
    parser.add_argument("--only", metavar="TARGETS", help="measure these alone: names with commas in between")
    parser.add_argument("--idle-conns", type=int, help="idle connections (9000; --quick 2000)")
    parser.add_argument("--resume", action="store_true", help="go on with the last run, which had the same settings")
    parser.add_argument("--profile", nargs=2, metavar=("TARGET", "MEASURE"),
                        help="instead: where the proxy's time goes (perf, strace) while it is measured")
    parser.add_argument("--publish", action="store_true", help="profile the goals that are missed and rewrite the results "
                                                               "in doc/performance.md and doc/performance/")
    parser.add_argument("--out", default=os.path.join(ROOT, "build", "bench"), metavar="DIR", help="build/bench unless told")
    options = parser.parse_args(arguments)
    quick = options.quick

    def default(name, usual, in_a_hurry):
        if getattr(options, name) is None:
            setattr(options, name, in_a_hurry if quick else usual)
    default("rounds", 9, 3)
    default("seconds", 0.8, 0.3)
    default("limit", 25, 4)
    default("idle_conns", 9000, 2000)
    options.warm = min(0.3, options.seconds / 2)
    options.idle_rounds = min(options.rounds, 1 if quick else 3)
    if options.rounds < 1 or options.seconds <= 0 or options.limit <= 0 or options.idle_conns < 1:
        parser.error("numbers must be positive")
    only = options.only.split(",") if options.only else []
    for name in [*options.target, *only, *(options.profile or [])[:1]]:
        if name not in TARGETS:
            parser.error(f"no target '{name}'; there are: {', '.join(TARGETS)}")
    if options.profile and options.profile[1] not in MEASURES:
        parser.error(f"no measure '{options.profile[1]}'; there are: {', '.join(MEASURES)}")
    if options.profile and not fits(options.profile[1], options.profile[0]):
        parser.error(f"'{options.profile[0]}' is not measured in {options.profile[1]}")
    options.measures = select(options.names)
    if options.measures is None:
        parser.error(f"unknown name; there are: {', '.join([*GROUPS, *MEASURES])}")
    options.plan = {name: targets_of(name, options.target, only) for name in options.measures}
    return options


def targets_of(name, extra, only):
    usual = IDLE_TARGETS if name == IDLE else MEASURES[name].targets
    wanted = [*usual, *(t for t in extra if t not in usual and fits(name, t))]
    return [t for t in wanted if not only or t in only]


def settings_of(options):
    """What must be the same for a run to be resumed."""
    return {"plan": options.plan, "rounds": options.rounds, "seconds": options.seconds, "idle_conns": options.idle_conns}


def measure(options, world):
    servers = Servers(world)
    journal = campaign.Journal(os.path.join(options.out, "samples.jsonl"), settings_of(options), options.resume)
    one = campaign.Campaign(world, servers, journal, options.plan, options, say)
    is_interrupted = False
    try:
        one.run()
    except KeyboardInterrupt:
        is_interrupted = True
        say("interrupted: this is what was measured by then (--resume goes on)")
    notes = [*world.notes, *(f"skipped: {why}" for why in servers.missing.values()),
             *(f"skipped: {name}: {why}" for name, why in one.skipped_measures.items())]
    if one.is_cut:
        notes.append(f"cut short at the limit of {options.limit:g} minutes")
    if is_interrupted:
        notes.append("interrupted before its end")
    results = report.evaluate(journal.samples, options, notes)
    report.write(results, options.out)
    print(report.markdown(results))
    say(f"written: {os.path.relpath(options.out)}/results.md, results.json and a chart (SVG) for each measure")
    profiles = {}
    if options.publish and not is_interrupted:
        for target, name in report.to_profile(results):
            say(f"profile of a missed goal: {target} {name}")
            try:
                profiles[target, name] = profiling.profile(world, servers, target, name, say)
            except BenchError as error:
                profiles[target, name] = f"no profile: {error}"
        publish.publish(ROOT, results, profiles, sys.argv[1:])
        say("rewritten: doc/performance.md and doc/performance/")
    failed = any(sample.get("problem") for sample in journal.samples)
    return 130 if is_interrupted else 1 if failed or not journal.samples else 0


def main(arguments):
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    if arguments[:1] == ["rtt"]:
        return rtt.main(arguments[1:], say)
    if arguments[:1] == ["wrap"]:
        return wrap.main(arguments[1:], say)
    options = parse(arguments)
    os.makedirs(options.out, exist_ok=True)
    build = os.environ.get("SOCKS6_BUILD", os.path.join(ROOT, "build", "bench"))
    with tempfile.TemporaryDirectory(prefix="socks6-bench-") as work:
        os.chmod(work, 0o755)  # dante's and nginx's processes are other users
        world = World(os.path.abspath(build), work, say)
        try:
            for note in world.notes:
                say(note)
            if options.profile:
                print(profiling.profile(world, Servers(world), *options.profile, say))
                return 0
            return measure(options, world)
        except BenchError as error:
            say(f"error: {error}")
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end takes a moment, and must be whole
            world.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
