"""Counting. HTTPSink counts a block with one call, prometheus-client an event."""

from __future__ import annotations

from dataclasses import replace

from ..bar import Row, faster
from ..contenders import FASTSINKS, PROMETHEUS, TWIN
from ..race import Race
from ..work import Work, lane

BATCH = 100  #: the default batch_size of an Endpoint

INC = replace(PROMETHEUS, label="prometheus-client, inc()")
INC_BLOCK = replace(PROMETHEUS, label=f"prometheus-client, inc({BATCH})")

IN_BLOCKS = Work(
    "counters: the extra time that metrics add to a queued event",
    (
        lane(FASTSINKS, "count", 200_000, block=BATCH),
        lane(TWIN, "count", 200_000, block=BATCH),
        lane(INC, "count", 10_000, block=1),
        lane(INC_BLOCK, "count", 200_000, block=BATCH),
    ),
)

SINGLY = Work(
    "counters: the same when each event is posted by itself",
    (
        lane(FASTSINKS, "count", 100_000, block=1),
        lane(TWIN, "count", 20_000, block=1),
        lane(INC, "count", 10_000, block=1),
    ),
)

BARS = (
    faster(
        Row(IN_BLOCKS.title, "prometheus-client child inc()", "40× less"),
        IN_BLOCKS,
        INC,
        40.0,
    ),
)

RACE = Race("counters", (IN_BLOCKS, SINGLY), BARS, rounds=30)
