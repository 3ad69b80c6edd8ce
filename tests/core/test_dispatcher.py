"""Dispatcher: few threads for many queues, and none of them held up by another."""

import contextlib
import gc
import threading
import time
import weakref

import pytest
from support import (
    BAD_SECONDS,
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
    together,
)

from fastsinks import CloseTimeoutError, Dispatcher, NullSink, Queue, RetryingSink, SinkClosedError


class Crowd:
    """A hook that holds its callers back and knows how many there are."""

    def __init__(self, gate):
        self.gate = gate
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def __call__(self, events):
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self.gate()
        finally:
            with self.lock:
                self.inside -= 1


class TestWorkers:
    def test_no_more_than_max_workers(self, gate):
        with_two = Dispatcher(max_workers=2)
        crowd = Crowd(gate)
        queues = [Queue(Recorder(crowd), dispatcher=with_two) for _ in range(6)]
        for queue in queues:
            queue.write("one")
        eventually(lambda: crowd.inside == 2)
        threading.Event().wait(MOMENT)
        assert crowd.most == 2
        assert [len(queue) for queue in queues] == [1] * 6
        gate.open()
        for queue in queues:
            queue.close(DEADLINE)
            assert ledger(queue) == (1, 1, 0, 0)
        assert crowd.most <= 2
        with_two.close()

    def test_as_many_as_are_blocked(self, gate):
        dispatcher = Dispatcher(max_workers=20)
        crowd = Crowd(gate)
        queues = [Queue(Recorder(crowd), dispatcher=dispatcher) for _ in range(15)]
        for queue in queues:
            queue.write("one")
        eventually(lambda: crowd.inside == 15)
        gate.open()
        for queue in queues:
            queue.close()
        dispatcher.close()

    def test_one_is_enough(self):
        dispatcher = Dispatcher(max_workers=1)
        sinks = [Recorder() for _ in range(50)]
        queues = [Queue(dst, dispatcher=dispatcher) for dst in sinks]
        for number in range(20):
            for queue in queues:
                queue.write(number)
        for queue in queues:
            queue.close()
        assert all(dst.events == list(range(20)) for dst in sinks)
        dispatcher.close()

    def test_they_do_not_keep_the_process_alive(self):
        dispatcher = Dispatcher()
        queue = Queue(NullSink(), dispatcher=dispatcher)
        queue.write("one")
        assert queue.flush(DEADLINE)
        assert all(
            thread.daemon or thread is threading.main_thread() for thread in threading.enumerate()
        )
        queue.close()
        dispatcher.close()

    def test_a_finaliser_on_the_only_one_may_wait_for_another_queue(self, gate):
        dispatcher = Dispatcher(max_workers=1)
        dst, waited, flushed = Recorder(), threading.Event(), []

        class Last(Recorder):
            def __del__(self):
                other.write("farewell")
                flushed.append(other.flush(DEADLINE))
                waited.set()

        with Queue(dst, dispatcher=dispatcher) as other:
            queue = Queue(Last(gate), dispatcher=dispatcher)
            queue.write("one")
            gate.wait_entered()
            del queue  # the worker has the last reference
            gate.open()
            assert waited.wait(2 * DEADLINE)
        assert flushed == [True]
        assert dst.events == ["farewell"]
        dispatcher.close()


