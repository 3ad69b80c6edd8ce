"""Threads at the same thing at the same moment: nothing is lost, counted twice or torn.

With a GIL they mostly take turns; `make test-freethreaded` runs this without one.
"""

from __future__ import annotations

import itertools
import logging
import threading

import pytest
from support import (
    DEADLINE,
    BlockRecorder,
    Fails,
    Recorder,
    Task,
    Token,
    Waits,
    eventually,
    identical,
    ledger,
    together,
)

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    CloseTimeoutError,
    NullSink,
    Queue,
    RetryingSink,
    SinkClosedError,
)
from fastsinks._core.backend import Counters

WRITERS = 4
EACH = 2000  # events of a writer


def numbered(write, writer, count=EACH):
    """A function that writes `count` events of one writer."""

    def run():
        for number in range(count):
            write((writer, number))

    return run


def in_order(events, writers=WRITERS, count=EACH):
    """Whether all events came, those of each writer in its order."""
    return all(
        [number for who, number in events if who == writer] == list(range(count))
        for writer in range(writers)
    )


@pytest.mark.parametrize(
    "options",
    [{}, {"maxsize": 7}, {"batch_size": 10}, {"batch_size": 10, "linger": 0.001, "maxsize": 50}],
    ids=str,
)
def test_writers_of_one_queue(options):
    dst, over = BlockRecorder(), threading.Event()
    with Queue(dst, **options) as queue:
        # With a GIL, one that looked all the time would have it most of the time.
        looks = iter(lambda: queue.closed or over.wait(0.001), True)
        watcher = Task(lambda: [ledger(queue) for _ in looks])
        together(*[numbered(queue.write, writer) for writer in range(WRITERS)])
        over.set()
    watcher.result()
    assert in_order(dst.events)
    assert queue.stats() == (WRITERS * EACH, WRITERS * EACH, 0, 0)
    assert dst.crowd == 1


def test_writers_of_one_event():
    """Each reference is the queue's own: one too few, and this event would not live on."""
    event = Token()
    queue = Queue(NullSink(), batch_size=10)

    def write():
        for _ in range(EACH):
            queue.write(event)
            queue.write_many([event, event])

    together(*[write] * WRITERS)
    assert queue.flush(DEADLINE)
    queue.close()
    assert event.label is None
    assert queue.stats().delivered == 3 * WRITERS * EACH


def test_every_drop_is_counted_and_the_first_ones_agree_on_a_log(caplog):
    letters = Recorder()
    dst = Recorder(Fails())
    for _ in range(20):
        queue = Queue(dst, maxsize=3, when_full="drop_newest", dead_letter=letters)
        together(*[numbered(queue.write, writer, 20) for writer in range(WRITERS)])
        queue.close()
        assert queue.stats() == (20 * WRITERS, 0, 20 * WRITERS, 0)
    assert len(letters.events) == 20 * 20 * WRITERS
    assert {record.levelno for record in caplog.records} <= {logging.ERROR, logging.INFO}


@pytest.mark.parametrize("retrying", [False, True])
def test_a_deadline_in_the_middle_of_a_delivery(retrying):
    """Each event is delivered, or in the hands of the closer, or (in flight just then) both."""
    for turn in range(60):
        dst = BlockRecorder()
        inner = RetryingSink(dst, Waits(0.0)) if retrying else dst
        queue = Queue(inner, batch_size=2)
        queue.write_many(range(500))
        left = []
        try:
            queue.close(timeout=0.0005 * (turn % 5))
        except CloseTimeoutError as error:
            left = error.undelivered
        eventually(lambda queue=queue: not queue._delivers_here())
        assert sorted({*dst.events, *left}) == list(range(500))
        assert left == sorted(left)
        ledger(queue)


def test_closers_of_a_retrying_sink_and_its_queue():
    for _ in range(60):
        dst = BlockRecorder(Fails(times=3))
        sink = RetryingSink(dst, Waits(0.0005))
        queue = Queue(sink, batch_size=3)
        queue.write_many(range(30))

        def close(closed):
            try:
                closed.close(timeout=1.0)
            except CloseTimeoutError:
                pass

        together(lambda s=sink: close(s), lambda q=queue: close(q), lambda q=queue: close(q))
        assert ledger(queue).pending == 0
        assert dst.closes == 1


