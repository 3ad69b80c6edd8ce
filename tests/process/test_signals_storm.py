"""Hundreds of signals at random moments, whose handler raises, while the main thread works.

What a call that was struck had committed stays committed, once; nothing else comes of it.
That is the compiled core's promise, and HTTPSink's. The twin's is about its waits: see
test_signals.
"""

import gc
import itertools
import logging
import os
import random
import signal
import subprocess
import time

import pytest
from support import (
    DEADLINE,
    DROPPING,
    Fails,
    Recorder,
    Strike,
    Task,
    Waits,
    ledger,
    strike_at,
)
from support.processes import program_command
from support.receiver import Receiver

from fastsinks import (
    Broadcaster,
    Channel,
    Dispatcher,
    Endpoint,
    ExponentialBackoff,
    HTTPSink,
    Queue,
    QueueFullError,
    RetryingSink,
    SinkClosedError,
)
from fastsinks.endpoint import open_endpoints

STRIKES = 200

# One that strikes in a weak reference's callback is lost, with that warning.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Storm:
    """While it is entered, another process sends signals; they strike in `call`."""

    def __init__(self):
        self.strikes = 0
        self._exposed = False

    def __enter__(self):
        self._before = signal.signal(signal.SIGUSR1, self._strike)
        command = program_command("striker", os.getpid())
        self._sender = subprocess.Popen([*command[:1], "-IS", *command[1:]])
        return self

    def __exit__(self, *exc_info):
        self._sender.kill()
        self._sender.wait()
        signal.signal(signal.SIGUSR1, self._before)

    def _strike(self, number, frame):
        if self._exposed:
            self._exposed = False
            self.strikes += 1
            raise Strike

    def __bool__(self):
        """Whether there is more to come."""
        return self.strikes < STRIKES

    def call(self, function, *args):
        """Whether a call returned, rather than being struck; and what it returned."""
        try:
            self._exposed = True
            try:
                result = function(*args)
            finally:
                self._exposed = False
        except Strike:
            return False, None
        return True, result


@pytest.fixture
def storm(monkeypatch):
    # A log handler that is struck may keep its lock, and then every other thread waits for it.
    monkeypatch.setattr(logging.getLogger("fastsinks"), "disabled", True)
    with Storm() as storm:
        yield storm


class Plain:
    """Keeps what it gets, by means that a signal's handler cannot interrupt halfway."""

    def __init__(self):
        self.events = []
        self.write = self.events.append
        self.write_many = self.events.extend

    def close(self):
        pass


class Unsteady(Plain):
    """Refuses some events, at first."""

    def __init__(self):
        super().__init__()
        self.write = self.waver
        del self.write_many

    def waver(self, event):
        if random.random() < 0.3:
            raise OSError
        self.events.append(event)


def check(arrived, returned, struck):
    """Each once and in order; all that were written, of those that were struck some."""
    assert arrived == sorted(set(arrived))
    assert set(returned) <= set(arrived)
    assert set(arrived) <= {*returned, *struck}


def write_through(storm, sink, *others):
    """Write numbers, and now and then do something else, until the storm is over."""
    returned, struck = [], []
    number = 0
    while storm:
        block = random.choice([None, None, 1, 3])
        numbers = list(range(number, number + (block or 1)))
        number += len(numbers)
        done, _ = (
            storm.call(sink.write_many, numbers) if block else storm.call(sink.write, number - 1)
        )
        (returned if done else struck).extend(numbers)
        if others and random.random() < 0.2:
            storm.call(random.choice(others))
    return returned, struck