class TestFairness:
    def test_blocked_queues_hold_nobody_up(self, gate):
        dispatcher = Dispatcher(max_workers=60)
        stuck = [Queue(Recorder(gate), dispatcher=dispatcher) for _ in range(50)]
        for queue in stuck:
            queue.write("stuck")
        dst = Recorder()
        with Queue(dst, dispatcher=dispatcher) as healthy:
            began = time.monotonic()
            healthy.write("one")
            dst.wait(1)
            assert time.monotonic() - began < 2.0
        gate.open()
        for queue in stuck:
            queue.close()
        dispatcher.close()

    def test_a_greedy_queue_starves_nobody(self):
        dispatcher = Dispatcher(max_workers=1)
        stop = threading.Event()

        def forever(events):
            if not stop.is_set():
                greedy.write("again")

        greedy = Queue(Recorder(forever), dispatcher=dispatcher)
        greedy.write_many(["again"] * 100)
        dst = Recorder()
        try:
            with Queue(dst, dispatcher=dispatcher) as modest:
                for number in range(10):
                    modest.write(number)
                    dst.wait(number + 1)
        finally:
            stop.set()
        greedy.close()
        dispatcher.close()

    def test_back_offs_end_on_time_and_in_any_order(self):
        dispatcher = Dispatcher(max_workers=2)
        done = []
        waits = [0.12, 0.04, 0.16, 0.08]

        class Last(Recorder):
            def __init__(self, name):
                super().__init__(Fails(times=1))
                self.name = name

            def write(self, event):
                super().write(event)
                done.append(self.name)

        queues = [
            Queue(RetryingSink(Last(wait), Waits(wait)), dispatcher=dispatcher) for wait in waits
        ]
        began = time.monotonic()
        for queue in queues:
            queue.write("one")
        for queue in queues:
            assert queue.flush(DEADLINE)
        assert time.monotonic() - began >= 0.15
        assert len(done) == 4
        assert done[-1] == 0.16 or time.monotonic() - began > 0.3  # a machine that was asleep
        for queue in queues:
            queue.close()
        dispatcher.close()

    def test_many_writers_to_many_queues(self):
        dispatcher = Dispatcher(max_workers=3)
        sinks = [Recorder() for _ in range(20)]
        queues = [Queue(dst, dispatcher=dispatcher) for dst in sinks]

        def write(writer):
            for number in range(50):
                for queue in queues:
                    queue.write((writer, number))

        together(*[lambda writer=writer: write(writer) for writer in range(4)])
        for queue, dst in zip(queues, sinks, strict=True):
            queue.close()
            assert dst.crowd == 1
            for writer in range(4):
                assert [n for w, n in dst.events if w == writer] == list(range(50))
        dispatcher.close()


def test_a_call_that_came_too_late_is_not_the_last():
    """A worker is woken, another is quicker and blocks: the next ready strand wakes one again."""

    class Relay(NullSink):
        def __init__(self):
            super().__init__()
            self.free = threading.Semaphore(2)
            self.inner = [Queue(Recorder(self.pause), listeners=[self]) for _ in range(2)]

        def pause(self, events):
            if isinstance(events[0], threading.Event):
                events[0].wait(DEADLINE)

        def ingress(self, event):
            pass

        def egress(self, event):
            self.free.release()

        def write(self, event):
            self.free.acquire()
            self.inner[bool(event)].write(event)

    for _ in range(50):
        relay, opened = Relay(), threading.Event()
        with Queue(relay) as queue:
            queue.write_many([opened, 0, 1, 0, 1])
            threading.Timer(0.002, opened.set).start()
            assert queue.flush(DEADLINE)
        for inner in relay.inner:
            inner.close()


