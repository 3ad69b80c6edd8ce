"""RetryingSink: what is tried again, how long it waits, what it gives up."""

import contextlib
import itertools
import threading
import time

import pytest
from contract import WrapperContract
from support import (
    DEADLINE,
    LONG,
    MOMENT,
    BlockRecorder,
    Fails,
    Recorder,
    Refuser,
    Task,
    Waits,
    eventually,
    ledger,
    together,
)

from fastsinks import (
    DeliveryError,
    NullSink,
    Queue,
    RetryingSink,
    RetryStrategy,
    Sink,
    SinkClosedError,
)


class Script:
    """A strategy that writes down what it is asked and drops when `drop` says so."""

    def __init__(self, wait=0.0, drop=lambda event: False):
        self.wait = wait
        self.drop = drop
        self.calls = []

    def proceed(self, event):
        self.calls.append(("proceed", event))
        return self.wait

    def failure(self, event, error):
        self.calls.append(("failure", event, type(error)))
        return self.drop(event)

    def success(self, event):
        self.calls.append(("success", event))

    def asked(self, name):
        return [call[1] for call in self.calls if call[0] == name]


class RefusedError(OSError):
    permanent = True


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
        dst = Recorder(Fails(lambda: later(0.1), times=1))
        with RetryingSink(dst, Script()) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.09
            began = time.monotonic()
            sink.write("two")
            assert time.monotonic() - began < 0.09  # it was for once
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


