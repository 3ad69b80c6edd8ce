"""What only an interpreter without a GIL can show; `make test-freethreaded` runs it."""

from __future__ import annotations

import statistics
import sys
import threading
import time
from pathlib import Path

import pytest
from support import DEADLINE, LONG
from support.processes import probe

import fastsinks
from fastsinks import Dispatcher, NullSink, Queue

pytestmark = pytest.mark.timeout(120)

EVENTS = 300_000
ROUNDS = 15
CORE = Path(fastsinks.__file__).parent / "_core"


def test_importing_the_core_leaves_the_gil_off():
    """A module that is not declared compatible turns it on again, with a warning."""
    names = ", ".join(
        f"fastsinks._core.{path.name.partition('.')[0]}" for path in CORE.glob("*.so")
    )
    assert "queue" in names
    assert probe(f"import sys, {names}; print(sys._is_gil_enabled())") == "False\n"
    assert not sys._is_gil_enabled()


def seconds(writers):
    """How long that many writers take, each with a queue and a dispatcher of its own."""
    ready = threading.Barrier(writers + 1)
    took = []

    def write():
        # Nothing is delivered meanwhile: the two cores are for two writers, not for workers.
        queue = Queue(NullSink(), batch_size=10**9, linger=LONG, dispatcher=Dispatcher())
        put = queue.write
        event = object()
        ready.wait(DEADLINE)
        began = time.perf_counter()
        for _ in range(EVENTS):
            put(event)
        took.append(time.perf_counter() - began)
        queue.close()

    threads = [threading.Thread(target=write) for _ in range(writers)]
    for thread in threads:
        thread.start()
    ready.wait(DEADLINE)
    for thread in threads:
        thread.join(60.0)
    assert len(took) == writers
    return max(took)


def test_two_writers_of_two_queues_are_nearly_twice_as_fast_as_one():
    """In events a second, by the medians of runs that alternate."""
    pairs = [(seconds(1), seconds(2)) for _ in range(ROUNDS)]
    one = statistics.median(pair[0] for pair in pairs)
    two = statistics.median(pair[1] for pair in pairs)
    assert 2 * one / two >= 1.6, f"{one:.4f} s alone, {two:.4f} s side by side"
