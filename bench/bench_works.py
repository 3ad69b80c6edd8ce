"""Every work with every contender, and every bar, as pytest-benchmark's tests.

The first test of a race runs all of it, since its contenders take turns round by round
in processes of their own. pytest-benchmark then reads what they measured from a clock
that shows the results.
"""

from __future__ import annotations

from typing import Any

import pytest

from .bar import Bar
from .contenders import ContenderError, missing
from .race import Race, Samples
from .report import Judged, verdict
from .work import Lane, Work
from .works import RACES


class Clock:
    """Time as the contenders have measured it, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


def marks(lanes: tuple[Lane, ...]) -> list[Any]:
    reasons = [missing(lane.run.process) for lane in lanes]
    return [pytest.mark.skip(reason) for reason in reasons if reason]


TIMES = [
    pytest.param(
        race, work, lane, id=f"{race.name}: {work}: {lane.contender}", marks=marks((lane,))
    )
    for race in RACES
    for work in race.works
    for lane in work.lanes
]
BARS = [
    pytest.param(race, bar, id=f"{race.name}: {bar.key}", marks=marks(bar.lanes))
    for race in RACES
    for bar in race.bars
]


@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.parametrize(("race", "work", "lane"), TIMES)
def test_time(race: Race, work: Work, lane: Lane, samples: Samples, benchmark: Any) -> None:
    values = iter(values_of(samples, lane))
    benchmark.group = f"{work} (time for one {work.unit})"
    benchmark.name = lane.contender.label
    benchmark.extra_info = {
        "race": race.name,
        "work": work.title,
        "unit": work.unit,
        "contender": lane.contender.label,
        "events": lane.run.events,
    }
    rounds = len(values_of(samples, lane))
    benchmark.pedantic(lambda: CLOCK.advance(next(values) * 1e-9), rounds=rounds)


@pytest.mark.parametrize(("race", "bar"), BARS)
def test_bar(race: Race, bar: Bar, samples: Samples, judged: list[Judged]) -> None:
    measured = bar.measure([values_of(samples, lane) for lane in bar.lanes])
    judged.append(Judged(race.name, bar, measured))
    if not bar.passed(measured):
        pytest.fail(verdict(judged[-1]), pytrace=False)


def values_of(samples: Samples, lane: Lane) -> list[float]:
    try:
        return samples.of(lane)
    except ContenderError as error:
        pytest.fail(str(error), pytrace=False)