@pytest.mark.compiled
class TestQueue:
    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize("maxsize", [0, 4])
    def test_write_and_flush(self, storm, maxsize, batch_size):
        dst = Plain()
        queue = Queue(dst, maxsize=maxsize, batch_size=batch_size)
        returned, struck = write_through(storm, queue, queue.flush, queue.stats, queue.__len__)
        Task(queue.flush, DEADLINE).result()
        assert len(dst.events) == ledger(queue).accepted == ledger(queue).delivered
        check(dst.events, returned, struck)
        queue.write(1 << 60)
        Task(queue.close).result()
        assert dst.events[-1] == 1 << 60

    @pytest.mark.parametrize("policy", DROPPING)
    def test_discards(self, storm, policy):
        dst, dead = Plain(), Plain()
        queue = Queue(dst, maxsize=4, when_full=policy, dead_letter=dead)
        returned, struck = write_through(storm, queue, queue.flush)
        Task(queue.close).result()
        stats = ledger(queue)
        assert (stats.delivered, stats.pending) == (len(dst.events), 0)
        assert dst.events == sorted(set(dst.events))
        assert not set(dst.events) & set(dead.events)
        assert set(dst.events) | set(dead.events) <= {*returned, *struck}

    def test_a_refusal_is_one(self, storm):
        dst = Plain()
        queue = Queue(dst, maxsize=4, when_full="raise")
        refused = []

        class Front:
            def write(self, event):
                self.write_many([event])

            def write_many(self, events):
                try:
                    queue.write_many(events)
                except QueueFullError:
                    refused.extend(events)

        returned, struck = write_through(storm, Front(), queue.flush)
        Task(queue.close).result()
        assert ledger(queue).accepted == ledger(queue).delivered == len(dst.events)
        check(dst.events, set(returned) - set(refused), {*struck, *refused})

    def test_retries(self, storm):
        dst = Unsteady()
        strategy = ExponentialBackoff(0.0001, 0.0001, 0.001)
        queue = Queue(RetryingSink(dst, strategy), maxsize=8, batch_size=4)
        returned, struck = write_through(storm, queue, queue.flush)
        Task(queue.close).result()
        assert ledger(queue).accepted == ledger(queue).delivered == len(dst.events)
        check(dst.events, returned, struck)

    def test_listeners(self, storm):
        """They run on the writer's thread, and on a worker's."""

        class Listener:
            ingress = staticmethod(lambda event: None)
            egress = staticmethod(lambda event: None)

        dst = Plain()
        queue = Queue(dst, maxsize=4, listeners=[Listener()])
        returned, struck = write_through(storm, queue, queue.flush)
        Task(queue.close).result()
        assert ledger(queue).accepted == ledger(queue).delivered == len(dst.events)
        check(dst.events, returned, struck)

    def test_close(self, storm):
        """A queue a round: all calls may be struck, and then be made again."""
        dispatcher = Dispatcher()
        while storm:
            dst = Plain()
            queue = Queue(dst, maxsize=2, dispatcher=dispatcher)
            returned = [n for n in range(5) if storm.call(queue.write, n)[0]]
            while not storm.call(queue.close)[0]:
                assert queue.closed in (True, False)
            assert queue.closed
            with pytest.raises(SinkClosedError):
                queue.write("late")
            assert ledger(queue).accepted == ledger(queue).delivered == len(dst.events)
            check(dst.events, returned, range(5))
        Task(dispatcher.close, DEADLINE).result()


@pytest.mark.compiled
class TestEachReturn:
    """One strike a round, at a place that a storm may miss."""

    @pytest.mark.parametrize("call", ["flush", "close", "dispatcher.close"])
    def test_of_what_waits_for_an_attempt(self, call):
        for number in itertools.count():
            dst, strategy = Recorder(Fails(times=1)), Waits(0.02)
            dispatcher = Dispatcher()
            queue = Queue(RetryingSink(dst, strategy), dispatcher=dispatcher)
            queue.write("one")
            assert strategy.failed.wait(DEADLINE)
            calls = {
                "flush": queue.flush,
                "close": queue.close,
                "dispatcher.close": dispatcher.close,
            }
            struck = strike_at(number, calls[call])
            Task(queue.close).result()
            assert dst.events == ["one"]
            assert ledger(queue) == (1, 1, 0, 0)
            Task(dispatcher.close).result()
            if not struck:
                break


