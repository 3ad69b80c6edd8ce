"""Broadcaster: what it logs about its sinks, and Ctrl-C that strikes there or at their close."""

import itertools
import logging
import sys

import pytest
from support import (
    DEADLINE,
    UNNAMEABLE,
    Fails,
    Mute,
    Recorder,
    Task,
    once,
)

from fastsinks import Broadcaster, CloseTimeoutError, Queue, SinkClosedError


def struck(record):
    """A log handler in which Ctrl-C strikes."""
    raise KeyboardInterrupt


class TestStruckWhileLogging:
    def test_the_others_are_served_and_the_turn_is_given_back(self, on_log):
        on_log(once(struck))
        good = Recorder()
        sink = Broadcaster(Recorder(Fails()), good)
        with pytest.raises(KeyboardInterrupt):
            sink.write("one")
        assert good.events == ["one"]
        Task(sink.write, "two").result()
        assert good.events == ["one", "two"]
        assert sink.dropped == 2
        Task(sink.close).result()

    def test_what_was_deferred_follows(self, on_log):
        on_log(once(struck))

        def answer(events):
            if events == ["one"]:
                sink.write("echo")

        first, last = Recorder(answer), Recorder()
        sink = Broadcaster(first, Recorder(Fails()), last)
        with pytest.raises(KeyboardInterrupt):
            sink.write("one")
        assert first.events == last.events == ["one", "echo"]
        Task(sink.write, "two").result()
        assert first.events == last.events == ["one", "echo", "two"]

    def test_also_a_close(self, on_log):
        on_log(once(struck))
        first, last = Recorder(lambda events: sink.close()), Recorder()
        sink = Broadcaster(first, Recorder(Fails()), last)
        with pytest.raises(KeyboardInterrupt):
            sink.write("one")
        assert last.events == ["one"]
        assert first.closes == last.closes == 1
        Task(sink.close).result()

    def test_as_it_says_that_all_is_well_again(self, on_log, caplog):
        """The sink has its event: it did not refuse one."""
        caplog.set_level(logging.INFO)
        bad, good = Recorder(Fails(times=2)), Recorder()
        sink = Broadcaster(bad, good)
        sink.write("one")
        sink.write("two")
        on_log(once(struck))
        with pytest.raises(KeyboardInterrupt):
            sink.write("three")
        assert bad.events == ["three"]
        assert good.events == ["one", "two", "three"]
        assert sink.dropped == 2
        Task(sink.write, "four").result()
        assert bad.events == ["three", "four"]

    def test_while_a_block_is_handed_on(self, on_log):
        on_log(once(struck))
        good = Recorder()
        sink = Broadcaster(Recorder(Fails()), good)
        with pytest.raises(KeyboardInterrupt):
            sink.write_many(["one", "two"])
        assert good.events == ["one", "two"]
        Task(sink.write, "three").result()


class TestWhatCannotBeNamed:
    def check(self, caplog, bad, event, line):
        good = Recorder()
        sink = Broadcaster(bad, good)
        assert sink.write(event) is None
        Task(sink.write, "next").result()
        assert good.events == [event, "next"]
        assert sink.dropped == 2
        assert line in caplog.messages

    @pytest.mark.parametrize("event", UNNAMEABLE, ids=["huge", "odd"])
    def test_an_event(self, caplog, event):
        line = f"broadcaster: Recorder refused an event: {type(event).__name__} (OSError)"
        self.check(caplog, Recorder(Fails()), event, line)

    def test_an_error(self, caplog):
        line = "broadcaster: Recorder refused an event: str (Mute)"
        self.check(caplog, Recorder(Fails(Mute)), "one", line)

    def test_a_sink(self, caplog):
        class Nameless(Recorder):
            @property
            def log_label(self):
                raise ZeroDivisionError

        line = "broadcaster: Nameless refused an event: str (OSError)"
        self.check(caplog, Nameless(Fails()), "one", line)


class Bad:
    __slots__ = ()

    def write(self, event):
        raise OSError

    def close(self):
        pass


class TestTroubleThatIsForgotten:
    """A sink that comes back after it was removed, or another at its address, is a new one."""

    def check(self, caplog, leave):
        sink, dst = Broadcaster(), Bad()
        for _ in range(2):
            caplog.clear()
            sink.add(dst)
            sink.write("one")
            assert len(caplog.records) == 1
            leave(sink, dst)
            sink.write("two")

    def test_by_a_removed_one(self, caplog):
        self.check(caplog, lambda sink, dst: sink.remove(dst))

    def test_by_one_that_is_removed_in_its_turn(self, caplog):
        def leave(sink, dst):
            before = Recorder(lambda events: sink.remove(dst))
            sink.remove(dst)
            sink.add(before)
            sink.add(dst)
            sink.write("its last")
            assert sink.sinks == (before,)
            sink.remove(before)

        self.check(caplog, leave)

    def test_by_one_that_is_removed_at_any_moment(self):
        """Before each bytecode in turn, as another thread may remove it; in C there is one step."""
        for moment in itertools.count():
            flaky, good = Recorder(Fails(times=1)), Recorder()
            sink = Broadcaster(flaky, good)
            sink.write("one")
            steps = itertools.count()

            def trace(frame, what, argument, *, sink=sink, flaky=flaky, steps=steps, at=moment):
                if frame.f_code.co_name == "_serve":
                    frame.f_trace_opcodes = True
                    if what == "opcode" and next(steps) == at:
                        sink.remove(flaky)
                return trace

            before = sys.gettrace()
            sys.settrace(trace)
            try:
                assert sink.write("two") is None
            finally:
                sys.settrace(before)
            assert good.events == ["one", "two"]
            if next(steps) <= moment:
                return


