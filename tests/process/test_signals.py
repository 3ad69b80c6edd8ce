"""Ctrl-C while something waits: KeyboardInterrupt within 0.2 s, and nothing comes of it.

Nothing is lost, nothing is delivered twice, and the object can be used again.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest
from support import (
    DEADLINE,
    LONG,
    BlockRecorder,
    Fails,
    Recorder,
    Task,
    Waits,
    interrupt,
    ledger,
    parked,
    parked_process,
)
from support.processes import program_command, python_environment
from support.receiver import Receiver, stall

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    CloseTimeoutError,
    Dispatcher,
    Endpoint,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    SinkClosedError,
)
from fastsinks._core.backend import Counters

SOON = 0.2


def soon(call):
    """Ctrl-C ends the call in time, which on a busy machine the best of a few tries shows."""
    took = []
    while not took or (min(took) >= SOON and len(took) < 4):
        took.append(interrupt(call))
    assert min(took) < SOON, took


class TestQueue:
    @pytest.fixture
    def stuck(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst, maxsize=2)
        queue.write_many(["a", "b"])
        gate.wait_entered()
        return queue, dst

    def test_a_write_that_waits_for_room(self, stuck, gate):
        queue, dst = stuck
        soon(lambda: queue.write("withdrawn"))
        soon(lambda: queue.write_many(["withdrawn", "too"]))
        assert ledger(queue) == (2, 0, 0, 2)
        gate.open()
        queue.write("c")
        queue.close()
        assert dst.events == ["a", "b", "c"]
        assert ledger(queue) == (3, 3, 0, 0)

    def test_a_withdrawn_write_leaves_its_place_to_others(self, stuck, gate):
        queue, dst = stuck
        others = [Task(queue.write, "other").blocked()]
        soon(lambda: queue.write("withdrawn"))
        others.append(Task(queue.write, "other").blocked())
        gate.open()
        for other in others:
            other.result()
        queue.close()
        assert dst.events == ["a", "b", "other", "other"]

    @pytest.mark.parametrize("timeout", [None, LONG, 1e12])
    def test_flush(self, stuck, gate, timeout):
        queue, dst = stuck
        soon(lambda: queue.flush(timeout))
        assert not queue.closed
        gate.open()
        assert queue.flush(DEADLINE)
        queue.write("c")
        queue.close()
        assert dst.events == ["a", "b", "c"]

    @pytest.mark.parametrize("timeout", [None, LONG])
    def test_close(self, stuck, gate, timeout):
        """The queue stays what it was: on its way to being closed."""
        queue, dst = stuck
        soon(lambda: queue.close(timeout))
        with pytest.raises(SinkClosedError):
            queue.write("late")
        assert dst.closes == 0
        gate.open()
        Task(queue.close).result()
        assert dst.events == ["a", "b"]
        assert dst.closes == 1
        assert ledger(queue) == (2, 2, 0, 0)

    def test_close_twice_and_then_with_a_deadline(self, stuck):
        queue, _ = stuck
        soon(queue.close)
        soon(queue.close)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert caught.value.undelivered == ["a", "b"]

    def test_close_of_a_destination_that_takes_its_time(self, gate):
        dst = Recorder(on_close=gate)
        queue = Queue(dst)
        queue.write("one")
        first = Task(queue.close)
        gate.wait_entered()
        soon(queue.close)
        gate.open()
        first.result()
        queue.close()
        assert dst.closes == 1

    def test_leaving_a_with_block(self, stuck, gate):
        queue, dst = stuck

        def use():
            with queue:
                pass

        soon(use)
        gate.open()
        queue.close()
        assert dst.events == ["a", "b"]

    def test_a_lingering_block(self):
        dst = BlockRecorder()
        queue = Queue(dst, batch_size=10, linger=LONG)
        queue.write("one")
        closed = Task(queue.close)
        closed.result()
        assert dst.events == ["one"]


class TestChannel:
    @pytest.mark.parametrize("timeout", [None, LONG])
    @pytest.mark.parametrize("buffer", [0, 2])
    def test_get(self, buffer, timeout):
        channel = Channel(buffer)
        soon(lambda: channel.get(timeout))
        writer = Task(lambda: [channel.write(n) for n in range(3)])
        assert [channel.get(DEADLINE) for _ in range(3)] == [0, 1, 2]
        writer.result()

    def test_iteration(self):
        channel = Channel()
        soon(lambda: list(channel))
        reader = Task(list, channel)
        channel.write("one")
        channel.close()
        assert reader.result() == ["one"]

    def test_a_rendezvous_is_withdrawn(self):
        channel = Channel()
        soon(lambda: channel.write("withdrawn"))
        with pytest.raises(TimeoutError):
            channel.get(timeout=0)
        writer = Task(channel.write, "one")
        assert channel.get(DEADLINE) == "one"
        writer.result()

    def test_a_write_that_waits_for_room(self):
        channel = Channel(buffer=1)
        channel.write("a")
        soon(lambda: channel.write("withdrawn"))
        channel.close()
        assert list(channel) == ["a"]

    def test_done(self):
        channel = Channel()
        soon(channel.done)
        soon(lambda: channel.done(LONG))
        channel.close()
        assert channel.done() is True


class TestRetryingSink:
    @pytest.mark.parametrize("seconds", [LONG, 1e12])
    def test_a_back_off(self, seconds):
        strategy = Waits(seconds)
        dst = Recorder(Fails(times=1))
        sink = RetryingSink(dst, strategy)
        soon(lambda: sink.write("one"))
        assert dst.events == []
        assert not sink.closed
        strategy.failures = 0
        Task(sink.write, "two").result()
        assert dst.events == ["two"]
        sink.close()

    def test_waiting_for_a_turn(self):
        strategy = Waits()
        dst = Recorder(Fails(times=1))
        sink = RetryingSink(dst, strategy)
        first = Task(sink.write, "one")
        assert strategy.failed.wait(DEADLINE)
        parked(first)
        soon(lambda: sink.write("withdrawn"))
        sink.close()
        with pytest.raises(SinkClosedError):
            first.result()
        assert dst.events == []

    def test_in_an_attempt_it_reaches_the_writer(self, gate):
        """An interrupt inside of the sink is nothing to be retried."""
        dst = Recorder(gate)
        sink = RetryingSink(dst, Waits(0.0))
        assert interrupt(lambda: sink.write("one")) < 5 * SOON  # it can be tried but once
        assert len(dst.attempts) == 1
        gate.open()
        sink.write("two")
        assert dst.events == ["two"]
        sink.close()


class TestWrappers:
    """A close that was interrupted goes on where it was, when it is called again."""

    @pytest.mark.parametrize(
        "wrap",
        [
            lambda sink: Filter(sink, bool),
            lambda sink: RetryingSink(sink, Waits()),
            Broadcaster,
            lambda sink: Broadcaster(Filter(sink, bool), NullSink()),
        ],
        ids=["filter", "retrying", "broadcaster", "both"],
    )
    @pytest.mark.parametrize("timeout", [None, LONG])
    def test_close(self, gate, wrap, timeout):
        dst = Recorder(gate)
        sink = wrap(Queue(dst))
        sink.write("one")
        gate.wait_entered()
        soon(lambda: sink.close(timeout))
        assert sink.closed
        with pytest.raises(SinkClosedError):
            sink.write("late")
        second = Task(sink.close).blocked()
        assert dst.closes == 0
        gate.open()
        second.result()
        assert dst.events == ["one"]
        assert dst.closes == 1
        sink.close()
        assert dst.closes == 1

    def test_a_broadcaster_closes_the_others_meanwhile_and_once(self, gate):
        dst, before, after = Recorder(gate), Recorder(), Recorder()
        sink = Broadcaster(before, Queue(dst), after)
        sink.write("one")
        soon(sink.close)
        assert (before.closes, dst.closes, after.closes) == (1, 0, 1)
        gate.open()
        sink.close()
        assert (before.closes, dst.closes, after.closes) == (1, 1, 1)

    def test_a_write_through_a_filter_and_a_broadcaster(self, gate):
        dst, other = Recorder(gate), Recorder()
        queue = Queue(dst, maxsize=1)
        sink = Filter(Broadcaster(queue, other), bool)
        sink.write("one")
        assert interrupt(lambda: sink.write("withdrawn")) < 5 * SOON  # as above
        gate.open()
        sink.write("two")
        sink.close()
        assert dst.events == ["one", "two"]
        assert other.events == ["one", "withdrawn", "two"]


class TestEndpoint:
    @pytest.fixture
    def stuck(self, no_leftover_threads):
        with Receiver(default=stall()) as receiver:
            endpoint = Endpoint(
                "e", receiver.url(), timeout=LONG, maxsize=2, ignore_actions=["pull"]
            )
            endpoint.write_many(["a", "b"])
            receiver.wait(1)
            yield endpoint
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close(timeout=0)
            assert caught.value.undelivered == ["a", "b"]

    def test_a_write_that_waits_for_room(self, stuck):
        soon(lambda: stuck.write("withdrawn"))
        soon(lambda: stuck.write_many(["withdrawn", "too"]))
        assert stuck.metrics.pending == stuck.metrics.events == 2

    @pytest.mark.parametrize("timeout", [None, LONG])
    def test_flush(self, stuck, timeout):
        soon(lambda: stuck.flush(timeout))
        assert not stuck.closed

    def test_close(self, stuck):
        soon(lambda: stuck.close(LONG))
        assert stuck.closed
        soon(lambda: stuck.close(LONG))

    def test_several_at_a_time(self):
        with Receiver(default=stall()) as receiver:
            endpoint = Endpoint("e", receiver.url(), timeout=LONG, concurrency=2)
            endpoint.write_many(["a", "b"])
            receiver.wait(1)
            soon(endpoint.flush)
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close(timeout=0)
            assert caught.value.undelivered == ["a", "b"]


class TestOthers:
    def test_a_broadcaster_that_is_busy(self, gate):
        dst, other = Recorder(gate), Recorder()
        sink = Broadcaster(dst, other)
        first = Task(sink.write, "one")
        gate.wait_entered()
        soon(lambda: sink.write("perhaps"))
        gate.open()
        first.result()
        sink.write("two")
        sink.close()
        assert dst.events == other.events
        assert dst.events[0] == "one"
        assert dst.events[-1] == "two"

    def test_the_close_of_a_dispatcher(self, gate):
        dispatcher = Dispatcher()
        dst = Recorder(gate)
        queue = Queue(dst, dispatcher=dispatcher)
        queue.write("one")
        gate.wait_entered()
        soon(dispatcher.close)
        gate.open()
        queue.close()
        assert dst.events == ["one"]
        dispatcher.close()

    def test_a_handler_that_raises_something_else(self, gate):
        def handler(number, frame):
            raise ZeroDivisionError

        queue = Queue(Recorder(gate))
        queue.write("one")
        main = threading.main_thread()
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            presser = Task(lambda: [parked(main), os.kill(os.getpid(), signal.SIGUSR1)])
            with pytest.raises(ZeroDivisionError):
                queue.flush()
            presser.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
        gate.open()
        queue.close()

    def test_a_handler_that_returns_changes_nothing(self, gate):
        """The wait goes on, and its deadline stays where it was."""
        seen = []
        queue = Queue(Recorder(gate))
        queue.write("one")
        stop = threading.Event()

        def press():
            while not stop.wait(0.02):
                os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(time.monotonic()))
        try:
            presser = Task(press)
            began = time.monotonic()
            assert queue.flush(0.3) is False
            took = time.monotonic() - began
            stop.set()
            presser.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert 0.29 <= took < 2.0
        assert [moment for moment in seen if moment < began + 0.25]
        gate.open()
        queue.close()

    def test_a_handler_may_write_to_the_sink_whose_back_off_it_interrupts(self):
        dst, strategy = Recorder(Fails(times=1)), Waits()
        sink = RetryingSink(dst, strategy)

        def handler(number, frame):
            strategy.failures = 0  # or it would have to wait for an hour, too
            sink.write("from the handler")
            sink.close()

        def press():
            assert strategy.failed.wait(DEADLINE)
            parked(threading.main_thread())
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            presser = Task(press)
            with pytest.raises(SinkClosedError):
                sink.write("backs off")
            presser.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert dst.events == ["from the handler"]

    def test_a_handler_may_use_what_it_interrupts(self):
        """It runs between two steps of a write, on the same thread: a lock held would deadlock."""
        events = []

        class Plain:  # without a lock of its own, for the same reason
            def write(self, event):
                events.append(event)

            def close(self):
                pass

        queue, sink = Queue(Plain()), Broadcaster(Queue(Plain()))
        channel = Channel(buffer=1_000_000)
        rings = 0

        def handler(number, frame):
            nonlocal rings
            rings += 1
            for target in (queue, sink, channel):
                target.write("from the handler")
            ledger(queue)

        before = signal.signal(signal.SIGVTALRM, handler)
        writes = 0
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
            deadline = time.monotonic() + 0.5
            while time.monotonic() < deadline:
                for target in (queue, sink, channel):
                    target.write("from the loop")
                writes += 1
                if writes % 100 == 0:
                    assert queue.flush(DEADLINE)
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        queue.close()
        sink.close()
        channel.close()
        assert rings > 0
        assert len(list(channel)) == writes + rings
        assert len(events) == 2 * (writes + rings)

    def test_a_handler_may_read_and_count_what_it_interrupts(self):
        """What guards a few numbers is locked, too, while it is changed."""
        counters, sink, strategy = Counters(), NullSink(), Breaker(1, 0.0, max_attempts=1 << 40)
        rings = counted = 0

        def count():
            counters.success("200 OK", 1)
            counters.failure("404 Not Found", 1)
            counters.error(1)
            sink.write("event")
            strategy.failure("event", None)
            strategy.proceed("event")

        def handler(number, frame):
            nonlocal rings
            rings += 1
            assert list(counters.statuses()) in ([], ["200 OK"], ["200 OK", "404 Not Found"])
            count()

        before = signal.signal(signal.SIGVTALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0002, 0.0002)
            deadline = time.monotonic() + DEADLINE
            while rings < 50 and time.monotonic() < deadline:
                count()
                counted += 1
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
        assert rings >= 50
        total = counted + rings
        assert counters.statuses() == {"200 OK": total, "404 Not Found": total}
        assert (counters.successes, counters.failures, counters.errors) == (total,) * 3
        assert sink.count == total


@pytest.mark.parametrize("call", ["write", "flush", "close", "get", "retry"])
def test_a_real_ctrl_c(call):
    """The signal comes from another process, as from a terminal."""
    program = subprocess.Popen(
        program_command("interrupted", call),
        env=python_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(program.wait)
        stack.callback(program.kill)
        assert program.stdout.readline() == "ready\n"
        parked_process(program)
        sent = time.monotonic()
        program.send_signal(signal.SIGINT)
        assert program.stdout.readline() == "interrupted\n"
        assert time.monotonic() - sent < 1.0  # with the way through two processes
        out, err = program.communicate(timeout=DEADLINE)
    assert (out, err, program.returncode) == ("", "", 0)
