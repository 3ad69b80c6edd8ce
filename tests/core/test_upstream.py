"""Defects of the libraries that this one follows: the same inputs, with the right result here.

The originals are docker/go-events and the notifications package of distribution/distribution,
both in Go. Each docstring says what happens there.
"""

import os
import statistics
import subprocess
import sys
import sysconfig
import threading
import time
from types import SimpleNamespace

import pytest
from support import (
    DEADLINE,
    LONG,
    BlockRecorder,
    Fails,
    Recorder,
    RefusedError,
    Task,
    Waits,
    eventually,
    ledger,
    together,
)
from support.processes import check_program, program_command, python_environment

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    CloseTimeoutError,
    ExponentialBackoff,
    Filter,
    NullSink,
    Queue,
    QueueFullError,
    RetryingSink,
    SinkClosedError,
    ignore,
)


class TestMemory:
    def test_an_endpoint_that_is_down_does_not_eat_the_memory(self):
        """docker/go-events queue.go: the list grows for as long as the destination is down."""
        strategy = Waits()
        queue = Queue(
            RetryingSink(Recorder(Fails()), strategy), maxsize=100, when_full="drop_oldest"
        )
        for number in range(5000):
            queue.write(number)
            assert len(queue) <= 100
        assert strategy.failed.wait(DEADLINE)
        assert ledger(queue) == (5000, 0, 4900, 100)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert len(caught.value.undelivered) == 100
        assert ledger(queue) == (5000, 0, 5000, 0)

    @pytest.mark.parametrize("policy", ["block", "raise", "drop_newest"])
    def test_whatever_is_done_about_it(self, gate, policy):
        """docker/go-events queue.go: there is no choice; swarmkit had to add a LimitQueue."""
        queue = Queue(Recorder(gate), maxsize=10, when_full=policy)
        queue.write_many(range(10))
        if policy == "block":
            writer = Task(queue.write, "more").blocked()
        elif policy == "raise":
            with pytest.raises(QueueFullError):
                queue.write("more")
        else:
            queue.write("more")
        assert len(queue) == 10
        gate.open()
        if policy == "block":
            writer.result()
        queue.close()
        assert ledger(queue).dropped == (policy == "drop_newest")


class TestRefusedEvents:
    """docker/go-events retry.go: one event that the receiver refuses is tried for ever."""

    def outcome(self, strategy, error=OSError, dst=Recorder):
        dst, dead = dst(Fails(error, only=lambda event: event == "refused")), Recorder()
        queue = Queue(RetryingSink(dst, strategy, dead_letter=dead), batch_size=8)
        events = [*range(10), "refused", *range(10, 20)]
        queue.write_many(events)
        assert queue.flush(DEADLINE)
        queue.close()
        assert dst.events == list(range(20))
        assert dead.events == ["refused"]
        return dst

    def test_max_attempts(self):
        dst = self.outcome(Breaker(100, LONG, max_attempts=5))
        assert dst.attempts.count(["refused"]) == 5

    def test_max_elapsed(self):
        self.outcome(Breaker(1, 0.01, max_elapsed=0.1))

    def test_permanent(self):
        dst = self.outcome(Breaker(1, LONG), RefusedError)
        assert dst.attempts.count(["refused"]) == 1

    def test_in_a_block(self):
        dst = self.outcome(Breaker(10**6, LONG, max_attempts=3), dst=BlockRecorder)
        assert max(len(block) for block in dst.blocks) > 1

    def test_the_receiver_says_when_to_come_back(self):
        """docker/go-events retry.go: the first `threshold` retries follow without any delay."""

        class BusyError(OSError):
            retry_after = 0.1

        dst = Recorder(Fails(BusyError, times=1))
        with RetryingSink(dst, Breaker(10, 1.0)) as sink:
            began = time.monotonic()
            sink.write("one")
            assert time.monotonic() - began >= 0.09


