"""Queue: order, blocks, bounds, the ledger, what a failing destination costs, bad input."""

import contextlib
import gc
import itertools
import sys
import threading
import time
import weakref

import pytest
from contract import ODD_EVENTS, WrapperContract
from support import (
    BAD_SECONDS,
    BAD_SIZES,
    DEADLINE,
    LONG,
    MOMENT,
    BlockRecorder,
    Fails,
    Recorder,
    Task,
    Token,
    eventually,
    identical,
    ledger,
    together,
)

import fastsinks
from fastsinks import NullSink, Queue, QueueFullError, Sink, SinkClosedError

POLICIES = ["block", "raise", "drop_newest", "drop_oldest"]


class TestQueueContract(WrapperContract):
    kind = Queue

    def settle(self, sink):
        assert sink.flush(DEADLINE)


class TestBatchingQueueContract(WrapperContract):
    """The same promises when events travel in blocks through a small queue."""

    kind = Queue

    def wrap(self, dst, kind=None):
        return (kind or Queue)(dst, maxsize=20, batch_size=7, linger=0.001)

    def make(self):
        self.dst = BlockRecorder()
        return self.wrap(self.dst)

    def settle(self, sink):
        assert sink.flush(DEADLINE)


class TestDelivery:
    def test_write_does_not_wait_for_delivery(self, gate):
        dst = Recorder(gate)
        with Queue(dst) as queue:
            for number in range(1000):
                assert queue.write(number) is None
            assert queue.write_many(range(1000, 2000)) is None
            gate.wait_entered()
            assert dst.events == []
            assert len(queue) == 2000
            gate.open()
        assert dst.events == list(range(2000))

    def test_delivery_is_not_the_writers_work(self):
        threads = []
        with Queue(Recorder(lambda events: threads.append(threading.get_ident()))) as queue:
            queue.write("one")
            assert queue.flush(DEADLINE)
        assert threads != [threading.get_ident()]

    def test_one_call_at_a_time(self):
        dst = Recorder()
        with Queue(dst) as queue:
            together(*[lambda: [queue.write(n) for n in range(300)]] * 5)
        assert dst.crowd == 1
        assert len(dst.events) == 1500

    def test_two_writers_that_take_turns_set_the_order(self):
        dst = Recorder()
        turns = [threading.Semaphore(1), threading.Semaphore(0)]

        def write(me):
            for number in range(me, 200, 2):
                assert turns[me].acquire(timeout=DEADLINE)
                queue.write(number)
                turns[1 - me].release()

        with Queue(dst) as queue:
            together(lambda: write(0), lambda: write(1))
        assert dst.events == list(range(200))

    def test_it_wakes_up_again_and_again(self):
        dst = Recorder()
        with Queue(dst) as queue:
            for number in range(300):
                queue.write(number)
                dst.wait(number + 1)
            assert queue.flush(DEADLINE)
            assert len(queue) == 0
        assert dst.events == list(range(300))

    def test_two_queues_may_share_a_destination(self):
        dst = NullSink()
        first, second = Queue(dst), Queue(dst)
        together(
            lambda: [first.write(n) for n in range(500)],
            lambda: [second.write(n) for n in range(500)],
        )
        assert first.flush(DEADLINE)
        assert second.flush(DEADLINE)
        assert dst.count == 1000
        first.close()
        second.close()

    def test_names_and_sizes_can_be_read(self):
        with Queue(NullSink(), maxsize=7, name="orders") as queue:
            assert queue.name == "orders"
            assert queue.maxsize == 7
            assert "orders" in repr(queue)
        with Queue(NullSink()) as queue:
            assert queue.maxsize == 0


