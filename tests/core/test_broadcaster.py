"""Broadcaster: every sink gets the same events in the same order, whatever one of them does."""

import itertools
import threading
import time
import weakref

import pytest
from support import (
    DEADLINE,
    BlockRecorder,
    Fails,
    Recorder,
    Refuser,
    Task,
    TimedRecorder,
    Waits,
    eventually,
    together,
)
from support.contract import WrapperContract

from fastsinks import (
    Broadcaster,
    CloseTimeoutError,
    NullSink,
    Queue,
    QueueFullError,
    RetryingSink,
    SinkClosedError,
)


class TestBroadcasterContract(WrapperContract):
    kind = Broadcaster


class TestBroadcasterOfManyContract(WrapperContract):
    """The same with neighbours that are closed, or fail, or count."""

    kind = Broadcaster

    def wrap(self, dst, kind=None):
        return (kind or Broadcaster)(Refuser(), dst, Recorder(Fails()), NullSink())


class Equal(Recorder):
    """Equal to everything, and not hashable: identity has to decide."""

    __hash__ = None

    def __eq__(self, other):
        return True


class Unequal(Recorder):
    def __eq__(self, other):
        raise ZeroDivisionError

    __hash__ = None


class TestSinks:
    def test_none(self):
        with Broadcaster() as sink:
            assert sink.sinks == ()
            sink.write("one")
            sink.write_many(["two"])

    def test_they_are_a_tuple_in_the_order_of_their_coming(self):
        first, second, third = Recorder(), Recorder(), Recorder()
        sink = Broadcaster(first, second)
        assert sink.sinks == (first, second)
        sink.add(third)
        assert type(sink.sinks) is tuple
        assert sink.sinks == (first, second, third)
        sink.remove(second)
        assert sink.sinks == (first, third)
        with pytest.raises(AttributeError):
            sink.sinks = ()

    def test_a_snapshot_stays_what_it_was(self):
        first, second = Recorder(), Recorder()
        sink = Broadcaster(first)
        before = sink.sinks
        sink.add(second)
        sink.remove(first)
        assert before == (first,)

    def test_adding_twice_is_nothing(self):
        dst = Recorder()
        sink = Broadcaster(dst)
        sink.add(dst)
        sink.write("one")
        assert sink.sinks == (dst,)
        assert dst.events == ["one"]

    def test_naming_one_twice_at_the_start_is_adding_it_twice(self):
        dst = Recorder()
        sink = Broadcaster(dst, dst)
        sink.write("one")
        assert dst.events == ["one"]
        sink.close()
        assert dst.closes == 1

    def test_removing_a_stranger_is_nothing(self):
        dst = Recorder()
        sink = Broadcaster(dst)
        sink.remove(Recorder())
        sink.remove(object())
        assert sink.sinks == (dst,)
        sink.remove(dst)
        sink.remove(dst)
        assert sink.sinks == ()

    @pytest.mark.parametrize("kind", [Equal, Unequal])
    def test_identity_decides_about_sinks(self, kind):
        first, second, third = kind(), kind(), kind()
        sink = Broadcaster(first, second)
        sink.add(third)
        sink.write("one")
        sink.remove(kind())
        sink.remove(second)
        sink.write("two")
        assert [first.events, second.events, third.events] == [
            ["one", "two"],
            ["one"],
            ["one", "two"],
        ]

    def test_one_that_comes_later_sees_what_comes_later(self):
        first, second = Recorder(), Recorder()
        sink = Broadcaster(first)
        sink.write(1)
        sink.add(second)
        sink.write(2)
        sink.remove(first)
        sink.write(3)
        assert first.events == [1, 2]
        assert second.events == [2, 3]

    def test_removing_does_not_close(self):
        dst = Recorder()
        sink = Broadcaster(dst)
        sink.remove(dst)
        sink.close()
        assert dst.closes == 0

    @pytest.mark.parametrize("bad", [None, "text", 7, object()])
    def test_what_is_no_sink_is_not_added(self, bad):
        dst = Recorder()
        sink = Broadcaster(dst)
        with pytest.raises(TypeError):
            sink.add(bad)
        with pytest.raises(TypeError):
            Broadcaster(dst, bad)
        assert sink.sinks == (dst,)

    def test_nothing_is_added_once_closed(self):
        sink = Broadcaster()
        sink.close()
        late = Recorder()
        with pytest.raises(SinkClosedError):
            sink.add(late)
        assert late.closes == 0

    def test_a_removed_sink_is_let_go(self):
        dst = Recorder()
        sink = Broadcaster(dst)
        sink.write("one")
        watch = weakref.ref(dst)
        sink.remove(dst)
        del dst
        assert watch() is None


