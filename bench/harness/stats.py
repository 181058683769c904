"""Medians, paired ratios, and when a ratio must not be printed. Pure functions: values in, values out.

A series is a dict from round to value. Ratios are taken within a round, where both values were measured seconds apart,
and only then summarised: what else the machine did at the time then hits both.
"""
import math
import statistics
from dataclasses import dataclass

LEAST_ROUNDS = 5
TRIM_FROM = 7  # rounds from which on the control leaves out its most extreme value on each side


@dataclass(frozen=True)
class Spread:
    """Median, and the lowest and highest of `count` values."""
    median: float
    low: float
    high: float
    count: int


def spread(values):
    values = list(values)
    if not values:
        raise ValueError("no values")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def paired(first, second, combine=lambda a, b: a / b):
    """`combine` of both values, for each round in which both series have one (and the second is not 0)."""
    return [combine(first[r], second[r]) for r in sorted(first) if r in second and second[r] != 0]


def control_interval(ratios, neutral=1.0):
    """(low, high) of what comparing a target with itself gave. The truth, `neutral`, is always inside. One value on each
    side is left out from TRIM_FROM rounds on: the medians that it guards do not see such a hiccup either."""
    ratios = sorted(ratios)
    if not ratios:
        raise ValueError("no control")
    if len(ratios) >= TRIM_FROM:
        ratios = ratios[1:-1]
    return min(neutral, ratios[0]), max(neutral, ratios[-1])


@dataclass(frozen=True)
class Comparison:
    """`value` is there whenever something was measured; it may be printed only if `refused` is empty."""
    value: Spread = None
    refused: str = ""
    control: tuple = None
    is_indicative: bool = False

    def text(self, digits=2):
        if self.refused:
            return f"n/s ({self.refused})"
        mark = "~" if self.is_indicative else ""
        return f"{mark}{self.value.median:.{digits}f} [{self.value.low:.{digits}f}..{self.value.high:.{digits}f}]"


def control_text(control, digits=2):
    return f"A/A {control[0]:.{digits}f}..{control[1]:.{digits}f}"


def is_separable(value, reference, control):
    """Whether `value` differs from `reference` (a ratio, so relative to it) by more than the width of the control."""
    return abs(value / reference - 1) >= control[1] - control[0]


def compare(first, second, control, *, problems=(), is_quick=False, least=LEAST_ROUNDS):
    """The paired ratio first / second. `control` is a pair of series of the same target under two names; `problems` what
    went wrong in the samples of any of them, as texts; `least` how many pairs it takes."""
    if problems:
        return Comparison(refused=f"errors: {problems[0]}")
    ratios = paired(first, second)
    if not ratios:
        return Comparison(refused="not measured together")
    value = spread(ratios)
    checks = paired(*control)
    if not checks:
        return Comparison(value, "no A/A control")
    interval = control_interval(checks)
    rounds = min(len(ratios), len(checks))
    if rounds < least and not is_quick:
        return Comparison(value, f"too few rounds: {rounds}", interval)
    if not is_separable(value.median, 1.0, interval):
        return Comparison(value, f"not separable: {control_text(interval)}", interval)
    return Comparison(value, "", interval, rounds < least)


MET, MISSED, UNCLEAR, UNKNOWN = "met", "missed", "not separable", "not measured"
LEVEL_NOISE = 0.15  # a wider control cannot say that two are level


def judge(comparison, sense, goal):
    """What a comparison says about a goal. `sense` is '>=' or '<='.

    A ratio that was refused for errors, rounds or want of a control says nothing. Otherwise the claim is the distance to the
    goal, not to 1: a ratio may be worth printing and still too close to its goal. A goal of 1 ("level with") is met by what
    cannot be told apart from it, if the control is narrow enough to say that.
    """
    if comparison.value is None or comparison.control is None:
        return UNKNOWN
    if comparison.refused and not comparison.refused.startswith("not separable"):
        return UNKNOWN
    ratio, control = comparison.value.median, comparison.control
    is_good = ratio >= goal if sense == ">=" else ratio <= goal
    if is_separable(ratio, goal, control):
        return MET if is_good else MISSED
    if goal == 1.0 and control[1] - control[0] <= LEVEL_NOISE:
        return MET
    return UNCLEAR


LUCK = 0.05  # how often tossing a coin may do as well


def tail(wins, tosses):
    """How likely `wins` of `tosses`, or more, are by luck."""
    return sum(math.comb(tosses, k) for k in range(wins, tosses + 1)) / 2 ** tosses


def judge_order(ours, peer, *, problems=()):
    """Whether we are ahead of a peer at all, by however little: (text, verdict). `ours` are series of the same target under
    several names. In each of them we must be ahead in more rounds than luck explains (a sign test; it asks nothing of the noise
    but that the order within a round is random), so that a name which was lucky does not decide alone."""
    if problems:
        return f"n/s (errors: {problems[0]})", UNKNOWN
    counts = []
    for series in ours:
        ratios = [ratio for ratio in paired(series, peer) if ratio != 1]
        if not ratios:
            return "n/s (not measured together)", UNKNOWN
        counts.append((sum(ratio > 1 for ratio in ratios), len(ratios)))
    text = " and ".join(f"in {wins} of {rounds}" for wins, rounds in counts) + " rounds"
    if all(tail(wins, rounds) <= LUCK for wins, rounds in counts):
        return text, MET
    return text, MISSED if all(tail(rounds - wins, rounds) <= LUCK for wins, rounds in counts) else UNCLEAR


def compare_difference(first, second, control, *, problems=(), is_quick=False):
    """As compare(), for first - second in the unit of the series."""
    if problems:
        return Comparison(refused=f"errors: {problems[0]}")

    def minus(a, b):
        return a - b
    differences, checks = paired(first, second, minus), paired(*control, minus)
    if not differences or not checks:
        return Comparison(refused="not measured together")
    rounds = min(len(differences), len(checks))
    interval = control_interval(checks, 0.0)
    refused = f"too few rounds: {rounds}" if rounds < LEAST_ROUNDS and not is_quick else ""
    return Comparison(spread(differences), refused, interval, rounds < LEAST_ROUNDS)


def judge_difference(comparison, at_most):
    if comparison.value is None or comparison.refused:
        return UNKNOWN
    distance = abs(comparison.value.median - at_most)
    if distance < comparison.control[1] - comparison.control[0]:
        return UNCLEAR
    return MET if comparison.value.median <= at_most else MISSED