class TestBlocks:
    def test_blocks_of_several_writers_stay_contiguous(self):
        dst = Recorder()
        with Queue(dst) as queue:

            def write(writer):
                for block in range(60):
                    queue.write_many([(writer, block, n) for n in range(7)])
                    queue.write((writer, block, "single"))

            together(*[lambda writer=writer: write(writer) for writer in range(5)])
        rest = iter(dst.events)
        for writer, block, number in rest:
            if number == "single":
                continue
            assert number == 0
            for expected in range(1, 7):
                assert next(rest) == (writer, block, expected)

    def test_blocks_stay_contiguous_in_a_bounded_queue_too(self):
        dst = Recorder()
        with Queue(dst, maxsize=8) as queue:

            def write(writer):
                for block in range(40):
                    queue.write_many([(writer, block, n) for n in range(5)])

            together(*[lambda writer=writer: write(writer) for writer in range(4)])
        assert len(dst.events) == 4 * 40 * 5
        for start in range(0, len(dst.events), 5):
            writer, block, _ = dst.events[start]
            assert dst.events[start : start + 5] == [(writer, block, n) for n in range(5)]

    def test_an_iterator_that_fails_commits_nothing(self):
        def events():
            yield "one"
            yield "two"
            raise ZeroDivisionError

        dst = Recorder()
        with Queue(dst) as queue:
            with pytest.raises(ZeroDivisionError):
                queue.write_many(events())
            assert ledger(queue) == (0, 0, 0, 0)
        assert dst.events == []

    def test_an_iterator_may_write_to_the_queue(self):
        dst = Recorder()

        def events():
            yield "one"
            queue.write("from the iterator")
            yield "two"

        with Queue(dst) as queue:
            Task(queue.write_many, events()).result()
        assert dst.events == ["from the iterator", "one", "two"]

    def test_a_block_of_at_most_batch_size(self, gate):
        dst = BlockRecorder(gate)
        with Queue(dst, batch_size=10) as queue:
            queue.write(0)
            gate.wait_entered()
            for number in range(1, 15):
                queue.write(number)
            queue.write_many(range(15, 26))
            gate.open()
        assert [len(block) for block in dst.blocks] == [1, 10, 10, 5]
        assert dst.events == list(range(26))

    def test_a_block_belongs_to_the_destination(self):
        kept, copies = [], []

        class Keeping(Sink):
            def write(self, event):
                self.write_many([event])

            def write_many(self, events):
                kept.append(events)
                copies.append(list(events))

        with Queue(Keeping(), batch_size=4) as queue:
            for number in range(200):
                queue.write(number)
        assert [list(block) for block in kept] == copies
        assert list(itertools.chain(*copies)) == list(range(200))

    def test_one_by_one_unless_asked_for_blocks(self):
        dst = BlockRecorder()
        with Queue(dst) as queue:
            queue.write_many(range(10))
        assert dst.many == 0
        assert dst.blocks == [[n] for n in range(10)]

    def test_one_by_one_where_the_destination_takes_no_blocks(self):
        dst = Recorder()
        with Queue(dst, batch_size=5) as queue:
            queue.write_many(range(10))
        assert dst.blocks == [[n] for n in range(10)]

    def test_the_base_class_does_not_make_a_sink_take_blocks(self):
        blocks = []

        class Single(Sink):
            def write(self, event):
                if event == 1:
                    raise OSError
                blocks.append(event)

        with Queue(Single(), batch_size=5) as queue:
            queue.write_many(range(4))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (4, 3, 1, 0)
        assert blocks == [0, 2, 3]


class TestLinger:
    def test_it_waits_for_a_fuller_block(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=3, linger=LONG) as queue:
            queue.write(1)
            queue.write(2)
            threading.Event().wait(MOMENT)
            assert dst.attempts == []
            assert len(queue) == 2
            queue.write(3)
            assert dst.wait(3) == [1, 2, 3]
        assert dst.blocks == [[1, 2, 3]]

    def test_it_waits_again_for_what_is_left_of_a_full_block(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=3, linger=LONG) as queue:
            queue.write_many(range(8))
            dst.wait(6)
            threading.Event().wait(MOMENT)
            assert dst.blocks == [[0, 1, 2], [3, 4, 5]]
            queue.write(8)
            dst.wait(9)
        assert dst.blocks == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]

    def test_but_no_longer_than_that(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=0.1) as queue:
            began = time.monotonic()
            queue.write(1)
            queue.write(2)
            dst.wait(2)
            assert time.monotonic() - began >= 0.09
        assert dst.blocks == [[1, 2]]

    def test_a_trickle_does_not_put_it_off(self):
        dst = BlockRecorder()
        stop = threading.Event()

        def trickle():
            while not stop.wait(0.02):
                queue.write("drop")

        with Queue(dst, batch_size=100_000, linger=0.1) as queue:
            task = Task(trickle)
            dst.wait(1)
            stop.set()
            task.result()

    def test_flush_cuts_it_short(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=LONG) as queue:
            for number in range(5):
                queue.write(number)
            assert queue.flush(DEADLINE)
            assert dst.blocks == [[0, 1, 2, 3, 4]]
            queue.write(5)
            threading.Event().wait(MOMENT)
            assert len(queue) == 1
            assert queue.flush(DEADLINE)
            assert dst.blocks == [[0, 1, 2, 3, 4], [5]]

    def test_a_flush_begun_while_it_waits_cuts_it_short(self):
        dst = BlockRecorder()
        with Queue(dst, batch_size=100, linger=LONG) as queue:
            queue.write("one")
            threading.Event().wait(MOMENT)  # the worker, if it has one, waits by now
            assert Task(queue.flush).result()
            assert dst.blocks == [["one"]]

    def test_close_cuts_it_short(self):
        dst = BlockRecorder()
        queue = Queue(dst, batch_size=4, linger=LONG)
        queue.write_many(range(6))
        Task(queue.close).result()
        assert dst.blocks == [[0, 1, 2, 3], [4, 5]]

    @pytest.mark.parametrize("dst", [Recorder, BlockRecorder])
    def test_nobody_waits_where_no_block_is_made(self, dst):
        dst = dst()
        batch_size = 1 if hasattr(dst, "write_many") else 10
        with Queue(dst, batch_size=batch_size, linger=LONG) as queue:
            queue.write("one")
            dst.wait(1)

    def test_a_full_queue_does_not_wait_for_what_cannot_come(self):
        dst = BlockRecorder()
        with Queue(dst, maxsize=3, batch_size=10, linger=LONG) as queue:
            task = Task(lambda: [queue.write(n) for n in range(6)])
            task.result()
            dst.wait(6)
        assert dst.blocks == [[0, 1, 2], [3, 4, 5]]

    def test_a_lingering_queue_holds_no_other_up(self):
        queues = [Queue(BlockRecorder(), batch_size=9, linger=LONG) for _ in range(100)]
        for queue in queues:
            queue.write("waits")
        dst = Recorder()
        with Queue(dst) as healthy:
            healthy.write("one")
            dst.wait(1)
        for queue in queues:
            assert len(queue) == 1
            queue.close()
            assert ledger(queue) == (1, 1, 0, 0)


