"""Each kind of thing that the core does, as often as one likes, and what it leaves behind.

    python tests/programs/operations.py KIND COUNT   does one kind and prints what has grown since
                                                     a tenth of it was done
    python tests/programs/operations.py all COUNT    does every kind; for a checker of memory

All of them hand on the same event and write to the same sinks, so that a reference too many
or too few is seen at the end.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import fastsinks
from fastsinks._core.backend import Counters

CHUNK = 10_000
"""Events after which to wait for a queue, whose backlog would else count as grown."""


class Event:
    """Something with a reference count, and no immortal one."""


class RefusedError(Exception):
    permanent = True


class Python:
    """A destination in Python; blocks too."""

    def write(self, event: Any) -> None:
        pass

    def write_many(self, events: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Broken(Python):
    def write(self, event: Any) -> None:
        raise RefusedError

    def write_many(self, events: Any) -> None:
        raise RefusedError


class Flaky(Python):
    """Fails every other time."""

    calls = 0

    def write(self, event: Any) -> None:
        self.calls += 1
        if self.calls % 2:
            raise OSError

    def write_many(self, events: Any) -> None:
        self.write(events)


class Listener:
    def ingress(self, event: Any) -> None:
        pass

    egress = active = ingress

    def retry(self, event: Any, error: BaseException) -> None:
        pass


EVENT = Event()
NULL = fastsinks.NullSink()
SINK = Python()
BROKEN = Broken()
LISTENER = Listener()
SHARED = (EVENT, NULL, SINK, BROKEN, LISTENER)
OPEN = fastsinks.Queue(SINK)  # with no queue open, workers would leave each time

Kind = Callable[[int], object]


def through(make: Callable[[], Any], write: str = "write", **options: Any) -> Kind:
    """Write into one queue, which closes what it delivers to: that is made anew each time."""
    event = EVENT if write == "write" else [EVENT] * 10

    def run(count: int) -> None:
        with fastsinks.Queue(make(), **options) as queue:
            accept = getattr(queue, write)
            for start in range(0, count, CHUNK):
                for _ in range(start, min(count, start + CHUNK), 1 if write == "write" else 10):
                    accept(event)
                queue.flush()

    return run


def each_time(call: Callable[[], object], *errors: type[BaseException]) -> Kind:
    def run(count: int) -> None:
        for _ in range(count):
            try:
                call()
            except errors:
                pass

    return run


def new_queue() -> None:
    queue = fastsinks.Queue(fastsinks.NullSink())
    queue.write(EVENT)
    queue.close()


def forgotten_queue() -> None:
    """It is not closed: an idle queue goes with its last reference."""
    fastsinks.Queue(SINK, batch_size=2)


def late_close() -> None:
    queue = fastsinks.Queue(fastsinks.RetryingSink(BROKEN, Never()), batch_size=2)
    queue.write_many([EVENT] * 5)
    queue.close(timeout=0)


class Never:
    """A strategy that always has to wait."""

    def proceed(self, event: Any) -> float:
        return 1000.0

    def failure(self, event: Any, error: BaseException) -> bool:
        return False

    def success(self, event: Any) -> None:
        pass


def flush() -> Kind:
    queue = fastsinks.Queue(fastsinks.NullSink())

    def run() -> None:
        queue.write(EVENT)
        queue.flush()

    return each_time(run)


def stuffed(*errors: type[BaseException], **options: Any) -> Kind:
    """Write into a queue that is full, and stays so: its destination always has to wait."""

    def run(count: int) -> None:
        queue = fastsinks.Queue(fastsinks.RetryingSink(SINK, Never()), **options)
        each_time(lambda: queue.write(EVENT), *errors)(count)
        each_time(lambda: queue.close(timeout=0), fastsinks.CloseTimeoutError)(1)

    return run


def looks() -> Kind:
    queue = fastsinks.Queue(SINK, batch_size=2)

    def run() -> None:
        queue.stats()
        queue.latencies()
        queue.oldest()
        len(queue)
        repr(queue)

    return each_time(run)


def closed() -> Kind:
    queue = fastsinks.Queue(fastsinks.NullSink())
    queue.close()
    return each_time(lambda: queue.write(EVENT), fastsinks.SinkClosedError)


def broadcast() -> Kind:
    sink = fastsinks.Broadcaster(NULL, SINK)
    block = [EVENT, EVENT]

    def run() -> None:
        sink.write(EVENT)
        sink.write_many(block)

    return each_time(run)


def come_and_go() -> Kind:
    sink = fastsinks.Broadcaster(SINK)

    def run() -> None:
        sink.add(NULL)
        sink.write(EVENT)
        sink.remove(NULL)
        sink.sinks  # noqa: B018

    return each_time(run)


def refused_by_one() -> Kind:
    sink = fastsinks.Broadcaster(BROKEN, NULL)
    return each_time(lambda: sink.write(EVENT))


def channel() -> Kind:
    through = fastsinks.Channel(buffer=2)

    def run() -> None:
        through.write(EVENT)
        through.get()

    return each_time(run)


def empty_channel() -> Kind:
    through = fastsinks.Channel()
    return each_time(lambda: through.get(timeout=0), TimeoutError)


def filtered() -> Kind:
    matcher = fastsinks.ignore(["application/x"], ["pull"])
    sink = fastsinks.Filter(fastsinks.Filter(NULL, lambda event: event is EVENT), matcher)
    block = [EVENT, None]

    def run() -> None:
        sink.write(EVENT)
        sink.write(None)
        sink.write_many(block)

    return each_time(run)


def retrying(dst: Any, strategy: Any, **options: Any) -> Kind:
    sink = fastsinks.RetryingSink(dst, strategy, **options)
    return each_time(lambda: sink.write(EVENT))


def counted() -> Kind:
    counters = Counters()

    def run() -> None:
        counters.success("200 OK", 1)
        counters.failure("500 No", 2)
        counters.error(3)
        counters.statuses()

    return each_time(run)


def posted() -> Kind:
    """No receiver listens: a refused connection is an attempt like another."""
    sink = fastsinks.HTTPSink("http://127.0.0.1:9/", timeout=1.0)
    return each_time(lambda: sink.write({"id": "1"}), fastsinks.DeliveryError, OSError)


def endpoints() -> Kind:
    def run() -> None:
        endpoint = fastsinks.Endpoint("nobody", "http://127.0.0.1:9/")
        endpoint.close()

    return each_time(run)


breaker = fastsinks.Breaker(threshold=10**9, backoff=0.0)
limited = fastsinks.ExponentialBackoff(0.0, 0.0, 0.0, max_attempts=2)

KINDS: dict[str, tuple[float, Callable[[], Kind]]] = {
    # how many of a million, and what
    "write": (1, lambda: through(fastsinks.NullSink)),
    "write_blocks": (1, lambda: through(fastsinks.NullSink, "write_many")),
    "deliver": (1, lambda: through(Python)),
    "deliver_blocks": (1, lambda: through(Python, batch_size=100)),
    "listened": (0.2, lambda: through(Python, listeners=[LISTENER])),
    "bounded": (0.3, lambda: through(fastsinks.NullSink, maxsize=100)),
    "retried_blocks": (
        0.5,
        lambda: through(lambda: fastsinks.RetryingSink(Flaky(), breaker), batch_size=50),
    ),
    "dropped": (0.1, lambda: through(Broken, dead_letter=NULL, listeners=[LISTENER])),
    "dropped_blocks": (0.2, lambda: through(Broken, dead_letter=NULL, batch_size=20)),
    "flush": (0.05, flush),
    "new_queue": (0.02, lambda: each_time(new_queue)),
    "forgotten_queue": (0.2, lambda: each_time(forgotten_queue)),
    "late_close": (0.004, lambda: each_time(late_close, fastsinks.CloseTimeoutError)),
    "full": (0.2, lambda: stuffed(fastsinks.QueueFullError, maxsize=1, when_full="raise")),
    "oldest": (0.1, lambda: stuffed(maxsize=3, when_full="drop_oldest", batch_size=2)),
    "newest": (0.1, lambda: stuffed(maxsize=3, when_full="drop_newest")),
    "looks": (0.1, looks),
    "closed": (0.2, closed),
    "broadcast": (1, broadcast),
    "come_and_go": (0.1, come_and_go),
    "refused_by_one": (0.1, refused_by_one),
    "channel": (1, channel),
    "empty_channel": (0.1, empty_channel),
    "filtered": (0.1, filtered),
    "retrying": (0.1, lambda: retrying(Flaky(), breaker, listeners=[LISTENER])),
    "given_up": (0.1, lambda: retrying(BROKEN, limited, dead_letter=NULL)),
    "counted": (0.5, counted),
    "posted": (0.001, posted),
    "endpoints": (0.001, endpoints),
}


def resident() -> int:
    """Bytes of memory that the process has."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measure() -> tuple[int, int, list[int]]:
    gc.collect()
    counts = [sys.getrefcount(thing) for thing in SHARED]
    return resident(), sys.getallocatedblocks(), counts


def do(kind: str, count: int) -> tuple[int, int, list[int]]:
    """Bytes, blocks of Python's allocator and references that have come to stay."""
    run = KINDS[kind][1]()
    at_rest = measure()[2]  # now: after a run, a worker may still be on its way out of a queue
    run(max(1, count // 10))
    before = measure()
    run(count)
    deadline = time.monotonic() + 10.0
    while True:
        after = measure()
        references = [new - old for new, old in zip(after[2], at_rest, strict=True)]
        if not any(references) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return after[0] - before[0], after[1] - before[1], references


def main(kind: str, count: int) -> None:
    logging.getLogger("fastsinks").setLevel(logging.CRITICAL + 1)
    if kind == "all":
        for each, (share, make) in KINDS.items():
            make()(max(3, int(count * min(1.0, 20 * share))))
            sys.stdout.write(f"{each}\n")
        sys.stdout.flush()
        os._exit(0)  # how Python ends is its own affair
    else:
        grown, blocks, references = do(kind, count)
        sys.stdout.write(f"{grown} {blocks} {' '.join(map(str, references))}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
