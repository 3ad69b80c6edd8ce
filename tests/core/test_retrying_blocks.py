"""RetryingSink: a failing block in smaller pieces, and behind a queue."""

import itertools

import pytest
from support import (
    DEADLINE,
    MUTILATIONS,
    BlockRecorder,
    Fails,
    Mutilator,
    Recorder,
    RefusedError,
    Script,
    Task,
    Waits,
    eventually,
    ledger,
    together,
)

from fastsinks import Queue, RetryingSink, Sink, SinkClosedError


class TestBlocks:
    def test_a_block_that_succeeds_goes_as_one(self):
        strategy, dst = Script(), BlockRecorder()
        with RetryingSink(dst, strategy) as sink:
            sink.write_many(range(10))
        assert dst.blocks == [list(range(10))]
        assert strategy.calls == [("proceed", 0), ("success", 0)]

    def test_a_failing_block_is_halved_and_grows_again(self):
        dst = BlockRecorder(Fails(times=3))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(16))
            assert (sink.retries, sink.dropped) == (16 + 8 + 4, 0)
        assert [len(block) for block in dst.attempts] == [16, 8, 4, 2, 4, 8, 2]
        assert dst.events == list(range(16))

    @pytest.mark.parametrize("times", [0, 2])
    @pytest.mark.parametrize("how", MUTILATIONS)
    def test_a_destination_may_change_the_list(self, how, times):
        dst = Mutilator(how, Fails(times=times))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(16))
        assert dst.events == list(range(16))

    def test_the_size_is_remembered(self):
        dst = BlockRecorder(Fails(times=3))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(8))
            sink.write_many(range(8, 40))
        sizes = [len(block) for block in dst.attempts]
        assert sizes[:4] == [8, 4, 2, 1]
        assert sizes[4] <= 2
        assert dst.events == list(range(40))
        assert max(sizes[4:]) > 4

    def test_one_bad_event_does_not_hold_its_neighbours_back(self):
        strategy = Script(drop=lambda event: event == 5)
        dst, dead = BlockRecorder(Fails(only=lambda event: event == 5)), Recorder()
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            Task(sink.write_many, range(12)).result()
            assert sink.dropped == 1
        assert dst.events == [*range(5), *range(6, 12)]
        assert dead.events == [5]

    def test_only_an_event_that_failed_by_itself_is_dropped(self):
        """The strategy gives up everything, and still the good events of the block get through."""
        strategy = Script(drop=lambda event: True)
        dst, dead = BlockRecorder(Fails(only=lambda event: event in (0, 6, 7))), Recorder()
        with RetryingSink(dst, strategy, dead_letter=dead) as sink:
            sink.write_many(range(10))
            assert sink.dropped == 3
        assert dst.events == [1, 2, 3, 4, 5, 8, 9]
        assert dead.events == [0, 6, 7]

    def test_a_permanent_error_of_a_block_is_one_of_its_events(self):
        dst, dead = BlockRecorder(Fails(RefusedError, only=lambda event: event == 3)), Recorder()
        with RetryingSink(dst, Script(), dead_letter=dead) as sink:
            Task(sink.write_many, range(8)).result()
        assert dst.events == [0, 1, 2, 4, 5, 6, 7]
        assert dead.events == [3]
        assert dst.attempts.count([3]) == 1

    def test_every_event_is_bad(self):
        dst, dead = BlockRecorder(Fails(RefusedError)), Recorder()
        with RetryingSink(dst, Script(), dead_letter=dead) as sink:
            Task(sink.write_many, range(9)).result()
            assert sink.dropped == 9
        assert dead.events == list(range(9))

    def test_nothing_is_sent_twice_where_the_sink_takes_no_blocks(self):
        dst = Recorder(Fails(times=2, only=lambda event: event == 2))
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(5))
        assert dst.attempts == [[0], [1], [2], [2], [2], [3], [4]]

    def test_nor_where_it_has_only_the_base_class_loop(self):
        attempts = []

        class Single(Sink):
            def write(self, event):
                attempts.append(event)
                if attempts.count(2) == 1 and event == 2:
                    raise OSError

        with RetryingSink(Single(), Script()) as sink:
            sink.write_many(range(4))
        assert attempts == [0, 1, 2, 2, 3]

    def test_close_in_the_middle_raises_and_sends_no_more(self):
        strategy = Waits()
        dst = BlockRecorder(Fails(only=lambda event: event == 3))
        strategy.seconds = 0.0
        sink = RetryingSink(dst, strategy)
        writer = Task(sink.write_many, range(8))
        eventually(lambda: len(dst.attempts) > 10)
        sink.close()
        with pytest.raises(SinkClosedError):
            writer.result()
        assert dst.events == [0, 1, 2]

    def test_nothing_is_taken_together_that_the_sink_wants_by_itself(self):
        class Singly(Sink):
            takes_blocks = False

            def __init__(self):
                super().__init__()
                self.events = []

            def write(self, event):
                if event == "bad" and "bad" not in self.events:
                    self.events.append(event)
                    raise ConnectionError
                self.events.append(event)

            def write_many(self, events):
                raise AssertionError("asked for a block")

        dst = Singly()
        with Queue(RetryingSink(dst, Script()), batch_size=10) as queue:
            queue.write_many([1, "bad", 2])
            assert queue.flush(DEADLINE)
        assert dst.events == [1, "bad", "bad", 2]

    def test_the_sink_may_say_how_much_fits(self):
        class Picky(Sink):
            def __init__(self):
                super().__init__()
                self.asked, self.blocks = [], []

            def fit(self, events):
                self.asked.append(len(events))
                return len(self.blocks)  # 0 means one all the same

            def write(self, event):
                self.blocks.append([event])

            def write_many(self, events):
                self.blocks.append(list(events))

        dst = Picky()
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(11))
        assert dst.blocks == [[0], [1], [2, 3], [4, 5, 6], [7, 8, 9, 10]]
        assert dst.asked == [11, 10, 9, 7, 4]

    def test_what_is_no_sink_of_ours_is_not_asked_for_its_opinion(self):
        class Model(BlockRecorder):
            def fit(self, events):
                raise AssertionError("something else is meant")

        dst = Model()
        with RetryingSink(dst, Script()) as sink:
            sink.write_many(range(3))
        assert dst.attempts == [[0, 1, 2]]

    def test_blocks_of_a_queue(self):
        """At every third attempt something else goes wrong; in the end all is in order."""
        turns = itertools.count()

        def flaky(events):
            if next(turns) % 3 == 0:
                raise OSError

        dst = BlockRecorder(flaky)
        queue = Queue(RetryingSink(dst, Script()), batch_size=16)
        queue.write_many(range(1000))
        assert queue.flush(DEADLINE)
        queue.close()
        assert dst.events == list(range(1000))
        assert ledger(queue) == (1000, 1000, 0, 0)


