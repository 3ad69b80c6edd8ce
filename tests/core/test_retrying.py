"""RetryingSink: what is tried again, how long it waits, what it gives up."""

import contextlib
import itertools
import threading
import time

import pytest
from support import (
    DEADLINE,
    LONG,
    MOMENT,
    Fails,
    Recorder,
    RefusedError,
    Refuser,
    Script,
    Task,
    Waits,
    eventually,
    together,
)
from support.contract import WrapperContract

from fastsinks import DeliveryError, NullSink, RetryingSink, RetryStrategy, SinkClosedError


class LaterError(OSError):
    retry_after = None


def later(seconds):
    error = LaterError()
    error.retry_after = seconds
    return error


class TestRetryingContract(WrapperContract):
    kind = RetryingSink

    def extra(self):
        return (Script(),)


class TestRetryingOfAFlakySinkContract(WrapperContract):
    """The same promises while every third attempt fails."""

    kind = RetryingSink

    def wrap(self, dst, kind=None):
        return (kind or RetryingSink)(dst, Script())

    def make(self):
        turns = itertools.count()

        def flaky(events):
            if next(turns) % 3 == 1:
                raise OSError

        self.dst = Recorder(flaky)
        return self.wrap(self.dst)


class TestRetries:
    def test_nothing_goes_wrong(self):
        strategy, dst = Script(), Recorder()
        with RetryingSink(dst, strategy) as sink:
            assert sink.write("one") is None
            assert (sink.retries, sink.dropped) == (0, 0)
        assert strategy.calls == [("proceed", "one"), ("success", "one")]

    def test_until_success(self):
        strategy, dst = Script(), Recorder(Fails(times=3))
        with RetryingSink(dst, strategy) as sink:
            assert sink.write("one") is None
            assert dst.events == ["one"]
            assert (sink.retries, sink.dropped) == (3, 0)
        failed = [("proceed", "one"), ("failure", "one", OSError)]
        assert strategy.calls == [*failed, *failed, *failed, ("proceed", "one"), ("success", "one")]

    def test_until_the_strategy_says_drop(self, caplog):
        strategy, dead = Script(drop=lambda event: len(strategy.asked("failure")) == 2), Recorder()
        dst = Recorder(Fails(lambda: OSError("secret")))
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            assert sink.write("secret") is None
            assert (sink.retries, sink.dropped) == (1, 1)
            assert dead.events == ["secret"]
            assert len(dst.attempts) == 2
        assert caplog.records
        assert "secret" not in caplog.text
        assert "str" in caplog.text
        assert dead.closes == 0

    def test_until_closed(self):
        strategy, dst = Waits(0.0), Recorder(Fails())
        sink = RetryingSink(dst, strategy)
        writer = Task(sink.write, "one")
        eventually(lambda: len(dst.attempts) > 3)
        sink.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        assert dst.closes == 1

    def test_the_next_event_starts_afresh(self):
        dst = Recorder(Fails(times=2))
        with RetryingSink(dst, Script()) as sink:
            for number in range(5):
                sink.write(number)
        assert dst.events == [0, 1, 2, 3, 4]
        assert dst.attempts[:4] == [[0], [0], [0], [1]]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_ends_the_program_is_not_retried(self, error):
        strategy, dst = Script(), Recorder(Fails(error, times=1))
        sink = RetryingSink(dst, strategy)
        with pytest.raises(error):
            sink.write("one")
        assert dst.events == []
        assert strategy.asked("failure") == []
        Task(sink.write, "one").result()
        assert dst.events == ["one"]
        sink.close()

    def test_a_closed_inner_sink_is_told_at_once(self):
        strategy = Script()
        dst = Refuser()
        sink = RetryingSink(dst, strategy)
        with pytest.raises(SinkClosedError):
            sink.write("one")
        assert dst.attempts == [["one"]]
        assert strategy.asked("failure") == []
        sink.close()

    def test_any_object_with_the_methods_is_a_strategy(self):
        class Mine(RetryStrategy):
            def __init__(self, times):
                self.times = times

            def proceed(self, event):
                return 0.0

            def failure(self, event, error):
                self.times -= 1
                return self.times <= 0

            def success(self, event):
                pass

        dst = Recorder(Fails(only=lambda event: event == "bad"))
        with RetryingSink(dst, Mine(3)) as sink:
            sink.write("bad")
            sink.write("good")
            assert sink.dropped == 1
        assert len(dst.attempts) == 4


