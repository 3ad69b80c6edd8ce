"""Both backends do the same, whatever one calls: broadcasters, filters, retries, strategies."""

from __future__ import annotations

import functools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.twins import BACKENDS, TIME, Listener, Scripted, ScriptedBlocks, Twins, limits, outcome

pytestmark = [pytest.mark.once, pytest.mark.timeout(TIME)]

STEPS = st.sampled_from(["ok", "ok", "error", "closed", "interrupt"])
PLANS = ["write", "write_many", "add", "remove", "close", "look"]


class BroadcasterMachine(RuleBasedStateMachine):
    """Sinks that fail, are closed, and call back."""

    @initialize(
        scripts=st.lists(
            st.tuples(
                st.booleans(), st.lists(st.one_of(STEPS, st.sampled_from(PLANS)), max_size=6)
            ),
            min_size=4,
            max_size=4,
        ),
        present=st.integers(0, 4),
    )
    def begin(self, scripts: list[Any], present: int) -> None:
        self.number = 0

        def make(backend: Any, log: list[Any]) -> Any:
            sinks: list[Any] = []
            made: list[Any] = []

            def back(plan: str, i: int) -> Any:
                def call(events: list[Any]) -> None:
                    sink = made[0]
                    if plan == "write":
                        sink.write((events[0], "again"))
                    elif plan == "write_many":
                        sink.write_many([(events[0], 1), (events[0], 2)])
                    elif plan == "add":
                        sink.add(sinks[(i + 1) % len(sinks)])
                    elif plan == "remove":
                        sink.remove(sinks[(i + 1) % len(sinks)])
                    elif plan == "close":
                        sink.close()
                    else:
                        log.append((len(sink.sinks), sink.dropped, sink.closed))

                return call

            for i, (blocks, script) in enumerate(scripts):
                steps = [back(step, i) if step in PLANS else step for step in script]
                sinks.append((ScriptedBlocks if blocks else Scripted)(log, i, steps))
            made.append(backend.Broadcaster(*sinks[:present]))
            return made[0], sinks

        self.twins = Twins(make)

    @rule()
    def write(self) -> None:
        self.number += 1
        self.twins.both(lambda side: side[0].write(self.number))

    @rule(size=st.integers(0, 3))
    def write_many(self, size: int) -> None:
        self.number += size
        self.twins.both(lambda side: side[0].write_many(range(self.number, self.number + size)))

    @rule(i=st.integers(0, 3))
    def add(self, i: int) -> None:
        self.twins.both(lambda side: side[0].add(side[1][i]))

    @rule(i=st.integers(0, 3))
    def remove(self, i: int) -> None:
        self.twins.both(lambda side: side[0].remove(side[1][i]))

    @rule(often=st.integers(0, 9))
    def close(self, often: int) -> None:
        if not often:
            self.twins.both(lambda side: side[0].close())

    @invariant()
    def they_look_the_same(self) -> None:
        if hasattr(self, "twins"):
            self.twins.check_logs()
            self.twins.both(
                lambda side: (
                    [sink.name for sink in side[0].sinks],
                    side[0].dropped,
                    side[0].closed,
                )
            )


def test_broadcasters() -> None:
    run_state_machine_as_test(BroadcasterMachine, settings=limits(60))


class MyStrategy:
    """Says what it was told to say, and raises where it was told to."""

    def __init__(self, log: list[Any], answers: list[Any]) -> None:
        self._log, self._answers = log, list(answers)

    def _answer(self, method: str, event: Any) -> Any:
        answer = self._answers.pop(0) if self._answers else 0
        self._log.append((method, event, answer))
        if answer == "error":
            raise ArithmeticError(method)
        return answer

    def proceed(self, event: Any) -> float:
        return 0.0001 if self._answer("proceed", event) else 0.0

    def failure(self, event: Any, error: Exception) -> bool:
        return bool(self._answer("failure", event))

    def success(self, event: Any) -> None:
        self._answer("success", event)


STRATEGIES = st.one_of(
    st.tuples(st.just("Breaker"), st.integers(0, 3), st.sampled_from([0.0, 0.0005])),
    st.tuples(st.just("ExponentialBackoff"), st.sampled_from([0.0, 0.0005]), st.just(0.0)),
    st.lists(st.sampled_from([0, 0, 1, "error"]), max_size=12),
)


