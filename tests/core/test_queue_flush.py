"""Queue: how long events linger, and what a flush waits for."""

import threading
import time

import pytest
from support import (
    BAD_SECONDS,
    DEADLINE,
    DROPPING,
    LONG,
    MOMENT,
    BlockRecorder,
    Counting,
    Fails,
    Recorder,
    Task,
    ledger,
    together,
)

from fastsinks import NullSink, Queue


class TestLinger:
    def test_it_waits_for_a_fuller_block(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=3, linger=LONG) as queue:
            queue.write(1)
            queue.write(2)
            threading.Event().wait(MOMENT)
            assert dst.attempts == []
            assert len(queue) == 2
            queue.write(3)
            assert dst.wait(3) == [1, 2, 3]
        assert dst.blocks == [[1, 2, 3]]

    def test_it_waits_again_for_what_is_left_of_a_full_block(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=3, linger=LONG) as queue:
            queue.write_many(range(8))
            dst.wait(6)
            threading.Event().wait(MOMENT)
            assert dst.blocks == [[0, 1, 2], [3, 4, 5]]
            queue.write(8)
            dst.wait(9)
        assert dst.blocks == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

    def test_but_no_longer_than_that(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=0.1) as queue:
            began = time.monotonic()
            queue.write(1)
            queue.write(2)
            dst.wait(2)
            assert time.monotonic() - began >= 0.09
        assert dst.blocks == [[1, 2]]

    def test_a_trickle_does_not_put_it_off(self):
        dst = BlockRecorder()
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.02):
                queue.write("drop")

        with Queue(dst, batch_size=100_000, linger=0.1) as queue:
            task = Task(trickle)
            dst.wait(1)
            stop.set()
            task.result()

    def test_flush_cuts_it_short(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=LONG) as queue:
            for number in range(5):
                queue.write(number)
            assert queue.flush(DEADLINE)
            assert dst.blocks == [[0, 1, 2, 3, 4]]
            queue.write(5)
            threading.Event().wait(MOMENT)
            assert len(queue) == 1
            assert queue.flush(DEADLINE)
            assert dst.blocks == [[0, 1, 2, 3, 4], [5]]

    def test_a_flush_begun_while_it_waits_cuts_it_short(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=LONG) as queue:
            queue.write("one")
            threading.Event().wait(MOMENT)  # the worker, if it has one, waits by now
            assert Task(queue.flush).result()
            assert dst.blocks == [["one"]]

    def test_close_cuts_it_short(self):
        dst = BlockRecorder()
        queue = Queue(dst, batch_size=4, linger=LONG)
        queue.write_many(range(6))
        Task(queue.close).result()
        assert dst.blocks == [[0, 1, 2, 3], [4, 5]]

    @pytest.mark.parametrize("dst", [Recorder, BlockRecorder])
    def test_nobody_waits_where_no_block_is_made(self, dst):
        dst = dst()
        batch_size = 1 if hasattr(dst, "write_many") else 10
        with Queue(dst, batch_size=batch_size, linger=LONG) as queue:
            queue.write("one")
            dst.wait(1)

    def test_a_full_queue_does_not_wait_for_what_cannot_come(self):
        dst = BlockRecorder()
        with Queue(dst, maxsize=3, batch_size=10, linger=LONG) as queue:
            task = Task(lambda: [queue.write(n) for n in range(6)])
            task.result()
            dst.wait(6)
        assert dst.blocks == [[0, 1, 2], [3, 4, 5]]

    def test_a_lingering_queue_holds_no_other_up(self):
        queues = [Queue(BlockRecorder(), batch_size=9, linger=LONG) for _ in range(100)]
        for queue in queues:
            queue.write("waits")
        dst = Recorder()
        with Queue(dst) as healthy:
            healthy.write("one")
            dst.wait(1)
        for queue in queues:
            assert len(queue) == 1
            queue.close()
            assert ledger(queue) == (1, 1, 0, 0)


