"""What is measured: a work, its lanes, and the rounds that are run for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .contenders import Contender


@dataclass(frozen=True)
class Run:
    """What a process is asked for: a load with its options, and the events of a round."""

    process: str
    load: str
    options: tuple[tuple[str, Any], ...]
    events: int


@dataclass(frozen=True)
class Lane:
    """A contender at one work: a line of its table. ``part`` is which value of a round counts."""

    contender: Contender
    run: Run
    part: int = 0


def lane(contender: Contender, load: str, events: int, *, part: int = 0, **options: Any) -> Lane:
    name = f"{contender.module}.{load}" if contender.module else load
    merged = {**dict(contender.options), **options}
    run = Run(contender.process, name, tuple(sorted(merged.items())), events)
    return Lane(contender, run, part)


@dataclass(frozen=True)
class Work:
    """What contenders are compared by: one table, of nanoseconds for one ``unit``."""

    title: str
    lanes: tuple[Lane, ...]
    unit: str = "event"

    def __str__(self) -> str:
        return self.title

    def of(self, contender: Contender) -> Lane:
        return next(lane for lane in self.lanes if lane.contender.label == contender.label)
