"""fastsinks, with the backend that the environment chooses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from time import perf_counter_ns as now
from typing import Any

from fastsinks import Broadcaster, Dispatcher, NullSink, Queue
from fastsinks._core.backend import Counters

from . import probe
from .timing import BLOCK, EVENT, call_from_threads, call_often, hand_over
from .worker import Round


class PythonSink:
    """The least that a sink in Python can be."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, event: Any) -> None:
        self.count += 1

    def close(self) -> None:
        pass


class BlockSink(PythonSink):
    def write_many(self, events: Sequence[Any]) -> None:
        self.count += len(events)


class Gate(BlockSink):
    """Blocks every event until it is opened, and notes when the first has come."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.opened = threading.Event()

    def write_many(self, events: Sequence[Any]) -> None:
        self.reached.set()
        self.opened.wait()


class StampSink(PythonSink):
    """Notes how long ago an event was written: the event is the time of its write."""

    def __init__(self) -> None:
        super().__init__()
        self.lags: list[int] = []

    def write(self, event: int) -> None:
        self.lags.append(now() - event)


@contextmanager
def write(*, block: int = 1) -> Iterator[Round]:
    """Into a queue that nobody reads, because its destination is stuck."""

    def run(events: int) -> list[float]:
        gate = Gate()
        with Queue(gate, batch_size=1024) as queue:
            queue.write(EVENT)
            gate.reached.wait()
            if block == 1:
                spent = call_often(queue.write, EVENT, events)
            else:
                events = max(1, events // block) * block
                spent = call_often(queue.write_many, [EVENT] * block, events // block)
            gate.opened.set()
        return [spent / events]

    yield run


def write_many() -> Any:
    return write(block=BLOCK)


SINKS: dict[str, Callable[[], Any]] = {"native": NullSink, "python": PythonSink, "block": BlockSink}


@contextmanager
def queue(*, sink: str, writers: int = 1) -> Iterator[Round]:
    """Writer, queue, sink: until the last event has arrived."""

    def run(events: int) -> list[float]:
        if writers == 1:
            start = now()
            call_often(target.write, EVENT, events)
        else:
            start = call_from_threads(target.write, EVENT, events)
        target.flush()
        return [(now() - start) / events]

    with Queue(SINKS[sink](), batch_size=256 if sink == "block" else 1) as target:
        yield run


@contextmanager
def broadcast(*, sinks: int, sink: str = "native", queues: bool) -> Iterator[Round]:
    """One writer, a broadcaster, many sinks: nanoseconds for an event at a sink."""
    targets: list[Any] = [SINKS[sink]() for _ in range(sinks)]
    if queues:
        targets = [Queue(target) for target in targets]

    def run(events: int) -> list[float]:
        start = now()
        call_often(broadcaster.write, EVENT, events)
        if queues:
            for target in filter(None, targets):  # a queue with pending events is true
                target.flush()
        return [(now() - start) / events / sinks]

    with Broadcaster(*targets) as broadcaster:
        yield run


@contextmanager
def count(*, block: int) -> Iterator[Round]:
    """What counting costs an event: HTTPSink counts once for each block that it posts."""
    counters = Counters()

    def run(events: int) -> list[float]:
        blocks = max(1, events // block)
        start = now()
        success = counters.success
        for _ in range(blocks):
            success("200 OK", block)
        return [(now() - start) / (blocks * block)]

    yield run


@contextmanager
def latency() -> Iterator[Round]:
    """From a write into an idle queue to the destination."""
    sink = StampSink()
    with Queue(sink) as queue:
        yield lambda events: hand_over(queue.write, sink.lags, events)


@contextmanager
def drain() -> Iterator[Round]:
    """Pending events drain into a native sink: the longest wait of another thread for the GIL."""

    def run(events: int) -> list[float]:
        gate = Gate()
        with closing(Dispatcher(max_workers=1)) as dispatcher:
            door = Queue(gate, batch_size=2, dispatcher=dispatcher)
            door.write(EVENT)
            gate.reached.wait()  # from here on the only worker is stuck
            queue = Queue(NullSink(), dispatcher=dispatcher)
            block = [EVENT] * min(events, 100_000)
            while len(queue) < events:
                queue.write_many(block)
            with probe.gil_gaps() as gaps:
                start = now()
                gate.opened.set()
                queue.flush()
                spent = now() - start
            pending = queue.stats().delivered
            queue.close()
            door.close()
        return [float(max(gaps)), spent / pending]

    yield run
