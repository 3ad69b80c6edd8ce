"""Ten million pending events drain into a native sink, and another thread wants the GIL."""

from __future__ import annotations

from ..bar import Bar
from ..contenders import FASTSINKS, TWIN, Contender
from ..race import Race
from ..work import Work, lane

MILLISECOND = 1e6
NOBODY = Contender("no drain: what the probe sees anyhow", "others", "stdlib")

HOLD = Work(
    "a drain of ten million pending native events: longest time without the GIL",
    (
        lane(FASTSINKS, "drain", 10_000_000),
        lane(TWIN, "drain", 100_000),  # a hundred times fewer: it takes as long
        lane(NOBODY, "drain", 10_000_000),
    ),
    "drain",
)

TIME = Work(
    "a drain of ten million pending native events: time",
    (lane(FASTSINKS, "drain", 10_000_000, part=1), lane(TWIN, "drain", 100_000, part=1)),
)

BARS = (
    Bar(
        "a drain of ten million pending native events",
        "a second thread that wants the GIL",
        "never holds it for more than a millisecond at a time",
        (HOLD.of(FASTSINKS),),
        1.0,
        at_most=True,
        formula=lambda medians: medians[0] / MILLISECOND,
    ),
)

RACE = Race("drain", (HOLD, TIME), BARS, rounds=10)
