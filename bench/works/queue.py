"""One queue: writing to it, and the whole way through it."""

from __future__ import annotations

from ..bar import Row, faster, no_slower
from ..contenders import FASTSINKS, GO, LOGGING, QUEUE, SIMPLE_QUEUE, TWIN
from ..race import Race
from ..work import Work, lane

WRITE = Work(
    "Queue.write, nobody reading",
    (
        lane(FASTSINKS, "write", 100_000),
        lane(TWIN, "write", 10_000),
        lane(SIMPLE_QUEUE, "write", 100_000),
        lane(QUEUE, "write", 20_000),
        lane(LOGGING, "write", 3_000),
        lane(GO, "write", 100_000),
    ),
)

WRITE_MANY = Work(
    "Queue.write_many of 1,000, per event",
    (
        lane(FASTSINKS, "write_many", 100_000),
        lane(TWIN, "write_many", 100_000),
        lane(SIMPLE_QUEUE, "write", 100_000),
    ),
)

NATIVE = Work(
    "1 writer → Queue → native sink, end to end",
    (
        lane(FASTSINKS, "queue", 200_000, sink="native"),
        lane(TWIN, "queue", 5_000, sink="native"),
        lane(SIMPLE_QUEUE, "queue", 200_000, sink="native"),
        lane(QUEUE, "queue", 10_000, sink="native"),
        lane(LOGGING, "queue", 3_000, sink="native"),
        lane(GO, "queue", 200_000),
    ),
)

PYTHON = Work(
    "1 writer → Queue → Python sink with write",
    (
        lane(FASTSINKS, "queue", 200_000, sink="python"),
        lane(TWIN, "queue", 5_000, sink="python"),
        lane(SIMPLE_QUEUE, "queue", 200_000, sink="python"),
        lane(QUEUE, "queue", 10_000, sink="python"),
        lane(LOGGING, "queue", 3_000, sink="python"),
    ),
)

BLOCKS = Work(
    "1 writer → Queue → Python sink with write_many, batch_size=256",
    (
        lane(FASTSINKS, "queue", 200_000, sink="block"),
        lane(TWIN, "queue", 10_000, sink="block"),
        lane(SIMPLE_QUEUE, "queue", 200_000, sink="python"),
    ),
)

FOUR_WRITERS = Work(
    "4 writers → 1 Queue → native sink",
    (
        lane(FASTSINKS, "queue", 200_000, sink="native", writers=4),
        lane(TWIN, "queue", 5_000, sink="native", writers=4),
        lane(SIMPLE_QUEUE, "queue", 200_000, sink="native", writers=4),
        lane(QUEUE, "queue", 10_000, sink="native", writers=4),
        lane(GO, "queue", 200_000, writers=4),
    ),
)

END_TO_END = "1 writer → Queue → native sink, end to end"

BARS = (
    no_slower(
        Row("Queue.write, nobody reading", "SimpleQueue.put", "no slower than 1.1× its time"),
        WRITE,
        SIMPLE_QUEUE,
        1.1,
    ),
    faster(
        Row("Queue.write_many of 1,000, per event", "SimpleQueue.put", "4× faster"),
        WRITE_MANY,
        SIMPLE_QUEUE,
        4.0,
    ),
    faster(
        Row(END_TO_END, "SimpleQueue + thread", "2.5× faster than each"),
        NATIVE,
        SIMPLE_QUEUE,
        2.5,
    ),
    faster(
        Row(END_TO_END, "go-events Queue", "2.5× faster than each"),
        NATIVE,
        GO,
        2.5,
    ),
    faster(
        Row(
            "1 writer → Queue → Python sink with write",
            "SimpleQueue + thread calling the same",
            "1.2× faster",
        ),
        PYTHON,
        SIMPLE_QUEUE,
        1.2,
    ),
    faster(
        Row("the same with write_many, batch_size=256", "the same", "2.5× faster"),
        BLOCKS,
        SIMPLE_QUEUE,
        2.5,
    ),
    faster(
        Row("4 writers → 1 Queue → native sink", "go-events, 4 goroutines", "2.5× faster"),
        FOUR_WRITERS,
        GO,
        2.5,
    ),
)

RACE = Race("queue", (WRITE, WRITE_MANY, NATIVE, PYTHON, BLOCKS, FOUR_WRITERS), BARS, rounds=30)
