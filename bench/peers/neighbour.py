"""A thread with work of its own, in a process that delivers events meanwhile.

The thread works for 200 µs every 2 ms. How late it finishes each piece, compared with a
thread that has the interpreter to itself, is what the delivery costs a server's request
threads. The schedule is fixed: a piece that starts late because the one before was late
counts as late, too.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter_ns as now
from typing import Any

from fastsinks import Broadcaster, Endpoint, HTTPSink
from fastsinks.events import new_event

from .timing import percentiles
from .worker import Round

PERIOD = 2_000_000  #: ns from one piece of work to the next
WORK = 200_000  #: ns of Python that a piece takes
RATE = 20_000  #: events a second
TICK = 1_000_000  #: ns between two bursts of the writer
ENDPOINTS = 3
BATCH = 100
LIMIT = 30.0  #: seconds after which what is still pending will not arrive

Write = Callable[[Any], object]
Flush = Callable[[], object]


def work(steps: int) -> int:
    total = 0
    for step in range(steps):
        total += step & 7
    return total


def calibrate() -> tuple[int, int]:
    """How many steps take about 200 µs, and how many nanoseconds they take undisturbed."""
    steps = 1000

    def best() -> int:
        times = []
        for _ in range(30):
            start = now()
            work(steps)
            times.append(now() - start)
        return min(times)

    for _ in range(3):
        steps = max(1, steps * WORK // best())
    return steps, best()


def neighbour_thread(pieces: int, steps: int, undisturbed: int, lateness: list[int]) -> None:
    due = now() + PERIOD
    for _ in range(pieces):
        ahead = due - now()
        if ahead > 0:
            time.sleep(ahead / 1e9)
        work(steps)
        lateness.append(max(0, now() - due - undisturbed))
        due += PERIOD


def writer_thread(write: Write, event: Any, events: int) -> None:
    burst = RATE * TICK // 1_000_000_000
    due = now()
    for _ in range(events // burst):
        for _ in range(burst):
            write(event)
        due += TICK
        ahead = due - now()
        if ahead > 0:
            time.sleep(ahead / 1e9)


@contextmanager
def receivers() -> Iterator[list[str]]:
    """URLs of live receivers, all in one other process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.peers.receiver", str(ENDPOINTS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdout.readline().split()
    finally:
        process.stdin.close()  # it ends with that
        process.wait(10)
        process.stdout.close()


@contextmanager
def nothing() -> Iterator[tuple[Write | None, Flush]]:
    yield None, lambda: None


@contextmanager
def endpoints() -> Iterator[tuple[Write, Flush]]:
    with ExitStack() as stack:
        targets = [
            stack.enter_context(Endpoint(url, url, timeout=5.0, batch_size=BATCH))
            for url in stack.enter_context(receivers())
        ]

        def flush() -> None:
            for target in targets:
                if not target.flush(LIMIT):
                    raise RuntimeError(f"{target} cannot keep up")
                if target.metrics.successes != target.metrics.events:
                    raise RuntimeError(f"{target}: {target.metrics}")

        yield Broadcaster(*targets).write, flush


@contextmanager
def threads() -> Iterator[tuple[Write, Flush]]:
    """The usual code without fastsinks: a queue.Queue and a thread for each receiver.

    The posting is the same, that of HTTPSink.
    """
    queues: list[queue.Queue[Any]] = []
    troubles: list[Exception] = []

    def post(source: queue.Queue[Any], http: HTTPSink) -> None:
        while True:
            block = [source.get()]
            try:
                while len(block) < BATCH:
                    block.append(source.get_nowait())
            except queue.Empty:
                pass
            try:
                http.write_many(block)
            except Exception as error:
                troubles.append(error)
            for _ in block:
                source.task_done()

    def write(event: Any) -> None:
        for each in queues:
            each.put(event)

    def flush() -> None:
        deadline = time.monotonic() + LIMIT
        while any(each.unfinished_tasks for each in queues):
            if time.monotonic() > deadline:
                raise RuntimeError("the threads cannot keep up")
            time.sleep(0.01)
        if troubles:
            raise troubles[0]

    with receivers() as urls:
        for url in urls:
            source: queue.Queue[Any] = queue.Queue()
            queues.append(source)
            poster = threading.Thread(
                target=post, args=(source, HTTPSink(url, timeout=5.0)), daemon=True
            )
            poster.start()
        yield write, flush


DELIVERIES = {"nothing": nothing, "endpoints": endpoints, "threads": threads}


@contextmanager
def neighbour(*, delivery: str) -> Iterator[Round]:
    """p50, p99 and maximum of the lateness while so many events are written."""
    event = new_event("push", repository="library/app", tag="v1")
    steps, undisturbed = calibrate()
    with DELIVERIES[delivery]() as (write, flush):

        def run(events: int) -> list[float]:
            pieces = max(1, events * 1_000_000_000 // RATE // PERIOD)
            lateness: list[int] = []
            tasks = [
                threading.Thread(
                    target=neighbour_thread, args=(pieces, steps, undisturbed, lateness)
                )
            ]
            if write is not None:
                tasks.append(threading.Thread(target=writer_thread, args=(write, event, events)))
            for task in tasks:
                task.start()
            for task in tasks:
                task.join()
            flush()
            return percentiles(lateness, 50, 99, 100)

        yield run
