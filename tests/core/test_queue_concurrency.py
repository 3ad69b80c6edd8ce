"""Queue: several calls of the destination in flight at a time."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from support import (
    DEADLINE,
    LONG,
    BlockRecorder,
    Counting,
    Fails,
    Gate,
    Recorder,
    RefusedError,
    Task,
    Waits,
    eventually,
    ledger,
    os_threads,
)

from fastsinks import (
    Breaker,
    CloseTimeoutError,
    DeliveryError,
    Dispatcher,
    NullSink,
    Queue,
    QueueFullError,
    RetryingSink,
)


class Crowd:
    """A hook whose callers wait until `count` of them are inside at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)

    def __call__(self, events: list[Any]) -> None:
        self._barrier.wait(DEADLINE)


class Doors:
    """A hook with a gate for each first event of a call."""

    def __init__(self) -> None:
        self._gates: dict[Any, Gate] = {}
        self._lock = threading.Lock()

    def __getitem__(self, event: Any) -> Gate:
        with self._lock:
            return self._gates.setdefault(event, Gate())

    def __call__(self, events: list[Any]) -> None:
        self[events[0]]()


class TestCalls:
    @pytest.mark.parametrize("count", [2, 3, 8])
    def test_so_many_are_under_way(self, count: int) -> None:
        recorder = Recorder(Crowd(count))
        with Queue(recorder, concurrency=count) as queue:
            queue.write_many(range(3 * count))
            assert queue.flush(DEADLINE)
            assert recorder.crowd == count
            assert sorted(recorder.events) == list(range(3 * count))
            assert ledger(queue) == (3 * count, 3 * count, 0, 0)

    def test_and_not_one_more(self) -> None:
        doors = Doors()
        recorder = Recorder(doors)
        queue = Queue(recorder, concurrency=3)
        for event in range(6):
            queue.write(event)
        for event in range(3):
            doors[event].wait_entered()
        assert len(recorder.attempts) == 3
        doors[1].open()
        doors[3].wait_entered()
        assert len(recorder.attempts) == 4
        for event in range(6):
            doors[event].open()
        queue.close()
        assert recorder.crowd == 3
        assert sorted(recorder.events) == list(range(6))

    def test_blocks_are_in_order_within(self) -> None:
        recorder = BlockRecorder(Crowd(2))
        with Queue(recorder, concurrency=2, batch_size=5) as queue:
            queue.write_many(range(20))
            assert queue.flush(DEADLINE)
        assert sorted(recorder.blocks) == [list(range(n, n + 5)) for n in range(0, 20, 5)]

    def test_a_retrying_sink_has_so_many_attempts_under_way(self) -> None:
        recorder = BlockRecorder(Crowd(4))
        retrying = RetryingSink(recorder, Breaker(10, 1))
        with Queue(retrying, concurrency=4, batch_size=2) as queue:
            queue.write_many(range(16))
            assert queue.flush(DEADLINE)
        assert recorder.crowd == 4
        assert sorted(recorder.events) == list(range(16))

    def test_writes_from_elsewhere_have_to_wait_for_theirs(self) -> None:
        doors = Doors()
        recorder = Recorder(doors)
        retrying = RetryingSink(recorder, Breaker(10, 1))
        queue = Queue(retrying, concurrency=2)
        queue.write_many(["a", "b"])
        doors["a"].wait_entered()
        doors["b"].wait_entered()
        writer = Task(retrying.write, "c").blocked()
        doors["a"].open()
        doors["b"].open()
        doors["c"].open()
        writer.result()
        queue.close()
        assert sorted(recorder.events) == ["a", "b", "c"]

    def test_one_event_needs_one_call(self) -> None:
        recorder = Recorder()
        with Queue(recorder, concurrency=8) as queue:
            for n in range(100):
                queue.write(n)
                assert queue.flush(DEADLINE)
        assert recorder.events == list(range(100))

    def test_a_null_sink_is_never_in_two_calls(self) -> None:
        sink = NullSink()
        with Queue(sink, concurrency=8) as queue:
            queue.write_many(range(1000))
        assert sink.count == 1000

    @pytest.mark.parametrize("bad", [0, -1, True, 1.0, "2", None])
    def test_the_number_is_checked(self, bad: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="concurrency"):
            Queue(NullSink(), concurrency=bad)

    def test_it_can_be_read(self) -> None:
        assert Queue(Recorder(), concurrency=3).concurrency == 3
        assert Queue(Recorder()).concurrency == 1

    def test_a_thousand_in_a_small_house(self) -> None:
        """More calls than workers: the rest of the calls wait, and nothing is lost."""
        dispatcher = Dispatcher(max_workers=4)
        recorder = Recorder()
        with Queue(recorder, concurrency=1000, dispatcher=dispatcher) as queue:
            queue.write_many(range(5000))
            assert queue.flush(DEADLINE)
        assert sorted(recorder.events) == list(range(5000))
        dispatcher.close()