class TestBlocks:
    def test_a_block_that_succeeds_goes_as_one(self):
        strategy, dst = Script(), BlockRecorder()
        with RetryingSink(dst, strategy) as sink:
            sink.write_many(range(10))
        assert dst.blocks == [list(range(10))]
        assert strategy.calls == [("proceed", 0), ("success", 0)]

    def test_a_failing_block_is_halved_and_grows_again(self):
        dst = BlockRecorder(Fails(times=3))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(16))
            assert (sink.retries, sink.dropped) == (16 + 8 + 4, 0)
        assert [len(block) for block in dst.attempts] == [16, 8, 4, 2, 4, 8, 2]
        assert dst.events == list(range(16))

    def test_the_size_is_remembered(self):
        dst = BlockRecorder(Fails(times=3))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(8))
            sink.write_many(range(8, 40))
        sizes = [len(block) for block in dst.attempts]
        assert sizes[:4] == [8, 4, 2, 1]
        assert sizes[4] <= 2
        assert dst.events == list(range(40))
        assert max(sizes[4:]) > 4

    def test_one_bad_event_does_not_hold_its_neighbours_back(self):
        strategy = Script(drop=lambda event: event == 5)
        dst, dead = BlockRecorder(Fails(only=lambda event: event == 5)), Recorder()
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            Task(sink.write_many, range(12)).result()
            assert sink.dropped == 1
        assert dst.events == [*range(5), *range(6, 12)]
        assert dead.events == [5]

    def test_only_an_event_that_failed_by_itself_is_dropped(self):
        """The strategy gives everything up, and still its good neighbours get through."""
        strategy = Script(drop=lambda event: True)
        dst, dead = BlockRecorder(Fails(only=lambda event: event in (0, 6, 7))), Recorder()
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            sink.write_many(range(10))
            assert sink.dropped == 3
        assert dst.events == [1, 2, 3, 4, 5, 8, 9]
        assert dead.events == [0, 6, 7]

    def test_a_permanent_error_of_a_block_is_one_of_its_events(self):
        dst, dead = BlockRecorder(Fails(RefusedError, only=lambda event: event == 3)), Recorder()
        with RetryingSink(dst, Script(), dead_letter=dead) as sink:
            Task(sink.write_many, range(8)).result()
        assert dst.events == [0, 1, 2, 4, 5, 6, 7]
        assert dead.events == [3]
        assert dst.attempts.count([3]) == 1

    def test_every_event_is_bad(self):
        dst, dead = BlockRecorder(Fails(RefusedError)), Recorder()
        with RetryingSink(dst, Script(), dead_letter=dead) as sink:
            Task(sink.write_many, range(9)).result()
            assert sink.dropped == 9
        assert dead.events == list(range(9))

    def test_nothing_is_sent_twice_where_the_sink_takes_no_blocks(self):
        dst = Recorder(Fails(times=2, only=lambda event: event == 2))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(5))
        assert dst.attempts == [[0], [1], [2], [2], [2], [3], [4]]

    def test_nor_where_it_has_only_the_base_class_loop(self):
        attempts = []

        class Single(Sink):
            def write(self, event):
                attempts.append(event)
                if attempts.count(2) == 1 and event == 2:
                    raise OSError

        with RetryingSink(Single(), Script()) as sink:
            sink.write_many(range(4))
        assert attempts == [0, 1, 2, 2, 3]

    def test_close_in_the_middle_raises_and_sends_no_more(self):
        strategy = Waits()
        dst = BlockRecorder(Fails(only=lambda event: event == 3))
        strategy.seconds = 0.0
        sink = RetryingSink(dst, strategy)
        writer = Task(sink.write_many, range(8))
        eventually(lambda: len(dst.attempts) > 10)
        sink.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        assert dst.events == [0, 1, 2]

    def test_nothing_is_taken_together_that_the_sink_wants_by_itself(self):
        class Singly(Sink):
            takes_blocks = False

            def __init__(self):
                super().__init__()
                self.events = []

            def write(self, event):
                if event == "bad" and "bad" not in self.events:
                    self.events.append(event)
                    raise ConnectionError
                self.events.append(event)

            def write_many(self, events):
                raise AssertionError("asked for a block")

        dst = Singly()
        with Queue(RetryingSink(dst, Script()), batch_size=10) as queue:
            queue.write_many([1, "bad", 2])
            assert queue.flush(DEADLINE)
        assert dst.events == [1, "bad", "bad", 2]

    def test_the_sink_may_say_how_much_fits(self):
        class Picky(Sink):
            def __init__(self):
                super().__init__()
                self.asked, self.blocks = [], []

            def fit(self, events):
                self.asked.append(len(events))
                return len(self.blocks)  # 0 means one all the same

            def write(self, event):
                self.blocks.append([event])

            def write_many(self, events):
                self.blocks.append(list(events))

        dst = Picky()
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(11))
        assert dst.blocks == [[0], [1], [2, 3], [4, 5, 6], [7, 8, 9, 10]]
        assert dst.asked == [11, 10, 9, 7, 4]

    def test_what_is_no_sink_of_ours_is_not_asked_for_its_opinion(self):
        class Model(BlockRecorder):
            def fit(self, events):
                raise AssertionError("something else is meant")

        dst = Model()
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(3))
        assert dst.attempts == [[0, 1, 2]]

    def test_blocks_of_a_queue(self):
        """At every third attempt something else goes wrong; in the end all is in order."""
        turns = itertools.count()

        def flaky(events):
            if next(turns) % 3 == 0:
                raise OSError

        dst = BlockRecorder(flaky)
        queue = Queue(RetryingSink(dst, Script()), batch_size=16)
        queue.write_many(range(1000))
        assert queue.flush(DEADLINE)
        queue.close()
        assert dst.events == list(range(1000))
        assert ledger(queue) == (1000, 1000, 0, 0)


