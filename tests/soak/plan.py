"""What the seed decides: which faults come, when, and at which receivers and lines."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from .specs import PATIENCE, SPECS, Spec

SHARES = {"a": 0.03, "b": 0.1, "c": 0.2, "d": 0.3}
"""The receivers, and the share of the requests that each treats badly."""


class Deed(NamedTuple):
    at: float  #: seconds since the start
    kind: str  #: kill, freeze, remake or fork
    whom: str  #: a receiver, or a line
    seconds: float  #: that a receiver is away, or that a close may take

    def __str__(self) -> str:
        match self.kind:
            case "kill":
                return f"receiver {self.whom}: killed, back in {self.seconds:.1f} s"
            case "freeze":
                return f"receiver {self.whom}: frozen for {self.seconds:.1f} s"
            case "remake":
                return f"line {self.whom}: a new endpoint, the old one has {self.seconds:g} s"
            case _:
                return f"line {self.whom}: a child is forked, and writes"


def schedule(seed: int, seconds: float) -> list[Deed]:
    """All deeds of a run in order, the same for the same arguments."""
    pace = min(1.0, seconds / 30.0)  # a short run sees some of everything, too
    deeds: list[Deed] = []
    for name in SHARES:
        deeds += _hits(random.Random(f"{seed} receiver {name}"), name, seconds, pace)
    for spec in SPECS:
        deeds += _changes(random.Random(f"{seed} line {spec.name}"), spec, seconds, pace)
    return sorted(deeds)


def _hits(rng: random.Random, name: str, seconds: float, pace: float) -> Iterator[Deed]:
    at = rng.uniform(1.0, 4.0) * pace
    while at < seconds:
        away = rng.uniform(0.2, 2.0) * pace
        yield Deed(at, rng.choice(["kill", "freeze"]), name, away)
        at += away + rng.uniform(1.5, 6.0) * pace


def _changes(rng: random.Random, spec: Spec, seconds: float, pace: float) -> Iterator[Deed]:
    at = rng.uniform(2.0, 15.0) * pace
    while at < seconds:
        yield Deed(at, "remake", spec.name, rng.choice(spec.close_timeouts))
        at += rng.uniform(5.0, 15.0) * pace
    at = rng.uniform(2.0, 20.0) * pace
    while at < seconds and spec.forks:
        yield Deed(at, "fork", spec.name, PATIENCE)
        at += rng.uniform(8.0, 20.0) * pace