class TestClosingAQueue:
    def test_a_stuck_destination_does_not_hold_the_closer(self, gate):
        """docker/go-events queue.go: Close waits for the destination, which may be for ever."""
        queue = Queue(Recorder(gate))
        queue.write_many(["a", "b", "c"])
        began = time.monotonic()
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.1)
        assert time.monotonic() - began < 1.0
        assert caught.value.undelivered == ["a", "b", "c"]

    def test_nor_does_one_that_is_tried_again_and_again(self):
        """docker/go-events queue.go: nothing interrupts the back-off of the sink behind it."""
        strategy, dst = Waits(), Recorder(Fails())
        queue = Queue(RetryingSink(dst, strategy))
        queue.write_many(["a", "b", "c"])
        assert strategy.failed.wait(DEADLINE)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(timeout=0.1)
        assert caught.value.undelivered == ["a", "b", "c"]
        eventually(lambda: dst.closes == 1)  # on a thread of its own

    def test_a_second_closer_waits_for_the_flush(self, gate):
        """docker/go-events queue.go: a second Close returns at once, with events pending."""
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write_many(range(10))
        first = Task(queue.close).blocked()
        second = Task(lambda: [queue.close(), len(dst.events)]).blocked()
        gate.open()
        first.result()
        assert second.result() == [None, 10]

    def test_closing_twice_is_no_error(self):
        """distribution notifications/sinks.go: "eventqueue: already closed"."""
        queue = Queue(NullSink())
        queue.close()
        queue.close()

    def test_leaving_the_block_closes(self):
        """distribution notifications: the registry never closes its sink; the queue is lost."""
        dst = Recorder()
        with Queue(dst) as queue:
            queue.write_many(range(100))
        assert dst.events == list(range(100))
        assert dst.closes == 1

    def test_so_does_the_end_of_the_program(self):
        """distribution notifications: what is queued when the registry ends is lost."""
        out = check_program("ends", "so_does_the_end_of_the_program")
        assert out.split() == [str(number) for number in range(20)]


class TestBroadcasting:
    def test_publishing_never_waits_for_a_delivery(self, gate):
        """docker/go-events broadcast.go: one blocking sink stalls all sinks and all publishers."""
        stuck, free = Recorder(gate), Recorder()
        sink = Broadcaster(Queue(stuck), Queue(free))
        Task(lambda: [sink.write(n) for n in range(100)]).result()
        assert free.wait(100) == list(range(100))
        assert stuck.events == []
        gate.open()
        sink.close()
        assert stuck.events == list(range(100))

    def test_sinks_come_and_go_whatever_one_of_them_does(self, gate):
        """docker/go-events broadcast.go: Add and Remove wait for the sink that is written to."""
        stuck, guest = Recorder(gate), Recorder()
        sink = Broadcaster(stuck)
        writer = Task(sink.write, "one")
        gate.wait_entered()
        Task(sink.add, guest).result()
        Task(sink.remove, stuck).result()
        assert sink.sinks == (guest,)
        gate.open()
        writer.result()

    def test_removing_a_closed_sink_skips_nobody_and_serves_nobody_twice(self):
        """docker/go-events broadcast.go: of [closed A, B, C], B is skipped and C served twice."""
        closed, second, third = NullSink(), Recorder(), Recorder()
        closed.close()
        sinks = [closed, second, third]
        sink = Broadcaster(*sinks)
        sink.write("one")
        assert second.events == ["one"]
        assert third.events == ["one"]
        assert sinks == [closed, second, third]  # the caller's list is the caller's
        assert sink.sinks == (second, third)

    def test_a_sink_that_writes_back(self):
        """docker/go-events broadcast.go: the event channel has no room and the loop deadlocks."""
        dst = Recorder(lambda events: sink.write("echo") if events == ["call"] else None)
        other = Recorder()
        sink = Broadcaster(dst, other)
        Task(sink.write, "call").result()
        assert dst.events == other.events == ["call", "echo"]


