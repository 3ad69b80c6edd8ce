"""Random sequences of operations on a queue, beside a model of ten lines that says what follows.

All runs on one thread, and the destination is a gate that lets through one event at a
time, so that the model knows where each event is.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import DEADLINE, DROPPING, at_length, eventually

from fastsinks import CloseTimeoutError, Queue, QueueFullError, SinkClosedError

POLICIES = ["raise", *DROPPING]


class Turnstile:
    """Lets one delivery through for each `step`; an odd event fails as it passes."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.passed = threading.Semaphore(0)
        self.out: list[int] = []
        self.closes = 0
        self.free = False

    def write(self, event: int) -> None:
        self.entered.release()
        assert self.free or self.passed.acquire(timeout=DEADLINE)
        if event % 2:
            raise OSError
        self.out.append(event)

    def close(self) -> None:
        self.closes += 1


class Letters:
    def __init__(self) -> None:
        self.events: list[int] = []

    def write(self, event: int) -> None:
        self.events.append(event)

    def close(self) -> None: ...


class QueueMachine(RuleBasedStateMachine):
    @initialize(maxsize=st.integers(0, 5), policy=st.sampled_from(POLICIES))
    def begin(self, maxsize: int, policy: str) -> None:
        self.dst, self.dead = Turnstile(), Letters()
        self.queue: Any = Queue(self.dst, maxsize=maxsize, when_full=policy, dead_letter=self.dead)
        self.maxsize, self.policy = maxsize, policy
        self.number = 0
        self.flying: list[int] = []  # the event that is at the turnstile
        self.waiting: deque[int] = deque()
        self.delivered: list[int] = []
        self.dropped: list[int] = []
        self.accepted = 0
        self.closed = False

    def room(self) -> float:
        if not self.maxsize:
            return float("inf")
        return self.maxsize - len(self.waiting) - len(self.flying)

    def take(self) -> None:
        """The next event goes to the turnstile, as soon as there is one."""
        if not self.flying and self.waiting:
            self.flying.append(self.waiting.popleft())
            assert self.dst.entered.acquire(timeout=DEADLINE)

    @precondition(lambda self: not self.closed)
    @rule(size=st.integers(0, 4), block=st.booleans())
    def write(self, size: int, block: bool) -> None:
        size = size if block else 1
        events = list(range(self.number, self.number + size))
        self.number += size

        def call() -> None:
            if block:
                self.queue.write_many(iter(events))
            else:
                self.queue.write(events[0])

        if self.maxsize and size > self.maxsize:
            try:
                call()
            except ValueError:
                return
            raise AssertionError("a block larger than the queue was taken")
        if size > self.room() and self.policy == "raise":
            try:
                call()
            except QueueFullError:
                return
            raise AssertionError("there was no room")
        call()
        self.accepted += size
        if self.policy == "drop_oldest" and size <= self.room() + len(self.waiting):
            while size > self.room() and self.waiting:
                self.dropped.append(self.waiting.popleft())
        if size > self.room():
            self.dropped.extend(events)
        else:
            self.waiting.extend(events)
        self.take()

    @precondition(lambda self: self.flying)
    @rule()
    def step(self) -> None:
        event = self.flying.pop()
        (self.dropped if event % 2 else self.delivered).append(event)
        pending = len(self.waiting)
        self.dst.passed.release()
        if pending:
            self.take()
        eventually(lambda: len(self.queue) == pending)

    @precondition(lambda self: not self.closed)
    @rule()
    def flush(self) -> None:
        assert self.queue.flush(0) is not bool(self.flying)

    @precondition(lambda self: not self.closed and self.number > 10)
    @rule()
    def give_up(self) -> None:
        self.closed = True
        left = [*self.flying, *self.waiting]
        try:
            self.queue.close(timeout=0 if left else DEADLINE)
        except CloseTimeoutError as error:
            given_up = error.undelivered
        else:
            given_up = []
        assert given_up == left
        self.dropped.extend(left)
        self.flying.clear()
        self.waiting.clear()
        self.dst.passed.release()

    @precondition(lambda self: self.closed)
    @rule()
    def late(self) -> None:
        try:
            self.queue.write(self.number)
        except SinkClosedError:
            return
        raise AssertionError("written to a closed queue")

    @invariant()
    def the_ledger_is_the_models(self) -> None:
        if not hasattr(self, "queue"):
            return
        pending = len(self.waiting) + len(self.flying)
        assert self.queue.stats() == (
            self.accepted,
            len(self.delivered),
            len(self.dropped),
            pending,
        )
        assert len(self.queue) == pending
        assert self.queue.closed is self.closed
        eventually(lambda: self.dead.events == self.dropped)  # counted first, then buried

    def teardown(self) -> None:
        if not hasattr(self, "queue"):
            return
        self.dst.free = True
        self.dst.passed.release(len(self.waiting) + len(self.flying) + 1)
        self.queue.close(DEADLINE)
        # At a deadline that has passed another thread closes it.
        eventually(lambda: self.dst.closes == 1)
        if not self.closed:
            rest = [*self.flying, *self.waiting]
            assert self.dst.out == self.delivered + [event for event in rest if event % 2 == 0]
            assert self.dead.events == self.dropped + [event for event in rest if event % 2]
            assert self.queue.stats().pending == 0
            assert self.queue.stats().accepted == self.accepted


def test_a_queue() -> None:
    limits = settings(
        max_examples=at_length(20, 60),
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(QueueMachine, settings=limits)
