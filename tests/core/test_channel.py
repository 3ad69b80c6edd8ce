"""Channel: a sink that threads and coroutines read events from."""

import gc
import itertools
import threading
import time
import weakref

import pytest
from support import (
    BAD_SECONDS,
    BAD_SIZES,
    DEADLINE,
    LONG,
    Task,
    Token,
    eventually,
    identical,
    once,
    together,
)
from support.contract import ODD_EVENTS, SinkContract

from fastsinks import Broadcaster, Channel, Queue, SinkClosedError


class TestChannelContract(SinkContract):
    """A channel with room for all that the contract writes."""

    def make(self):
        return Channel(buffer=10_000)

    def arrived(self, sink):
        events = []
        while True:
            try:
                events.append(sink.get(timeout=0))
            except TimeoutError:
                return events


class TestRendezvous:
    def test_write_returns_when_a_reader_took_the_event(self):
        channel = Channel()
        writer = Task(channel.write, "one").blocked()
        assert channel.get() == "one"
        assert writer.result() is None

    def test_get_returns_when_a_writer_came(self):
        channel = Channel(0)
        reader = Task(channel.get).blocked()
        channel.write("one")
        assert reader.result() == "one"

    def test_a_waiting_writer_is_met_at_once(self):
        channel = Channel()
        writer = Task(channel.write, "one").blocked()
        assert channel.get(timeout=0) == "one"
        writer.result()

    def test_a_block_takes_a_reader_for_each_event(self):
        channel = Channel()
        writer = Task(channel.write_many, ["a", "b", "c"])
        assert channel.get() == "a"
        assert channel.get() == "b"
        writer.blocked()
        assert channel.get() == "c"
        writer.result()

    def test_close_withdraws_what_nobody_took(self):
        for _ in range(10):
            channel = Channel()
            writers = [Task(channel.write, n).blocked() for n in range(2)]
            channel.close()
            with pytest.raises(SinkClosedError):  # at once, before the writers know of it
                channel.get(timeout=0)
            for writer in writers:
                with pytest.raises(SinkClosedError):
                    writer.result()
            assert list(channel) == []

    def test_a_reader_that_gave_up_took_nothing(self):
        channel = Channel()
        with pytest.raises(TimeoutError):
            channel.get(timeout=0.01)
        writer = Task(channel.write, "one").blocked()
        assert channel.get() == "one"
        writer.result()

    def test_writers_are_served_in_the_order_of_their_coming(self):
        channel = Channel()
        writers = [Task(channel.write, number).blocked() for number in range(4)]
        assert [channel.get() for _ in writers] == [0, 1, 2, 3]
        for writer in writers:
            writer.result()


class TestStruck:
    """Ctrl-C as a write notifies a loop that listens: the event was not written."""

    def strike(self):
        raise KeyboardInterrupt

    @pytest.mark.parametrize("buffer", [0, 1])
    def test_the_event_is_not_taken(self, buffer):
        channel = Channel(buffer)
        channel._watch(self.strike)
        with pytest.raises(KeyboardInterrupt):
            channel.write("one")
        assert len(channel) == 0
        with pytest.raises(TimeoutError):
            channel.get(timeout=0)

    @pytest.mark.parametrize("buffer", [0, 1])
    def test_it_goes_on(self, buffer):
        channel = Channel(buffer)
        channel._watch(once(self.strike))
        with pytest.raises(KeyboardInterrupt):
            channel.write("one")
        writer = Task(channel.write, "two")
        assert channel.get(timeout=DEADLINE) == "two"
        writer.result()
        assert len(channel) == 0
        channel.close()
        with pytest.raises(SinkClosedError):
            channel.get()

    def test_there_is_room_for_another(self):
        """A writer that waited for room is notified."""
        channel = Channel(1)

        def strike():
            channel._unwatch(strike)
            waiting.append(Task(channel.write, "two").blocked())
            raise KeyboardInterrupt

        waiting = []
        channel._watch(strike)
        with pytest.raises(KeyboardInterrupt):
            channel.write("one")
        waiting[0].result()
        assert channel.get(timeout=0) == "two"


