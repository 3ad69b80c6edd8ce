"""How long events take, measured by a queue that retries or delivers in blocks."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque

import pytest
from support import DEADLINE, LONG, BlockRecorder, Fails, Gate, Recorder, Waits, eventually

from fastsinks import Breaker, CloseTimeoutError, NullSink, Queue, RetryingSink
from fastsinks._core.stats import LATENCY_BOUNDS


class Steps(BlockRecorder):
    """A destination that takes an event or a block each time it is told to."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.gates: deque[Gate] = deque()

    def _wait(self, events: object) -> None:
        self.gates.append(Gate())
        self.gates[-1]()

    def let_one_go(self) -> None:
        done = len(self.blocks)
        eventually(lambda: len(self.attempts) > done and len(self.gates) > done)
        self.gates[done].open()
        eventually(lambda: len(self.blocks) > done)


@pytest.fixture
def dst() -> Steps:
    return Steps()


def make(dst: object, **options: object) -> Queue:
    return Queue(RetryingSink(dst, Breaker(1, 0.0)), **options)  # type: ignore[arg-type]


def passes(seconds: float) -> None:
    """Let some time pass, which is what is measured here."""
    threading.Event().wait(seconds)


class TestLatencies:
    def test_all_that_was_delivered_is_counted(self) -> None:
        with make(BlockRecorder(), batch_size=7) as queue:
            for _ in range(100):
                queue.write("event")
            queue.write_many(range(1000))
            assert queue.flush(DEADLINE)
            buckets, seconds = queue.latencies()
            assert len(buckets) == len(LATENCY_BOUNDS) + 1
            assert sum(buckets) == 1100
            assert 0 < seconds < 1100 * DEADLINE

    def test_each_event_is_as_old_as_it_is(self, dst: Steps) -> None:
        with make(dst) as queue:
            start = time.monotonic()
            queue.write("first")
            eventually(lambda: dst.attempts)
            passes(0.12)
            began = time.monotonic()
            queue.write("second")  # waits for the first
            passes(0.12)
            dst.let_one_go()
            eventually(lambda: sum(queue.latencies()[0]) == 1)
            first = time.monotonic() - start
            assert sum(queue.latencies()[0][:3]) == 0  # none within 0.1 s
            dst.let_one_go()
            assert queue.flush(DEADLINE)
            second = time.monotonic() - began
            buckets, seconds = queue.latencies()
            assert (sum(buckets), sum(buckets[:3])) == (2, 0)
            assert 0.24 + 0.12 <= seconds <= first + second

    def test_idleness_is_not_counted(self) -> None:
        with make(Recorder()) as queue:
            busy = 0.0
            for _ in range(3):
                began = time.monotonic()
                queue.write("event")
                assert queue.flush(DEADLINE)
                busy += time.monotonic() - began
                passes(0.15)
            buckets, seconds = queue.latencies()
            assert sum(buckets) == 3
            assert seconds <= busy

    def test_no_event_looks_younger_than_it_is(self) -> None:
        """However many there are, in whatever blocks: marks are few, and err on one side."""
        rng = random.Random(7)
        written: deque[float] = deque()
        least = 0.0

        def hook(events: list[object]) -> None:
            nonlocal least
            passes(0.002)
            now = time.monotonic()
            least += sum(now - written.popleft() for _ in events)

        with make(BlockRecorder(hook), batch_size=50) as queue:
            for _ in range(60):
                count = rng.choice([1, 1, 2, 10, 300])
                written.extend([time.monotonic()] * count)  # a moment before it is accepted
                queue.write_many(range(count))
                if rng.random() < 0.3:
                    passes(0.001)
            assert queue.flush(DEADLINE)
            total = queue.stats().delivered
            buckets, seconds = queue.latencies()
        assert sum(buckets) == total
        assert seconds >= 0.8 * least
        assert seconds <= 2 * least + 0.05 * total

    def test_blocks_without_retries(self) -> None:
        with Queue(BlockRecorder(), batch_size=3) as queue:
            queue.write_many(range(10))
            assert queue.flush(DEADLINE)
            assert sum(queue.latencies()[0]) == 10

    def test_blocks_that_fail(self) -> None:
        """They are done with, too, and what comes after them is as young as it is."""
        ages: list[float] = []
        fails = Fails(times=20)

        def hook(events: list[object]) -> None:
            ages.append(queue.oldest())
            fails(events)

        with Queue(BlockRecorder(hook), batch_size=10) as queue:
            began = time.monotonic()
            for _ in range(20):
                queue.write("lost")
                assert queue.flush(DEADLINE)
                passes(0.005)
            assert sum(queue.latencies()[0]) == queue.stats().dropped == 20
            before = time.monotonic()
            queue.write("event")
            assert queue.flush(DEADLINE)
            assert ages[-1] <= time.monotonic() - before
            buckets, seconds = queue.latencies()
            assert sum(buckets) == 21
            assert seconds <= time.monotonic() - began

    def test_a_queue_to_something_else_does_not_measure(self) -> None:
        for dst in (NullSink(), Recorder()):
            with Queue(dst) as queue:
                queue.write_many(range(5))
                assert queue.flush(DEADLINE)
                assert queue.latencies() == ((0,) * 9, 0.0)
                assert queue.oldest() == 0.0