class TestPositions:
    def test_flush_waits_for_the_slowest(self) -> None:
        doors = Doors()
        queue = Queue(Recorder(doors), concurrency=2)
        queue.write("slow")
        doors["slow"].wait_entered()
        for event in ("a", "b", "c"):
            doors[event].open()
            queue.write(event)
        eventually(lambda: ledger(queue).delivered == 3)
        assert not queue.flush(0)
        flusher = Task(queue.flush, DEADLINE).blocked()
        doors["slow"].open()
        assert flusher.result()
        queue.close()

    def test_flush_does_not_wait_for_what_came_later(self) -> None:
        doors = Doors()
        queue = Queue(Recorder(doors), concurrency=2)
        queue.write("early")
        doors["early"].wait_entered()
        flusher = Task(queue.flush, DEADLINE).blocked()
        queue.write("late")
        doors["late"].wait_entered()
        doors["early"].open()
        assert flusher.result()
        doors["late"].open()
        queue.close()

    def test_the_oldest_is_the_slowest(self) -> None:
        doors = Doors()
        retrying = RetryingSink(Recorder(doors), Breaker(10, 1))
        queue = Queue(retrying, concurrency=2)
        queue.write("slow")
        doors["slow"].wait_entered()
        start = time.monotonic()
        eventually(lambda: time.monotonic() - start > 0.05)
        for event in ("a", "b", "c"):
            doors[event].open()
            queue.write(event)
        eventually(lambda: ledger(queue).delivered == 3)
        assert queue.oldest() >= 0.05
        doors["slow"].open()
        queue.close()
        buckets, seconds = queue.latencies()
        assert sum(buckets) == 4
        assert seconds >= 0.05

    def test_listeners_hear_of_each_event_once(self) -> None:
        counting = Counting()
        with Queue(Recorder(Crowd(3)), concurrency=3, listeners=[counting]) as queue:
            queue.write_many(range(30))
            assert queue.flush(DEADLINE)
        assert counting.entered == list(range(30))
        assert sorted(counting.left) == list(range(30))


class TestFailures:
    def test_each_call_fails_by_itself(self) -> None:
        letters = Recorder()
        sink = BlockRecorder(Fails(only=lambda event: event % 7 == 0))
        with Queue(sink, concurrency=3, dead_letter=letters) as queue:
            queue.write_many(range(100))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (100, 85, 15, 0)
        assert sorted(letters.events) == list(range(0, 100, 7))

    def test_what_is_refused_for_good_is_dropped_alone(self) -> None:
        sink = BlockRecorder(Fails(RefusedError, only=lambda event: event == 5))
        retrying = RetryingSink(sink, Breaker(1, 0.001))
        with Queue(retrying, concurrency=2, batch_size=4) as queue:
            queue.write_many(range(12))
            assert queue.flush(DEADLINE)
        assert sorted(sink.events) == [n for n in range(12) if n != 5]
        assert retrying.dropped == 1

    def test_a_full_queue_refuses_its_own_deliveries(self) -> None:
        refused = []

        def write_back(events: list[Any]) -> None:
            try:
                queue.write("more")
            except QueueFullError as error:
                refused.append(error)

        crowd = Crowd(2)

        def hook(events: list[Any]) -> None:
            if "more" not in events:
                crowd(events)  # both hold their place
                write_back(events)
                crowd(events)  # until both have been refused

        queue = Queue(Recorder(hook), concurrency=2, maxsize=2)
        queue.write_many(["a", "b"])
        assert queue.flush(DEADLINE)
        assert len(refused) == 2
        queue.close()


