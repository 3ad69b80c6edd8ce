"""Queue: its listeners, and user code that calls back into it."""

import contextlib
import gc
import weakref

import pytest
from support import (
    DEADLINE,
    LONG,
    BlockRecorder,
    Counting,
    Recorder,
    Task,
    Token,
    Waits,
    eventually,
    interrupt_at,
    ledger,
    together,
)

from fastsinks import (
    Breaker,
    CloseTimeoutError,
    Dispatcher,
    NullSink,
    Queue,
    QueueFullError,
    RetryingSink,
    Sink,
    SinkClosedError,
)


class TestListeners:
    def test_each_event_comes_in_and_goes_out_once(self):
        log = []

        class Listener:
            def ingress(self, event):
                log.append(("in", event))

            def egress(self, event):
                log.append(("out", event))

        def hook(events):
            log.append(("delivery", events[0]))
            if events == [1]:
                raise OSError

        with Queue(Recorder(hook), listeners=(Listener(),)) as queue:
            for number in range(3):
                queue.write(number)
                assert queue.flush(DEADLINE)
        assert log == [(step, number) for number in range(3) for step in ("in", "delivery", "out")]

    def test_each_event_of_a_block(self):
        first, second = Counting(), Counting()
        with Queue(BlockRecorder(), batch_size=5, listeners=[first, second]) as queue:
            queue.write_many(range(12))
        for listener in (first, second):
            assert listener.entered == list(range(12))
            assert listener.left == list(range(12))

    def test_each_event_of_a_block_that_fails_half_way(self):
        def hook(events):
            if events == [2]:
                raise SinkClosedError

        listener = Counting()
        sink = RetryingSink(Recorder(hook), Breaker(1, 0.0))
        with Queue(sink, batch_size=4, listeners=[listener]) as queue:
            queue.write_many(range(6))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (6, 4, 2, 0)
            assert sorted(listener.left) == list(range(6))

    @pytest.mark.parametrize("where", ["in back-off", "in the destination"])
    def test_each_event_of_a_block_that_is_given_up_half_way(self, where, gate):
        def hook(events):
            if events == [2]:
                if where == "in the destination":
                    gate()
                raise OSError

        listener, strategy = Counting(), Waits()
        sink = RetryingSink(Recorder(hook), strategy)
        queue = Queue(sink, batch_size=4, listeners=[listener])
        queue.write_many(range(6))
        if where == "in the destination":
            gate.wait_entered()
        else:
            assert strategy.failed.wait(DEADLINE)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert caught.value.undelivered == [2, 3, 4, 5]
        assert ledger(queue) == (6, 2, 4, 0)
        eventually(lambda: sorted(listener.left) == list(range(6)))

    def test_ingress_comes_before_delivery_under_several_writers(self):
        entered = set()
        early = []

        class Listener:
            def ingress(self, event):
                entered.add(event)

            def egress(self, event):
                pass

        def hook(events):
            early.extend(event for event in events if event not in entered)

        with Queue(Recorder(hook), listeners=[Listener()]) as queue:
            together(
                *[
                    lambda writer=writer: [queue.write((writer, n)) for n in range(300)]
                    for writer in range(4)
                ]
            )
        assert early == []

    @pytest.mark.parametrize("error", [OSError, SinkClosedError])
    def test_one_that_raises_harms_nothing(self, error, caplog):
        class Bad:
            def ingress(self, event):
                raise error

            def egress(self, event):
                raise error

        good, dst = Counting(), Recorder()
        with Queue(dst, listeners=[Bad(), good]) as queue:
            queue.write(1)
            queue.write_many([2, 3])
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (3, 3, 0, 0)
        assert dst.events == good.entered == good.left == [1, 2, 3]
        assert caplog.records

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
    def test_one_that_ends_the_program_does_so_in_its_own_thread_only(self, error):
        """Ingress runs on the writer's thread, where an interrupt is the writer's; egress not."""

        class Ending:
            def ingress(self, event):
                if event == "in":
                    raise error

            def egress(self, event):
                if event == "out":
                    raise error

        good, dst = Counting(), Recorder()
        with Queue(dst, listeners=[Ending(), good]) as queue:
            with pytest.raises(error):
                queue.write("in")
            assert ledger(queue) == (0, 0, 0, 0)
            queue.write_many(["out", "after"])
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (2, 2, 0, 0)
        assert dst.events == good.entered == good.left == ["out", "after"]

    def test_an_ingress_that_ends_in_an_error_holds_no_close_up(self):
        class Listener:
            def ingress(self, event):
                closers.append(Task(queue.close))
                eventually(lambda: queue.closed)
                closers[0].blocked()
                raise KeyboardInterrupt

            def egress(self, event):
                pass

        closers = []
        dst = Recorder()
        queue = Queue(dst, listeners=[Listener()])
        with pytest.raises(KeyboardInterrupt):
            queue.write("never appended")
        closers[0].result()
        assert dst.closes == 1
        assert ledger(queue) == (0, 0, 0, 0)

    def test_one_may_call_back(self):
        seen = []

        class Curious:
            def ingress(self, event):
                seen.append((len(queue) >= 0, ledger(queue).pending >= 0, queue.closed))
                if event == "first":
                    queue.write("from ingress")

            def egress(self, event):
                ledger(queue)
                seen.append(queue.flush(LONG))
                if event == "first":
                    queue.write("from egress")

        dst = Recorder()
        queue = Queue(dst, listeners=[Curious()])
        Task(queue.write, "first").result()
        dst.wait(3)
        Task(queue.close).result()
        assert sorted(dst.events) == ["first", "from egress", "from ingress"]
        assert seen.count((True, True, False)) == 3

    def test_one_may_close_the_queue(self):
        class Closing:
            def ingress(self, event):
                pass

            def egress(self, event):
                queue.close()

        dst = Recorder()
        queue = Queue(dst, listeners=[Closing()])
        queue.write("one")
        dst.wait(1)
        eventually(lambda: queue.closed)
        Task(queue.close).result()
        assert dst.closes == 1

    def test_the_list_is_taken_at_construction(self):
        listener = Counting()
        listeners = [listener]
        with Queue(NullSink(), listeners=listeners) as queue:
            listeners.clear()
            queue.write("one")
        assert listener.left == ["one"]


