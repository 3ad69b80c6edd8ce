"""Closing a queue by a deadline: what is left then, and which closer reports it."""

import contextlib
import itertools
import threading
import time

import pytest
from support import (
    DEADLINE,
    LONG,
    MOMENT,
    BlockRecorder,
    Fails,
    Recorder,
    Task,
    TimedRecorder,
    eventually,
    identical,
    ledger,
    together,
)

import fastsinks
from fastsinks import (
    CloseTimeoutError,
    Queue,
    SinkClosedError,
)


class TestDeadline:
    @pytest.mark.parametrize("events", [0, 3])
    def test_none_is_needed_where_nothing_is_left(self, events):
        """But for the moment that closing takes, which a busy machine may not grant at once."""

        def close():
            dst = Recorder()
            queue = Queue(dst)
            queue.write_many(range(events))
            assert queue.flush(DEADLINE)
            with contextlib.suppress(CloseTimeoutError):
                queue.close(0)
                assert dst.closes == 1
                assert ledger(queue) == (events, events, 0, 0)
                return True

        assert any(close() for _ in range(4))

    def test_what_is_left_is_listed_in_order(self, gate):
        dst, dead = Recorder(gate), Recorder()
        queue = Queue(dst, dead_letter=dead)
        events = [object() for _ in range(20)]
        queue.write_many(events)
        gate.wait_entered()
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.2)
        assert 0.19 <= time.monotonic() - began < 1.0
        assert identical(caught.value.undelivered, events)
        assert identical(dead.events, events)
        assert ledger(queue) == (20, 0, 20, 0)
        assert queue.closed
        eventually(lambda: dst.closes == 1)  # on a thread of its own

    def test_it_is_a_timeout_and_a_sink_error(self, gate):
        queue = Queue(Recorder(gate))
        queue.write("one")
        with pytest.raises(TimeoutError):
            queue.close(timeout=0.01)
        other = Queue(Recorder(gate))
        other.write("one")
        with pytest.raises(fastsinks.SinkError):
            other.close(timeout=0.01)

    def test_no_time_at_all(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(["a", "b"])
        gate.wait_entered()
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert time.monotonic() - began < 1.0
        assert caught.value.undelivered == ["a", "b"]
        eventually(lambda: dst.closes == 1)

    def test_no_time_is_enough_when_there_is_nothing_to_do(self):
        dst = Recorder()
        queue = Queue(dst)
        queue.write("one")
        assert queue.flush(DEADLINE)
        with contextlib.suppress(CloseTimeoutError):  # no time was left to close the destination
            queue.close(0)
        queue.close()
        assert queue.closed
        eventually(lambda: dst.closes == 1)
        assert ledger(queue) == (1, 1, 0, 0)

    def test_part_of_it_was_delivered(self, gate):
        dst = Recorder(lambda events: gate() if events == [7] else None)
        queue = Queue(dst)
        queue.write_many(range(10))
        gate.wait_entered()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert dst.events == list(range(7))
        assert caught.value.undelivered == [7, 8, 9]
        assert ledger(queue) == (10, 7, 3, 0)

    def test_part_of_a_block_is_in_flight(self, gate):
        dst, dead = BlockRecorder(gate), Recorder()
        queue = Queue(dst, batch_size=4, linger=LONG, dead_letter=dead)
        queue.write_many(range(10))
        gate.wait_entered()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert caught.value.undelivered == list(range(10))
        assert dead.events == list(range(10))

    @pytest.mark.parametrize("hook", [None, Fails()])
    def test_the_late_end_of_the_last_delivery_counts_nothing_twice(self, gate, hook):
        """The call that was in flight returns after its event has been abandoned."""
        out, dead = [], Recorder()

        class Listener:
            def ingress(self, event):
                pass

            def egress(self, event):
                out.append(event)

        ended = threading.Event()

        def slow(events):
            gate()
            ended.set()
            if hook is not None:
                hook(events)

        queue = Queue(Recorder(slow), dead_letter=dead, listeners=[Listener()])
        queue.write_many(["a", "b"])
        gate.wait_entered()
        with pytest.raises(CloseTimeoutError):
            queue.close(timeout=0.05)
        before = ledger(queue)
        gate.open()
        assert ended.wait(DEADLINE)
        threading.Event().wait(MOMENT)
        assert ledger(queue) == before == (2, 0, 2, 0)
        assert sorted(out) == ["a", "b"]
        assert dead.events == ["a", "b"]

    def test_closing_again_is_quiet(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write("one")
        with pytest.raises(CloseTimeoutError):
            queue.close(timeout=0.01)
        closer = Task(queue.close)
        gate.open()
        closer.result()
        eventually(lambda: dst.closes == 1)
        with pytest.raises(SinkClosedError):
            queue.write("late")

    def test_with_raises_nothing_of_the_kind(self, gate):
        """Leaving the block waits for as long as it takes."""
        dst = Recorder(gate)

        def use():
            with Queue(dst) as queue:
                queue.write("one")

        user = Task(use).blocked()
        gate.open()
        user.result()
        assert dst.events == ["one"]

    def test_a_flush_does_not_wait_for_what_was_given_up(self, gate):
        queue = Queue(Recorder(gate))
        queue.write_many(["a", "b"])
        flusher = Task(queue.flush).blocked()
        with pytest.raises(CloseTimeoutError):
            queue.close(timeout=0.05)
        flusher.result()

    def test_several_deadlines_at_the_same_time(self, gate):
        """One of the closers lists what is left; no event is listed or buried twice."""
        dead = Recorder()
        queue = Queue(Recorder(gate), dead_letter=dead)
        queue.write_many(range(5))
        gate.wait_entered()

        def close():
            try:
                queue.close(timeout=0.05)
            except CloseTimeoutError as error:
                return error.undelivered
            return []

        left = together(*[close] * 5)
        assert sorted(itertools.chain(*left)) == list(range(5))
        assert dead.events == list(range(5))
        assert ledger(queue) == (5, 0, 5, 0)

    def test_the_remaining_time_goes_to_the_destination(self):
        dst = TimedRecorder()
        queue = Queue(dst)
        queue.write_many(range(10))
        queue.close(timeout=5.0)
        assert len(dst.timeouts) == 1
        assert 0 <= dst.timeouts[0] <= 5.0

    def test_at_the_deadline_the_destination_gets_no_more_time(self, gate):
        dst = TimedRecorder(gate)
        queue = Queue(dst)
        queue.write("one")
        with pytest.raises(CloseTimeoutError):
            queue.close(timeout=0.05)
        assert dst.timeouts == [0]

    def test_what_an_inner_queue_gave_up_is_told(self, gate):
        inner = Queue(Recorder(gate))
        outer = Queue(inner)
        outer.write_many(range(3))
        assert outer.flush(DEADLINE)
        with pytest.raises(CloseTimeoutError) as caught:
            outer.close(timeout=0.1)
        assert caught.value.undelivered == [0, 1, 2]
        assert ledger(outer) == (3, 3, 0, 0)
        assert ledger(inner) == (3, 0, 3, 0)

    @pytest.mark.parametrize("error", [OSError, SinkClosedError, KeyboardInterrupt])
    def test_a_dead_letter_that_fails_harms_nothing(self, gate, error):
        dead = Recorder(Fails(error))
        queue = Queue(Recorder(gate), dead_letter=dead)
        queue.write_many(range(3))
        with pytest.raises((CloseTimeoutError, error)) as caught:
            queue.close(timeout=0.05)
        if error is not KeyboardInterrupt:  # that one is the closer's own affair
            assert caught.value.undelivered == [0, 1, 2]
        assert ledger(queue) == (3, 0, 3, 0)

    def test_a_destination_whose_close_raises(self, gate):
        def explode():
            raise ZeroDivisionError

        queue = Queue(Recorder(gate, on_close=explode))
        queue.write("one")
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert caught.value.undelivered == ["one"]
