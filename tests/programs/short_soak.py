"""Three seconds of soak; with "careless", of a library that loses an event and disorders others."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterable
from typing import Any

from fastsinks.http import HTTPSink

write_many = HTTPSink.write_many
sent: list[Any] = []


def careless(self: HTTPSink, events: Iterable[Any]) -> None:
    block = list(events)
    if "/plain" in self.url and len(block) > 2 and len(sent) < 2:
        block = block[:-1] if sent else block[::-1]
        write_many(self, block)
        sent.append(block)
    else:
        write_many(self, block)


if "careless" in sys.argv:
    HTTPSink.write_many = careless  # type: ignore[method-assign]
sys.argv[1:] = ["--seconds", "3", "--seed", "11"]
runpy.run_module("soak", run_name="__main__")
