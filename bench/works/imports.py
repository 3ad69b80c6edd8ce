"""Importing: a program that only queues does not pay for HTTP."""

from __future__ import annotations

from dataclasses import replace

from ..bar import Row, no_slower
from ..contenders import FASTSINKS, TWIN, URLLIB3
from ..race import Race
from ..work import Work, lane

OURS = "from fastsinks import Queue"
HTTP = replace(FASTSINKS, label="fastsinks, from fastsinks import Endpoint")

IMPORTS = Work(
    "an import, in a fresh interpreter",
    (
        lane(replace(FASTSINKS, module="imports"), "statement", 1, text=OURS),
        lane(replace(TWIN, module="imports"), "statement", 1, text=OURS),
        lane(
            replace(HTTP, module="imports"),
            "statement",
            1,
            text="from fastsinks import Endpoint",
        ),
        lane(URLLIB3, "statement", 1, text="import urllib3"),
    ),
    unit="import",
)

BARS = (
    no_slower(
        Row("from fastsinks import Queue", "import urllib3", "at most 0.7× its time"),
        IMPORTS,
        URLLIB3,
        0.7,
    ),
)

RACE = Race("imports", (IMPORTS,), BARS, rounds=30)