class TestBehindAQueue:
    def test_a_drop_of_the_retrying_sink_is_a_delivery_for_the_queue_or_a_drop(self):
        """Dropped by the strategy: in the retrying sink's dead letter, once, whoever counts it."""
        dst, dead = Recorder(Fails(RefusedError, only=lambda event: event == 2)), Recorder()
        sink = RetryingSink(dst, Script(), dead_letter=dead)
        queue = Queue(sink)
        queue.write_many(range(5))
        queue.close()
        assert dst.events == [0, 1, 3, 4]
        assert dead.events == [2]
        assert sink.dropped == 1
        assert ledger(queue).accepted == 5
        assert ledger(queue).pending == 0

    def test_a_strategy_that_raises_costs_the_event_and_no_other(self):
        class Bad(Script):
            def failure(self, event, error):
                raise ZeroDivisionError

        dst, dead = Recorder(Fails(only=lambda event: event == 2)), Recorder()
        queue = Queue(RetryingSink(dst, Bad()), dead_letter=dead)
        queue.write_many(range(5))
        queue.close()
        assert dst.events == [0, 1, 3, 4]
        assert dead.events == [2]
        assert ledger(queue) == (5, 4, 1, 0)

    def test_a_writer_beside_the_queue_takes_its_turn(self):
        dst = Recorder(Fails(times=3))
        sink = RetryingSink(dst, Script())
        queue = Queue(sink)

        def beside():
            for number in range(100):
                sink.write(("beside", number))

        together(beside, lambda: [queue.write(("queue", n)) for n in range(100)])
        queue.close()
        assert dst.crowd == 1
        assert len(dst.events) == 200
        for name in ("beside", "queue"):
            assert [n for who, n in dst.events if who == name] == list(range(100))

    def test_a_subclass_of_it_is_called_as_written(self):
        seen = []

        class Mine(RetryingSink):
            def write(self, event):
                seen.append(event)
                super().write(event)

        dst = Recorder(Fails(times=1))
        with Queue(Mine(dst, Script())) as queue:
            queue.write_many(range(3))
        assert seen == dst.events == [0, 1, 2]


class TestListeners:
    class Listener:
        def __init__(self):
            self.calls = []

        def active(self, event):
            self.calls.append(("active", event))

        def retry(self, event, error):
            self.calls.append(("retry", event, type(error)))

    def test_what_goes_well(self):
        listener = self.Listener()
        with RetryingSink(Recorder(), Script(), listeners=[listener]) as sink:
            sink.write("one")
        assert listener.calls == [("active", "one")]

    def test_what_is_tried_again(self):
        listener = self.Listener()
        dst = Recorder(Fails(times=2))
        with RetryingSink(dst, Script(), listeners=(listener,)) as sink:
            sink.write("one")
        assert listener.calls.count(("retry", "one", OSError)) == 2
        assert listener.calls[0] == ("active", "one")

    def test_one_that_raises_harms_nothing(self, caplog):
        class Bad:
            def active(self, event):
                raise ZeroDivisionError

            def retry(self, event, error):
                raise ZeroDivisionError

        good = self.Listener()
        dst = Recorder(Fails(times=1))
        with RetryingSink(dst, Script(), listeners=[Bad(), good]) as sink:
            sink.write("one")
            sink.write("two")
        assert dst.events == ["one", "two"]
        assert good.calls.count(("retry", "one", OSError)) == 1
        assert caplog.records

    def test_one_may_close_the_sink(self):
        class Closing:
            def active(self, event):
                pass

            def retry(self, event, error):
                sink.close()

        dst = Recorder(Fails())
        sink = RetryingSink(dst, Script(), listeners=[Closing()])
        with pytest.raises(SinkClosedError):
            Task(sink.write, "one").result()
        assert dst.closes == 1

    def test_they_are_told_under_a_queue_too(self):
        listener = self.Listener()
        dst = Recorder(Fails(times=2))
        with Queue(RetryingSink(dst, Script(), listeners=[listener])) as queue:
            queue.write("one")
            assert queue.flush(DEADLINE)
        assert listener.calls.count(("retry", "one", OSError)) == 2
        assert listener.calls[0] == ("active", "one")