class TestOrder:
    def test_every_sink_sees_the_same_order_whoever_writes(self):
        sinks = [Recorder() for _ in range(4)]
        with Broadcaster(*sinks) as sink:

            def write(writer):
                for number in range(150):
                    sink.write((writer, number))

            together(*[lambda writer=writer: write(writer) for writer in range(5)])
        assert len(sinks[0].events) == 750
        for dst in sinks:
            assert dst.events == sinks[0].events
            assert dst.crowd == 1

    def test_also_with_queues_and_blocks(self):
        sinks = [BlockRecorder() for _ in range(3)]
        with Broadcaster(*[Queue(dst, batch_size=5) for dst in sinks]) as sink:

            def write(writer):
                for number in range(100):
                    sink.write((writer, number, "single"))
                    sink.write_many([(writer, number, n) for n in range(4)])

            together(*[lambda writer=writer: write(writer) for writer in range(4)])
        assert len(sinks[0].events) == 4 * 100 * 5
        for dst in sinks:
            assert dst.events == sinks[0].events
        rest = iter(sinks[0].events)
        for writer, number, part in rest:
            if part != "single":
                following = [next(rest) for _ in range(3)]
                assert following == [(writer, number, n) for n in (1, 2, 3)]

    def test_a_write_that_returned_has_been_handed_to_all(self):
        sinks = [Recorder() for _ in range(3)]
        with Broadcaster(*sinks) as sink:

            def write(writer):
                for number in range(100):
                    event = (writer, number)
                    sink.write(event)
                    for dst in sinks:
                        assert event in dst.events

            together(*[lambda writer=writer: write(writer) for writer in range(4)])

    def test_sinks_that_come_and_go_see_an_unbroken_stretch(self):
        steady = Recorder()
        guests = []
        stop = threading.Event()
        with Broadcaster(steady) as sink:

            def come_and_go():
                while not stop.is_set():
                    guest = Recorder()
                    sink.add(guest)
                    sink.write("from the guest")
                    sink.remove(guest)
                    guests.append(guest)

            visitor = Task(come_and_go)
            try:
                together(*[lambda: [sink.write(object()) for _ in range(300)]] * 3)
            finally:
                stop.set()
            visitor.result()
        places = {id(event): place for place, event in enumerate(steady.events)}
        for guest in guests:
            seen = [places[id(event)] for event in guest.events if event != "from the guest"]
            assert seen == sorted(seen)
            assert "from the guest" in guest.events

    def test_blocks_go_as_blocks_to_sinks_that_take_them(self):
        single, block = Recorder(), BlockRecorder()
        with Broadcaster(single, block) as sink:
            sink.write_many(n for n in range(5))
        assert single.events == [0, 1, 2, 3, 4]
        assert block.blocks == [[0, 1, 2, 3, 4]]

    def test_a_block_is_a_group_for_each_sink(self, gate):
        """A bounded queue beside another one refuses the block as a whole, or not at all."""
        dst, free = Recorder(gate), Recorder()
        queue = Queue(dst, maxsize=2, when_full="raise")
        with Broadcaster(queue, free) as sink:
            sink.write("one")
            sink.write_many(["a", "b"])
            assert free.events == ["one", "a", "b"]
            assert sink.dropped == 2
            gate.open()
        assert dst.events == ["one"]