class TestClosers:
    def late(self, make_gate):
        """A broadcaster with a writer stuck, and a closer that ran out of time in a close()."""
        stuck, closing = make_gate(), make_gate()
        first = Recorder(stuck, on_close=stuck.open)
        last = Recorder(on_close=closing)
        sink = Broadcaster(first, last)
        writer = Task(sink.write, "one")
        stuck.wait_entered()
        closer = Task(sink.close, timeout=0.01)
        closing.wait_entered()
        writer.result()
        return sink, last, closer, closing

    def test_one_waits_for_one_that_is_late(self, make_gate):
        sink, last, closer, closing = self.late(make_gate)
        others = [Task(sink.close).blocked() for _ in range(2)]
        closing.open()
        for task in (closer, *others):
            task.result()
        assert last.closes == 1

    def test_but_not_for_ever(self, make_gate):
        sink, last, closer, closing = self.late(make_gate)
        with pytest.raises(CloseTimeoutError):
            sink.close(timeout=0.01)
        closing.open()
        closer.result()
        sink.close(timeout=0)
        assert last.closes == 1

    def test_nor_does_a_queue_that_closes(self, make_gate):
        """The one that closes may be waiting for the queue."""
        sink, last, closer, closing = self.late(make_gate)
        queue = Queue(Recorder(lambda events: sink.close()))
        queue.write("one")
        assert queue.flush(DEADLINE)
        closing.open()
        closer.result()
        queue.close()
        assert last.closes == 1

    def test_one_that_is_late_may_call_back(self, gate):
        """A sink's close() closes the broadcaster, where another thread still writes."""
        stuck, last = Recorder(gate), Recorder(on_close=lambda: sink.close())
        sink = Broadcaster(stuck, last)
        writer = Task(sink.write, "one")
        gate.wait_entered()
        Task(sink.close, timeout=0.01).result()
        assert stuck.closes == last.closes == 1
        writer.blocked()
        gate.open()
        writer.result()

    def test_nobody_waits_for_a_writer_once_all_are_closed(self, gate):
        stuck = Recorder(gate)
        sink = Broadcaster(stuck)
        writer = Task(sink.write, "one")
        gate.wait_entered()
        waiting = Task(sink.close).blocked()
        Task(sink.close, timeout=0.01).result()
        waiting.result()
        Task(sink.close).result()
        writer.blocked()
        assert stuck.closes == 1
        gate.open()
        writer.result()


class TestStruckWhileClosing:
    def test_as_it_logs_what_a_close_raised(self, on_log):
        def explode():
            raise OSError

        on_log(once(struck))
        sinks = [Recorder(), Recorder(on_close=explode), Recorder()]
        sink = Broadcaster(*sinks)
        with pytest.raises(KeyboardInterrupt):
            sink.close()
        assert [dst.closes for dst in sinks] == [1, 1, 1]
        Task(sink.close).result()
        assert [dst.closes for dst in sinks] == [1, 1, 1]

    def test_the_next_closes_what_was_struck(self):
        def explode():
            raise KeyboardInterrupt

        sinks = [Recorder(), Recorder(on_close=once(explode)), Recorder()]
        sink = Broadcaster(*sinks)
        with pytest.raises(KeyboardInterrupt):
            sink.close()
        Task(sink.close).result()
        Task(sink.close).result()
        assert [dst.closes for dst in sinks] == [1, 2, 1]

    def test_who_waited_takes_over(self, make_gate):
        """An exception ends the closer's call: another thread finishes the close."""
        gate = make_gate()

        def explode():
            gate()
            raise KeyboardInterrupt

        dst = Recorder(on_close=once(explode))
        sink = Broadcaster(dst)
        first = Task(sink.close)
        gate.wait_entered()
        second = Task(sink.close).blocked()
        gate.open()
        with pytest.raises(KeyboardInterrupt):
            first.result()
        second.result()
        assert dst.closes == 2

    def test_a_close_that_calls_back_and_always_raises(self):
        def explode():
            sink.close()
            raise KeyboardInterrupt

        dst = Recorder(on_close=explode)
        sink = Broadcaster(dst)
        for closes in (1, 2):
            with pytest.raises(KeyboardInterrupt):
                sink.close()
            assert dst.closes == closes
        with pytest.raises(SinkClosedError):
            sink.write("late")
