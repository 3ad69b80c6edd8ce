"""A broadcaster and its sinks, ten to ten thousand of them."""

from __future__ import annotations

from ..bar import Bar, Row, faster
from ..contenders import FASTSINKS, GO, LOGGING, LOOP, QUEUE, SIMPLE_QUEUE, TWIN, Contender
from ..race import Race
from ..work import Lane, Work, lane

SIZES = (10, 100, 1_000, 10_000)
UNIT = "event at a sink"

# With a thread for each, ten thousand queues take minutes, if the threads start at all.
THREADS = {SIMPLE_QUEUE: 20_000, QUEUE: 4_000, LOGGING: 2_000}
MOST_THREADS = 1_000


def rounds_of(deliveries: int, sinks: int) -> int:
    """The number of events in a round with that many deliveries."""
    return max(1, deliveries // sinks)


def direct(sinks: int) -> Work:
    def of(contender: Contender, deliveries: int) -> Lane:
        return lane(contender, "broadcast", rounds_of(deliveries, sinks), sinks=sinks, queues=False)

    return Work(
        f"Broadcaster → {sinks:,} native sinks, direct",
        (of(FASTSINKS, 1_000_000), of(TWIN, 20_000), of(LOOP, 100_000), of(GO, 400_000)),
        UNIT,
    )


def queued(sinks: int) -> Work:
    def of(contender: Contender, deliveries: int) -> Lane:
        events = rounds_of(deliveries, sinks)
        return lane(contender, "broadcast", events, sinks=sinks, queues=True)

    threads = THREADS if sinks <= MOST_THREADS else {}
    return Work(
        f"Broadcaster → {sinks:,} Queues → native sinks, end to end",
        (
            of(FASTSINKS, 500_000),
            of(TWIN, 10_000),
            *(of(contender, deliveries) for contender, deliveries in threads.items()),
            of(GO, 500_000),
        ),
        UNIT,
    )


def python(sinks: int) -> Work:
    """The peer's sinks are native nevertheless."""

    def of(contender: Contender, deliveries: int) -> Lane:
        return lane(
            contender,
            "broadcast",
            rounds_of(deliveries, sinks),
            sinks=sinks,
            queues=True,
            sink="python",
        )

    return Work(
        f"Broadcaster → {sinks:,} Queues → Python sinks, end to end",
        (of(FASTSINKS, 200_000), of(TWIN, 10_000), queued(sinks).of(GO)),
        UNIT,
    )


DIRECT = {sinks: direct(sinks) for sinks in SIZES}
QUEUED = {sinks: queued(sinks) for sinks in SIZES}
PYTHON = {sinks: python(sinks) for sinks in SIZES}

ALL_SIZES = " / ".join(f"{sinks:,}" for sinks in SIZES)
TO_SINKS = Row(
    f"Broadcaster → {ALL_SIZES} native sinks, direct",
    "go-events' own BenchmarkBroadcastN",
    "8× faster each",
)
TO_QUEUES = Row(
    f"Broadcaster → {ALL_SIZES} Queues → native sinks, end to end",
    "go-events",
    "8× faster each",
)

BARS = (
    *(faster(TO_SINKS, DIRECT[sinks], GO, 8.0, f"{sinks:,}") for sinks in SIZES),
    *(faster(TO_QUEUES, QUEUED[sinks], GO, 8.0, f"{sinks:,}") for sinks in SIZES),
    Bar(
        TO_QUEUES.work,
        "itself",
        "cost per sink flat within 1.5× from 10 to 10,000",
        tuple(QUEUED[sinks].of(FASTSINKS) for sinks in SIZES),
        1.5,
        at_most=True,
        formula=lambda medians: max(medians) / min(medians),
    ),
    faster(
        Row(
            "the same with Python sinks",
            "go-events (its sinks native!)",
            "1.5× faster at 1,000",
        ),
        PYTHON[1_000],
        GO,
        1.5,
    ),
)

RACE = Race("fan-out", (*DIRECT.values(), *QUEUED.values(), *PYTHON.values()), BARS, rounds=20)
