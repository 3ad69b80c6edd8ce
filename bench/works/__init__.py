"""The races: what is compared with whom, and what fastsinks has to reach."""

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