class TestBackOff:
    """A back-off is of the destination, and so of all calls."""

    def test_it_holds_no_thread(self) -> None:
        dispatcher = Dispatcher(max_workers=64)
        sinks = [RetryingSink(BlockRecorder(Fails()), Waits()) for _ in range(100)]
        dead = [Queue(sink, concurrency=8, dispatcher=dispatcher) for sink in sinks]
        for queue in dead:
            queue.write_many(range(20))
        eventually(lambda: sum(retrying.retries for retrying in sinks) >= 100)
        healthy = Recorder()
        with Queue(healthy, dispatcher=dispatcher) as queue:
            queue.write("served")
            assert queue.flush(DEADLINE)
        assert os_threads() < 50
        for queue in dead:
            with pytest.raises(CloseTimeoutError) as caught:
                queue.close(0)
            assert caught.value.undelivered == list(range(20))

    def test_nobody_calls_while_one_was_told_to_wait(self) -> None:
        """And when it is over, one goes first."""
        doors = Doors()
        told = DeliveryError("wait", status=429, retry_after=LONG)
        strategy = Breaker(100, 0)

        def hook(events: list[Any]) -> None:
            doors(events)
            if recorder.attempts.count(events) == 1 and events == [0]:
                raise told

        recorder = Recorder(hook)
        retrying = RetryingSink(recorder, strategy)
        queue = Queue(retrying, concurrency=4)
        queue.write_many(range(10))
        for event in range(4):
            doors[event].wait_entered()
        doors[0].open()
        eventually(lambda: retrying.retries == 1)
        for event in range(1, 10):
            doors[event].open()
        eventually(lambda: ledger(queue).delivered == 3)
        assert sorted(map(tuple, recorder.attempts)) == [(0,), (1,), (2,), (3,)]
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert caught.value.undelivered == [0, 4, 5, 6, 7, 8, 9]
        assert len(recorder.attempts) == 4
        assert ledger(queue) == (10, 3, 7, 0)

    def test_one_goes_first_and_the_others_follow_its_success(self) -> None:
        crowd = threading.Barrier(4)
        probe = Gate()
        calls: list[Any] = []
        lock = threading.Lock()

        def hook(events: list[Any]) -> None:
            with lock:
                calls.append(events)
                n = len(calls)
            if n <= 4:
                crowd.wait(DEADLINE)
                raise OSError("down")
            if n == 5:
                probe()

        recorder = Recorder(hook)
        queue = Queue(RetryingSink(recorder, Waits(0.01)), concurrency=4)
        queue.write_many(range(8))
        probe.wait_entered()
        assert len(calls) == 5
        probe.open()
        queue.close()
        assert sorted(recorder.events) == list(range(8))
        assert ledger(queue) == (8, 8, 0, 0)

    def test_a_first_one_that_fails_leaves_the_others_waiting(self) -> None:
        crowd = threading.Barrier(3)
        calls: list[Any] = []
        lock = threading.Lock()
        inside = most = 0
        over = threading.Event()

        def hook(events: list[Any]) -> None:
            nonlocal inside, most
            with lock:
                calls.append(events)
                n = len(calls)
                inside += 1
                if n > 3:
                    most = max(most, inside)
            try:
                if n <= 3:
                    crowd.wait(DEADLINE)
                if n <= 20:
                    raise OSError("down")
                over.set()
            finally:
                with lock:
                    inside -= 1

        recorder = Recorder(hook)
        strategy = Waits(0.002)
        queue = Queue(RetryingSink(recorder, strategy), concurrency=3)
        queue.write_many(range(3))
        assert over.wait(DEADLINE)
        queue.close()
        assert most <= 3
        probes = {tuple(events) for events in calls[3:20]}
        assert len(probes) == 1, "one of them tried, again and again"
        assert sorted(recorder.events) == [0, 1, 2]

    def test_where_the_first_one_gives_up_another_goes(self) -> None:
        crowd = threading.Barrier(3)
        calls: list[Any] = []
        lock = threading.Lock()

        def hook(events: list[Any]) -> None:
            with lock:
                calls.append(events)
                n = len(calls)
            if n <= 3:
                crowd.wait(DEADLINE)
            raise OSError("down")

        letters = Recorder()
        strategy = Breaker(1, 0.001, max_attempts=3)
        retrying = RetryingSink(Recorder(hook), strategy, dead_letter=letters)
        queue = Queue(retrying, concurrency=3)
        queue.write_many(range(9))
        assert queue.flush(DEADLINE)
        assert sorted(letters.events) == list(range(9))
        assert len(calls) == 27
        queue.close()

    def test_a_longer_wait_counts_for_the_first_one_too(self) -> None:
        doors = Doors()
        waits = {0: 0.01, 1: LONG}

        def hook(events: list[Any]) -> None:
            doors(events)
            raise DeliveryError("wait", status=503, retry_after=waits[events[0]])

        recorder = Recorder(hook)
        retrying = RetryingSink(recorder, Breaker(100, 0))
        queue = Queue(retrying, concurrency=2)
        queue.write_many([0, 1])
        doors[0].wait_entered()
        doors[1].wait_entered()
        doors[1].open()
        eventually(lambda: retrying.retries == 1)
        doors[0].open()
        eventually(lambda: retrying.retries == 2)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0.1)
        assert caught.value.undelivered == [0, 1]
        assert len(recorder.attempts) == 2

    def test_closing_the_retrying_sink_ends_it(self) -> None:
        crowd = Crowd(3)

        def hook(events: list[Any]) -> None:
            crowd(events)
            raise OSError("down")

        letters = Recorder()
        retrying = RetryingSink(Recorder(hook), Waits())
        queue = Queue(retrying, concurrency=3, dead_letter=letters)
        queue.write_many(range(3))
        eventually(lambda: retrying.retries == 3)
        retrying.close()
        assert queue.flush(DEADLINE)
        assert sorted(letters.events) == [0, 1, 2]
        queue.close()