class TestBehindAQueue:
    def test_a_drop_of_the_retrying_sink_is_a_delivery_for_the_queue_or_a_drop(self):
        """Dropped by the strategy, it is in the retrying sink's dead letter, once."""
        dst, dead = Recorder(Fails(RefusedError, only=lambda event: event == 2)), Recorder()
        sink = RetryingSink(dst, Script(), dead_letter=dead)
        queue = Queue(sink)
        queue.write_many(range(5))
        queue.close()
        assert dst.events == [0, 1, 3, 4]
        assert dead.events == [2]
        assert sink.dropped == 1
        assert ledger(queue).accepted == 5
        assert ledger(queue).pending == 0

    def test_a_strategy_that_raises_costs_the_event_and_no_other(self):
        class Bad(Script):
            def failure(self, event, error):
                raise ZeroDivisionError

        dst, dead = Recorder(Fails(only=lambda event: event == 2)), Recorder()
        queue = Queue(RetryingSink(dst, Bad()), dead_letter=dead)
        queue.write_many(range(5))
        queue.close()
        assert dst.events == [0, 1, 3, 4]
        assert dead.events == [2]
        assert ledger(queue) == (5, 4, 1, 0)

    def test_a_writer_beside_the_queue_takes_its_turn(self):
        dst = Recorder(Fails(times=3))
        sink = RetryingSink(dst, Script())
        queue = Queue(sink)

        def beside():
            for number in range(100):
                sink.write(("beside", number))

        together(beside, lambda: [queue.write(("queue", n)) for n in range(100)])
        queue.close()
        assert dst.crowd == 1
        assert len(dst.events) == 200
        for name in ("beside", "queue"):
            assert [n for who, n in dst.events if who == name] == list(range(100))

    def test_a_subclass_of_it_is_called_as_written(self):
        seen = []

        class Mine(RetryingSink):
            def write(self, event):
                seen.append(event)
                super().write(event)

        dst = Recorder(Fails(times=1))
        with Queue(Mine(dst, Script())) as queue:
            queue.write_many(range(3))
        assert seen == dst.events == [0, 1, 2]