class TestPermanent:
    def test_it_is_never_retried(self, caplog):
        strategy, dst, dead = Script(), Recorder(Fails(RefusedError, times=1)), Recorder()
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            assert sink.write("one") is None
            assert (sink.retries, sink.dropped) == (0, 1)
            sink.write("two")
        assert dead.events == ["one"]
        assert dst.attempts == [["one"], ["two"]]
        assert strategy.asked("failure") == []
        assert caplog.records

    def test_a_delivery_error_can_be(self):
        dst = Recorder(Fails(lambda: DeliveryError("bad", status=400, permanent=True)))
        with RetryingSink(dst, Script()) as sink:
            sink.write("one")
            assert sink.dropped == 1
        assert len(dst.attempts) == 1

    @pytest.mark.parametrize("permanent", [False, None, 0, ""])
    def test_only_a_true_one_counts(self, permanent):
        class PassingError(OSError):
            pass

        PassingError.permanent = permanent
        dst = Recorder(Fails(PassingError, times=2))
        with RetryingSink(dst, Script()) as sink:
            sink.write("one")
        assert dst.events == ["one"]

    def test_one_that_cannot_be_asked_is_retried(self):
        class BrokenError(OSError):
            @property
            def permanent(self):
                raise ZeroDivisionError

            @property
            def retry_after(self):
                raise ZeroDivisionError

        dst = Recorder(Fails(BrokenError, times=1))
        with RetryingSink(dst, Script()) as sink:
            Task(sink.write, "one").result()
        assert dst.events == ["one"]


class TestWaiting:
    def test_the_strategy_is_waited_for_and_then_the_sink_is_tried(self):
        """After the wait comes an attempt, not another question to the strategy."""
        strategy, dst = Script(wait=0.05), Recorder()
        with RetryingSink(dst, strategy) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.045
        assert strategy.calls == [("proceed", "one"), ("success", "one")]

    @pytest.mark.parametrize("wait", [0, 0.0, -1, -0.5, True])
    def test_nothing_to_wait_for(self, wait):
        dst = Recorder()
        with RetryingSink(dst, Script(wait=wait)) as sink:
            if wait is not True:
                Task(sink.write, "one").result()
        assert len(dst.events) == (wait is not True)

    def test_retry_after_is_waited_for(self):
        dst = Recorder(Fails(lambda: later(0.5), times=1))
        with RetryingSink(dst, Script()) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.49
            began = time.monotonic()
            sink.write("two")
            assert time.monotonic() - began < 0.49  # it was for once
        assert dst.events == ["one", "two"]

    def test_the_strategy_may_ask_for_more(self):
        strategy = Waits(0.15)
        dst = Recorder(Fails(lambda: later(0.01), times=1))
        with RetryingSink(dst, strategy) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.14

    def test_a_delivery_error_may_ask_for_it(self):
        dst = Recorder(Fails(lambda: DeliveryError("busy", status=503, retry_after=0.1), times=1))
        with RetryingSink(dst, Script()) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.09

    @pytest.mark.parametrize("seconds", [None, 0, -5, float("nan"), "soon", [], False])
    def test_a_retry_after_that_makes_no_sense_is_none(self, seconds):
        dst = Recorder(Fails(lambda: later(seconds), times=1))
        with RetryingSink(dst, Script()) as sink:
            Task(sink.write, "one").result()
        assert dst.events == ["one"]

    @pytest.mark.parametrize("seconds", [LONG, 1e12, float("inf")])
    def test_close_interrupts_a_retry_after(self, seconds):
        dst = Recorder(Fails(lambda: later(seconds)))
        sink = RetryingSink(dst, Script())
        writer = Task(sink.write, "one")
        eventually(lambda: dst.attempts)
        writer.blocked()
        sink.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        assert len(dst.attempts) == 1

    @pytest.mark.parametrize("seconds", [LONG, 1e12, float("inf")])
    def test_close_interrupts_a_back_off_at_once(self, seconds):
        dst = Recorder()
        sink = RetryingSink(dst, Script(wait=seconds))
        writer = Task(sink.write, "one").blocked()
        began = time.monotonic()
        sink.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        assert time.monotonic() - began < 1.0
        assert dst.attempts == []
        assert dst.closes == 1

    def test_close_refuses_those_who_wait_for_their_turn_too(self):
        dst = Recorder()
        sink = RetryingSink(dst, Script(wait=LONG))
        writers = [Task(sink.write, number) for number in range(4)]
        for writer in writers:
            writer.blocked()
        sink.close()
        for writer in writers:
            with pytest.raises(SinkClosedError):
                writer.result()
        assert dst.attempts == []

    def test_close_does_not_interrupt_an_attempt(self, gate):
        dst = Recorder(gate)
        sink = RetryingSink(dst, Script())
        writer = Task(sink.write, "one")
        gate.wait_entered()
        closer = Task(sink.close)
        eventually(lambda: dst.closes or sink.closed or closer.done)
        gate.open()
        closer.result()
        with contextlib.suppress(SinkClosedError):
            writer.result()
        assert dst.events == ["one"]
        assert dst.closes == 1