class TestClosedSinks:
    """distribution notifications: two values of ErrSinkClosed, and neither knows the other."""

    def closed(self):
        return [
            NullSink(),
            Queue(NullSink()),
            Broadcaster(),
            Filter(NullSink(), bool),
            Channel(1),
            RetryingSink(NullSink(), Breaker(1, 1.0)),
        ]

    def test_there_is_one_class(self):
        for sink in self.closed():
            sink.close()
            with pytest.raises(SinkClosedError):
                sink.write("late")

    def test_none_is_retried(self):
        for inner in self.closed():
            inner.close()
            sink = RetryingSink(Filter(inner, lambda event: True), Breaker(0, LONG))
            with pytest.raises(SinkClosedError):
                Task(sink.write, "late").result()
            sink.close()

    def test_all_are_removed(self):
        sinks = self.closed()
        last = Recorder()
        sink = Broadcaster(*sinks, last)
        for inner in sinks:
            inner.close()
        sink.write("one")
        assert sink.sinks == (last,)
        assert last.events == ["one"]
        assert sink.dropped == 0


def test_the_log_shows_types_and_not_contents(caplog):
    """docker/go-events queue.go, retry.go, broadcast.go: whole events in each log line."""

    class Payment:
        def __repr__(self):
            return "4111 1111 1111 1111"

    with Queue(Recorder(Fails())) as queue:
        queue.write_many([Payment()] * 100)
    with Broadcaster(Recorder(Fails())) as sink:
        sink.write(Payment())
    with RetryingSink(Recorder(Fails(times=3)), Breaker(9, 0.0)) as sink:
        sink.write(Payment())
    assert "4111" not in caplog.text
    assert "Payment" in caplog.text
    assert len(caplog.records) < 10


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A library to be loaded first: in its process the wall clock can be set, also for C."""
    source = tmp_path_factory.mktemp("clock") / "clock.c"
    source.write_text(
        """
        #define _GNU_SOURCE
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>

        struct micro { time_t sec; long usec; };
        static volatile long ahead;

        void step_the_wall_clock(int seconds) { ahead += seconds; }

        int clock_gettime(clockid_t id, struct timespec *now) {
            int failed = (int)syscall(SYS_clock_gettime, id, now);
            if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
                now->tv_sec += ahead;
            return failed;
        }

        int gettimeofday(struct micro *now, void *zone) {
            struct timespec at;
            (void)zone;
            clock_gettime(CLOCK_REALTIME, &at);
            now->sec = at.tv_sec;
            now->usec = at.tv_nsec / 1000;
            return 0;
        }

        time_t time(time_t *now) {
            struct timespec at;
            clock_gettime(CLOCK_REALTIME, &at);
            if (now)
                *now = at.tv_sec;
            return at.tv_sec;
        }
        """
    )
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    library = source.with_suffix(".so")
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    # After what is loaded first already: a sanitizer has to be the very first.
    return f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()


class TestBackoff:
    def test_it_does_not_fall_at_56_failures(self):
        """docker/go-events retry.go: the shift overflows; 20 s becomes 1 s at 56 failures."""
        strategy = ExponentialBackoff(base=1.0, factor=1.0, max=20.0)
        for failures in range(1, 130):
            strategy.failure("event", OSError())
            if failures >= 50:
                draws = [strategy.proceed("event") for _ in range(200)]
                assert max(draws) > 15
                assert statistics.fmean(draws) > 7

    def test_a_base_of_zero_is_no_panic(self):
        """docker/go-events retry.go: rand.Int63n panics once the bound has overflowed to zero."""
        strategy = ExponentialBackoff(base=0, factor=1.0, max=20.0)
        for _ in range(300):
            strategy.failure("event", OSError())
            assert 0 <= strategy.proceed("event") < 20

    @pytest.mark.skipif(sys.platform != "linux", reason="needs LD_PRELOAD")
    @pytest.mark.parametrize("step", [-(10**6), 10**6])
    def test_a_clock_that_is_set_stalls_nothing(self, clock, step):
        """distribution notifications/sinks.go: the breaker reads the wall clock."""
        done = subprocess.run(
            program_command("wall_clock", step),
            env={**python_environment(), "LD_PRELOAD": clock},
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.stderr == ""
        assert done.returncode == 0

    def test_after_a_back_off_comes_a_probe(self):
        """docker/go-events retry.go before 39718a2: after the wait it asked, and waited, again."""

        class Always:
            asked = 0

            def proceed(self, event):
                self.asked += 1
                return 0.01

            def failure(self, event, error):
                return False

            def success(self, event):
                pass

        strategy, dst = Always(), Recorder(Fails(times=2))
        with RetryingSink(dst, strategy) as sink:
            Task(sink.write, "one").result()
        assert strategy.asked == len(dst.attempts) == 3


class TestWrappers:
    def test_every_wrapper_closes_its_inner_sink_once(self):
        """distribution notifications/sinks.go: the ignoring sink's Close closes nothing."""
        for wrap in (
            Queue,
            Broadcaster,
            lambda dst: Filter(dst, ignore(actions=["pull"])),
            lambda dst: Filter(dst, ignore()),
            lambda dst: RetryingSink(dst, Breaker(1, 1.0)),
            lambda dst: Queue(Filter(RetryingSink(Queue(dst), Breaker(1, 1.0)), ignore())),
        ):
            dst = Recorder()
            sink = wrap(dst)
            sink.write(SimpleNamespace(action="push", target=None))
            sink.close()
            sink.close()
            assert dst.closes == 1
            assert len(dst.events) == 1

    def test_a_retrying_sink_closes_its_sink(self):
        """docker/go-events retry.go: "closes the sink and the underlying sink", and does not."""
        dst = Recorder()
        RetryingSink(dst, Breaker(1, 1.0)).close()
        assert dst.closes == 1

    def test_a_retrying_sink_serialises_its_writes(self):
        """docker/go-events retry.go: "serialized through the sink", without a lock."""
        barrier = threading.Barrier(2)

        def meet(events):
            try:
                barrier.wait(0.02)
            except threading.BrokenBarrierError:
                barrier.reset()

        dst = Recorder(meet)
        with RetryingSink(dst, Breaker(1, 1.0)) as sink:
            together(*[lambda: sink.write("one")] * 4)
        assert dst.crowd == 1
        assert len(dst.events) == 4


