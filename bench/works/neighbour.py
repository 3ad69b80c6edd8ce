"""What delivery costs another thread of the process: see bench/peers/neighbour.py."""

from __future__ import annotations

from collections.abc import Sequence

from ..bar import Bar
from ..contenders import Contender
from ..race import Race
from ..work import Work, lane

EVENTS = 15_000  #: three quarters of a second of writing

ALONE = Contender("alone", "others", "neighbour", (("delivery", "nothing"),))
FASTSINKS = Contender("fastsinks", "fastsinks", "neighbour", (("delivery", "endpoints"),))
TWIN = Contender("fastsinks, pure Python", "twin", "neighbour", (("delivery", "endpoints"),))
THREADS = Contender(
    "queue.Queue + thread, same posting", "others", "neighbour", (("delivery", "threads"),)
)
CONTENDERS = (FASTSINKS, TWIN, THREADS, ALONE)


def at(rank: str, part: int) -> Work:
    return Work(
        f"a polite neighbour: lateness of another thread's work, {rank}",
        tuple(lane(contender, "neighbour", EVENTS, part=part) for contender in CONTENDERS),
        "piece of work",
    )


WORKS = {"p50": at("p50", 0), "p99": at("p99", 1), "maximum": at("maximum", 2)}


def share_of_the_best(medians: Sequence[float]) -> float:
    """What fastsinks adds, as a part of what the best of the others adds."""
    ours, twin, threads, alone = medians
    return max(0.0, ours - alone) / max(1.0, min(twin, threads) - alone)


BARS = (
    Bar(
        "a polite neighbour: lateness of another thread's work, p99",
        "the best of the others",
        "fastsinks adds at most half of what it adds",
        tuple(WORKS["p99"].of(contender) for contender in CONTENDERS),
        0.5,
        at_most=True,
        formula=share_of_the_best,
    ),
)

RACE = Race("neighbour", tuple(WORKS.values()), BARS, rounds=20)
