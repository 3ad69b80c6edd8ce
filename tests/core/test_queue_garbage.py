"""Queue: what keeps it alive, what it keeps alive, and what dies with it."""

import contextlib
import gc
import sys
import weakref

import pytest
from support import (
    DEADLINE,
    POLICIES,
    BlockRecorder,
    Fails,
    Recorder,
    Token,
    eventually,
    ledger,
)

import fastsinks
from fastsinks import NullSink, Queue, QueueFullError


class TestGarbage:
    def test_an_idle_queue_is_collected(self):
        dst = Recorder()
        queue = Queue(dst)
        queue.write("one")
        assert queue.flush(DEADLINE)
        watch, watch_dst = weakref.ref(queue), weakref.ref(dst)
        del queue, dst

        def gone():
            gc.collect()
            return watch() is None and watch_dst() is None

        eventually(gone)

    def test_a_queue_that_was_never_used_goes_at_once(self):
        watch = weakref.ref(Queue(NullSink()))
        assert watch() is None

    def test_a_queue_with_pending_events_lives_until_they_are_delivered(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(range(10))
        watch = weakref.ref(queue)
        del queue
        gc.collect()
        assert dst.events == []
        gate.open()
        assert dst.wait(10) == list(range(10))

        def gone():
            gc.collect()
            return watch() is None

        eventually(gone)

    def test_a_lingering_queue_lives_until_its_events_are_delivered(self):
        dst = BlockRecorder()
        queue = Queue(dst, batch_size=10, linger=0.1)
        queue.write_many(range(5))
        del queue
        gc.collect()
        assert dst.wait(5) == list(range(5))

    @pytest.mark.parametrize("hook", [None, Fails()])
    @pytest.mark.parametrize("sink", [Recorder, BlockRecorder])
    def test_no_event_is_kept(self, hook, sink):
        dst = sink(hook)
        queue = Queue(dst, batch_size=3)
        event = Token()
        watch = weakref.ref(event)
        queue.write(event)
        assert queue.flush(DEADLINE)
        del event
        for kept in (dst.events, dst.blocks, dst.attempts):
            kept.clear()

        def gone():
            gc.collect()
            return watch() is None

        eventually(gone)
        queue.close()

    @pytest.mark.parametrize("dead", [None, NullSink()])
    @pytest.mark.parametrize("fails", [False, True])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_references_stay_level_on_every_way_out(self, gate, policy, fails, dead):
        event = Token()
        before = sys.getrefcount(event)

        def use():
            def hook(events):
                gate()
                if fails:
                    raise OSError

            queue = Queue(Recorder(hook), maxsize=4, when_full=policy, dead_letter=dead)
            queue.write(event)
            gate.wait_entered()
            queue.write_many([event])
            queue.write(event)
            for _ in range(3 if policy != "block" else 0):
                with contextlib.suppress(QueueFullError):
                    queue.write_many([event, event])
                with contextlib.suppress(QueueFullError):
                    queue.write(event)
            gate.open()
            queue.close(DEADLINE)
            assert ledger(queue).pending == 0

        def level():
            gc.collect()
            return sys.getrefcount(event) == before

        use()
        eventually(level)

    def test_references_stay_level_where_close_gives_up(self, gate):
        event = Token()
        before = sys.getrefcount(event)
        queue = Queue(Recorder(gate))
        queue.write_many([event] * 5)
        with pytest.raises(fastsinks.CloseTimeoutError):
            queue.close(0)
        gate.open()
        del queue

        def level():
            gc.collect()
            return sys.getrefcount(event) == before

        eventually(level)