class TestEvents:
    def test_nothing_is_an_event_too(self):
        """docker/go-events queue.go: nil means "closed" to the loop; a nil event ends it."""
        dst = Recorder()
        with Broadcaster(Queue(dst)) as sink:
            sink.write(None)
            sink.write_many([None, "after", None])
        assert dst.events == [None, None, "after", None]

    def test_nothing_is_no_end_of_a_channel(self):
        """docker/go-events channel.go: the zero value and the end look alike to a reader."""
        channel = Channel(buffer=3)
        channel.write_many([None, "after", None])
        channel.close()
        assert list(channel) == [None, "after", None]


class TestChannels:
    def test_nothing_is_accepted_once_closed(self):
        """docker/go-events channel.go: with room left, a write after Close succeeds at random."""
        for _ in range(50):
            channel = Channel(buffer=5)
            channel.close()
            with pytest.raises(SinkClosedError):
                channel.write("late")
            assert list(channel) == []

    def test_what_was_accepted_is_read(self):
        """docker/go-events channel.go: a reader that selects on Closed leaves the buffer behind."""
        for _ in range(50):
            channel = Channel(buffer=5)
            channel.write_many(range(5))
            channel.close()
            assert channel.done() is True
            assert [channel.get() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_drops_are_counted_and_the_ledger_adds_up(gate):
    """distribution notifications/metrics.go: there is no count of what was dropped."""

    def hook(events):
        gate()
        if events[0] % 2:
            raise OSError

    dead = Recorder()
    queue = Queue(Recorder(hook), maxsize=6, when_full="drop_newest", dead_letter=dead)
    for number in range(10):
        queue.write(number)
    assert ledger(queue) == (10, 0, 4, 6)
    gate.open()
    queue.close()
    assert ledger(queue) == (10, 3, 7, 0)
    assert sorted(dead.events) == [1, 3, 5, 6, 7, 8, 9]
