"""Queue: order, blocks, linger, flush, bad input."""

import itertools
import threading
import time

import pytest
from support import (
    BAD_SECONDS,
    BAD_SIZES,
    DEADLINE,
    LONG,
    MUTILATIONS,
    BlockRecorder,
    Mutilator,
    Recorder,
    Task,
    at_length,
    ledger,
    together,
)
from support.contract import WrapperContract

from fastsinks import NullSink, Queue, Sink


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
    @pytest.mark.parametrize("how", MUTILATIONS)
    def test_a_destination_may_change_the_list(self, how):
        dst = Mutilator(how)
        with Queue(dst, batch_size=7) as queue:
            queue.write_many(range(20))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (20, 20, 0, 0)
        assert dst.events == list(range(20))

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


class TestSetOnce:
    @pytest.mark.parametrize("name", ["", "orders", 5])
    def test_a_name_is_what_was_given(self, name):
        with Queue(NullSink(), name=name) as queue:
            assert queue.name == str(name)

    def test_a_name_that_was_not_given(self):
        with Queue(NullSink()) as queue:
            assert queue.name == "queue to NullSink"

    @pytest.mark.parametrize("field", ["name", "maxsize"])
    def test_fields(self, field):
        with Queue(NullSink(), maxsize=7, name="orders") as queue:
            with pytest.raises(AttributeError, match=field):
                setattr(queue, field, getattr(queue, field))
            assert queue.maxsize == 7


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
        count = at_length(30_000, 100_000)
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