class TestStrategiesThatRaise:
    @pytest.mark.parametrize("method", ["proceed", "failure"])
    def test_the_writer_is_told_and_the_sink_goes_on(self, method):
        class Bad(Script):
            armed = True

        def explode(self, *args):
            if Bad.armed:
                raise ZeroDivisionError
            return 0.0

        setattr(Bad, method, explode)
        dst = Recorder(Fails(times=1))
        sink = RetryingSink(dst, Bad())
        with pytest.raises(ZeroDivisionError):
            sink.write("one")
        assert dst.events == []
        Bad.armed = False
        Task(sink.write, "two").result()
        assert dst.events == ["two"]
        sink.close()

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
    @pytest.mark.parametrize("size", [1, 3])
    def test_one_that_ends_the_thread_in_success_costs_a_queue_nothing(self, error, size):
        class Ending(Waits):
            def success(self, event):
                raise error

        dst = BlockRecorder()
        queue = Queue(RetryingSink(dst, Ending()), batch_size=size)
        queue.write_many(range(size))
        assert queue.flush(DEADLINE)
        queue.write(size)
        queue.close(DEADLINE)
        assert dst.events == list(range(size + 1))
        assert queue.stats() == (size + 1, size + 1, 0, 0)

    def test_in_success_it_is_too_late(self, caplog):
        class Bad(Script):
            def success(self, event):
                raise ZeroDivisionError

        dst = Recorder()
        with RetryingSink(dst, Bad()) as sink:
            assert sink.write("one") is None
            assert sink.write("two") is None
        assert dst.events == ["one", "two"]
        assert caplog.records

    @pytest.mark.parametrize("answer", ["soon", None, [], float("nan")])
    def test_a_wait_that_is_no_number(self, answer):
        dst = Recorder()
        sink = RetryingSink(dst, Script(wait=answer))
        with pytest.raises((TypeError, ValueError)):
            Task(sink.write, "one").result()
        assert dst.events == []
        assert not sink.closed
        sink.close()

    @pytest.mark.parametrize("method", ["proceed", "failure", "success"])
    def test_one_may_close_the_sink(self, method):
        class Closing(Script):
            pass

        def close(self, *args):
            sink.close()
            return 0

        setattr(Closing, method, close)
        dst = Recorder(Fails(times=1))
        sink = RetryingSink(dst, Closing())
        writer = Task(sink.write, "one")
        if method == "success":
            writer.result()
        else:
            with pytest.raises(SinkClosedError):
                writer.result()
        assert sink.closed
        assert dst.closes == 1


class TestReentrancy:
    def test_the_inner_sink_may_write(self):
        """The inner write cannot wait for its turn: it would wait for itself."""

        def hook(events):
            if events == ["outer"]:
                sink.write("inner")

        dst = Recorder(hook)
        sink = RetryingSink(dst, Script())
        Task(sink.write, "outer").result()
        assert sorted(dst.events) == ["inner", "outer"]
        sink.close()

    def test_the_inner_sink_may_close(self):
        dst = Recorder(lambda events: sink.close())
        sink = RetryingSink(dst, Script())
        with contextlib.suppress(SinkClosedError):
            Task(sink.write, "one").result()
        assert sink.closed
        assert dst.closes == 1

    def test_the_dead_letter_may_write(self):
        class Again(Recorder):
            def write(self, event):
                super().write(event)
                sink.write("instead")

        dst, dead = Recorder(Fails(RefusedError, times=1)), Again()
        sink = RetryingSink(dst, Script(), dead_letter=dead)
        Task(sink.write, "one").result()
        assert dead.events == ["one"]
        assert dst.events == ["instead"]
        sink.close()

    @pytest.mark.parametrize("error", [OSError, SinkClosedError])
    def test_a_dead_letter_that_fails_harms_nothing(self, error):
        dst, dead = Recorder(Fails(RefusedError, times=1)), Recorder(Fails(error))
        with RetryingSink(dst, Script(), dead_letter=dead) as sink:
            assert sink.write("one") is None
            assert sink.write("two") is None
            assert sink.dropped == 1
        assert dst.events == ["two"]


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