@pytest.fixture
def blocked(gate):
    """Makes a bounded queue whose first event is stuck in the destination."""
    made = []

    def make(**options):
        dst = Recorder(gate)
        queue = Queue(dst, **options)
        queue.write("stuck")
        gate.wait_entered()
        made.append(queue)
        return queue, dst

    yield make
    gate.open()
    for queue in made:
        queue.close(DEADLINE)


class Counting:
    """A listener that keeps what it is told."""

    def __init__(self):
        self.lock = threading.Lock()
        self.entered = []
        self.left = []

    def ingress(self, event):
        with self.lock:
            self.entered.append(event)

    def egress(self, event):
        with self.lock:
            self.left.append(event)


class TestWhenFull:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_the_event_being_delivered_counts(self, blocked, policy):
        queue, _ = blocked(maxsize=3, when_full=policy)
        assert len(queue) == 1
        queue.write_many([1, 2])
        assert len(queue) == 3

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_block_that_never_fits(self, blocked, policy):
        queue, _ = blocked(maxsize=3, when_full=policy)
        before = ledger(queue)
        with pytest.raises(ValueError, match=r"4.*3|3.*4"):
            queue.write_many(range(4))
        assert ledger(queue) == before
        queue.write_many([])
        assert ledger(queue) == before

    @pytest.mark.parametrize("policy", POLICIES)
    def test_an_empty_block_always_fits(self, blocked, policy):
        queue, _ = blocked(maxsize=1, when_full=policy)
        Task(queue.write_many, []).result()
        assert ledger(queue) == (1, 0, 0, 1)

    @pytest.mark.parametrize("policy", POLICIES)
    def test_the_size_is_never_exceeded(self, policy):
        lengths = []
        queue = Queue(
            Recorder(lambda events: lengths.append(len(queue))), maxsize=5, when_full=policy
        )

        def write():
            for number in range(150):
                for call, argument in ((queue.write, number), (queue.write_many, [number] * 3)):
                    try:
                        call(argument)
                    except QueueFullError:
                        assert policy == "raise"
                    lengths.append(len(queue))

        with queue:
            together(*[write] * 4)
        assert max(lengths) <= 5
        stats = ledger(queue)
        assert stats.pending == 0
        if policy == "block":
            assert stats == (4 * 150 * 4, 4 * 150 * 4, 0, 0)
        elif policy == "raise":
            assert stats.dropped == 0
        else:
            assert stats.accepted == 4 * 150 * 4

    # block

    def test_block_is_the_default(self, blocked, gate):
        queue, dst = blocked(maxsize=1)
        writer = Task(queue.write, "waits").blocked()
        assert ledger(queue) == (1, 0, 0, 1)
        gate.open()
        assert writer.result() is None
        queue.close()
        assert dst.events == ["stuck", "waits"]

    def test_block_waits_for_the_whole_block(self, make_gate):
        gates = [make_gate() for _ in range(3)]
        dst = Recorder(lambda events: gates[events[0]]() if events[0] in range(3) else None)
        with Queue(dst, maxsize=3) as queue:
            queue.write_many([0, 1, 2])
            gates[0].wait_entered()
            writer = Task(queue.write_many, ["a", "b"]).blocked()
            gates[0].open()
            gates[1].wait_entered()
            writer.blocked()
            assert len(queue) == 2
            gates[1].open()
            writer.result()
            gates[2].open()
        assert dst.events == [0, 1, 2, "a", "b"]

    def test_block_releases_as_many_writers_as_there_is_room(self, blocked, gate):
        queue, dst = blocked(maxsize=2)
        queue.write("second")
        writers = [Task(queue.write, number) for number in range(8)]
        for writer in writers:
            writer.blocked()
        gate.open()
        for writer in writers:
            writer.result()
        queue.close()
        assert dst.events[:2] == ["stuck", "second"]
        assert sorted(dst.events[2:]) == list(range(8))

    def test_a_small_write_does_not_starve_a_waiting_block(self):
        dst = Recorder()
        stop = threading.Event()

        def small():
            while not stop.is_set():
                queue.write("small")

        with Queue(dst, maxsize=8) as queue:
            busy = [Task(small) for _ in range(2)]
            try:
                for _ in range(20):
                    Task(queue.write_many, ["big"] * 8).result()
            finally:
                stop.set()
                for task in busy:
                    task.result()

    # raise

    def test_raise_accepts_nothing(self, blocked, gate):
        queue, dst = blocked(maxsize=2, when_full="raise")
        queue.write("second")
        for _ in range(3):
            with pytest.raises(QueueFullError):
                queue.write("refused")
        assert ledger(queue) == (2, 0, 0, 2)
        gate.open()
        assert queue.flush(DEADLINE)
        queue.write("again")
        queue.close()
        assert dst.events == ["stuck", "second", "again"]

    def test_raise_refuses_a_block_as_a_whole(self, blocked, gate):
        queue, dst = blocked(maxsize=3, when_full="raise")
        with pytest.raises(QueueFullError):
            queue.write_many(["a", "b", "c"])
        assert ledger(queue) == (1, 0, 0, 1)
        queue.write_many(["d", "e"])
        gate.open()
        queue.close()
        assert dst.events == ["stuck", "d", "e"]

    # drop_newest

    def test_drop_newest(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=2, when_full="drop_newest", dead_letter=dead)
        queue.write("second")
        assert queue.write("third") is None
        assert ledger(queue) == (3, 0, 1, 2)
        assert dead.wait(1) == ["third"]
        gate.open()
        queue.close()
        assert dst.events == ["stuck", "second"]
        assert ledger(queue) == (3, 2, 1, 0)

    def test_drop_newest_drops_a_block_as_a_whole(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=3, when_full="drop_newest", dead_letter=dead)
        queue.write_many(["a", "b", "c"])
        assert ledger(queue) == (4, 0, 3, 1)
        queue.write_many(["d", "e"])
        gate.open()
        queue.close()
        assert dst.events == ["stuck", "d", "e"]
        assert dead.events == ["a", "b", "c"]

    # drop_oldest

    def test_drop_oldest(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=3, when_full="drop_oldest", dead_letter=dead)
        for event in ("b", "c", "d", "e"):
            assert queue.write(event) is None
            assert len(queue) <= 3
        assert dead.wait(2) == ["b", "c"]
        assert ledger(queue) == (5, 0, 2, 3)
        gate.open()
        queue.close()
        assert dst.events == ["stuck", "d", "e"]

    def test_drop_oldest_spares_what_is_being_delivered(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=1, when_full="drop_oldest", dead_letter=dead)
        queue.write("new")
        assert dead.wait(1) == ["new"]
        assert ledger(queue) == (2, 0, 1, 1)
        gate.open()
        queue.close()
        assert dst.events == ["stuck"]

    def test_drop_oldest_spares_a_whole_block_that_is_being_delivered(self, gate):
        dst, dead = BlockRecorder(gate), Recorder()
        with Queue(
            dst, maxsize=3, when_full="drop_oldest", batch_size=3, linger=LONG, dead_letter=dead
        ) as queue:
            queue.write_many([1, 2, 3])
            gate.wait_entered()
            queue.write("new")
            assert dead.wait(1) == ["new"]
            gate.open()
        assert dst.events == [1, 2, 3]

    def test_drop_oldest_makes_room_for_a_block(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=4, when_full="drop_oldest", dead_letter=dead)
        queue.write_many(["b", "c", "d"])
        queue.write_many(["e", "f"])
        assert dead.wait(2) == ["b", "c"]
        gate.open()
        queue.close()
        assert dst.events == ["stuck", "d", "e", "f"]
        assert ledger(queue) == (6, 4, 2, 0)

    def test_drop_oldest_and_a_block_for_which_no_room_can_be_made(self, blocked, gate):
        dead = Recorder()
        queue, dst = blocked(maxsize=3, when_full="drop_oldest", dead_letter=dead)
        queue.write_many(["b", "c"])
        queue.write_many(["x", "y", "z"])
        dead.wait(3)
        stats = ledger(queue)
        gate.open()
        queue.close()
        assert stats.accepted == 6
        assert sorted(dst.events + dead.events) == ["b", "c", "stuck", "x", "y", "z"]
        assert not {"x", "y", "z"} & set(dst.events)

    # what every discarding has in common

    @pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
    def test_discards_are_told_to_listeners(self, blocked, gate, policy):
        listener = Counting()
        queue, _ = blocked(maxsize=2, when_full=policy, listeners=[listener])
        queue.write_many(["a"])
        queue.write("b")
        eventually(lambda: len(listener.left) == 1)
        gate.open()
        queue.close()
        assert sorted(listener.entered) == sorted(listener.left) == ["a", "b", "stuck"]

    @pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
    def test_discards_are_logged_once_a_burst(self, blocked, caplog, policy):
        queue, _ = blocked(maxsize=2, when_full=policy)
        queue.write("a")
        for number in range(50):
            queue.write(f"secret {number}")
        assert len(caplog.records) == 1
        assert "secret" not in caplog.text

    def test_a_refusal_leaves_the_listeners_balanced(self, blocked, gate):
        listener = Counting()
        queue, _ = blocked(maxsize=1, when_full="raise", listeners=[listener])
        with pytest.raises(QueueFullError):
            queue.write("refused")
        gate.open()
        queue.close()
        with pytest.raises(SinkClosedError):
            queue.write("late")
        assert sorted(listener.entered) == sorted(listener.left)
        assert listener.left.count("stuck") == 1


