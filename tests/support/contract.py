"""What every sink promises, as tests to be inherited.

A test class says how its sink is made and what has arrived; it then gets all of
this. `WrapperContract` adds what holds for sinks that have a destination.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import time
import weakref
from typing import Any

import pytest

import fastsinks
from support import (
    BAD_SECONDS,
    DEADLINE,
    Hostile,
    Recorder,
    Task,
    TimedRecorder,
    Token,
    eventually,
    identical,
    together,
)

ODD_EVENTS = [
    None,
    False,
    0,
    "",
    (),
    [],
    {},
    [[None]],
    {"id": []},
    float("nan"),
    NotImplemented,
    Ellipsis,
    StopIteration(),
    KeyboardInterrupt,
    object(),
    Hostile(),
]


class SinkContract:
    """Inherit, and define `make`; and `arrived` where the events can be seen again."""

    def make(self) -> Any:
        raise NotImplementedError

    def arrived(self, sink: Any) -> list[Any]:
        raise NotImplementedError

    def check_arrived(self, sink: Any, events: list[Any]) -> None:
        assert identical(self.arrived(sink), events)

    # writing

    def test_it_is_a_sink(self) -> None:
        with self.make() as sink:
            assert isinstance(sink, fastsinks.Sink)

    def test_write_returns_none_and_commits_in_order(self) -> None:
        events = [Token(n) for n in range(20)]
        with self.make() as sink:
            assert [sink.write(event) for event in events] == [None] * 20
            self.check_arrived(sink, events)

    def test_any_object_is_an_event(self) -> None:
        with self.make() as sink:
            for event in ODD_EVENTS:
                assert sink.write(event) is None
            self.check_arrived(sink, ODD_EVENTS)

    def test_any_object_is_an_event_of_a_block(self) -> None:
        with self.make() as sink:
            assert sink.write_many(ODD_EVENTS) is None
            self.check_arrived(sink, ODD_EVENTS)

    @pytest.mark.parametrize("kind", [list, tuple, iter, lambda events: (e for e in events)])
    def test_a_block_is_any_iterable(self, kind: Any) -> None:
        events = [Token(n) for n in range(20)]
        with self.make() as sink:
            assert sink.write_many(kind(events)) is None
            self.check_arrived(sink, events)

    def test_an_empty_block_is_nothing(self) -> None:
        with self.make() as sink:
            assert sink.write_many([]) is None
            assert sink.write_many(iter(())) is None
            self.check_arrived(sink, [])

    def test_a_block_is_not_changed(self) -> None:
        events = [Token(n) for n in range(5)]
        block = list(events)
        with self.make() as sink:
            sink.write_many(block)
            self.check_arrived(sink, events)
            assert identical(block, events)

    @pytest.mark.parametrize("block", [None, 7, object()])
    def test_a_block_must_be_iterable(self, block: Any) -> None:
        with self.make() as sink:
            with pytest.raises(TypeError):
                sink.write_many(block)
            sink.write("after")
            self.check_arrived(sink, ["after"])

    @pytest.mark.parametrize("arguments", [(), ("one", "two")])
    def test_write_takes_one_event(self, arguments: tuple[Any, ...]) -> None:
        with self.make() as sink, pytest.raises(TypeError):
            sink.write(*arguments)

    # closing

    def test_close_is_idempotent_and_seen_in_closed(self) -> None:
        sink = self.make()
        assert sink.closed is False
        assert sink.close() is None
        assert sink.closed is True
        assert sink.close() is None
        assert sink.close(timeout=1.0) is None
        assert sink.close(2) is None
        assert sink.closed is True

    def test_closed_cannot_be_set(self) -> None:
        with self.make() as sink:
            with pytest.raises(AttributeError):
                sink.closed = True
            assert sink.closed is False

    def test_with_closes(self) -> None:
        sink = self.make()
        with sink as entered:
            assert entered is sink
            assert not sink.closed
        assert sink.closed

    def test_with_closes_and_lets_the_exception_through(self) -> None:
        sink = self.make()
        with pytest.raises(ZeroDivisionError), sink:
            raise ZeroDivisionError
        assert sink.closed

    def test_write_after_close(self) -> None:
        sink = self.make()
        sink.close()
        for _ in range(2):
            with pytest.raises(fastsinks.SinkClosedError):
                sink.write("late")
            with pytest.raises(fastsinks.SinkClosedError):
                sink.write_many(["late", "later"])

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_a_bad_timeout_closes_nothing(self, timeout: Any, error: type[Exception]) -> None:
        with self.make() as sink:
            with pytest.raises(error):
                sink.close(timeout)
            assert not sink.closed
            sink.write("still open")
            self.check_arrived(sink, ["still open"])

    @pytest.mark.parametrize("timeout", [None, 5, 5.0, 1e12, float("inf")])
    def test_close_takes_any_sensible_timeout(self, timeout: Any) -> None:
        sink = self.make()
        sink.write("one")
        sink.close(timeout=timeout)
        assert sink.closed

    def test_many_close_at_the_same_time(self) -> None:
        sink = self.make()
        sink.write("one")
        together(*[sink.close] * 6)
        assert sink.closed

    # several threads

    def test_writers_keep_their_order_and_nothing_is_lost(self) -> None:
        writers, each = 6, 150
        with self.make() as sink:

            def write(writer: int) -> None:
                for number in range(each):
                    if number % 3:
                        sink.write((writer, number))
                    elif number % 2:
                        sink.write_many([(writer, number)])
                    else:
                        sink.write_many(((writer, number),))

            together(*[lambda writer=writer: write(writer) for writer in range(writers)])
            arrived = self.arrived(sink)
            for writer in range(writers):
                assert [n for w, n in arrived if w == writer] == list(range(each))
            assert len(arrived) == writers * each

    # memory

    def test_it_can_be_weakly_referenced_and_collected(self) -> None:
        sink = self.make()
        sink.write("one")
        self.check_arrived(sink, ["one"])
        sink.close()
        watch = weakref.ref(sink)
        del sink

        def gone() -> bool:
            gc.collect()
            return watch() is None

        eventually(gone)

    def test_no_reference_to_an_event_is_lost_or_gained(self) -> None:
        event = Token()
        before = sys.getrefcount(event)
        sink = self.make()
        for _ in range(10):
            sink.write(event)
            sink.write_many([event, event])
        sink.write_many(event for _ in range(10))
        with contextlib.suppress(NotImplementedError):
            self.arrived(sink).clear()
        sink.close()
        self.forget()
        del sink
        eventually(lambda: gc.collect() >= 0 and sys.getrefcount(event) == before)

    def forget(self) -> None:
        """Drop what the test itself keeps of the events."""

    # being an object

    def test_identity_decides(self) -> None:
        with self.make() as sink, self.make() as other:
            assert sink == sink
            assert sink != other
            assert len({sink, other, sink}) == 2

    def test_repr_shows_no_event(self) -> None:
        sink = self.make()
        sink.write("a secret")
        assert "secret" not in repr(sink)
        sink.close()
        assert "secret" not in repr(sink)


class WrapperContract(SinkContract):
    """Inherit, and name the `kind` and what it takes after the destination, if anything.

    `settle` waits until what was written has got through.
    """

    kind: type[Any]
    dst: Any = None

    def extra(self) -> tuple[Any, ...]:
        return ()

    def wrap(self, dst: Any, kind: type[Any] | None = None) -> Any:
        return (kind or self.kind)(dst, *self.extra())

    def settle(self, sink: Any) -> None:
        pass

    def make(self) -> Any:
        self.dst = Recorder()
        return self.wrap(self.dst)

    def arrived(self, sink: Any) -> list[Any]:
        self.settle(sink)
        return self.dst.events

    def forget(self) -> None:
        self.dst = None

    class NoWrite:
        def close(self) -> None: ...

    class NoClose:
        def write(self, event: Any) -> None: ...

    class NoCall:
        write = close = "a string"

    @pytest.mark.parametrize("bad", [None, NoWrite(), NoClose(), NoCall(), "text", [].append])
    def test_a_destination_must_have_write_and_close(self, bad: Any) -> None:
        with pytest.raises(TypeError, match=type(bad).__name__):
            self.wrap(bad)

    def test_a_destination_may_be_one_of_ours(self) -> None:
        null = fastsinks.NullSink()
        with self.wrap(null) as sink:
            sink.write("one")
            sink.write_many(["two", "three"])
        assert null.count == 3
        assert null.closed

    def test_a_destination_may_be_wrapped_several_times(self) -> None:
        dst = Recorder()
        sink = self.wrap(self.wrap(self.wrap(dst)))
        for number in range(50):
            sink.write(number)
        sink.write_many(range(50, 60))
        sink.close()
        assert dst.events == list(range(60))
        assert dst.closes == 1

    def test_the_inner_sink_is_closed_exactly_once(self) -> None:
        sink = self.make()
        sink.close()
        assert self.dst.closes == 1
        sink.close()
        sink.close(timeout=0)
        with sink:
            pass
        assert self.dst.closes == 1

    def test_every_closer_waits_and_the_inner_sink_is_closed_once(self, gate: Any) -> None:
        dst = Recorder(on_close=gate)
        sink = self.wrap(dst)
        closers = [Task(sink.close) for _ in range(4)]
        gate.wait_entered()
        for closer in closers:
            closer.blocked()
        gate.open()
        for closer in closers:
            closer.result()
        assert dst.closes == 1
        assert sink.closed

    def test_a_closer_that_cannot_wait_longer_says_so(self, gate: Any) -> None:
        sink = self.wrap(Recorder(on_close=gate))
        first = Task(sink.close)
        gate.wait_entered()
        began = time.monotonic()
        with pytest.raises(fastsinks.CloseTimeoutError):
            sink.close(timeout=0.05)
        assert 0.04 <= time.monotonic() - began < 2.0
        gate.open()
        first.result()

    def test_the_deadline_is_passed_on_to_a_sink_that_takes_one(self) -> None:
        dst = TimedRecorder()
        self.wrap(dst).close(timeout=5.0)
        assert len(dst.timeouts) == 1
        assert dst.timeouts[0] is not None
        assert 0 <= dst.timeouts[0] <= 5.0

    def test_no_deadline_is_passed_on_as_none(self) -> None:
        dst = TimedRecorder()
        self.wrap(dst).close()
        assert dst.timeouts == [None]

    def test_a_sink_whose_close_raises_is_closed_all_the_same(self) -> None:
        def explode() -> None:
            raise ZeroDivisionError

        dst = Recorder(on_close=explode)
        sink = self.wrap(dst)
        with contextlib.suppress(ZeroDivisionError):
            sink.close()
        assert sink.closed
        sink.close()
        assert dst.closes == 1
        with pytest.raises(fastsinks.SinkClosedError):
            sink.write("late")

    def test_what_was_committed_arrives_whoever_closes_meanwhile(self) -> None:
        """Writers race with the closer, before a destination that refuses once it is closed."""

        class Closing(Recorder):
            def write(self, event: Any) -> None:
                if self.closes:
                    raise fastsinks.SinkClosedError
                super().write(event)

        for _ in range(3):
            dst = Closing()
            sink = self.wrap(dst)
            started = threading.Barrier(4)
            committed: list[list[Any]] = [[], [], []]

            def write(
                writer: int, sink: Any = sink, started: Any = started, committed: Any = committed
            ) -> None:
                started.wait(DEADLINE)
                with contextlib.suppress(fastsinks.SinkClosedError):
                    for number in range(10_000):
                        sink.write((writer, number))
                        committed[writer].append((writer, number))

            writers = [Task(write, writer) for writer in range(3)]
            started.wait(DEADLINE)
            dst.wait(10)
            sink.close()
            for writer in writers:
                writer.result()
            assert sorted(dst.events) == sorted(itertools.chain(*committed))
            assert dst.closes == 1

    def test_a_wrapper_is_collected_with_its_destination(self) -> None:
        sink = self.make()
        sink.write("one")
        self.settle(sink)
        watch = weakref.ref(self.dst)
        self.dst.sink = sink  # a cycle through both
        self.dst = None
        del sink

        def gone() -> bool:
            gc.collect()
            return watch() is None

        eventually(gone)

    def test_a_subclass_may_add_to_it(self) -> None:
        seen: list[Any] = []

        class Mine(self.kind):  # type: ignore[misc, name-defined]
            def write(self, event: Any) -> None:
                seen.append(event)
                super().write(event)

        dst = Recorder()
        with self.wrap(dst, Mine) as sink:
            assert isinstance(sink, self.kind)
            sink.write("one")
        assert seen == ["one"]
        assert dst.events == ["one"]
        assert dst.closes == 1
