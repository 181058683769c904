"""Samples in rounds, every round in another random order; what was taken is on disk at once."""
import json
import os
import random
import time

from . import idle
from .cases import IDLE, MEASURES, TARGETS
from .sampling import take
from .world import BenchError


class Journal:
    """The samples of a run, on disk as they are taken, so that a run can be resumed."""

    def __init__(self, path, settings, resume):
        self.path = path
        self.samples = []
        if resume and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                lines = [json.loads(line) for line in file]
            if lines and lines[0] == settings:
                self.samples = lines[1:]
            elif lines:
                raise BenchError("the last run had other settings; start without --resume")
        if not self.samples:
            with open(path, "w", encoding="utf-8") as file:
                file.write(json.dumps(settings) + "\n")

    def add(self, sample):
        self.samples.append(sample)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(sample) + "\n")

    def has(self, measure, target, number):
        return any((s["measure"], s["target"], s["round"]) == (measure, target, number) for s in self.samples)


class Campaign:
    """`plan` maps the names of measures to those of their targets."""

    def __init__(self, world, servers, journal, plan, options, say):
        self.world, self.servers, self.journal, self.plan, self.options = world, servers, journal, plan, options
        self.say = say
        self.skipped_measures = {}
        self.end = time.monotonic() + options.limit * 60
        self.is_cut = False

    def _time_is_up(self, needed):
        if time.monotonic() + needed > self.end:
            if not self.is_cut:
                self.say(f"the limit of {self.options.limit:g} minutes is reached")
            self.is_cut = True
        return self.is_cut

    def _record(self, name, target, number, sample):
        self.journal.add({"measure": name, "target": target, "round": number, **sample})
        if sample.get("problem"):
            self.say(f"  {name} {target}: {sample['problem']}")

    def _measure_round(self, name, number):
        measure = MEASURES[name]
        targets = [t for t in self.plan[name] if not self.journal.has(name, t, number)]
        random.shuffle(targets)
        for target in targets:
            try:
                self._record(name, target, number,
                             take(self.world, self.servers, measure, target, self.options.seconds, self.options.warm))
            except BenchError as error:
                if not TARGETS[target].server:
                    self.skipped_measures[name] = str(error)
                    return

    def _idle_round(self, number):
        targets = [t for t in self.plan[IDLE] if not self.journal.has(IDLE, t, number)]
        random.shuffle(targets)
        for target in targets:
            if self._time_is_up(20):
                return
            if TARGETS[target].server in self.servers.missing:
                continue
            try:
                self._record(IDLE, target, number, idle.take(self.world, target, self.options.idle_conns))
            except BenchError as error:
                self.say(f"  idle {target}: {error}")

    def _start_all(self):
        for name in list(self.plan):
            if name == IDLE:
                continue
            try:
                self.servers.check([self.world.place(MEASURES[name].world)], self.plan[name])
            except BenchError as error:
                self.skipped_measures[name] = str(error)
                self.say(f"skipped: {name}: {error}")

    def run(self):
        if IDLE in self.plan:
            for number in range(self.options.idle_rounds):
                self.say(f"idle connections, round {number + 1} of {self.options.idle_rounds}")
                self._idle_round(number)
        self._start_all()
        names = [name for name in self.plan if name != IDLE and name not in self.skipped_measures]
        samples = sum(len(self.plan[name]) * MEASURES[name].per_round for name in names)
        cost = self.options.seconds + self.options.warm + 0.15
        for number in range(self.options.rounds):
            if not names:
                break
            left = (self.options.rounds - number) * samples * cost
            self.say(f"round {number + 1} of {self.options.rounds}: {samples} samples; about {left / 60:.1f} minutes left")
            random.shuffle(names)
            for name in names:
                for part in range(MEASURES[name].per_round):
                    if self._time_is_up(len(self.plan[name]) * cost):
                        return
                    self._measure_round(name, number * MEASURES[name].per_round + part)