class TestFlush:
    def test_nothing_to_wait_for(self):
        with Queue(NullSink()) as queue:
            assert queue.flush() is True
            assert queue.flush(0) is True
            assert queue.flush(timeout=0.0) is True

    def test_it_waits_until_the_destination_is_done(self, gate):
        dst = Recorder(gate)
        with Queue(dst) as queue:
            queue.write("one")
            gate.wait_entered()
            flusher = Task(queue.flush).blocked()
            gate.open()
            assert flusher.result() is True
            assert dst.events == ["one"]

    def test_it_gives_up_at_the_deadline(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            began = time.monotonic()
            assert queue.flush(0) is False
            assert queue.flush(0.1) is False
            assert 0.09 <= time.monotonic() - began < 2.0
            gate.open()
            assert queue.flush(DEADLINE) is True

    def test_the_deadline_is_computed_once(self, gate):
        """What wakes the waiting thread in vain does not start its time again."""
        stop = threading.Event()
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            noise = Task(lambda: [queue.write(n) for n in iter(lambda: stop.wait(0.005), True)])
            began = time.monotonic()
            assert Task(queue.flush, 0.2).result() is False
            assert time.monotonic() - began < 2.0
            stop.set()
            noise.result()
            gate.open()

    def test_it_does_not_wait_for_what_comes_later(self, make_gate):
        first, second = make_gate(), make_gate()
        gates = {1: first, 2: second}
        with Queue(Recorder(lambda events: gates[events[0]]())) as queue:
            queue.write(1)
            first.wait_entered()
            flusher = Task(queue.flush).blocked()
            queue.write(2)
            first.open()
            assert flusher.result() is True
            assert len(queue) == 1
            second.open()

    @pytest.mark.parametrize("policy", ["drop_newest", "drop_oldest"])
    def test_what_is_discarded_meanwhile_does_not_stand_for_it(self, make_gate, policy):
        """A count of finished events would take the discarded one for the pending one."""
        first, second = make_gate(), make_gate()
        gates = {"first": first, "second": second}
        with Queue(
            Recorder(lambda events: gates.get(events[0], bool)()), maxsize=2, when_full=policy
        ) as queue:
            queue.write("first")
            first.wait_entered()
            if policy == "drop_newest":
                queue.write("second")
                flusher = Task(queue.flush).blocked()
                queue.write("discarded")
            else:
                queue.write("old")
                flusher = Task(queue.flush).blocked()
                queue.write("second")  # discards "old", which has thereby finished
            first.open()
            second.wait_entered()
            if policy == "drop_newest":
                flusher.blocked()
            else:
                assert flusher.result() is True
            second.open()
            assert flusher.result() is True if policy == "drop_newest" else True

    def test_a_failed_event_has_finished(self):
        with Queue(Recorder(Fails())) as queue:
            queue.write_many(range(10))
            assert queue.flush(DEADLINE) is True
            assert ledger(queue) == (10, 0, 10, 0)

    def test_it_returns_after_egress_and_dead_letter(self):
        listener, dead = Counting(), Recorder()
        with Queue(Recorder(Fails()), listeners=[listener], dead_letter=dead) as queue:
            for number in range(50):
                queue.write(number)
                assert queue.flush(DEADLINE)
                assert len(listener.left) == number + 1
                assert len(dead.events) == number + 1

    def test_many_may_wait(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write_many(range(10))
            flushers = [Task(queue.flush) for _ in range(5)]
            for flusher in flushers:
                flusher.blocked()
            gate.open()
            assert [flusher.result() for flusher in flushers] == [True] * 5

    def test_after_close(self):
        queue = Queue(NullSink())
        queue.write("one")
        queue.close()
        assert queue.flush() is True

    @pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
    def test_bad_timeouts(self, timeout, error):
        with Queue(NullSink()) as queue, pytest.raises(error):
            queue.flush(timeout)

    @pytest.mark.parametrize("timeout", [1e12, float("inf")])
    def test_long_timeouts(self, timeout):
        with Queue(NullSink()) as queue:
            queue.write("one")
            assert queue.flush(timeout) is True

    def test_every_write_before_it_has_arrived(self):
        dst = Recorder()

        def write():
            for number in range(100):
                event = (threading.get_ident(), number)
                queue.write(event)
                if number % 10 == 0:
                    assert queue.flush(DEADLINE)
                    assert event in dst.events

        with Queue(dst) as queue:
            together(*[write] * 4)


class TestLedger:
    def test_stats_is_a_named_tuple(self):
        with Queue(NullSink()) as queue:
            stats = queue.stats()
            assert isinstance(stats, tuple)
            assert stats._fields == ("accepted", "delivered", "dropped", "pending")
            assert stats == (0, 0, 0, 0)

    def test_it_follows_an_event(self, gate):
        with Queue(Recorder(gate)) as queue:
            queue.write("one")
            gate.wait_entered()
            assert ledger(queue) == (1, 0, 0, 1)
            queue.write_many(["two", "three"])
            assert ledger(queue) == (3, 0, 0, 3)
            gate.open()
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (3, 3, 0, 0)
        assert ledger(queue) == (3, 3, 0, 0)

    @pytest.mark.parametrize("policy", POLICIES)
    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_it_adds_up_at_any_moment(self, policy, batch_size):
        """Several writers, a destination that fails now and then, a reader of the stats."""
        unlucky = itertools.count()
        dst = BlockRecorder(Fails(only=lambda event: next(unlucky) % 5 == 0))
        dead, listener = Recorder(), Counting()
        queue = Queue(
            dst,
            maxsize=6,
            when_full=policy,
            batch_size=batch_size,
            dead_letter=dead,
            listeners=[listener],
        )
        refused = []
        stop = threading.Event()

        def watch():
            looks = 0
            while not (looks and stop.wait(0.001)):  # all the time, it would get in the way
                stats = ledger(queue)
                assert stats.pending <= 6
                assert len(queue) <= 6
                looks += 1
            return looks

        def write(writer):
            for number in range(200):
                events = [(writer, number, n) for n in range(number % 4)]
                try:
                    queue.write_many(events)
                    queue.write((writer, number, "last"))
                except QueueFullError:
                    refused.append(number)

        watcher = Task(watch)
        try:
            together(*[lambda writer=writer: write(writer) for writer in range(4)])
            queue.close(DEADLINE)
        finally:
            stop.set()
        assert watcher.result() > 0
        stats = ledger(queue)
        assert stats.pending == 0
        assert stats.delivered == len(dst.events)
        assert stats.dropped == len(dead.events) > 0
        assert len(set(dst.events) | set(dead.events)) == stats.accepted
        assert sorted(map(repr, listener.entered)) == sorted(map(repr, listener.left))
        assert bool(refused) <= (policy == "raise")
        for writer in range(4):
            mine = [(w, n, m) for w, n, m in dst.events if w == writer]
            assert mine == sorted(mine, key=lambda event: (event[1], str(event[2])))


class TestFailures:
    @pytest.mark.parametrize(
        "error",
        [OSError, SinkClosedError, KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration],
    )
    def test_an_event_that_fails_is_dropped_and_the_next_goes_on(self, error):
        dst, dead = Recorder(Fails(error, only=lambda event: event % 3 == 0)), Recorder()
        with Queue(dst, dead_letter=dead) as queue:
            queue.write_many(range(10))
            assert queue.flush(DEADLINE)
            assert not queue.closed
            assert ledger(queue) == (10, 6, 4, 0)
            queue.write(10)
        assert dst.events == [1, 2, 4, 5, 7, 8, 10]
        assert dead.events == [0, 3, 6, 9]

    def test_a_block_that_fails_is_dropped_as_a_whole(self, gate):
        def hook(events):
            gate()
            if 5 in events:
                raise OSError

        dst, dead = BlockRecorder(hook), Recorder()
        with Queue(dst, batch_size=4, dead_letter=dead) as queue:
            queue.write(0)
            gate.wait_entered()
            queue.write_many(range(1, 13))
            gate.open()
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (13, 9, 4, 0)
        assert dead.events == [5, 6, 7, 8]
        assert dst.events == [0, 1, 2, 3, 4, 9, 10, 11, 12]

    @pytest.mark.parametrize("error", [OSError, SinkClosedError, KeyboardInterrupt])
    def test_a_dead_letter_that_fails_harms_nothing(self, error):
        dst, dead = Recorder(Fails(only=lambda event: event == 1)), Recorder(Fails(error))
        with Queue(dst, dead_letter=dead) as queue:
            queue.write_many(range(4))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (4, 3, 1, 0)
        assert dead.attempts == [[1]]

    def test_the_dead_letter_is_not_closed(self):
        dead = Recorder()
        with Queue(Recorder(Fails()), dead_letter=dead) as queue:
            queue.write("one")
        assert dead.events == ["one"]
        assert dead.closes == 0

    def test_the_dead_letter_may_write_the_event_again(self):
        dst = Recorder(Fails(times=3))

        class Again(Recorder):
            def write(self, event):
                super().write(event)
                queue.write(event)

        dead = Again()
        queue = Queue(dst, dead_letter=dead)
        queue.write("stubborn")
        assert dst.wait(1) == ["stubborn"]
        assert queue.flush(DEADLINE)
        assert ledger(queue) == (4, 1, 3, 0)
        queue.close()

    def test_the_dead_letter_may_be_a_queue(self):
        dst = Recorder()
        with Queue(dst) as dead:
            with Queue(Recorder(Fails()), dead_letter=dead) as queue:
                queue.write_many(range(100))
            assert dead.flush(DEADLINE)
        assert dst.events == list(range(100))


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
            if phase == "start":
                calls.append(phase)
                queue.write("from the callback")
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
        assert dst.count == 300 * 3 + len(calls)

    def test_the_collector_may_run_finalisers_that_use_the_queue(self):
        """With a collection at every allocation, one under a lock would deadlock."""
        dst = NullSink()
        queue = Queue(dst, maxsize=1000, batch_size=5)
        written = itertools.count()

        class Cycle:
            def __init__(self):
                self.me = self

            def __del__(self):
                len(queue)
                queue.stats()
                queue.write(next(written))

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
        gc.collect()
        queue.close()
        assert dst.count == 200 * 3 + next(written)


class TestGarbage:
    def test_an_idle_queue_is_collected(self):
        dst = Recorder()
        queue = Queue(dst)
        queue.write("one")
        assert queue.flush(DEADLINE)
        watch, watch_dst = weakref.ref(queue), weakref.ref(dst)
        del queue, dst

        def gone():
            gc.collect()
            return watch() is None and watch_dst() is None

        eventually(gone)

    def test_a_queue_that_was_never_used_goes_at_once(self):
        watch = weakref.ref(Queue(NullSink()))
        assert watch() is None

    def test_a_queue_with_pending_events_lives_until_they_are_delivered(self, gate):
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(range(10))
        watch = weakref.ref(queue)
        del queue
        gc.collect()
        assert dst.events == []
        gate.open()
        assert dst.wait(10) == list(range(10))

        def gone():
            gc.collect()
            return watch() is None

        eventually(gone)

    def test_a_lingering_queue_lives_until_its_events_are_delivered(self):
        dst = BlockRecorder()
        queue = Queue(dst, batch_size=10, linger=0.1)
        queue.write_many(range(5))
        del queue
        gc.collect()
        assert dst.wait(5) == list(range(5))

    @pytest.mark.parametrize("hook", [None, Fails()])
    @pytest.mark.parametrize("sink", [Recorder, BlockRecorder])
    def test_no_event_is_kept(self, hook, sink):
        dst = sink(hook)
        queue = Queue(dst, batch_size=3)
        event = Token()
        watch = weakref.ref(event)
        queue.write(event)
        assert queue.flush(DEADLINE)
        del event
        for kept in (dst.events, dst.blocks, dst.attempts):
            kept.clear()

        def gone():
            gc.collect()
            return watch() is None

        eventually(gone)
        queue.close()

    @pytest.mark.parametrize("dead", [None, NullSink()])
    @pytest.mark.parametrize("fails", [False, True])
    @pytest.mark.parametrize("policy", POLICIES)
    def test_references_stay_level_on_every_way_out(self, gate, policy, fails, dead):
        event = Token()
        before = sys.getrefcount(event)

        def use():
            def hook(events):
                gate()
                if fails:
                    raise OSError

            queue = Queue(Recorder(hook), maxsize=4, when_full=policy, dead_letter=dead)
            queue.write(event)
            gate.wait_entered()
            queue.write_many([event])
            queue.write(event)
            for _ in range(3 if policy != "block" else 0):
                with contextlib.suppress(QueueFullError):
                    queue.write_many([event, event])
                with contextlib.suppress(QueueFullError):
                    queue.write(event)
            gate.open()
            queue.close(DEADLINE)
            assert ledger(queue).pending == 0

        def level():
            gc.collect()
            return sys.getrefcount(event) == before

        use()
        eventually(level)

    def test_references_stay_level_where_close_gives_up(self, gate):
        event = Token()
        before = sys.getrefcount(event)
        queue = Queue(Recorder(gate))
        queue.write_many([event] * 5)
        with pytest.raises(fastsinks.CloseTimeoutError):
            queue.close(0)
        gate.open()
        del queue

        def level():
            gc.collect()
            return sys.getrefcount(event) == before

        eventually(level)


class TestBadInput:
    @pytest.mark.parametrize(("size", "error"), BAD_SIZES)
    def test_maxsize(self, size, error):
        with pytest.raises(error, match=str(size)):
            Queue(NullSink(), maxsize=size)

    @pytest.mark.parametrize(("size", "error"), [*BAD_SIZES, (0, ValueError), (None, TypeError)])
    def test_batch_size(self, size, error):
        with pytest.raises(error, match=str(size)):
            Queue(NullSink(), batch_size=size)

    @pytest.mark.parametrize(("linger", "error"), [*BAD_SECONDS, (None, TypeError)])
    def test_linger(self, linger, error):
        with pytest.raises(error):
            Queue(NullSink(), linger=linger)

    @pytest.mark.parametrize("policy", ["", "Block", "drop", "wait"])
    def test_when_full(self, policy):
        with pytest.raises(ValueError, match=repr(policy)):
            Queue(NullSink(), when_full=policy)

    @pytest.mark.parametrize("policy", [None, 1, True, ["block"]])
    def test_when_full_of_another_type(self, policy):
        with pytest.raises((ValueError, TypeError)):
            Queue(NullSink(), when_full=policy)

    def test_dispatcher(self):
        with pytest.raises(TypeError):
            Queue(NullSink(), dispatcher=object())

    @pytest.mark.parametrize("dead", [object(), "text", 7])
    def test_dead_letter(self, dead):
        with pytest.raises(TypeError):
            Queue(NullSink(), dead_letter=dead)

    def test_listeners(self):
        with pytest.raises(TypeError):
            Queue(NullSink(), listeners=7)

    def test_options_are_named(self):
        with pytest.raises(TypeError):
            Queue(NullSink(), 10)
        with pytest.raises(TypeError):
            Queue(NullSink(), max_size=10)
        with pytest.raises(TypeError):
            Queue()

    def test_nothing_is_accepted_after_a_bad_call(self):
        dst = Recorder()
        with Queue(dst, maxsize=5) as queue:
            for call in (queue.write, queue.write_many):
                with pytest.raises(TypeError):
                    call()
            with pytest.raises(TypeError):
                queue.write_many(7)
            assert ledger(queue) == (0, 0, 0, 0)


class TestIndependence:
    def test_blocked_queues_do_not_hold_up_a_healthy_one(self, gate):
        stuck = [Queue(Recorder(gate)) for _ in range(30)]
        for queue in stuck:
            queue.write("stuck")
        dst = Recorder()
        with Queue(dst) as healthy:
            began = time.monotonic()
            for number in range(20):
                healthy.write(number)
                dst.wait(number + 1)
            assert time.monotonic() - began < 3.0
        gate.open()
        for queue in stuck:
            queue.close(DEADLINE)
            assert ledger(queue) == (1, 1, 0, 0)

    def test_a_long_backlog_does_not_starve_a_neighbour(self):
        count = 100_000
        greedy_dst = NullSink()
        greedy = Queue(greedy_dst)
        dst = Recorder()
        with Queue(dst) as modest:
            greedy.write_many(range(count))
            modest.write("one")
            dst.wait(1)
        greedy.close()
        assert greedy_dst.count == count

    def test_a_blocked_writer_does_not_stop_the_process(self, gate):
        """A call that waits has released the GIL."""
        with Queue(Recorder(gate), maxsize=1) as queue:
            queue.write("stuck")
            gate.wait_entered()
            calls = [Task(queue.write, "room"), Task(queue.flush), Task(queue.flush, LONG)]
            for call in calls:
                call.blocked()
            gate.open()
            for call in calls:
                call.result()


def test_odd_events_are_discarded_like_any_other(make_gate):
    for policy in ("drop_newest", "drop_oldest"):
        door = make_gate()
        dst, dead = Recorder(door), Recorder()
        with Queue(dst, maxsize=4, when_full=policy, dead_letter=dead) as queue:
            for event in ODD_EVENTS:
                queue.write(event)
            door.open()
        if policy == "drop_newest":
            assert identical(dst.events + dead.events, ODD_EVENTS)
        assert len(dst.events) + len(dead.events) == len(ODD_EVENTS)