class TestSerialised:
    def test_one_attempt_at_a_time(self):
        turns = itertools.count()

        def flaky(events):
            if next(turns) % 4 == 0:
                raise OSError

        dst = Recorder(flaky)
        with RetryingSink(dst, Script()) as sink:

            def write(writer):
                for number in range(100):
                    sink.write((writer, number))

            together(*[lambda writer=writer: write(writer) for writer in range(5)])
        assert dst.crowd == 1
        assert len(dst.events) == 500
        for writer in range(5):
            assert [n for w, n in dst.events if w == writer] == list(range(100))

    def test_no_other_event_is_tried_while_one_is_waiting(self):
        strategy = Waits(0.1)
        dst = Recorder(Fails(times=1))
        with RetryingSink(dst, strategy) as sink:
            first = Task(sink.write, "first")
            assert strategy.failed.wait(DEADLINE)
            second = Task(sink.write, "second")
            first.result()
            second.result()
        assert dst.attempts == [["first"], ["first"], ["second"]]

    def test_a_block_is_one_write(self):
        dst = Recorder(Fails(times=5))
        with RetryingSink(dst, Script()) as sink:

            def write(writer):
                for block in range(30):
                    sink.write_many([(writer, block, n) for n in range(4)])

            together(*[lambda writer=writer: write(writer) for writer in range(3)])
        for start in range(0, len(dst.events), 4):
            writer, block, _ = dst.events[start]
            assert dst.events[start : start + 4] == [(writer, block, n) for n in range(4)]


class TestBadInput:
    @pytest.mark.parametrize("strategy", [None, object(), 1.0, RetryingSink])
    def test_what_is_no_strategy(self, strategy):
        with pytest.raises(TypeError):
            RetryingSink(NullSink(), strategy)

    def test_options_are_named(self):
        with pytest.raises(TypeError):
            RetryingSink(NullSink(), Script(), [])
        with pytest.raises(TypeError):
            RetryingSink(NullSink())

    @pytest.mark.parametrize("dead", [object(), "text"])
    def test_dead_letter(self, dead):
        with pytest.raises(TypeError):
            RetryingSink(NullSink(), Script(), dead_letter=dead)

    def test_the_counts_cannot_be_set(self):
        with RetryingSink(NullSink(), Script()) as sink:
            for name in ("retries", "dropped"):
                with pytest.raises(AttributeError):
                    setattr(sink, name, 1)


def test_a_waiting_write_lets_other_threads_run():
    sink = RetryingSink(Recorder(), Script(wait=LONG))
    writer = Task(sink.write, "one").blocked()
    assert not threading.Event().wait(MOMENT)
    assert sum(range(1000)) == 499500
    sink.close()
    with pytest.raises(SinkClosedError):
        writer.result()
