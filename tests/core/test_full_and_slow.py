"""Full queues before destinations that are slow, stall, die and come back, under eight writers.

A storm lasts `--seconds`, by default less than one; CONTRIBUTING.md says how to make it a minute.
Then each event is accounted for: the dead letter holds exactly what the destination lacks.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from support import DEADLINE, POLICIES, BlockRecorder, Recorder, Task, eventually, ledger
from support.receiver import Connection, Receiver, Request, answer, hang_up, reset

from fastsinks import (
    Breaker,
    CloseTimeoutError,
    Endpoint,
    Queue,
    QueueFullError,
    RetryingSink,
    SinkClosedError,
)

pytestmark = pytest.mark.long

MAXSIZE = 64
WRITERS = 8
BLOCK = 5  # events that a writer writes at once, now and then
BATCH = 4
TIMEOUT = 0.2  # of a close, in seconds
PROMPT = 0.1  # seconds by which it may be late
SHORT = 0.2  # seconds of the storms before the other endings


class Moods:
    """What a destination is like at the moment: well, slow, stalled or dead."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._mood = "well"
        self._over = False

    def become(self, mood: str) -> None:
        with self._changed:
            self._mood = mood
            self._changed.notify_all()

    def over(self) -> None:
        """The destination is closed: present and later calls of it fail."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def endure(self) -> bool:
        """Wait until the mood allows an answer; true if the call succeeds."""
        with self._changed:
            if self._mood == "slow":
                self._changed.wait(0.001)
            changed = self._changed.wait_for(lambda: self._mood != "stalled" or self._over, 60.0)
            assert changed, "stalled for good"
            return self._mood != "dead" and not self._over

    def rage(self, seconds: float) -> None:
        """Go from mood to mood, each of them in every round."""
        pause = threading.Event()
        end = time.monotonic() + seconds
        while True:
            for mood in self._random.sample(["well", "slow", "stalled", "dead"], 4):
                self.become(mood)
                pause.wait(self._random.uniform(0.01, 0.1))
                if time.monotonic() > end:
                    return


class Plain:
    """A queue right before the destination: what fails is dropped."""

    slack = BATCH  # events whose place is free before they are in the dead letter

    def __init__(self, policy: str, moods: Moods) -> None:
        self.most = 0  # events in the queue, as the destination saw them
        self._moods = moods
        self.dead = Recorder()
        self._dst = BlockRecorder(self._attempt, on_close=moods.over)
        self.sink = self._queue(maxsize=MAXSIZE, when_full=policy, dead_letter=self.dead)

    def _queue(self, **options: Any) -> Any:
        return Queue(self._dst, batch_size=BATCH, **options)

    def _attempt(self, events: list[int]) -> None:
        self.most = max(self.most, len(self.sink))
        if not self._moods.endure():
            raise SinkClosedError if self._dst.closes else OSError

    @property
    def received(self) -> list[int]:
        return self._dst.events

    def pending(self) -> int:
        return max(ledger(self.sink).pending, len(self.sink))

    def check_books(self, accepted: int) -> None:
        lost = len(self.dead.events)
        assert ledger(self.sink) == (accepted, accepted - lost, lost, 0)

    def close(self) -> None:
        self._moods.over()


class Retrying(Plain):
    """A retrying sink between them: what fails five times is dropped."""

    slack = 0

    def _queue(self, **options: Any) -> Any:
        self._retrying = RetryingSink(self._dst, strategy(), dead_letter=self.dead)
        return Queue(self._retrying, batch_size=BATCH, **options)

    def check_books(self, accepted: int) -> None:
        stats = ledger(self.sink)
        assert (stats.accepted, stats.pending) == (accepted, 0)
        assert stats.dropped + self._retrying.dropped == len(self.dead.events)
        assert stats.delivered - self._retrying.dropped == len(self.received)


class Webhook:
    """An endpoint before a receiver on a raw socket; what it answers with 200 it has."""

    slack = 0

    def __init__(self, policy: str, moods: Moods) -> None:
        self.most = 0
        self._moods = moods
        self._failures = itertools.cycle([answer(500), reset, hang_up])
        self.received: list[int] = []
        self.dead = Recorder()
        self._receiver = Receiver(default=self._serve)
        self.sink = Endpoint(
            "full",
            self._receiver.url(),
            timeout=60.0,  # a stall is as long as the test wants it to be
            maxsize=MAXSIZE,
            when_full=policy,  # type: ignore[arg-type]
            batch_size=BATCH,
            strategy=strategy(),
            dead_letter=self.dead,
        )

    def _serve(self, connection: Connection, request: Request) -> bool:
        self.most = max(self.most, self.sink.metrics.pending)
        if not self._moods.endure():
            return next(self._failures)(connection, request)
        self.received += request.events
        return answer()(connection, request)

    def pending(self) -> int:
        return self.sink.metrics.pending

    def check_books(self, accepted: int) -> None:
        metrics = self.sink.metrics
        assert (metrics.events, metrics.pending) == (accepted, 0)
        assert metrics.successes == len(self.received)
        assert metrics.dropped == len(self.dead.events)

    def close(self) -> None:
        self._moods.over()
        self._receiver.close()


def strategy() -> Breaker:
    return Breaker(3, 0.002, max_attempts=5)


class Writer:
    """Writes its own numbers until the sink is closed, and keeps those that were accepted."""

    def __init__(self, sink: Any, me: int) -> None:
        self._sink = sink
        self._numbers = itertools.count(me * 10**9)
        self.accepted: list[int] = []

    def __call__(self, stop: threading.Event) -> None:
        while not stop.wait(0.01):
            for size in (1, 1, BLOCK, 1, 1):
                events = list(itertools.islice(self._numbers, size))
                try:
                    if size == 1:
                        self._sink.write(events[0])
                    else:
                        self._sink.write_many(events)
                except QueueFullError:
                    continue
                except SinkClosedError:
                    return
                self.accepted += events


def by_writer(events: list[int]) -> dict[int, list[int]]:
    shares: dict[int, list[int]] = {writer: [] for writer in range(WRITERS)}
    for event in events:
        shares[event // 10**9].append(event)
    return shares


@dataclass
class Outcome:
    late: float  # seconds after its timeout at which close() returned
    accepted: int
    received: int
    dead: int
    undelivered: int


Kind = type[Plain] | type[Webhook]


def storm(kind: Kind, policy: str, seconds: float, ending: str) -> Outcome:
    """Eight writers, then a close while the destination is in the mood `ending`."""
    moods = Moods(seed=len(policy))
    side = kind(policy, moods)
    writers = [Writer(side.sink, me) for me in range(WRITERS)]
    stop, closed = threading.Event(), threading.Event()
    peak = 0

    def watch() -> None:
        """By its own account, and by that of the two ends, the queue is never too full."""
        nonlocal peak
        evicting = WRITERS * BLOCK if policy == "drop_oldest" else 0
        while not closed.wait(0.001):
            written = sum(len(writer.accepted) for writer in writers)
            finished = len(side.received) + len(side.dead.events)
            assert written - finished <= MAXSIZE + side.slack + evicting
            peak = max(peak, side.pending())
            assert peak <= MAXSIZE

    try:
        tasks = [Task(writer, stop) for writer in writers]
        watcher = Task(watch)
        moods.rage(seconds)
        moods.become(ending)
        left: list[int] = []
        began = time.monotonic()
        if ending == "well":
            stop.set()
            for task in tasks:
                task.result()
            side.sink.close(DEADLINE)
            late = 0.0
        else:
            if ending == "stalled" or kind is not Plain:  # which loses all at once when it is dead
                eventually(lambda: side.pending() > MAXSIZE - BLOCK)
            began = time.monotonic()
            try:
                side.sink.close(TIMEOUT)
            except CloseTimeoutError as error:
                left = error.undelivered
            late = time.monotonic() - began - TIMEOUT
        for task in tasks:
            task.result()
        closed.set()
        watcher.result()
    finally:
        stop.set()
        closed.set()
        side.close()

    accepted = [event for writer in writers for event in writer.accepted]
    assert Counter(side.received) + Counter(side.dead.events) == Counter(accepted)
    assert Counter(left) <= Counter(side.dead.events)
    side.check_books(len(accepted))
    delivered, undelivered = by_writer(side.received), by_writer(left)
    for writer in range(WRITERS):
        order = delivered[writer] + undelivered[writer]
        assert order == sorted(order)
    assert peak > MAXSIZE - BLOCK, "never full"
    assert side.most <= MAXSIZE
    if ending == "dead" and kind is not Plain:
        assert left
    if ending == "stalled":
        assert len(left) > MAXSIZE // 2
    return Outcome(late, len(accepted), len(side.received), len(side.dead.events), len(left))


def check_prompt(late: float, again: Callable[[], Outcome]) -> None:
    """By the best of several closes: this machine may have had something else to do."""
    for _ in range(5):
        if late <= PROMPT:
            return
        late = again().late
    raise AssertionError(f"close() came {late:.3f} s after its deadline, five times")


def check(kind: Kind, policy: str, seconds: float) -> None:
    for ending, length in (("stalled", seconds), ("dead", SHORT), ("well", SHORT)):
        outcome = storm(kind, policy, length, ending)
        print(f"{kind.__name__}, {policy}, {length:g} s, {ending} at the end: {outcome}")
        check_prompt(outcome.late, lambda ending=ending: storm(kind, policy, SHORT, ending))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", [Plain, Retrying])
def test_a_queue(kind: type[Plain], policy: str, storm_seconds: float) -> None:
    check(kind, policy, storm_seconds)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_endpoint(policy: str, storm_seconds: float) -> None:
    check(Webhook, policy, storm_seconds)
