"""A bounded queue: which writers wait or are refused, and what is dropped, by each policy."""

import threading

import pytest
from support import (
    DEADLINE,
    DROPPING,
    LONG,
    POLICIES,
    BlockRecorder,
    Counting,
    Recorder,
    Task,
    eventually,
    identical,
    ledger,
    together,
)
from support.contract import ODD_EVENTS

from fastsinks import Queue, QueueFullError, SinkClosedError


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

    @pytest.mark.parametrize("policy", DROPPING)
    def test_discards_are_told_to_listeners(self, blocked, gate, policy):
        listener = Counting()
        queue, _ = blocked(maxsize=2, when_full=policy, listeners=[listener])
        queue.write_many(["a"])
        queue.write("b")
        eventually(lambda: len(listener.left) == 1)
        gate.open()
        queue.close()
        assert sorted(listener.entered) == sorted(listener.left) == ["a", "b", "stuck"]

    @pytest.mark.parametrize("policy", DROPPING)
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


def test_odd_events_are_discarded_like_any_other(make_gate):
    for policy in DROPPING:
        door = make_gate()
        dst, dead = Recorder(door), Recorder()
        with Queue(dst, maxsize=4, when_full=policy, dead_letter=dead) as queue:
            for event in ODD_EVENTS:
                queue.write(event)
            door.open()
        if policy == "drop_newest":
            assert identical(dst.events + dead.events, ODD_EVENTS)
        assert len(dst.events) + len(dead.events) == len(ODD_EVENTS)