class TestClose:
    def test_it_is_idempotent(self):
        dispatcher = Dispatcher(name="mine")
        with Queue(NullSink(), dispatcher=dispatcher) as queue:
            queue.write("one")
        assert dispatcher.close() is None
        assert dispatcher.close(timeout=1.0) is None

    def test_it_may_never_have_worked(self):
        Dispatcher().close()

    def test_what_is_pending_goes_out_first(self):
        dispatcher = Dispatcher(max_workers=2)
        sinks = [BlockRecorder() for _ in range(20)]
        queues = [Queue(dst, batch_size=3, dispatcher=dispatcher) for dst in sinks]
        for queue in queues:
            queue.write_many(range(50))
        Task(dispatcher.close).result()
        assert all(dst.events == list(range(50)) for dst in sinks)
        for queue in queues:
            assert ledger(queue) == (50, 50, 0, 0)
            Task(queue.close).result()

    def test_what_lingers_goes_out_too(self):
        dispatcher, dst = Dispatcher(), BlockRecorder()
        queue = Queue(dst, batch_size=10, linger=LONG, dispatcher=dispatcher)
        queue.write_many(range(3))
        Task(dispatcher.close).result()
        assert dst.events == [0, 1, 2]
        Task(queue.close).result()

    def test_it_says_when_that_takes_too_long(self, gate):
        dispatcher, dst = Dispatcher(), Recorder(gate)
        queue = Queue(dst, dispatcher=dispatcher)
        queue.write("one")
        gate.wait_entered()
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError):
            dispatcher.close(timeout=0.1)
        assert 0.09 <= time.monotonic() - began < 1.0
        gate.open()
        with contextlib.suppress(CloseTimeoutError):
            queue.close(timeout=1.0)
        ledger(queue)

    def test_its_queues_accept_nothing_any_more(self):
        """An event that would never be delivered is refused instead."""
        dispatcher = Dispatcher()
        used, unused = (Queue(NullSink(), dispatcher=dispatcher) for _ in range(2))
        used.write("one")
        dispatcher.close()
        for queue in (used, unused):
            with pytest.raises(SinkClosedError):
                queue.write("late")
            with pytest.raises(SinkClosedError):
                queue.write_many(["late"])
            assert ledger(queue).pending == 0
            Task(queue.close).result()

    def test_several_close_it(self, gate):
        dispatcher = Dispatcher()
        queue = Queue(Recorder(gate), dispatcher=dispatcher)
        queue.write("one")
        closers = [Task(dispatcher.close).blocked() for _ in range(3)]
        gate.open()
        for closer in closers:
            closer.result()
        assert ledger(queue) == (1, 1, 0, 0)
        queue.close()

    def test_a_late_close_wakes_a_writer_that_waits_for_room(self, gate):
        dispatcher = Dispatcher()
        queue = Queue(Recorder(gate), maxsize=1, dispatcher=dispatcher)
        queue.write("stuck")
        gate.wait_entered()
        writer = Task(queue.write, "waits").blocked()
        with pytest.raises(CloseTimeoutError):
            dispatcher.close(0)
        with pytest.raises(SinkClosedError):
            writer.result()
        gate.open()
        queue.close(DEADLINE)

    def test_and_who_waits_for_a_queue_runs_it(self):
        dispatcher = Dispatcher()
        dst, strategy = Recorder(Fails(times=1)), Waits()
        queue = Queue(RetryingSink(dst, strategy), dispatcher=dispatcher)
        queue.write("fails once")
        assert strategy.failed.wait(DEADLINE)
        flusher = Task(queue.flush, DEADLINE).blocked()
        strategy.failures = 0  # else it waits for an hour once more
        with contextlib.suppress(CloseTimeoutError):
            dispatcher.close(0)  # which lets those on a timer have a go
        assert flusher.result()
        assert dst.events == ["fails once"]
        queue.close(DEADLINE)

    def test_a_sink_may_close_it(self):
        dispatcher = Dispatcher()
        closed = threading.Event()

        def hook(events):
            with contextlib.suppress(CloseTimeoutError):
                dispatcher.close(timeout=0.05)
            closed.set()

        queue = Queue(Recorder(hook), dispatcher=dispatcher)
        queue.write("one")
        assert closed.wait(DEADLINE)
        with contextlib.suppress(CloseTimeoutError):
            queue.close(timeout=1.0)

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_bad_timeouts(self, timeout, error):
        dispatcher = Dispatcher()
        with pytest.raises(error):
            dispatcher.close(timeout)
        dst = Recorder()
        with Queue(dst, dispatcher=dispatcher) as queue:
            queue.write("one")
        assert dst.events == ["one"]
        dispatcher.close()

    def test_an_unused_one_is_collected(self):
        watch = weakref.ref(Dispatcher())
        gc.collect()
        assert watch() is None

    def test_it_leaves_other_dispatchers_alone(self):
        first, second = Dispatcher(), Dispatcher()
        dst = Recorder()
        with Queue(dst, dispatcher=second) as queue:
            queue.write(1)
            first.close()
            queue.write(2)
        assert dst.events == [1, 2]
        second.close()


class TestBadInput:
    @pytest.mark.parametrize(
        ("workers", "error"),
        [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("4", TypeError)],
    )
    def test_max_workers(self, workers, error):
        with pytest.raises(error, match=str(workers)):
            Dispatcher(max_workers=workers)

    @pytest.mark.parametrize(("seconds", "error"), BAD_SECONDS)
    def test_idle_timeout(self, seconds, error):
        with pytest.raises(error):
            Dispatcher(idle_timeout=seconds)

    @pytest.mark.parametrize("seconds", [0, 0.0, LONG, 1e12])
    def test_any_sensible_idle_timeout(self, seconds):
        dispatcher = Dispatcher(idle_timeout=seconds)
        dst = Recorder()
        with Queue(dst, dispatcher=dispatcher) as queue:
            for number in range(20):
                queue.write(number)
                dst.wait(number + 1)
        assert dst.events == list(range(20))
        Task(dispatcher.close).result()

    def test_options_are_named(self):
        with pytest.raises(TypeError):
            Dispatcher(4)
