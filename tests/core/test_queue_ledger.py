"""Queue: the ledger, and what a failing destination costs."""

import itertools
import threading

import pytest
from support import (
    DEADLINE,
    POLICIES,
    BlockRecorder,
    Counting,
    Fails,
    Recorder,
    Task,
    ledger,
    together,
)

from fastsinks import NullSink, Queue, QueueFullError, SinkClosedError


class TestLedger:
    def test_stats_is_a_named_tuple(self):
        with Queue(NullSink()) as queue:
            stats = queue.stats()
            assert isinstance(stats, tuple)
            assert stats._fields == ("accepted", "delivered", "dropped", "pending")
            assert stats == (0, 0, 0, 0)

    def test_it_follows_an_event(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            gate.wait_entered()
            assert ledger(queue) == (1, 0, 0, 1)
            queue.write_many(["two", "three"])
            assert ledger(queue) == (3, 0, 0, 3)
            gate.open()
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (3, 3, 0, 0)
        assert ledger(queue) == (3, 3, 0, 0)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_it_adds_up_at_any_moment(self, policy, batch_size):
        """Several writers, a destination that fails now and then, a reader of the stats."""
        unlucky = itertools.count()
        dst = BlockRecorder(Fails(only=lambda event: next(unlucky) % 5 == 0))
        dead, listener = Recorder(), Counting()
        queue = Queue(
            dst,
            maxsize=6,
            when_full=policy,
            batch_size=batch_size,
            dead_letter=dead,
            listeners=[listener],
        )
        refused = []
        stop = threading.Event()

        def watch():
            looks = 0
            while not (looks and stop.wait(0.001)):  # all the time, it would get in the way
                stats = ledger(queue)
                assert stats.pending <= 6
                assert len(queue) <= 6
                looks += 1
            return looks

        def write(writer):
            for number in range(200):
                events = [(writer, number, n) for n in range(number % 4)]
                try:
                    queue.write_many(events)
                    queue.write((writer, number, "last"))
                except QueueFullError:
                    refused.append(number)

        watcher = Task(watch)
        try:
            together(*[lambda writer=writer: write(writer) for writer in range(4)])
            queue.close(DEADLINE)
        finally:
            stop.set()
        assert watcher.result() > 0
        stats = ledger(queue)
        assert stats.pending == 0
        assert stats.delivered == len(dst.events)
        assert stats.dropped == len(dead.events) > 0
        assert len(set(dst.events) | set(dead.events)) == stats.accepted
        assert sorted(map(repr, listener.entered)) == sorted(map(repr, listener.left))
        assert bool(refused) <= (policy == "raise")
        for writer in range(4):
            mine = [(w, n, m) for w, n, m in dst.events if w == writer]
            assert mine == sorted(mine, key=lambda event: (event[1], str(event[2])))


class TestFailures:
    @pytest.mark.parametrize(
        "error",
        [OSError, SinkClosedError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration],
    )
    def test_an_event_that_fails_is_dropped_and_the_next_goes_on(self, error):
        dst, dead = Recorder(Fails(error, only=lambda event: event % 3 == 0)), Recorder()
        with Queue(dst, dead_letter=dead) as queue:
            queue.write_many(range(10))
            assert queue.flush(DEADLINE)
            assert not queue.closed
            assert ledger(queue) == (10, 6, 4, 0)
            queue.write(10)
        assert dst.events == [1, 2, 4, 5, 7, 8, 10]
        assert dead.events == [0, 3, 6, 9]

    def test_a_block_that_fails_is_dropped_as_a_whole(self, gate):
        def hook(events):
            gate()
            if 5 in events:
                raise OSError

        dst, dead = BlockRecorder(hook), Recorder()
        with Queue(dst, batch_size=4, dead_letter=dead) as queue:
            queue.write(0)
            gate.wait_entered()
            queue.write_many(range(1, 13))
            gate.open()
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (13, 9, 4, 0)
        assert dead.events == [5, 6, 7, 8]
        assert dst.events == [0, 1, 2, 3, 4, 9, 10, 11, 12]

    @pytest.mark.parametrize("error", [OSError, SinkClosedError, KeyboardInterrupt])
    def test_a_dead_letter_that_fails_harms_nothing(self, error):
        dst, dead = Recorder(Fails(only=lambda event: event == 1)), Recorder(Fails(error))
        with Queue(dst, dead_letter=dead) as queue:
            queue.write_many(range(4))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (4, 3, 1, 0)
        assert dead.attempts == [[1]]

    def test_the_dead_letter_is_not_closed(self):
        dead = Recorder()
        with Queue(Recorder(Fails()), dead_letter=dead) as queue:
            queue.write("one")
        assert dead.events == ["one"]
        assert dead.closes == 0

    def test_the_dead_letter_may_write_the_event_again(self):
        dst = Recorder(Fails(times=3))

        class Again(Recorder):
            def write(self, event):
                super().write(event)
                queue.write(event)

        dead = Again()
        queue = Queue(dst, dead_letter=dead)
        queue.write("stubborn")
        assert dst.wait(1) == ["stubborn"]
        assert queue.flush(DEADLINE)
        assert ledger(queue) == (4, 1, 3, 0)
        queue.close()

    def test_the_dead_letter_may_be_a_queue(self):
        dst = Recorder()
        with Queue(dst) as dead:
            with Queue(Recorder(Fails()), dead_letter=dead) as queue:
                queue.write_many(range(100))
            assert dead.flush(DEADLINE)
        assert dst.events == list(range(100))