@pytest.mark.compiled
class TestOthers:
    def test_a_broadcaster(self, storm):
        """No sink is left out. One in Python may be struck itself: that is a refusal."""
        first, second, third = Plain(), Plain(), Plain()
        sink = Broadcaster(first, Queue(third), second)

        def rival():
            while storm:
                sink.write(-1)
                time.sleep(0.0001)

        other = Task(rival)
        returned, struck = write_through(storm, sink)
        other.result()
        Task(sink.write, 1 << 60).result()
        Task(sink.close, DEADLINE).result()
        assert first.events == second.events
        arrived = [number for number in first.events if number >= 0]
        check(arrived, [*returned, 1 << 60], struck)
        check([number for number in third.events if number >= 0], [*returned, 1 << 60], struck)
        assert len(first.events) - len(third.events) <= sink.dropped <= storm.strikes * 3

    def test_the_writer_of_a_channel(self, storm):
        for buffer in (0, 2):
            channel = Channel(buffer)
            reader = Task(list, channel)
            storm.strikes = STRIKES // 2
            returned, struck = write_through(storm, channel)
            Task(channel.close).result()
            check(reader.result(), returned, struck)

    def test_the_reader_of_a_channel(self, storm):
        for buffer in (0, 2):
            channel = Channel(buffer)
            written = []

            def write(channel=channel, written=written):
                while storm:
                    channel.write(len(written))
                    written.append(len(written))

            storm.strikes = STRIKES // 2
            writer = Task(write)
            read = []
            before = storm.strikes
            while storm:
                done, event = storm.call(channel.get)
                if done:
                    read.append(event)
            struck = storm.strikes - before
            rest = Task(list, channel)
            writer.result()
            channel.close()
            read += rest.result()
            assert read == sorted(set(read))
            # What had been taken when the signal came is gone with the call that was to return it.
            assert len(written) - struck <= len(read) <= len(written)

    def test_a_retrying_sink_alone(self, storm):
        dst = Unsteady()
        sink = RetryingSink(dst, ExponentialBackoff(0.0001, 0.0001, 0.001))
        returned, struck = write_through(storm, sink)
        Task(sink.write, 1 << 60).result()
        Task(sink.close, DEADLINE).result()
        check(dst.events, [*returned, 1 << 60], struck)


class TestHTTPSink:
    """A request that was struck has been received once or not at all; the next one is served."""

    # Struck before it is recorded anywhere, a new connection is left to the collector.
    @pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    @pytest.mark.parametrize("rivals", [0, 2])
    def test_posts(self, storm, rivals, host):
        with Receiver() as receiver:
            url = receiver.url().replace("127.0.0.1", host)
            sink = HTTPSink(url, timeout=DEADLINE)

            def rival():
                while storm:
                    sink.write(-1)

            others = [Task(rival) for _ in range(rivals)]
            returned, struck = write_through(storm, sink)
            for other in others:
                other.result()
            Task(sink.write, 1 << 60).result()
            sink.write(1 << 61)
            assert sink.in_flight == 0
            sink.close()
            receiver.wait_no_connection()
            # One that was struck may come late, by a connection of its own.
            arrived = sorted(number for number in receiver.events if number >= 0)
            check(arrived, [*returned, 1 << 60, 1 << 61], struck)
        gc.collect()


@pytest.mark.compiled
class TestEndpoint:
    @pytest.mark.parametrize("concurrency", [1, 3])
    def test_write_flush_and_close(self, storm, concurrency):
        """An endpoint a round: all calls may be struck, and then be made again."""
        with Receiver() as receiver:
            number = 0
            while storm:
                endpoint = Endpoint(
                    "e", receiver.url(), timeout=DEADLINE, maxsize=4, concurrency=concurrency
                )
                returned, struck = [], []
                for _ in range(20):
                    number += 1
                    done, _ = storm.call(endpoint.write, number)
                    (returned if done else struck).append(number)
                storm.call(endpoint.flush)
                while not storm.call(endpoint.close, DEADLINE)[0]:
                    pass
                assert endpoint.closed
                assert endpoint not in open_endpoints()
                metrics = endpoint.metrics
                assert (metrics.pending, metrics.dropped) == (0, 0)
                assert metrics.events == metrics.successes == len(receiver.events)
                check(sorted(receiver.events), returned, struck)
                receiver.requests.clear()