class TestFlush:
    def test_nothing_to_wait_for(self):
        with Queue(NullSink()) as queue:
            assert queue.flush() is True
            assert queue.flush(0) is True
            assert queue.flush(timeout=0.0) is True

    def test_it_waits_until_the_destination_is_done(self, gate):
        dst = Recorder(gate)
        with Queue(dst) as queue:
            queue.write("one")
            gate.wait_entered()
            flusher = Task(queue.flush).blocked()
            gate.open()
            assert flusher.result() is True
            assert dst.events == ["one"]

    def test_it_gives_up_at_the_deadline(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            began = time.monotonic()
            assert queue.flush(0) is False
            assert queue.flush(0.1) is False
            assert 0.09 <= time.monotonic() - began < 2.0
            gate.open()
            assert queue.flush(DEADLINE) is True

    def test_the_deadline_is_computed_once(self, gate):
        """A notification in vain does not start the waiting thread's time again."""
        stop = threading.Event()
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            noise = Task(lambda: [queue.write(n) for n in iter(lambda: stop.wait(0.005), True)])
            began = time.monotonic()
            assert Task(queue.flush, 0.2).result() is False
            assert time.monotonic() - began < 2.0
            stop.set()
            noise.result()
            gate.open()

    def test_it_does_not_wait_for_what_comes_later(self, make_gate):
        first, second = make_gate(), make_gate()
        gates = {1: first, 2: second}
        with Queue(Recorder(lambda events: gates[events[0]]())) as queue:
            queue.write(1)
            first.wait_entered()
            flusher = Task(queue.flush).blocked()
            queue.write(2)
            first.open()
            assert flusher.result() is True
            assert len(queue) == 1
            second.open()

    @pytest.mark.parametrize("policy", DROPPING)
    def test_what_is_discarded_meanwhile_does_not_stand_for_it(self, make_gate, policy):
        """A count of finished events would take the discarded one for the pending one."""
        first, second = make_gate(), make_gate()
        gates = {"first": first, "second": second}
        with Queue(
            Recorder(lambda events: gates.get(events[0], bool)()), maxsize=2, when_full=policy
        ) as queue:
            queue.write("first")
            first.wait_entered()
            if policy == "drop_newest":
                queue.write("second")
                flusher = Task(queue.flush).blocked()
                queue.write("discarded")
            else:
                queue.write("old")
                flusher = Task(queue.flush).blocked()
                queue.write("second")  # discards "old", which has thereby finished
            first.open()
            second.wait_entered()
            if policy == "drop_newest":
                flusher.blocked()
            else:
                assert flusher.result() is True
            second.open()
            assert flusher.result() is True if policy == "drop_newest" else True

    def test_a_failed_event_has_finished(self):
        with Queue(Recorder(Fails())) as queue:
            queue.write_many(range(10))
            assert queue.flush(DEADLINE) is True
            assert ledger(queue) == (10, 0, 10, 0)

    def test_it_returns_after_egress_and_dead_letter(self):
        listener, dead = Counting(), Recorder()
        with Queue(Recorder(Fails()), listeners=[listener], dead_letter=dead) as queue:
            for number in range(50):
                queue.write(number)
                assert queue.flush(DEADLINE)
                assert len(listener.left) == number + 1
                assert len(dead.events) == number + 1

    def test_many_may_wait(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write_many(range(10))
            flushers = [Task(queue.flush) for _ in range(5)]
            for flusher in flushers:
                flusher.blocked()
            gate.open()
            assert [flusher.result() for flusher in flushers] == [True] * 5

    def test_after_close(self):
        queue = Queue(NullSink())
        queue.write("one")
        queue.close()
        assert queue.flush() is True

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_bad_timeouts(self, timeout, error):
        with Queue(NullSink()) as queue, pytest.raises(error):
            queue.flush(timeout)

    @pytest.mark.parametrize("timeout", [1e12, float("inf")])
    def test_long_timeouts(self, timeout):
        with Queue(NullSink()) as queue:
            queue.write("one")
            assert queue.flush(timeout) is True

    def test_every_write_before_it_has_arrived(self):
        dst = Recorder()

        def write():
            for number in range(100):
                event = (threading.get_ident(), number)
                queue.write(event)
                if number % 10 == 0:
                    assert queue.flush(DEADLINE)
                    assert event in dst.events

        with Queue(dst) as queue:
            together(*[write] * 4)
