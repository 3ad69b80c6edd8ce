"""What the Python contenders share: the event, and the loops that are timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import repeat
from time import perf_counter_ns as now
from typing import Any

EVENT = "myevent"
BLOCK = 1000  #: events in a call of write_many
PAUSE = 0.001  #: seconds between two hand-overs: the queue is idle by then
WRITERS = 4


def call_often(call: Callable[[Any], object], argument: Any, times: int) -> int:
    """Nanoseconds that it takes."""
    start = now()
    for _ in repeat(None, times):
        call(argument)
    return now() - start


def call_from_threads(call: Callable[[Any], object], argument: Any, times: int) -> int:
    """The same from several threads at once. Returns when it began."""
    barrier = threading.Barrier(WRITERS + 1)

    def writer() -> None:
        barrier.wait()
        call_often(call, argument, times // WRITERS)

    threads = [threading.Thread(target=writer) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = now()
    for thread in threads:
        thread.join()
    return start


def hand_over(write: Callable[[int], object], lags: list[int], times: int) -> list[float]:
    """p50 and p99 of the time from the call of ``write`` until the sink has the event.

    The event is the time at which it was written; the sink appends to ``lags`` how long
    ago that was.
    """
    lags.clear()
    for _ in repeat(None, times):
        time.sleep(PAUSE)
        write(now())
    deadline = time.monotonic() + 10.0
    while len(lags) < times:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {len(lags)} of {times} events arrived")
        time.sleep(PAUSE)
    return percentiles(lags, 50, 99)


def percentiles(values: list[int], *ranks: int) -> list[float]:
    """The smallest values that so many per cent of all do not exceed."""
    ordered = sorted(values)
    return [float(ordered[max(0, -(-len(ordered) * rank // 100) - 1)]) for rank in ranks]