def test_sinks_come_and_go_while_others_look_and_write():
    sink = Broadcaster()
    kept = Recorder()
    sink.add(kept)
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            mine = NullSink()
            sink.add(mine)
            assert mine in sink.sinks
            sink.remove(mine)
            assert mine not in sink.sinks

    def write(writer):
        try:
            numbered(sink.write, writer)()
        finally:
            if writer == 0:
                over.set()

    together(come_and_go, come_and_go, *[lambda w=w: write(w) for w in range(2)])
    assert in_order(kept.events, writers=2)
    assert sink.sinks == (kept,)
    sink.close()


@pytest.mark.parametrize("buffer", [0, 5])
def test_writers_and_readers_of_a_channel(buffer):
    channel = Channel(buffer=buffer)
    taken = []
    left = itertools.count(1)

    def read():
        mine = list(channel)
        taken.append(mine)

    def write(writer):
        numbered(channel.write, writer, 500)()
        if next(left) == WRITERS:
            channel.close()

    together(read, read, read, *[lambda w=w: write(w) for w in range(WRITERS)])
    assert sorted(event for mine in taken for event in mine) == [
        (writer, number) for writer in range(WRITERS) for number in range(500)
    ]
    for mine in taken:  # each reader sees every writer's events in their order
        assert all(
            numbers == sorted(numbers)
            for numbers in ([n for w, n in mine if w == writer] for writer in range(WRITERS))
        )


def test_a_reader_drains_what_was_written_before_the_close():
    for number in range(1000):
        channel = Channel(buffer=1)

        def write(channel=channel, number=number):
            channel.write(number)
            channel.close()

        assert together(channel.get, write)[0] == number
        with pytest.raises(SinkClosedError):
            channel.get()


def test_watchers_of_a_channel_come_and_go():
    channel = Channel(buffer=10**6)
    rung = [[] for _ in range(WRITERS)]

    def watch(mine):
        def ring():
            rung[mine].append(mine)

        for _ in range(1000):
            channel._watch(ring)
            channel.write(mine)
            channel._unwatch(ring)

    together(*[lambda w=w: watch(w) for w in range(WRITERS)])
    calls = list(map(len, rung))
    assert min(calls) >= 1000, "a watcher was not there between _watch() and _unwatch()"
    channel.close()
    assert list(map(len, rung)) == calls, "a watcher stayed"


def test_counters_are_exact():
    counters = Counters()

    def count():
        for number in range(EACH):
            counters.success(f"20{number % 3} OK", 2)
            counters.failure("500 No", 1)
            counters.error(3)
            assert counters.statuses().keys() <= {"200 OK", "201 OK", "202 OK", "500 No"}

    together(*[count] * WRITERS)
    total = WRITERS * EACH
    assert (counters.successes, counters.failures, counters.errors) == (2 * total, total, 3 * total)
    assert sum(counters.statuses().values()) == 3 * total
    assert counters.statuses()["500 No"] == total


def test_a_shared_event_has_used_up_its_attempts_exactly_once():
    attempts = WRITERS * EACH
    for _ in range(5):
        strategy = Breaker(threshold=3, backoff=0.0, max_attempts=attempts)
        event = Token()

        def fail(strategy=strategy, event=event):
            return [strategy.failure(event, OSError()) for _ in range(EACH)]

        verdicts = together(*[fail] * WRITERS)
        assert sum(map(sum, verdicts)) == 1


def test_nulls_count_every_event():
    sink = NullSink()
    together(*[numbered(sink.write, writer) for writer in range(WRITERS)])
    assert sink.count == WRITERS * EACH


def test_events_come_back_as_they_were():
    """Through a chain of everything, written by all, read by one."""
    channel = Channel(buffer=10**6)
    events = [Token(number) for number in range(WRITERS * 200)]
    chain = Queue(Broadcaster(RetryingSink(channel, Waits(0.0))), batch_size=3)
    together(
        *[
            lambda w=w: [chain.write(event) for event in events[w * 200 : w * 200 + 200]]
            for w in range(WRITERS)
        ]
    )
    chain.close()
    came = sorted(channel, key=lambda event: event.label)
    assert identical(came, events)