class TestFailures:
    def test_a_closed_sink_is_removed_and_nobody_else_notices(self):
        refuser, first, last = Refuser(), Recorder(), Recorder()
        sink = Broadcaster(refuser, first, last)
        for number in range(3):
            assert sink.write(number) is None
        assert sink.sinks == (first, last)
        assert refuser.attempts == [[0]]
        assert first.events == last.events == [0, 1, 2]
        sink.close()
        assert refuser.closes == 0

    def test_any_number_of_closed_sinks(self):
        sinks = [Refuser() if place % 3 else Recorder() for place in range(10)]
        sink = Broadcaster(*sinks)
        sink.write("one")
        alive = tuple(dst for dst in sinks if type(dst) is Recorder)
        assert sink.sinks == alive
        assert all(dst.attempts == [["one"]] for dst in sinks)

    def test_a_closed_sink_in_a_block(self):
        refuser, dst = Refuser(), BlockRecorder()
        sink = Broadcaster(refuser, dst)
        sink.write_many(range(5))
        assert sink.sinks == (dst,)
        assert refuser.attempts == [[0]]
        assert dst.events == [0, 1, 2, 3, 4]

    def test_one_of_ours_that_was_closed_by_somebody_else(self):
        null, dst = NullSink(), Recorder()
        sink = Broadcaster(null, dst)
        null.close()
        sink.write("one")
        assert sink.sinks == (dst,)
        assert dst.events == ["one"]

    def test_another_exception_is_logged_and_counted_and_that_is_all(self, caplog):
        bad, good = Recorder(Fails(only=lambda event: event % 2)), Recorder()
        sink = Broadcaster(bad, good)
        assert sink.dropped == 0
        for number in range(10):
            assert sink.write(number) is None
        assert sink.dropped == 5
        assert sink.sinks == (bad, good)
        assert bad.events == [0, 2, 4, 6, 8]
        assert good.events == list(range(10))
        assert caplog.records

    def test_a_block_that_fails_counts_its_events(self):
        bad, good = BlockRecorder(Fails()), BlockRecorder()
        sink = Broadcaster(bad, good)
        sink.write_many(range(4))
        assert sink.dropped == 4
        assert good.events == [0, 1, 2, 3]

    def test_a_full_queue_is_a_failure_like_others(self, gate):
        queue, dst = Queue(Recorder(gate), maxsize=1, when_full="raise"), Recorder()
        sink = Broadcaster(queue, dst)
        for number in range(3):
            sink.write(number)
        assert sink.dropped == 2
        assert dst.events == [0, 1, 2]
        with pytest.raises(QueueFullError):
            queue.write("directly")
        gate.open()
        sink.close()

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_what_ends_the_program_is_raised_once_all_were_served(self, error):
        bad, good = Recorder(Fails(error, times=1)), Recorder()
        sink = Broadcaster(bad, good)
        with pytest.raises(error):
            sink.write("one")
        assert good.events == ["one"]
        assert sink.sinks == (bad, good)
        sink.write("two")
        assert bad.events == ["two"]
        assert good.events == ["one", "two"]
        sink.close()

    def test_the_log_shows_no_event(self, caplog):
        sink = Broadcaster(Recorder(Fails(lambda: OSError("secret"))))
        for _ in range(50):
            sink.write("secret")
        assert "secret" not in caplog.text
        assert "str" in caplog.text
        assert len(caplog.records) < 50


class TestReentrancy:
    def test_what_a_sink_writes_follows_the_current_event(self):
        def hook(events):
            if events[0] in (1, 2):
                sink.write(events[0] * 10)
                sink.write(events[0] * 10 + 1)

        first, second, third = Recorder(), Recorder(hook), Recorder()
        sink = Broadcaster(first, second, third)

        def write():
            for number in range(4):
                sink.write(number)

        Task(write).result()
        expected = [0, 1, 10, 11, 2, 20, 21, 3]
        assert first.events == second.events == third.events == expected

    def test_a_block_that_a_sink_writes_follows_too(self):
        def hook(events):
            if events == ["go"]:
                sink.write_many(["a", "b"])

        first, second = Recorder(hook), BlockRecorder()
        sink = Broadcaster(first, second)
        Task(sink.write, "go").result()
        assert first.events == second.events == ["go", "a", "b"]
        assert second.blocks == [["go"], ["a", "b"]]

    def test_a_sink_may_remove_itself(self):
        class Once(Recorder):
            def write(self, event):
                super().write(event)
                sink.remove(self)

        first, once, last = Recorder(), Once(), Recorder()
        sink = Broadcaster(first, once, last)
        Task(lambda: [sink.write(n) for n in range(3)]).result()
        assert first.events == last.events == [0, 1, 2]
        assert once.events == [0]

    def test_a_sink_may_add_another(self):
        guest = Recorder()
        first = Recorder(lambda events: sink.add(guest))
        last = Recorder()
        sink = Broadcaster(first, last)
        Task(lambda: [sink.write(n) for n in range(3)]).result()
        assert first.events == last.events == [0, 1, 2]
        assert guest.events in ([0, 1, 2], [1, 2])
        assert sink.sinks == (first, last, guest)

    def test_a_sink_may_remove_its_neighbour_for_what_follows(self):
        def hook(events):
            sink.remove(last)
            if events == [0]:
                sink.write("inner")

        last = Recorder()
        first = Recorder(hook)
        sink = Broadcaster(first, last)
        Task(lambda: [sink.write(n) for n in range(2)]).result()
        assert first.events == [0, "inner", 1]
        assert "inner" not in last.events
        assert 1 not in last.events

    def test_a_sink_may_look_and_close(self):
        def hook(events):
            assert len(sink.sinks) == 2
            assert sink.dropped == 0
            assert repr(sink)
            sink.close()

        first, last = Recorder(hook), Recorder()
        sink = Broadcaster(first, last)
        Task(sink.write, "one").result()
        Task(sink.close).result()
        assert sink.closed
        assert first.events == last.events == ["one"]
        assert first.closes == last.closes == 1

    def test_many_threads_and_sinks_that_write_back(self):
        replies = itertools.count()

        def hook(events):
            if events[0][0] == "call":
                sink.write(("reply", next(replies)))

        first, second = Recorder(hook), Recorder()
        with Broadcaster(first, second) as sink:
            together(*[lambda: [sink.write(("call", n)) for n in range(100)]] * 4)
        assert first.events == second.events
        assert len(first.events) == 800
        for call, reply in itertools.pairwise(first.events):
            if call[0] == "call":
                assert reply[0] == "reply"

    def test_a_listener_of_a_queue_may_write_back(self):
        class Echo:
            def ingress(self, event):
                if event == "one":
                    sink.write("echo")

            def egress(self, event):
                pass

        dst, other = Recorder(), Recorder()
        sink = Broadcaster(Queue(dst, listeners=[Echo()]), other)
        Task(sink.write, "one").result()
        sink.close()
        assert sorted(dst.events) == ["echo", "one"]
        assert sorted(other.events) == ["echo", "one"]