class TestBuffer:
    def test_its_size_can_be_asked_for(self):
        assert Channel().buffer == 0
        assert Channel(buffer=3).buffer == 3
        with pytest.raises(AttributeError):
            Channel(3).buffer = 4

    def test_write_waits_only_for_room(self):
        channel = Channel(buffer=2)
        channel.write("a")
        channel.write("b")
        writer = Task(channel.write, "c").blocked()
        assert channel.get() == "a"
        writer.result()
        assert [channel.get(), channel.get()] == ["b", "c"]

    def test_it_is_drained_after_close(self):
        channel = Channel(buffer=3)
        for event in ("a", "b", "c"):
            channel.write(event)
        writer = Task(channel.write, "d").blocked()
        channel.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        with pytest.raises(SinkClosedError):
            channel.write("e")
        assert [channel.get() for _ in range(3)] == ["a", "b", "c"]
        for _ in range(2):
            with pytest.raises(SinkClosedError):
                channel.get()
            with pytest.raises(SinkClosedError):
                channel.get(timeout=0)

    def test_any_object_passes(self):
        channel = Channel(buffer=len(ODD_EVENTS))
        channel.write_many(ODD_EVENTS)
        channel.close()
        assert identical(list(channel), ODD_EVENTS)

    @pytest.mark.parametrize(("buffer", "error"), [*BAD_SIZES, (None, TypeError)])
    def test_bad_sizes(self, buffer, error):
        with pytest.raises(error, match=str(buffer)):
            Channel(buffer=buffer)


class TestGet:
    def test_it_gives_up_at_the_deadline(self):
        channel = Channel()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            channel.get(timeout=0.1)
        assert 0.09 <= time.monotonic() - began < 2.0
        with pytest.raises(TimeoutError):
            channel.get(0)

    def test_the_deadline_is_computed_once(self):
        """A reader that is notified in vain, as another is quicker, gets no more time for that."""
        channel = Channel(buffer=1)
        stop = threading.Event()

        def greedy():
            while not stop.is_set():
                channel.write("noise")
                try:
                    channel.get(timeout=0)
                except TimeoutError:
                    pass  # the other reader was quicker this time

        def read():
            began = time.monotonic()
            try:
                channel.get(timeout=0.1)
            except TimeoutError:
                pass
            return time.monotonic() - began

        chatter = Task(greedy)
        try:
            for _ in range(5):
                assert Task(read).result() < 2.0
        finally:
            stop.set()
        chatter.result()

    def test_close_wakes_every_reader(self):
        channel = Channel()
        readers = [Task(channel.get) for _ in range(3)] + [Task(channel.get, LONG)]
        for reader in readers:
            reader.blocked()
        channel.close()
        for reader in readers:
            with pytest.raises(SinkClosedError):
                reader.result()

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_bad_timeouts(self, timeout, error):
        channel = Channel(buffer=1)
        channel.write("one")
        with pytest.raises(error):
            channel.get(timeout=timeout)
        assert channel.get() == "one"

    @pytest.mark.parametrize("timeout", [1e12, float("inf")])
    def test_long_timeouts(self, timeout):
        channel = Channel()
        reader = Task(channel.get, timeout).blocked()
        channel.write("one")
        assert reader.result() == "one"

    def test_nothing_is_lost_between_readers_that_give_up_and_writers(self):
        """Many hand-overs to readers whose time runs out at just that moment."""
        for buffer in (0, 1):
            channel = Channel(buffer)
            seen = []

            def read(channel=channel, seen=seen):
                for timeout in itertools.cycle([0, 1e-6, 1e-5, 1e-4, 1e-3]):
                    try:
                        seen.append(channel.get(timeout))
                    except TimeoutError:
                        pass
                    except SinkClosedError:
                        return

            reader = Task(read)
            for number in range(1000):
                channel.write(number)
            channel.close()
            reader.result()
            assert seen == list(range(1000))


class TestIteration:
    def test_it_ends_with_the_close(self):
        channel = Channel()
        reader = Task(list, channel)
        for number in range(10):
            channel.write(number)
        reader.blocked()
        channel.close()
        assert reader.result() == list(range(10))

    def test_it_drains_first(self):
        channel = Channel(buffer=5)
        channel.write_many(range(5))
        channel.close()
        assert list(channel) == [0, 1, 2, 3, 4]
        assert list(channel) == []

    def test_none_does_not_end_it(self):
        channel = Channel(buffer=3)
        channel.write_many([None, StopIteration, None])
        channel.close()
        assert list(channel) == [None, StopIteration, None]

    def test_several_iterate(self):
        channel = Channel()
        readers = [Task(list, channel) for _ in range(4)]
        together(*[lambda: [channel.write(object()) for _ in range(100)]] * 3)
        channel.close()
        events = list(itertools.chain(*[reader.result() for reader in readers]))
        assert len(events) == len({id(event) for event in events}) == 300