class TestClosing:
    def test_it_waits_for_all_and_closes_once(self) -> None:
        doors = Doors()
        recorder = Recorder(doors)
        queue = Queue(recorder, concurrency=3)
        queue.write_many(range(3))
        for event in range(3):
            doors[event].wait_entered()
        closer = Task(queue.close).blocked()
        doors[2].open()
        doors[0].open()
        assert recorder.closes == 0
        doors[1].open()
        closer.result()
        assert recorder.closes == 1
        assert sorted(recorder.events) == [0, 1, 2]

    def test_what_is_left_is_in_order(self) -> None:
        doors = Doors()
        recorder = BlockRecorder(doors, on_close=lambda: [doors[n].open() for n in range(0, 20, 5)])
        queue = Queue(recorder, concurrency=3, batch_size=5)
        queue.write_many(range(20))
        doors[5].wait_entered()
        doors[0].wait_entered()
        doors[10].wait_entered()
        doors[5].open()
        doors[15].wait_entered()
        queue.write_many(range(20, 23))
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        # Those that ended during the grace may have been delivered.
        left = caught.value.undelivered
        assert left == sorted(left)
        assert not set(left) & set(range(5, 10))
        assert set(left) >= {20, 21, 22}
        stats = ledger(queue)
        assert stats.dropped == len(left)
        assert stats.pending == 0

    def test_from_inside_a_delivery_it_returns_at_once(self) -> None:
        crowd = Crowd(2)

        def hook(events: list[Any]) -> None:
            crowd(events)
            queue.close()

        recorder = Recorder(hook)
        queue = Queue(recorder, concurrency=2)
        queue.write_many([1, 2])
        eventually(lambda: recorder.closes == 1)
        assert sorted(recorder.events) == [1, 2]


class TestLinger:
    def test_one_lingers_and_not_each(self) -> None:
        recorder = BlockRecorder()
        with Queue(recorder, concurrency=4, batch_size=10, linger=LONG) as queue:
            for n in range(10):
                queue.write(n)
            recorder.wait(10)
            queue.write(10)
            assert queue.flush(DEADLINE)
        assert recorder.blocks == [list(range(10)), [10]]


def test_a_storm_of_writers_loses_nothing() -> None:
    recorder = BlockRecorder(Fails(times=200))
    retrying = RetryingSink(recorder, Breaker(3, 0.0005))
    queue = Queue(retrying, concurrency=5, batch_size=7, maxsize=100)
    writers = [
        Task(lambda first: [queue.write(first + n) for n in range(500)], 1000 * w) for w in range(4)
    ]
    for writer in writers:
        writer.result()
    queue.close(DEADLINE)
    assert sorted(recorder.events) == sorted(1000 * w + n for w in range(4) for n in range(500))
    assert ledger(queue) == (2000, 2000, 0, 0)