class TestBlockingSinks:
    def test_sinks_come_and_go_while_one_is_stuck(self, gate):
        stuck, other = Recorder(gate), Recorder()
        sink = Broadcaster(stuck, other)
        writer = Task(sink.write, "one")
        gate.wait_entered()
        guest = Recorder()
        Task(sink.add, guest).result()
        Task(sink.remove, other).result()
        assert sink.sinks == (stuck, guest)
        writer.blocked()
        gate.open()
        writer.result()

    def test_writers_take_turns_behind_one_that_is_stuck(self, gate):
        stuck, other = Recorder(gate), Recorder()
        sink = Broadcaster(stuck, other)
        writers = [Task(sink.write, n) for n in range(4)]
        for writer in writers:
            writer.blocked()
        gate.open()
        for writer in writers:
            writer.result()
        assert stuck.events == other.events
        assert sorted(other.events) == [0, 1, 2, 3]

    def test_close_does_not_wait_longer_than_it_was_told(self):
        """The writer is stuck in a back-off that only closing the sink can end."""
        strategy = Waits()
        dst = Recorder(Fails())
        sink = Broadcaster(RetryingSink(dst, strategy))
        writer = Task(sink.write, "one")
        assert strategy.failed.wait(DEADLINE)
        writer.blocked()
        began = time.monotonic()
        try:
            sink.close(timeout=0.1)
        except CloseTimeoutError:
            pass
        assert time.monotonic() - began < 2.0
        writer.result()
        assert sink.closed
        eventually(lambda: dst.closes == 1)


class TestClose:
    def test_all_are_closed(self):
        sinks = [Recorder() for _ in range(3)]
        sink = Broadcaster(*sinks)
        sink.close()
        assert [dst.closes for dst in sinks] == [1, 1, 1]
        with pytest.raises(SinkClosedError):
            sink.write("late")

    @pytest.mark.parametrize("error", [OSError, SinkClosedError])
    def test_whatever_one_of_them_raises(self, error, caplog):
        def explode():
            raise error

        sinks = [Recorder(), Recorder(on_close=explode), Recorder(on_close=explode), Recorder()]
        sink = Broadcaster(*sinks)
        sink.close()
        assert [dst.closes for dst in sinks] == [1, 1, 1, 1]
        assert sink.closed
        if error is OSError:
            assert caplog.records

    def test_what_ends_the_program_is_raised_once_all_are_closed(self):
        def explode():
            raise KeyboardInterrupt

        sinks = [Recorder(), Recorder(on_close=explode), Recorder()]
        sink = Broadcaster(*sinks)
        with pytest.raises(KeyboardInterrupt):
            sink.close()
        assert [dst.closes for dst in sinks] == [1, 1, 1]

    def test_the_undelivered_of_all_are_told(self, gate):
        first, free, last = Queue(Recorder(gate)), Recorder(), Queue(Recorder(gate))
        sink = Broadcaster(first, free, last)
        sink.write_many(["a", "b"])
        with pytest.raises(CloseTimeoutError) as caught:
            sink.close(timeout=0.1)
        assert sorted(caught.value.undelivered) == ["a", "a", "b", "b"]
        assert free.closes == 1
        assert first.closed
        assert last.closed

    def test_one_deadline_for_all(self, gate):
        sinks = [Queue(Recorder(gate)) for _ in range(20)]
        sink = Broadcaster(*sinks)
        sink.write("one")
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError):
            sink.close(timeout=0.2)
        assert time.monotonic() - began < 1.5

    def test_each_gets_what_time_is_left(self):
        sinks = [TimedRecorder() for _ in range(3)]
        Broadcaster(*sinks).close(timeout=5.0)
        for dst in sinks:
            assert len(dst.timeouts) == 1
            assert 0 <= dst.timeouts[0] <= 5.0
