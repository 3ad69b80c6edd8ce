"""The alternatives to fastsinks: the standard library's queues with a thread each, and
prometheus-client for counting. ``kind`` chooses one of them."""

from __future__ import annotations

import logging
import queue as queue_module
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from logging.handlers import QueueHandler, QueueListener
from time import perf_counter_ns as now
from typing import Any

import prometheus_client

from . import probe
from .timing import EVENT, call_from_threads, call_often, hand_over
from .worker import Round

MARK = object()  #: follows the last event of a round
STOP = object()
STACK = 256 * 1024  #: bytes for a thread, so that a thousand threads fit anywhere

Put = Callable[[Any], object]
Sink = Callable[[Any], object]

QUEUES: dict[str, Callable[[], Any]] = {
    "SimpleQueue": queue_module.SimpleQueue,
    "Queue": queue_module.Queue,
}

RECORD = logging.LogRecord("bench", logging.INFO, __file__, 1, EVENT, (), None)


class PythonSink:
    """The same sink that fastsinks delivers to."""

    def __init__(self) -> None:
        self.count = 0

    def write(self, event: Any) -> None:
        self.count += 1


class Reader:
    """A queue and the thread that takes the events out, to count them or to call a sink."""

    def __init__(self, kind: str, sink: Sink | None) -> None:
        source = QUEUES[kind]()
        self.put: Put = source.put
        self.finished = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._read, args=(source.get, sink), daemon=True)
        self._thread.start()

    def _read(self, get: Callable[[], Any], sink: Sink | None) -> None:
        count = 0
        while True:
            for event in iter(get, MARK):
                if event is STOP:
                    return
                if sink is None:
                    count += 1  # what NullSink does
                else:
                    sink(event)
            self.finished.release()

    def mark(self) -> None:
        self.put(MARK)

    def close(self) -> None:
        self.put(STOP)
        self._thread.join()


class Counting(logging.Handler):
    """Counts, or calls a sink; a record without a message is the mark."""

    def __init__(self, sink: Sink | None, finished: threading.Semaphore) -> None:
        super().__init__()
        self.count = 0
        self._sink = sink
        self._finished = finished

    def emit(self, record: logging.LogRecord) -> None:
        if not record.msg:
            self._finished.release()
        elif self._sink is None:
            self.count += 1
        else:
            self._sink(record)


class Listener:
    """The same with a QueueHandler and a QueueListener; the events are log records."""

    def __init__(self, sink: Sink | None) -> None:
        source: queue_module.SimpleQueue[Any] = queue_module.SimpleQueue()
        self.finished = threading.Semaphore(0)
        self._handler = QueueHandler(source)
        self.put: Put = self._handler.handle
        self._listener = QueueListener(source, Counting(sink, self.finished))
        self._listener.start()

    def mark(self) -> None:
        record = logging.LogRecord("bench", logging.INFO, __file__, 1, "", (), None)
        self._handler.handle(record)

    def close(self) -> None:
        self._listener.stop()


def reader(kind: str, sink: Sink | None) -> Reader | Listener:
    return Listener(sink) if kind == "logging" else Reader(kind, sink)


def event_for(kind: str) -> Any:
    return RECORD if kind == "logging" else EVENT


@contextmanager
def write(*, kind: str) -> Iterator[Round]:
    """Into a queue that nobody reads."""

    def run(events: int) -> list[float]:
        if kind == "logging":
            put: Put = QueueHandler(queue_module.SimpleQueue()).handle
        else:
            put = QUEUES[kind]().put
        return [call_often(put, event_for(kind), events) / events]

    yield run


def sink_for(name: str) -> Sink | None:
    return None if name == "native" else PythonSink().write


@contextmanager
def queue(*, kind: str, sink: str, writers: int = 1) -> Iterator[Round]:
    """Writer, queue, thread, sink: until the last event has arrived."""
    event = event_for(kind)
    target = reader(kind, sink_for(sink))

    def run(events: int) -> list[float]:
        if writers == 1:
            start = now()
            call_often(target.put, event, events)
        else:
            start = call_from_threads(target.put, event, events)
        target.mark()
        target.finished.acquire()
        return [(now() - start) / events]

    yield run
    target.close()


@contextmanager
def broadcast(*, kind: str = "", sinks: int, sink: str = "native", queues: bool) -> Iterator[Round]:
    """A loop over the sinks, or over queues with a thread each."""
    event = event_for(kind)
    previous = threading.stack_size(STACK)
    with ExitStack() as stack:
        readers: list[Any] = []
        if queues:
            for _ in range(sinks):
                readers.append(reader(kind, sink_for(sink)))
                stack.callback(readers[-1].close)
            calls = [each.put for each in readers]
        else:
            calls = [PythonSink().write for _ in range(sinks)]
        threading.stack_size(previous)

        def write(event: Any) -> None:
            for call in calls:
                call(event)

        def run(events: int) -> list[float]:
            start = now()
            call_often(write, event, events)
            for each in readers:
                each.mark()
            for each in readers:
                each.finished.acquire()
            return [(now() - start) / events / sinks]

        yield run


@contextmanager
def count(*, kind: str, block: int) -> Iterator[Round]:
    """prometheus-client, with a child of a labelled counter, which is its cheapest way."""
    registry = prometheus_client.CollectorRegistry()
    family = prometheus_client.Counter("events", "Events.", ["type"], registry=registry)
    child = family.labels(type="Successes")

    def run(events: int) -> list[float]:
        blocks = max(1, events // block)
        inc = child.inc
        start = now()
        if block == 1:
            for _ in range(blocks):
                inc()
        else:
            for _ in range(blocks):
                inc(block)
        return [(now() - start) / (blocks * block)]

    yield run


@contextmanager
def latency(*, kind: str) -> Iterator[Round]:
    """From a put into an idle queue until the thread calls the sink."""
    lags: list[int] = []

    def stamp(event: int) -> None:
        lags.append(now() - event)

    target = reader(kind, stamp)
    yield lambda events: hand_over(target.put, lags, events)
    target.close()


@contextmanager
def drain() -> Iterator[Round]:
    """Nothing is drained: what the probe measures on this machine without a drain, for as long."""

    def run(events: int) -> list[float]:
        with probe.gil_gaps() as gaps:
            threading.Event().wait(min(0.05, events * 5e-9))
        return [float(max(gaps)), 0.0]

    yield run
