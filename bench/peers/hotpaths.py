"""The hot paths, for callgrind to count the instructions of: see bench/instructions.py.

Each path runs three times between calls of getppid(), at which callgrind writes down
what it has counted so far: to warm up, for N events, and for 2 N. The difference of the
last two, for one event, is free of whatever comes once.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from fastsinks import Broadcaster, Dispatcher, NullSink, Queue
from fastsinks._core.backend import Counters

from .ours import Gate
from .timing import EVENT, call_often

EVENTS = 2_000
BLOCK = 100
MANY = 1_000

Path = Callable[[int], object]


@contextmanager
def simple_queue() -> Iterator[Path]:
    """The peer, which shows the least that a call from Python costs."""
    queue: SimpleQueue[str] = SimpleQueue()
    yield lambda events: call_often(queue.put, EVENT, events)


@contextmanager
def write() -> Iterator[Path]:
    gate = Gate()
    with Queue(gate, batch_size=1024) as queue:
        queue.write(EVENT)
        gate.reached.wait()
        yield lambda events: call_often(queue.write, EVENT, events)
        gate.opened.set()


@contextmanager
def write_many() -> Iterator[Path]:
    gate = Gate()
    block = [EVENT] * BLOCK
    with Queue(gate, batch_size=1024) as queue:
        queue.write(EVENT)
        gate.reached.wait()
        yield lambda events: call_often(queue.write_many, block, events // BLOCK)
        gate.opened.set()


@contextmanager
def drain() -> Iterator[Path]:
    """Written while the only worker is stuck, then delivered at once: no wake-ups to count."""
    dispatcher = Dispatcher(max_workers=1)
    gate = Gate()
    door = Queue(gate, batch_size=2, dispatcher=dispatcher)
    queue = Queue(NullSink(), dispatcher=dispatcher)

    def run(events: int) -> None:
        gate.reached.clear()
        gate.opened.clear()
        door.write(EVENT)
        gate.reached.wait()
        call_often(queue.write, EVENT, events)
        gate.opened.set()
        queue.flush()
        door.flush()

    yield run
    dispatcher.close()


@contextmanager
def broadcast(sinks: int = 10) -> Iterator[Path]:
    """For an event at a sink."""
    broadcaster = Broadcaster(*(NullSink() for _ in range(sinks)))
    yield lambda events: call_often(broadcaster.write, EVENT, events // sinks)


@contextmanager
def counters() -> Iterator[Path]:
    """For a call of success()."""
    counters = Counters()

    def run(events: int) -> None:
        success = counters.success
        for _ in range(events):
            success("200 OK", BLOCK)

    yield run


def queues(number: int) -> Callable[[], Any]:
    """For an event at a sink."""

    @contextmanager
    def path() -> Iterator[Path]:
        dispatcher = Dispatcher(max_workers=1)
        gate = Gate()
        door = Queue(gate, batch_size=2, dispatcher=dispatcher)
        targets = [Queue(NullSink(), dispatcher=dispatcher) for _ in range(number)]
        broadcaster = Broadcaster(*targets)

        def run(events: int) -> None:
            # The worker is stuck until all is written, so that the counts are repeatable.
            gate.reached.clear()
            gate.opened.clear()
            door.write(EVENT)
            gate.reached.wait()
            call_often(broadcaster.write, EVENT, events // number)
            gate.opened.set()
            targets[-1].flush()
            door.flush()

        yield run
        dispatcher.close()

    return path


PATHS: dict[str, tuple[Callable[[], Any], int]] = {
    "SimpleQueue.put": (simple_queue, EVENTS),
    "Queue.write": (write, EVENTS),
    "Queue.write_many": (write_many, EVENTS),
    "Queue.write to native drain": (drain, EVENTS),
    "Broadcaster to 10 native sinks": (broadcast, EVENTS),
    "Broadcaster to 10 Queues": (queues(10), EVENTS),
    f"Broadcaster to {MANY:,} Queues": (queues(MANY), 4 * MANY),
    "Counters.success": (counters, EVENTS),
}
PEERS = {"SimpleQueue.put"}


def main() -> None:
    gc.disable()
    sys.setswitchinterval(1000)  # threads switch only where one waits
    for name, (path, events) in PATHS.items():
        with path() as run:
            run(events)
            run(events)
            os.getppid()
            run(events)
            os.getppid()
            run(2 * events)
            os.getppid()
        print(name)  # in the order of callgrind's files


if __name__ == "__main__":
    main()
