"""From a write into an idle queue to the destination, a thread away."""

from __future__ import annotations

from ..bar import Row, no_slower
from ..contenders import FASTSINKS, GO, QUEUE, SIMPLE_QUEUE, TWIN
from ..race import Race
from ..work import Work, lane

HAND_OVERS = 150  #: a millisecond apart


def at(rank: str, part: int) -> Work:
    return Work(
        f"hand-over latency, idle queue, write to Python sink, {rank}",
        tuple(
            lane(contender, "latency", HAND_OVERS, part=part)
            for contender in (FASTSINKS, TWIN, SIMPLE_QUEUE, QUEUE, GO)
        ),
        "hand-over",
    )


WORKS = {"p50": at("p50", 0), "p99": at("p99", 1)}

ROW = Row(
    "hand-over latency, idle queue, write to Python sink, p50 and p99",
    "SimpleQueue + thread",
    "no worse than 1.1×",
)
BARS = tuple(no_slower(ROW, work, SIMPLE_QUEUE, 1.1, rank) for rank, work in WORKS.items())

RACE = Race("latency", tuple(WORKS.values()), BARS, rounds=24)
