"""Closing a queue: draining, deadlines, what is left over, and which calls wait for what."""

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
    Waits,
    eventually,
    ledger,
)

from fastsinks import (
    Breaker,
    Broadcaster,
    CloseTimeoutError,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    Sink,
    SinkClosedError,
)


class TestDraining:
    def test_what_is_pending_goes_out_first(self, gate):
        dst = Recorder(gate, on_close=lambda: closed_after.append(len(dst.events)))
        closed_after = []
        queue = Queue(dst)
        queue.write_many(range(100))
        closer = Task(queue.close).blocked()
        assert dst.closes == 0
        gate.open()
        closer.result()
        assert dst.events == list(range(100))
        assert closed_after == [100]

    def test_nothing_is_accepted_meanwhile(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write("one")
        closer = Task(queue.close).blocked()
        eventually(lambda: queue.closed)
        with pytest.raises(SinkClosedError):
            queue.write("late")
        with pytest.raises(SinkClosedError):
            queue.write_many(["late", "later"])
        assert ledger(queue) == (1, 0, 0, 1)
        gate.open()
        closer.result()
        assert dst.events == ["one"]
        assert ledger(queue) == (1, 1, 0, 0)

    def test_a_failing_destination_does_not_stop_it(self):
        dst, dead = Recorder(Fails()), Recorder()
        queue = Queue(dst, dead_letter=dead)
        queue.write_many(range(20))
        queue.close()
        assert dead.events == list(range(20))
        assert ledger(queue) == (20, 0, 20, 0)
        assert dst.closes == 1

    def test_writers_that_wait_for_room_are_refused(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst, maxsize=2)
        queue.write_many(["a", "b"])
        writers = [Task(queue.write, "x"), Task(queue.write_many, ["y", "z"])]
        for writer in writers:
            writer.blocked()
        closer = Task(queue.close)
        for writer in writers:
            with pytest.raises(SinkClosedError):
                writer.result()
        closer.blocked()
        gate.open()
        closer.result()
        assert dst.events == ["a", "b"]
        assert ledger(queue) == (2, 2, 0, 0)

    @pytest.mark.parametrize("maxsize", [0, 10])
    def test_every_committed_write_is_delivered(self, maxsize):
        """Writers race with the closer; a write either raises or its event arrives."""
        for _ in range(4):
            dst = Recorder()
            queue = Queue(dst, maxsize=maxsize)
            committed = [[] for _ in range(3)]

            def write(mine, queue=queue):
                with contextlib.suppress(SinkClosedError):
                    for number in range(20_000):
                        queue.write((id(mine), number))
                        mine.append((id(mine), number))

            writers = [Task(write, mine) for mine in committed]
            dst.wait(5)
            queue.close()
            for writer in writers:
                writer.result()
            assert sorted(dst.events) == sorted(itertools.chain(*committed))
            assert ledger(queue).accepted == len(dst.events)

    def test_a_chain_of_queues(self):
        dst = Recorder()
        outer = Queue(Queue(Queue(dst, batch_size=3), batch_size=7))
        outer.write_many(range(100))
        outer.close()
        assert dst.events == list(range(100))
        assert dst.closes == 1

    def test_close_in_a_second_thread_waits_for_the_drain(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(range(5))
        closers = [Task(queue.close) for _ in range(4)]
        for closer in closers:
            closer.blocked()
        gate.open()
        for closer in closers:
            closer.result()
        assert dst.events == list(range(5))
        assert dst.closes == 1

    def test_flush_ends_with_the_drain(self, gate):
        queue = Queue(Recorder(gate))
        queue.write("one")
        flusher = Task(queue.flush).blocked()
        closer = Task(queue.close).blocked()
        gate.open()
        closer.result()
        assert flusher.result() is True

    def test_the_first_closer_may_give_up_waiting_but_not_the_second(self, gate):
        """Whichever deadline comes first ends the matter; the others then return."""
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(["a", "b"])
        patient = Task(queue.close).blocked()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert caught.value.undelivered == ["a", "b"]
        gate.open()
        patient.result()
        queue.close()
        eventually(lambda: dst.closes == 1)  # on a thread of its own


class TestRetries:
    """At its deadline a queue interrupts the back-off of the retrying sink that it feeds."""

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_the_back_off_is_interrupted(self, wrapped):
        strategy, dst, dead = Waits(), Recorder(Fails()), Recorder()
        sink = RetryingSink(dst, strategy)
        if wrapped:  # by something the queue knows nothing of
            sink = Forwarding(sink)
        queue = Queue(sink, dead_letter=dead)
        queue.write_many(["a", "b", "c"])
        assert strategy.failed.wait(DEADLINE)
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.1)
        assert 0.09 <= time.monotonic() - began < 1.0
        assert caught.value.undelivered == ["a", "b", "c"]
        eventually(lambda: dead.events == ["a", "b", "c"])
        eventually(lambda: dst.closes == 1)
        assert ledger(queue) == (3, 0, 3, 0)

    def test_a_plain_close_waits_for_the_retries(self):
        dst = Recorder(Fails(times=3))
        queue = Queue(RetryingSink(dst, Waits(0.01)))
        queue.write_many(["a", "b"])
        queue.close()
        assert dst.events == ["a", "b"]
        assert ledger(queue) == (2, 2, 0, 0)

    def test_what_is_left_is_what_the_receiver_lacks(self):
        """A block is half delivered when the deadline comes: only the other half is left."""
        strategy = Waits()
        stuck = threading.Event()

        def hook(events):
            if len(events) > 2 or stuck.is_set():
                strategy.seconds = LONG if stuck.is_set() else 0.0
                raise OSError
            stuck.set()

        dst, dead = BlockRecorder(hook), Recorder()
        strategy.seconds = 0.0
        queue = Queue(RetryingSink(dst, strategy), batch_size=8, linger=LONG, dead_letter=dead)
        queue.write_many(range(8))
        assert stuck.wait(DEADLINE)
        eventually(lambda: len(dst.attempts) > len(dst.blocks) + 2)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert dst.events == [0, 1]
        assert caught.value.undelivered == dead.events == [2, 3, 4, 5, 6, 7]
        assert ledger(queue) == (8, 2, 6, 0)

    def test_a_failure_that_comes_late_buries_nothing_twice(self, gate):
        """The closer has abandoned the event before the strategy gives it up."""
        ended = threading.Event()

        def fail(events):
            gate()
            ended.set()
            raise OSError

        dead = Recorder()
        sink = RetryingSink(Recorder(fail), Breaker(1, 0.0, max_attempts=1), dead_letter=dead)
        queue = Queue(sink, dead_letter=dead)
        queue.write("one")
        gate.wait_entered()
        with pytest.raises(CloseTimeoutError):
            queue.close(timeout=0.01)
        gate.open()
        assert ended.wait(DEADLINE)
        threading.Event().wait(MOMENT)
        assert dead.events == ["one"]
        assert sink.dropped == 0
        assert ledger(queue) == (1, 0, 1, 0)

    def test_at_the_deadline_nothing_is_tried_faster(self):
        """Else a strategy would give up events that should be tried again later."""
        for _ in range(20):
            dead = Recorder()
            sink = RetryingSink(
                Recorder(Fails()), Breaker(0, 0.002, max_attempts=2), dead_letter=dead
            )
            queue = Queue(sink, dead_letter=dead)
            queue.write_many(range(300))
            with pytest.raises(CloseTimeoutError) as caught:
                queue.close(timeout=0.02)
            assert len(caught.value.undelivered) > 200
            assert dead.events == list(range(300))

    def test_hundreds_are_given_up_at_once(self):
        strategies = [Waits() for _ in range(300)]
        queues = [
            Queue(RetryingSink(Recorder(Fails()), strategy), name=f"q{number}")
            for number, strategy in enumerate(strategies)
        ]
        for queue in queues:
            queue.write("one")
        for strategy in strategies:
            assert strategy.failed.wait(DEADLINE)
        began = time.monotonic()
        for queue in queues:
            with pytest.raises(CloseTimeoutError) as caught:
                queue.close(timeout=0)
            assert caught.value.undelivered == ["one"]
        assert time.monotonic() - began < 5.0


class Forwarding:
    def __init__(self, dst):
        self.dst = dst

    def write(self, event):
        self.dst.write(event)

    def close(self):
        self.dst.close()


class TestDestinationsOfAnotherKind:
    def test_a_close_without_timeout(self):
        dst = Recorder()
        queue = Queue(dst)
        queue.write("one")
        queue.close(timeout=5.0)
        assert dst.events == ["one"]
        assert dst.closes == 1

    def test_a_close_that_takes_it_by_name_only(self):
        given = []

        class Named:
            def write(self, event):
                pass

            def close(self, *, timeout=None):
                given.append(timeout)

        Queue(Named()).close(timeout=5.0)
        assert len(given) == 1
        assert 0 <= given[0] <= 5.0

    def test_a_close_whose_own_type_error_is_not_mistaken(self):
        calls = []

        class Confused:
            def write(self, event):
                pass

            def close(self, timeout=None):
                calls.append(timeout)
                raise TypeError("mine")

        with contextlib.suppress(TypeError):
            Queue(Confused()).close(timeout=5.0)
        assert len(calls) == 1

    def test_one_that_writes_back_as_it_is_closed(self):
        refused = []

        class Parting(Sink):
            def write(self, event):
                pass

            def close(self, timeout=None):
                try:
                    queue.write("late")
                except SinkClosedError as error:
                    refused.append(error)
                queue.close()
                super().close()

        queue = Queue(Parting())
        queue.write("one")
        Task(queue.close).result()
        assert len(refused) == 1

    def test_a_null_sink(self):
        dst = NullSink()
        with Queue(dst) as queue:
            queue.write_many(range(1000))
        assert dst.count == 1000
        assert dst.closed


class TestFromBehind:
    """A queue's destination closes the sink that leads to it, which another thread is closing."""

    @pytest.mark.parametrize(
        "wrap",
        [
            Broadcaster,
            lambda queue: Filter(queue, lambda event: True),
            lambda queue: RetryingSink(queue, Breaker(1, 1.0)),
        ],
        ids=["broadcaster", "filter", "retrying"],
    )
    @pytest.mark.parametrize("where", ["write", "close"])
    def test_it_does_not_wait_for_the_other(self, wrap, where, gate):
        def again(events=None):
            gate()
            outer.close()

        dst = Recorder(again) if where == "write" else Recorder(on_close=again)
        outer = wrap(Queue(dst))
        outer.write("event")
        closer = Task(outer.close).blocked()
        gate.wait_entered()
        gate.open()
        closer.result()
        assert dst.events == ["event"]
        assert dst.closes == 1

    def test_nor_for_the_event_that_a_listener_hears_of(self):
        class Closes:
            def ingress(self, event):
                queue.close()

            def egress(self, event): ...

        dst = Recorder()
        queue = Queue(dst, listeners=[Closes()])
        Task(queue.write, "event").result()
        queue.close(DEADLINE)
        assert dst.events == ["event"]
        assert dst.closes == 1
