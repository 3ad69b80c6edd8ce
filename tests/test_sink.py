"""Sink, the optional base class, and NullSink."""

import gc
import weakref

import pytest
from contract import SinkContract
from support import Token, together

from fastsinks import NullSink, Queue, Sink, SinkClosedError


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