class TestReentrancy:
    def test_the_destination_may_write_to_the_queue(self):
        def hook(events):
            if events[0] < 100:
                queue.write(events[0] + 100)

        dst = Recorder(hook)
        queue = Queue(dst)
        queue.write_many(range(3))
        dst.wait(6)
        queue.close()
        assert dst.events == [0, 1, 2, 100, 101, 102]

    def test_the_destination_cannot_wait_for_room_that_only_it_makes(self):
        refused = []

        def hook(events):
            if events == ["one"]:
                try:
                    queue.write("inner")
                except QueueFullError as error:
                    refused.append(error)

        dst = Recorder(hook)
        queue = Queue(dst, maxsize=1)
        queue.write("one")
        assert queue.flush(DEADLINE)
        assert len(refused) == 1
        queue.write("two")
        queue.close()
        assert dst.events == ["one", "two"]
        assert ledger(queue) == (2, 2, 0, 0)

    def test_the_destination_may_look_at_the_queue(self):
        seen = []

        def hook(events):
            seen.append((len(queue), ledger(queue).pending, queue.closed, repr(queue) != ""))

        queue = Queue(Recorder(hook))
        queue.write("one")
        queue.close()
        assert seen in ([(1, 1, False, True)], [(1, 1, True, True)])

    def test_flush_from_inside_cannot_wait(self):
        answers = []
        queue = Queue(Recorder(lambda events: answers.append(queue.flush())))
        queue.write("one")
        queue.close()
        assert answers == [False]

    @pytest.mark.parametrize("timeout", [None, 0, LONG])
    def test_close_from_inside_lets_the_pending_go_out(self, gate, timeout):
        refused = []

        def hook(events):
            gate()
            if events == ["close"]:
                assert queue.close(timeout) is None
                try:
                    queue.write("late")
                except SinkClosedError as error:
                    refused.append(error)

        dst = Recorder(hook)
        queue = Queue(dst)
        for event in ("one", "close", "two", "three"):
            queue.write(event)
        gate.open()
        eventually(lambda: dst.closes)
        Task(queue.close).result()
        assert dst.events == ["one", "close", "two", "three"]
        assert dst.closes == 1
        assert len(refused) == 1
        assert ledger(queue) == (4, 4, 0, 0)

    def test_an_event_may_write_as_it_goes(self):
        """The last reference to an event is dropped by the queue, which runs `__del__`."""

        class Parting:
            def __init__(self, sink, generations):
                self.sink, self.generations = sink, generations

            def __del__(self):
                if self.generations:
                    self.sink.write(Parting(self.sink, self.generations - 1))

        dst = NullSink()
        queue = Queue(dst)
        for _ in range(20):
            queue.write(Parting(queue, 3))
        eventually(lambda: dst.count == 80)
        queue.close()
        assert ledger(queue) == (80, 80, 0, 0)

    def test_a_discarded_event_may_write_as_it_goes(self, gate):
        class Parting:
            armed = True

            def __del__(self):
                if self.armed:
                    queue.write("from __del__")

        queue = Queue(Recorder(gate), maxsize=2, when_full="drop_oldest")
        queue.write("stuck")
        gate.wait_entered()
        queue.write(Parting())
        Task(queue.write, "pushes it out").result()
        assert ledger(queue).pending == 2
        assert ledger(queue).accepted == 4
        gate.open()
        queue.close()

    def test_a_weak_reference_may_write_as_its_event_goes(self):
        taken, watches = [], []

        class Kinds(Sink):
            def write(self, event):
                taken.append(type(event))

        queue = Queue(Kinds())

        def goodbye(watch):
            queue.write("goodbye")

        for _ in range(10):
            event = Token()
            watches.append(weakref.ref(event, goodbye))
            queue.write(event)
        del event
        assert queue.flush(DEADLINE)
        assert taken.count(Token) == 10
        eventually(lambda: taken.count(str) == 10)
        queue.close()
        assert ledger(queue) == (20, 20, 0, 0)

    def test_a_callback_of_the_collector_may_use_the_queue(self):
        """It runs wherever an allocation starts a collection."""
        dst = NullSink()
        queue = Queue(dst)
        calls = []

        def callback(phase, info):
            # A worker collects, too; it may have begun before the callback was removed, and
            # write after the queue is closed.
            if phase == "start":
                with contextlib.suppress(SinkClosedError):
                    queue.write("from the callback")
                    calls.append(phase)
                queue.stats()

        def write():
            for number in range(300):
                queue.write([number])
                queue.write_many([[number], (number,)])
                ledger(queue)

        before = gc.get_threshold()
        gc.callbacks.append(callback)
        try:
            gc.set_threshold(5, 5, 5)
            Task(write).result()
        finally:
            gc.set_threshold(*before)
            gc.callbacks.remove(callback)
        queue.close()
        assert calls
        eventually(lambda: dst.count == 300 * 3 + len(calls))

    @pytest.mark.parametrize("maxsize", [0, 2])
    def test_a_handler_may_write_at_any_moment(self, maxsize):
        """A signal's handler, or the collector's callback, between any two calls of ours."""
        moment, interrupted = 0, True
        while interrupted:
            queue = Queue(
                NullSink(), maxsize=maxsize, when_full="drop_oldest", dispatcher=Dispatcher()
            )
            handled = []

            def handle(queue=queue, handled=handled):
                queue.write("from the handler")
                handled.append(ledger(queue))

            def write(queue=queue):
                queue.write("one")
                queue.write_many(["two"])
                ledger(queue)

            interrupted = interrupt_at(moment, write, handle)
            assert queue.flush(DEADLINE)
            assert ledger(queue).accepted == 2 + len(handled)
            queue.close()
            moment += 1
        assert handled == []

    def test_the_collector_may_run_finalisers_that_use_the_queue(self):
        """With a collection at every allocation, one under a lock would deadlock."""
        dst = NullSink()
        queue = Queue(dst, maxsize=1000, batch_size=5)
        gone = []

        class Cycle:
            def __init__(self):
                self.me = self

            def __del__(self):
                len(queue)
                queue.stats()
                queue.write("from __del__")
                gone.append(True)

        def write():
            for number in range(200):
                Cycle()
                queue.write(number)
                queue.write_many((number, number))
                ledger(queue)
                queue.flush(0)

        before = gc.get_threshold()
        gc.collect()
        try:
            gc.set_threshold(1, 1, 1)
            Task(write).result(20)
        finally:
            gc.set_threshold(*before)
        # Where a worker is collecting, this collection is none, and finalisers run on its thread.
        eventually(lambda: gc.collect() >= 0 and len(gone) == 200)
        queue.close()
        assert dst.count == 200 * 4
