"""What fastsinks has to reach: ratios of medians, with their spread."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from .contenders import FASTSINKS, Contender
from .work import Lane, Work

RESAMPLES = 1000
Formula = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class Ratio:
    """A figure made of medians, and its interval of 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def ratio(samples: Sequence[Sequence[float]], formula: Formula) -> Ratio:
    """``formula`` of the medians, with a bootstrap interval.

    Rounds are drawn as a whole, since what happened in the same round belongs together.
    """
    rounds = min(map(len, samples))
    if not rounds:
        raise ValueError("no round has been measured")
    chance = random.Random(rounds)
    drawn = []
    for _ in range(RESAMPLES):
        choice = chance.choices(range(rounds), k=rounds)
        drawn.append(formula([median([values[i] for i in choice]) for values in samples]))
    drawn.sort()
    value = formula([median(values) for values in samples])
    return Ratio(value, drawn[int(RESAMPLES * 0.025)], drawn[int(RESAMPLES * 0.975) - 1])


def times_faster(medians: Sequence[float]) -> float:
    ours, theirs = medians
    return theirs / ours


def times_the_time(medians: Sequence[float]) -> float:
    ours, theirs = medians
    return ours / theirs


@dataclass(frozen=True)
class Bar:
    """A row of the table. ``limit`` is the least that passes, or the most with ``at_most``."""

    work: str
    peer: str
    at_least: str
    lanes: tuple[Lane, ...]
    limit: float
    at_most: bool = False
    formula: Formula = times_faster
    detail: str = ""

    @property
    def key(self) -> str:
        return " | ".join(filter(None, (self.work, self.detail, self.peer)))

    def measure(self, samples: Sequence[Sequence[float]]) -> Ratio:
        return ratio(samples, self.formula)

    def passed(self, measured: Ratio) -> bool:
        """By the medians alone; the interval says how certain that is."""
        if self.at_most:
            return measured.value <= self.limit
        return measured.value >= self.limit


class Row(NamedTuple):
    """A row of the table of bars, in words."""

    work: str
    peer: str
    at_least: str


def faster(row: Row, work: Work, peer: Contender, times: float, detail: str = "") -> Bar:
    """fastsinks is at least ``times`` times as fast."""
    return Bar(*row, (work.of(FASTSINKS), work.of(peer)), times, detail=detail)


def no_slower(row: Row, work: Work, peer: Contender, times: float, detail: str = "") -> Bar:
    """fastsinks takes at most ``times`` times as long."""
    lanes = (work.of(FASTSINKS), work.of(peer))
    return Bar(*row, lanes, times, at_most=True, formula=times_the_time, detail=detail)
