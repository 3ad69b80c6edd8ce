"""The races: what is compared, and the bars that fastsinks has to pass."""

from __future__ import annotations

from ..race import Race
from . import counters, drain, fanout, imports, latency, neighbour, queue

RACES: tuple[Race, ...] = (
    queue.RACE,
    fanout.RACE,
    counters.RACE,
    latency.RACE,
    neighbour.RACE,
    drain.RACE,
    imports.RACE,
)