class TestThreads:
    @pytest.mark.parametrize("buffer", [0, 1, 10])
    def test_each_event_once_and_in_its_writers_order(self, buffer):
        channel = Channel(buffer)
        reader = Task(list, channel)

        def write(writer):
            for number in range(200):
                channel.write((writer, number))

        together(*[lambda writer=writer: write(writer) for writer in range(4)])
        channel.close()
        events = reader.result()
        assert len(events) == 800
        for writer in range(4):
            assert [n for w, n in events if w == writer] == list(range(200))

    @pytest.mark.parametrize("buffer", [0, 3])
    def test_close_in_the_middle_loses_no_committed_event(self, buffer):
        for _ in range(10):
            channel = Channel(buffer)
            committed = [[], [], []]
            readers = [Task(list, channel) for _ in range(2)]

            def write(mine, channel=channel):
                try:
                    for number in itertools.count():
                        channel.write((id(mine), number))
                        mine.append((id(mine), number))
                except SinkClosedError:
                    pass

            writers = [Task(write, mine) for mine in committed]
            eventually(lambda committed=committed: all(len(mine) > 3 for mine in committed))
            channel.close()
            for writer in writers:
                writer.result()
            seen = sorted(itertools.chain(*[reader.result() for reader in readers]))
            assert seen == sorted(itertools.chain(*committed))

    def test_behind_a_queue(self):
        channel = Channel()
        reader = Task(list, channel)
        with Queue(channel) as queue:
            queue.write_many(range(100))
        assert reader.result() == list(range(100))

    def test_behind_a_broadcaster(self):
        first, second = Channel(), Channel(buffer=3)
        readers = [Task(list, first), Task(list, second)]
        with Broadcaster(first, second) as sink:
            sink.write_many(range(20))
        assert [reader.result() for reader in readers] == [list(range(20))] * 2


class TestDone:
    def test_it_tells_the_close(self):
        channel = Channel(buffer=1)
        assert channel.done(timeout=0) is False
        began = time.monotonic()
        assert channel.done(timeout=0.05) is False
        assert 0.04 <= time.monotonic() - began < 2.0
        channel.write("one")
        channel.close()
        assert channel.done(0) is True
        assert channel.done() is True
        assert channel.get() == "one"

    def test_it_waits_for_the_close(self):
        channel = Channel()
        waiters = [Task(channel.done), Task(channel.done, LONG), Task(channel.done, float("inf"))]
        for waiter in waiters:
            waiter.blocked()
        channel.close()
        assert [waiter.result() for waiter in waiters] == [True] * 3

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_bad_timeouts(self, timeout, error):
        with pytest.raises(error):
            Channel().done(timeout)


class TestGarbage:
    @pytest.mark.parametrize("buffer", [0, 1])
    def test_no_event_is_kept(self, buffer):
        channel = Channel(buffer)
        event = Token()
        watch = weakref.ref(event)
        writer = Task(channel.write, event)
        assert channel.get() is event
        writer.result()
        del event, writer
        gc.collect()
        assert watch() is None

    def test_what_was_withdrawn_is_let_go(self):
        channel = Channel()
        event = Token()
        watch = weakref.ref(event)
        writer = Task(channel.write, event).blocked()
        del event
        channel.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        del writer

        def gone():
            gc.collect()
            return watch() is None

        eventually(gone)

    def test_a_buffered_cycle_is_collected(self):
        channel = Channel(buffer=1)
        channel.write(channel)
        watch = weakref.ref(channel)
        del channel
        gc.collect()
        assert watch() is None

    def test_an_event_may_use_the_channel_as_it_goes(self):
        class Parting:
            def __del__(self):
                channel.write("from __del__")

        channel = Channel(buffer=3)
        channel.write(Parting())
        Task(lambda: channel.get() and None).result()
        assert channel.get(DEADLINE) == "from __del__"
