"""Runs contenders side by side, a round of each in turn, in random order.

A machine that is busy for a second then slows all of them down alike. Each contender
has two processes that alternate, because the place of a process in memory makes a
difference that no number of rounds would show.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from .bar import Bar
from .contenders import ContenderError, Process, build
from .work import Lane, Run, Work

COPIES = 2
WARM_UP = COPIES  #: rounds that do not count


@dataclass(frozen=True)
class Race:
    """Works whose lanes are interleaved with each other."""

    name: str
    works: tuple[Work, ...]
    bars: tuple[Bar, ...]
    rounds: int


@dataclass
class Samples:
    """What a race has measured; a lane that failed has a reason instead."""

    values: dict[Run, list[list[float]]] = field(default_factory=dict)
    failures: dict[Run, str] = field(default_factory=dict)

    def of(self, lane: Lane) -> list[float]:
        """One value a round, in the order of the rounds."""
        if lane.run in self.failures:
            raise ContenderError(self.failures[lane.run])
        return [values[lane.part] for values in self.values[lane.run]]


def run_race(lanes: Iterable[Lane], rounds: int, size: float = 1.0, seed: int = 1) -> Samples:
    """``size`` multiplies the events of a round; there is always one."""
    runs: Sequence[Run] = list(dict.fromkeys(lane.run for lane in lanes))
    names = {run: str(number) for number, run in enumerate(runs)}
    samples = Samples()
    chance = random.Random(seed)
    with ExitStack() as stack:
        processes: dict[tuple[str, int], Process] = {}
        for copy in range(COPIES):
            for run in runs:
                build(run.process)
                if (run.process, copy) not in processes:
                    process = processes[run.process, copy] = Process(run.process)
                    stack.callback(process.end)

        def ask(run: Run, copy: int, events: int | None) -> list[float]:
            process = processes[run.process, copy]
            try:
                if events is None:
                    process.open(names[run], run.load, dict(run.options))
                    return []
                return process.round(names[run], events)
            except ContenderError as error:
                samples.failures[run] = str(error)
                return []

        for copy in range(COPIES):
            for run in runs:
                ask(run, copy, None)
        for number in range(-WARM_UP, rounds):
            for run in chance.sample(runs, len(runs)):
                if run in samples.failures:
                    continue
                values = ask(run, number % COPIES, max(1, round(run.events * size)))
                if number >= 0 and values:
                    samples.values.setdefault(run, []).append(values)
    return samples
