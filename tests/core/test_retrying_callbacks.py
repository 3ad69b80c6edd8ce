"""RetryingSink: its listeners, strategies that raise, user code that calls back."""

import contextlib

import pytest
from support import (
    DEADLINE,
    BlockRecorder,
    Fails,
    Recorder,
    RefusedError,
    Script,
    Task,
    Waits,
)

from fastsinks import Queue, RetryingSink, SinkClosedError


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