class RetryingMachine(RuleBasedStateMachine):
    @initialize(
        strategy=STRATEGIES,
        attempts=st.integers(1, 4),
        script=st.lists(
            st.sampled_from(
                ["ok", "ok", "error", "error", "error", "permanent", "after", "closed", "interrupt"]
            ),
            max_size=40,
        ),
        blocks=st.booleans(),
        dead=st.lists(STEPS, max_size=5),
        raises=st.booleans(),
    )
    def begin(
        self,
        strategy: Any,
        attempts: int,
        script: list[str],
        blocks: bool,
        dead: list[str],
        raises: bool,
    ) -> None:
        self.number = 0

        def make(backend: Any, log: list[Any]) -> Any:
            if isinstance(strategy, tuple):
                kind, *args = strategy
                how = getattr(backend, kind)(*args, max_attempts=attempts)
            else:
                how = MyStrategy(log, strategy)
            return backend.RetryingSink(
                (ScriptedBlocks if blocks else Scripted)(log, "dst", script),
                how,
                listeners=[Listener(log, raises=raises)],
                dead_letter=Scripted(log, "dead", dead),
            )

        self.twins = Twins(make)

    @rule()
    def write(self) -> None:
        self.number += 1
        self.twins.both(lambda side: side.write(self.number))

    @rule(size=st.integers(0, 9))
    def write_many(self, size: int) -> None:
        block = list(range(self.number, self.number + size))
        self.number += size
        self.twins.both(lambda side: side.write_many(iter(block)))

    @rule(often=st.integers(0, 9))
    def close(self, often: int) -> None:
        if not often:
            self.twins.both(lambda side: side.close())

    @invariant()
    def they_look_the_same(self) -> None:
        if hasattr(self, "twins"):
            self.twins.check_logs()
            self.twins.both(lambda side: (side.retries, side.dropped, side.closed))


def test_retrying_sinks() -> None:
    run_state_machine_as_test(RetryingMachine, settings=limits(60))


@limits(60)
@given(
    kind=st.sampled_from(["Breaker", "ExponentialBackoff"]),
    first=st.one_of(st.integers(0, 4), st.sampled_from([0.0, 1.5, 100.0])),
    second=st.sampled_from([0.0, 0.25, 50.0, 1e300, float("inf"), -1.0, float("nan"), "x"]),
    most=st.sampled_from([None, 1, 3, 0, True, -1]),
    elapsed=st.sampled_from([None, 0.0, 1000.0, -1.0]),
    calls=st.lists(
        st.tuples(st.sampled_from(["proceed", "failure", "success"]), st.integers(0, 2)),
        max_size=40,
    ),
)
def test_strategies(
    kind: str, first: Any, second: Any, most: Any, elapsed: Any, calls: list[Any]
) -> None:
    made = [
        outcome(
            lambda backend=backend: getattr(backend, kind)(
                first, second, max_attempts=most, max_elapsed=elapsed
            )
        )
        for backend in BACKENDS
    ]
    if isinstance(made[0], tuple) or isinstance(made[1], tuple):
        assert made[0] == made[1]
        return
    events = ["a", "b", "c"]
    for seed, (method, i) in enumerate(calls):
        answers = []
        for strategy in made:
            random.seed(seed)
            arguments = [events[i], OSError()] if method == "failure" else [events[i]]
            answers.append(outcome(functools.partial(getattr(strategy, method), *arguments)))
        assert answers[0] == pytest.approx(answers[1], abs=0.2), (method, i)


@limits(60)
@given(
    matches=st.lists(st.sampled_from([True, False, 1, "", None, "error"]), max_size=20),
    script=st.lists(STEPS, max_size=10),
    blocks=st.booleans(),
    sizes=st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=10),
)
def test_filters(matches: list[Any], script: list[str], blocks: bool, sizes: list[Any]) -> None:
    def make(backend: Any, log: list[Any]) -> Any:
        answers = list(matches)

        def match(event: Any) -> Any:
            answer = answers.pop(0) if answers else True
            log.append(("match", event))
            if answer == "error":
                raise ArithmeticError(event)
            return answer

        return backend.Filter((ScriptedBlocks if blocks else Scripted)(log, "dst", script), match)

    twins = Twins(make)
    for number, size in enumerate(sizes):
        if size is None:
            twins.both(lambda side, number=number: side.write(number))
        else:
            twins.both(lambda side, n=number, k=size: side.write_many((n, i) for i in range(k)))
        twins.check_logs()
    for _ in range(2):
        twins.both(lambda side: side.close())
    twins.both(lambda side: side.write("late"))
    twins.both(lambda side: side.closed)
    twins.check_logs()


NAMES = st.sampled_from(["push", "pull", "text/a", "text/b", ""])
ODD = st.one_of(NAMES, st.none(), st.integers(), st.lists(NAMES, max_size=1), st.just({}))


@limits(100)
@given(
    media_types=st.one_of(st.lists(NAMES, max_size=2), ODD),
    actions=st.one_of(st.lists(NAMES, max_size=2), ODD),
    events=st.lists(
        st.one_of(
            ODD,
            st.fixed_dictionaries(
                {}, optional={"action": ODD, "target": st.dictionaries(st.just("mediaType"), ODD)}
            ),
            st.fixed_dictionaries({}, optional={"action": ODD, "target": ODD}),
        )
    ),
)
def test_ignore(media_types: Any, actions: Any, events: list[Any]) -> None:
    made = [
        outcome(lambda backend=backend: backend.ignore(media_types, actions))
        for backend in BACKENDS
    ]
    if isinstance(made[0], tuple) or isinstance(made[1], tuple):
        assert made[0] == made[1]
        return
    for event in events:
        compiled, pure = (outcome(lambda m=m, e=event: bool(m.match(e))) for m in made)
        assert compiled == pure
        assert outcome(lambda e=event: bool(made[0](e))) == compiled
