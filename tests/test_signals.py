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
    python_command,
    python_environment,
)

from fastsinks import (
    Broadcaster,
    Channel,
    CloseTimeoutError,
    Dispatcher,
    Queue,
    RetryingSink,
    SinkClosedError,
)

SOON = 0.2


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
        assert interrupt(lambda: queue.write("withdrawn")) < SOON
        assert interrupt(lambda: queue.write_many(["withdrawn", "too"])) < SOON
        assert ledger(queue) == (2, 0, 0, 2)
        gate.open()
        queue.write("c")
        queue.close()
        assert dst.events == ["a", "b", "c"]
        assert ledger(queue) == (3, 3, 0, 0)

    def test_a_withdrawn_write_leaves_its_place_to_others(self, stuck, gate):
        queue, dst = stuck
        others = [Task(queue.write, "other").blocked()]
        assert interrupt(lambda: queue.write("withdrawn")) < SOON
        others.append(Task(queue.write, "other").blocked())
        gate.open()
        for other in others:
            other.result()
        queue.close()
        assert dst.events == ["a", "b", "other", "other"]

    @pytest.mark.parametrize("timeout", [None, LONG, 1e12])
    def test_flush(self, stuck, gate, timeout):
        queue, dst = stuck
        assert interrupt(lambda: queue.flush(timeout)) < SOON
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
        assert interrupt(lambda: queue.close(timeout)) < SOON
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
        assert interrupt(queue.close) < SOON
        assert interrupt(queue.close) < SOON
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.05)
        assert caught.value.undelivered == ["a", "b"]

    def test_close_of_a_destination_that_takes_its_time(self, gate):
        dst = Recorder(on_close=gate)
        queue = Queue(dst)
        queue.write("one")
        first = Task(queue.close)
        gate.wait_entered()
        assert interrupt(queue.close) < SOON
        gate.open()
        first.result()
        queue.close()
        assert dst.closes == 1

    def test_leaving_a_with_block(self, stuck, gate):
        queue, dst = stuck

        def use():
            with queue:
                pass

        assert interrupt(use) < SOON
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
        assert interrupt(lambda: channel.get(timeout)) < SOON
        writer = Task(lambda: [channel.write(n) for n in range(3)])
        assert [channel.get(DEADLINE) for _ in range(3)] == [0, 1, 2]
        writer.result()

    def test_iteration(self):
        channel = Channel()
        assert interrupt(lambda: list(channel)) < SOON
        reader = Task(list, channel)
        channel.write("one")
        channel.close()
        assert reader.result() == ["one"]

    def test_a_rendezvous_is_withdrawn(self):
        channel = Channel()
        assert interrupt(lambda: channel.write("withdrawn")) < SOON
        with pytest.raises(TimeoutError):
            channel.get(timeout=0)
        writer = Task(channel.write, "one")
        assert channel.get(DEADLINE) == "one"
        writer.result()

    def test_a_write_that_waits_for_room(self):
        channel = Channel(buffer=1)
        channel.write("a")
        assert interrupt(lambda: channel.write("withdrawn")) < SOON
        channel.close()
        assert list(channel) == ["a"]

    def test_done(self):
        channel = Channel()
        assert interrupt(channel.done) < SOON
        assert interrupt(lambda: channel.done(LONG)) < SOON
        channel.close()
        assert channel.done() is True


class TestRetryingSink:
    @pytest.mark.parametrize("seconds", [LONG, 1e12])
    def test_a_back_off(self, seconds):
        strategy = Waits(seconds)
        dst = Recorder(Fails(times=1))
        sink = RetryingSink(dst, strategy)
        assert interrupt(lambda: sink.write("one")) < SOON
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
        assert interrupt(lambda: sink.write("withdrawn")) < SOON
        sink.close()
        with pytest.raises(SinkClosedError):
            first.result()
        assert dst.events == []

    def test_in_an_attempt_it_reaches_the_writer(self, gate):
        """An interrupt inside of the sink is nothing to be retried."""
        dst = Recorder(gate)
        sink = RetryingSink(dst, Waits(0.0))
        assert interrupt(lambda: sink.write("one")) < SOON
        assert len(dst.attempts) == 1
        gate.open()
        sink.write("two")
        assert dst.events == ["two"]
        sink.close()


class TestOthers:
    def test_a_broadcaster_that_is_busy(self, gate):
        dst, other = Recorder(gate), Recorder()
        sink = Broadcaster(dst, other)
        first = Task(sink.write, "one")
        gate.wait_entered()
        assert interrupt(lambda: sink.write("perhaps")) < SOON
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
        assert interrupt(dispatcher.close) < SOON
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


PROGRAM = """
    import sys, threading, time
    import fastsinks
    from support import Fails, Gate, Recorder, Waits

    gate = Gate()
    full = fastsinks.Queue(Recorder(gate), maxsize=1)
    full.write("one")
    gate.wait_entered()
    channel = fastsinks.Channel()
    retrying = fastsinks.RetryingSink(Recorder(Fails()), Waits())
    calls = {
        "write": lambda: full.write("two"),
        "flush": full.flush,
        "close": full.close,
        "get": channel.get,
        "retry": lambda: retrying.write("one"),
    }
    print("ready", flush=True)
    try:
        calls[sys.argv[1]]()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    gate.open()
    full.close()
"""


@pytest.mark.parametrize("call", ["write", "flush", "close", "get", "retry"])
def test_a_real_ctrl_c(call):
    """The signal comes from another process, as from a terminal."""
    program = subprocess.Popen(
        [*python_command(PROGRAM), call],
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
