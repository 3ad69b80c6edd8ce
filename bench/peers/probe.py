"""A second thread that asks for the GIL all the time, and notes how long it had to wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns as now


@contextmanager
def gil_gaps() -> Iterator[list[int]]:
    """Nanoseconds between two times that the probe has the GIL, while the `with` block runs.

    Only those that are longer than all before are kept: the last is the longest.
    """
    gaps = [0]
    ready = threading.Event()
    stop = False

    def ask() -> None:
        longest = 0
        ready.set()
        last = now()
        while not stop:
            time.sleep(0)  # gives the GIL away and wants it back
            this = now()
            if this - last > longest:
                longest = this - last
                gaps.append(longest)
            last = this

    thread = threading.Thread(target=ask, name="probe")
    thread.start()
    ready.wait()
    try:
        yield gaps
    finally:
        stop = True
        thread.join()
