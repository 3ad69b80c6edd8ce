"""Tables for people: every work with all its contenders, and the bar."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from .bar import Bar, Ratio, ratio, times_faster
from .race import Race, Samples
from .work import Lane


@dataclass(frozen=True)
class Judged:
    """A bar and what was measured."""

    race: str
    bar: Bar
    measured: Ratio

    @property
    def passed(self) -> bool:
        return self.bar.passed(self.measured)

    def as_dict(self) -> dict[str, Any]:
        bar, measured = self.bar, self.measured
        return {
            "key": bar.key,
            "race": self.race,
            "work": bar.work,
            "detail": bar.detail,
            "peer": bar.peer,
            "at_least": bar.at_least,
            "limit": bar.limit,
            "at_most": bar.at_most,
            "processes": sorted({lane.run.process for lane in bar.lanes}),
            "value": measured.value,
            "low": measured.low,
            "high": measured.high,
            "passed": self.passed,
        }


def verdict(judged: Judged) -> str:
    bar = judged.bar
    detail = f" ({bar.detail})" if bar.detail else ""
    word = "pass" if judged.passed else "MISS"
    sign = "<=" if bar.at_most else ">="
    return (
        f"{word}  {bar.work}{detail}, against {bar.peer}: "
        f"{judged.measured}, wanted {sign} {bar.limit:g} ({bar.at_least})"
    )


def duration(nanoseconds: float) -> str:
    """With three significant digits, in a suitable unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.3g} ns"


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The quartiles."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, high


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def race_lines(race: Race, samples: Samples, ran: set[Lane]) -> list[str]:
    """For each work: median, quartiles, and how many times the first contender's time it is."""
    lines = []
    for work in race.works:
        lanes = [lane for lane in work.lanes if lane in ran and lane.run in samples.values]
        if not lanes:
            continue
        first = samples.of(lanes[0])
        rows = [(f"{work}, for one {work.unit}", "median", "quartiles", "ratio [95 %]")]
        for lane in lanes:
            values = samples.of(lane)
            low, high = spread(values)
            compared = "1" if lane is lanes[0] else str(ratio((first, values), times_faster))
            rows.append(
                (
                    f"  {lane.contender}",
                    duration(median(values)),
                    f"{duration(low)} to {duration(high)}",
                    compared,
                )
            )
        lines += [*table(rows), ""]
    return lines
