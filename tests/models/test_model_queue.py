"""Both backends do the same, whatever one calls: queues and channels, over several threads.

The order in which threads act is settled: a delivery stops at a turnstile until a step lets
it pass, and of calls that block there is one at a time.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support import DEADLINE, POLICIES, Task, parked
from support.twins import (
    TIME,
    BlockTurnstile,
    Listener,
    Recording,
    Turnstile,
    Twins,
    limits,
    outcome,
)

import fastsinks

pytestmark = [pytest.mark.once, pytest.mark.timeout(TIME)]


class Side:
    """A queue, its turnstile, and the call that blocks."""

    def __init__(self, backend: Any, log: list[Any], options: dict[str, Any]) -> None:
        options = dict(options)
        blocks, strategy = options.pop("blocks"), options.pop("strategy")
        self.dead: list[Any] = []
        self.entered: list[Any] = []
        self.dst: Any = (BlockTurnstile if blocks else Turnstile)(log)
        self.dispatcher = backend.Dispatcher()
        target = self.dst
        if strategy is not None:
            kind, *args = strategy
            how = getattr(backend, kind)(*args, max_attempts=2)
            target = backend.RetryingSink(
                target, how, dead_letter=Recording(self.dead, "retry"), listeners=[Listener(log)]
            )
        self.queue = backend.Queue(
            target,
            listeners=[Listener(log, entered=self.entered)] if options.pop("listens") else [],
            dead_letter=Recording(self.dead, "queue"),
            dispatcher=self.dispatcher,
            **options,
        )
        self.maxsize = options["maxsize"]
        self.needs = 0  # room for so many, or 0 if no write waits
        self.task: Task | None = None

    def at_rest(self) -> bool:
        """Whether nothing happens any more before the next step."""
        if self.dst.here is None and not self.queue.flush(0):
            return False
        if self.task is None or self.task.done:
            return True
        parked(self.task)
        if self.needs:
            return len(self.queue) + self.needs > self.maxsize and not self.queue.closed
        return not self.task.done and self.dst.here is not None

    def look(self) -> Any:
        if not self.at_rest():
            return object()  # equal to nothing
        waits = None if self.task is None else self.task.done
        result = outcome(self.task.result) if waits else None
        return (
            tuple(self.queue.stats()),
            len(self.queue),
            self.queue.closed,
            self.dst.here,
            self.dst.closes,
            list(self.dead),
            list(self.entered),
            waits,
            result,
        )


class QueueMachine(RuleBasedStateMachine):
    @initialize(
        maxsize=st.integers(0, 4),
        when_full=st.sampled_from(POLICIES),
        batch_size=st.integers(1, 3),
        blocks=st.booleans(),
        listens=st.booleans(),
        strategy=st.one_of(
            st.none(),
            st.just(("Breaker", 1, 0.0)),
            st.just(("Breaker", 2, 0.001)),
            st.just(("ExponentialBackoff", 0.0, 0.001, 0.001)),
        ),
    )
    def begin(self, **options: Any) -> None:
        self.options = options
        self.number = 0
        self.twins = Twins(lambda backend, log: Side(backend, log, options))

    def free(self) -> bool:
        return all(side.task is None for side in self.twins.sides)

    @rule(size=st.one_of(st.none(), st.integers(0, 5)))
    def write(self, size: int | None) -> None:
        if not self.free():
            return
        events = list(range(self.number, self.number + (1 if size is None else size)))
        self.number += len(events)
        maxsize = self.options["maxsize"]
        blocks = (
            self.options["when_full"] == "block"
            and 0 < maxsize < len(self.twins.sides[0].queue) + len(events)
            and len(events) <= maxsize
            and not self.twins.sides[0].queue.closed
        )

        def call(side: Side) -> Any:
            if size is None:
                return side.queue.write(events[0])
            return side.queue.write_many(iter(events))

        if not blocks:
            self.twins.both(call)
            return
        for side in self.twins.sides:
            side.needs = len(events)
            side.task = Task(call, side).blocked()

    @rule(end=st.sampled_from(["ok", "ok", "error", "closed"]))
    def step(self, end: str) -> None:
        if self.twins.sides[0].dst.here is None:
            return
        for side in self.twins.sides:
            side.dst.let(end)

    @rule()
    def flush(self) -> None:
        if not self.free():
            return
        self.twins.both(lambda side: side.queue.flush(0))

    @rule()
    def flush_and_wait(self) -> None:
        if not (self.free() and self.number > 5):
            return
        self.background(lambda side: side.queue.flush(DEADLINE))

    @rule()
    def close_and_wait(self) -> None:
        if not (self.free() and self.number > 10):
            return
        self.background(lambda side: side.queue.close())

    @rule()
    def give_up(self) -> None:
        if self.number <= 15:
            return

        def close(side: Side) -> None:
            try:
                side.queue.close(timeout=0.001)
            except fastsinks.CloseTimeoutError as error:
                if error.undelivered:  # else it is only that a busy machine closed `dst` late
                    raise

        self.twins.both(close)
        for side in self.twins.sides:
            side.dst.release()

    def background(self, call: Any) -> None:
        for side in self.twins.sides:
            side.needs = 0
            side.task = Task(call, side)

    @invariant()
    def they_look_the_same(self) -> None:
        if not hasattr(self, "twins"):
            return
        self.twins.same(Side.look)
        self.twins.check_logs()
        for side in self.twins.sides:
            if side.task is not None and side.task.done:
                side.task = None

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            for side in self.twins.sides:
                side.dst.release()
            for side in self.twins.sides:
                if side.task is not None:
                    outcome(side.task.result)
                side.queue.close(DEADLINE)
                side.dispatcher.close(DEADLINE)
            self.twins.same(lambda side: (tuple(side.queue.stats()), side.dead, side.dst.closes))


def test_queues() -> None:
    run_state_machine_as_test(QueueMachine, settings=limits(30))


class Ends:
    """A channel, and the calls at its two ends that block."""

    def __init__(self, backend: Any, buffer: int) -> None:
        self.channel = backend.Channel(buffer)
        self.calls: list[Task] = []

    def look(self) -> Any:
        return (
            len(self.channel),
            self.channel.closed,
            [outcome(call.result) if call.done else "waits" for call in self.calls],
        )


class ChannelMachine(RuleBasedStateMachine):
    """Calls that block are begun one after the other, each when the one before it sleeps."""

    @initialize(buffer=st.integers(0, 3))
    def begin(self, buffer: int) -> None:
        self.number, self.buffer, self.in_order = 0, buffer, False
        self.twins = Twins(lambda backend, log: Ends(backend, buffer))

    def waiting(self) -> int:
        return sum(not call.done for call in self.twins.sides[0].calls)

    def in_line(self) -> bool:
        """Whether a further call has its place: a single one, or a write for a rendezvous."""
        return not self.waiting() or (self.in_order and self.waiting() < 3)

    def start(self, call: Any, *, in_order: bool = False) -> None:
        self.in_order = in_order and self.buffer == 0
        for side in self.twins.sides:
            side.calls.append(Task(call, side.channel))

    @rule()
    def write(self) -> None:
        if not self.in_line():
            return
        self.number += 1
        number = self.number
        self.start(lambda channel: channel.write(number), in_order=True)

    @rule()
    def write_many(self) -> None:
        if self.waiting():
            return
        self.number += 2
        block = [self.number - 1, self.number]
        self.start(lambda channel: channel.write_many(block))

    @rule()
    def get_and_wait(self) -> None:
        if self.waiting():
            return
        self.start(lambda channel: channel.get(DEADLINE))

    @rule()
    def get(self) -> None:
        self.twins.both(lambda side: side.channel.get(timeout=0))

    @rule()
    def is_done(self) -> None:
        self.twins.both(lambda side: side.channel.done(timeout=0))

    @rule(often=st.integers(0, 5))
    def close(self, often: int) -> None:
        if self.number <= 6:
            return
        if not often:
            self.twins.both(lambda side: side.channel.close())

    @invariant()
    def they_look_the_same(self) -> None:
        if hasattr(self, "twins"):
            for side in self.twins.sides:
                for call in side.calls:
                    parked(call)
            self.twins.same(Ends.look)

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            self.twins.both(lambda side: side.channel.close())
            self.twins.both(lambda side: list(side.channel))
            for side in self.twins.sides:
                for call in side.calls:
                    outcome(call.result)


def test_channels() -> None:
    run_state_machine_as_test(ChannelMachine, settings=limits(8, steps=15))
