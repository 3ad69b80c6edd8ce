"""The process of a Python contender. It runs a round when the harness asks for one.

    python -m bench.peers.worker

Requests come as lines of JSON on standard input, an answer goes to standard output
for each: ``open`` sets a load up, ``round`` runs it once, ``close`` takes it down. A
load is named as in ``ours.write``; it is a context manager that yields the function of
a round: that one takes a number of events and returns what it has measured, in
nanoseconds. What happens between the rounds is never part of a measurement.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Round = Callable[[int], list[float]]
Load = AbstractContextManager[Round]


class Loads:
    """The loads that are set up, by the name that the harness gave them."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Load, Round]] = {}

    def answer(self, request: dict[str, Any]) -> list[float]:
        name = request["name"]
        if request["do"] == "open":
            module, _, function = request["load"].rpartition(".")
            loads = importlib.import_module(f"{__package__}.{module}")
            load = getattr(loads, function)(**request["options"])
            self._open[name] = (load, load.__enter__())
            gc.collect()
            gc.freeze()  # else each round traverses ten thousand queues
        elif request["do"] == "round":
            gc.collect()
            return self._open[name][1](request["events"])
        elif request["do"] == "close":
            self._open.pop(name)[0].__exit__(None, None, None)
        return []


def main() -> None:
    # All other output goes to standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    loads = Loads()
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {"values": loads.answer(json.loads(line))}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers)
    os._exit(0)  # the harness is done or has ended, so nothing needs closing


if __name__ == "__main__":
    main()