class TestOldest:
    def test_nothing_is_pending(self) -> None:
        with make(Recorder()) as queue:
            assert queue.oldest() == 0.0
            queue.write("event")
            assert queue.flush(DEADLINE)
            assert queue.oldest() == 0.0

    def test_one_that_is_being_delivered(self, dst: Steps) -> None:
        with make(dst) as queue:
            before = time.monotonic()
            queue.write("event")
            after = time.monotonic()
            passes(0.05)
            oldest = queue.oldest()
            assert time.monotonic() - before >= oldest >= 0.05 - (after - before)
            dst.let_one_go()

    def test_the_next_is_younger(self, dst: Steps) -> None:
        with make(dst) as queue:
            queue.write("first")
            eventually(lambda: dst.attempts)
            passes(0.1)
            before = time.monotonic()
            queue.write("second")
            dst.let_one_go()
            eventually(lambda: len(dst.attempts) == 2)
            assert queue.oldest() <= time.monotonic() - before
            dst.let_one_go()

    def test_one_that_is_backing_off(self) -> None:
        strategy = Waits()
        queue = Queue(RetryingSink(Recorder(lambda events: 1 / 0), strategy))
        queue.write("event")
        assert strategy.failed.wait(DEADLINE)
        passes(0.05)
        assert queue.oldest() >= 0.05
        with pytest.raises(CloseTimeoutError):
            queue.close(0)
        assert queue.oldest() == 0.0

    def test_the_oldest_are_discarded(self, dst: Steps) -> None:
        with make(dst, maxsize=3, when_full="drop_oldest") as queue:
            queue.write("in flight")
            eventually(lambda: dst.attempts)
            queue.write_many(["old", "old"])
            passes(0.1)
            queue.write_many(["new", "new"])
            assert queue.oldest() >= 0.1  # in flight still
            before = time.monotonic()
            dst.let_one_go()
            eventually(lambda: len(dst.attempts) == 2)
            assert queue.oldest() <= time.monotonic() - before + 0.1
            dst.let_one_go()
            dst.let_one_go()
            assert queue.flush(DEADLINE)
            assert sum(queue.latencies()[0]) == queue.stats().delivered == 3

    def test_a_long_backlog(self, dst: Steps) -> None:
        with make(dst, batch_size=100_000) as queue:
            queue.write("first")
            eventually(lambda: dst.attempts)
            for _ in range(100):
                queue.write_many(range(1000))
            passes(0.05)
            assert queue.oldest() >= 0.05
            dst.let_one_go()
            eventually(lambda: len(dst.attempts) == 2)
            assert queue.oldest() >= 0.05
            dst.let_one_go()
            assert queue.flush(DEADLINE)
            assert sum(queue.latencies()[0]) == 100_001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_measures_its_own() -> None:
    gate = Gate()
    queue = make(Recorder(gate))
    queue.write("the parent's")
    gate.wait_entered()
    passes(0.02)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if queue.oldest() == 0.0:
                gate.open()
                queue.write("the child's")
                if queue.flush(DEADLINE) and sum(queue.latencies()[0]) == 1:
                    status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert queue.oldest() >= 0.02
    gate.open()
    queue.close(LONG)
    assert sum(queue.latencies()[0]) == 1
