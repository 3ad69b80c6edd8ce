"""Sink, the optional base class, and NullSink."""

import gc
import weakref

import pytest
from support import Token, together
from support.contract import SinkContract

from fastsinks import (
    Breaker,
    Broadcaster,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    Sink,
    SinkClosedError,
)


class Collecting(Sink):
    """What a user writes: a subclass with a constructor of its own."""

    def __init__(self, label="", *, fail_at=None):
        super().__init__()
        self.label = label
        self.fail_at = fail_at
        self.events = []

    def write(self, event):
        if self.closed:
            raise SinkClosedError
        if len(self.events) == self.fail_at:
            raise OSError(self.label)
        self.events.append(event)


class TestSubclassContract(SinkContract):
    """A subclass with `write` alone gets all the rest right."""

    def make(self):
        return Collecting("mine")

    def arrived(self, sink):
        return sink.events


class TestNullSinkContract(SinkContract):
    def make(self):
        return NullSink()

    def check_arrived(self, sink, events):
        assert sink.count == len(events)

    def test_writers_keep_their_order_and_nothing_is_lost(self):
        with NullSink() as sink:

            def write():
                for number in range(500):
                    sink.write(number)
                    sink.write_many([number, number])

            together(*[write] * 6)
            assert sink.count == 6 * 1500


def test_the_base_does_not_write():
    with pytest.raises(NotImplementedError):
        Sink().write("event")


def test_the_base_class_loops_over_write():
    sink = Collecting()
    sink.write_many(n for n in range(4))
    assert sink.events == [0, 1, 2, 3]


def test_the_loop_ends_at_the_first_failure():
    sink = Collecting("full", fail_at=2)
    with pytest.raises(OSError, match="full"):
        sink.write_many("abcd")
    assert sink.events == ["a", "b"]


def test_an_iterator_that_fails_is_the_callers_business():
    def events():
        yield "one"
        raise ZeroDivisionError

    sink = Collecting()
    with pytest.raises(ZeroDivisionError):
        sink.write_many(events())
    sink.write("two")
    assert sink.events[-1] == "two"


def test_a_subclass_that_does_not_call_the_base_constructor():
    class Careless(Sink):
        def __init__(self, label, *, more):
            self.label = label + more

        def write(self, event):
            self.label += event

    with Careless("a", more="b") as sink:
        sink.write("c")
        sink.write_many("de")
        assert sink.label == "abcde"
        assert not sink.closed
    assert sink.closed


def test_the_base_takes_no_arguments():
    with pytest.raises(TypeError):
        Sink("surprise")
    with pytest.raises(TypeError):
        NullSink("surprise")


def test_with_calls_the_close_of_the_subclass():
    class Closing(Collecting):
        closes = 0

        def close(self, timeout=None):
            self.closes += 1
            super().close(timeout)

    with Closing() as sink:
        sink.write("one")
    assert sink.closes == 1
    assert sink.closed


def test_a_subclass_can_be_a_destination():
    sink = Collecting("mine")
    with Queue(sink) as queue:
        queue.write_many(range(10))
    assert sink.events == list(range(10))
    assert sink.closed


def test_a_subclass_takes_part_in_garbage_collection():
    sink = Collecting()
    sink.me = sink
    sink.write(sink)
    watch = weakref.ref(sink)
    del sink
    gc.collect()
    assert watch() is None


class TestNullSink:
    def test_it_counts(self):
        sink = NullSink()
        assert sink.count == 0
        sink.write(None)
        assert sink.count == 1
        sink.write_many([])
        assert sink.count == 1
        sink.write_many(n for n in range(1000))
        assert sink.count == 1001
        sink.close()
        assert sink.count == 1001

    def test_it_refuses_once_closed_and_counts_nothing_then(self):
        sink = NullSink()
        sink.close()
        with pytest.raises(SinkClosedError):
            sink.write("late")
        with pytest.raises(SinkClosedError):
            sink.write_many(["late"])
        assert sink.count == 0

    def test_it_keeps_nothing(self):
        sink = NullSink()
        event = Token()
        watch = weakref.ref(event)
        sink.write(event)
        sink.write_many([event])
        del event
        assert watch() is None

    def test_the_count_cannot_be_set(self):
        with pytest.raises(AttributeError):
            NullSink().count = 7


class ForgetfulQueue(Queue):
    def __init__(self):
        pass


class ForgetfulFilter(Filter):
    def __init__(self):
        pass


class ForgetfulRetryingSink(RetryingSink):
    def __init__(self):
        pass


class TestWithoutInit:
    """A subclass that does not call the constructor of a class which needs it."""

    @pytest.fixture(params=[ForgetfulQueue, ForgetfulFilter, ForgetfulRetryingSink])
    def sink(self, request):
        return request.param()

    @pytest.mark.parametrize(
        "call",
        [
            lambda sink: sink.write("event"),
            lambda sink: sink.write_many(["one", "two"]),
            lambda sink: sink.write_many(event for event in ["one"]),
            lambda sink: sink.close(),
            lambda sink: sink.close(0),
            lambda sink: sink.__exit__(None, None, None),
        ],
    )
    def test_it_says_so(self, sink, call):
        with pytest.raises(RuntimeError, match=r"Forgetful\w+: __init__\(\)"):
            call(sink)

    @pytest.mark.parametrize("call", [repr, lambda queue: queue.flush(0), lambda queue: queue.name])
    def test_a_queue_says_so(self, call):
        with pytest.raises(RuntimeError, match=r"ForgetfulQueue: __init__\(\)"):
            call(ForgetfulQueue())

    def test_it_harms_no_other(self, sink):
        others = NullSink(), NullSink()
        broadcaster = Broadcaster(others[0], sink, others[1])
        broadcaster.write("event")
        broadcaster.write_many(["one", "two"])
        assert broadcaster.dropped == 3
        broadcaster.close()
        assert [other.count for other in others] == [3, 3]

    def test_an_error_in_the_constructor(self):
        """What it has left behind is not there, either."""
        queue, sink = ForgetfulQueue(), ForgetfulRetryingSink()
        with pytest.raises(ValueError, match="maxsize"):
            Queue.__init__(queue, NullSink(), maxsize=-1)
        with pytest.raises(TypeError, match="destination"):
            RetryingSink.__init__(sink, None, Breaker(1, 1))
        for broken in (queue, sink):
            with pytest.raises(RuntimeError, match="Forgetful"):
                broken.write("event")

    def test_what_is_not_there_is_an_attribute_error(self, sink):
        assert not hasattr(sink, "colour")
        with pytest.raises(AttributeError, match="colour"):
            sink.colour  # noqa: B018

    def test_a_queue_to_one(self):
        with pytest.raises(RuntimeError, match="Forgetful"):
            Queue(ForgetfulFilter()).close()
