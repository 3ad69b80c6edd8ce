"""The compiled and the pure-Python core side by side: the same calls, the same outcomes.

Models run with the compiled backend, since the other one can be imported beside it. What
their sinks are called with, and by which of the two, is written to a log for each side.
"""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

import fastsinks
from fastsinks._core import pure
from support import DEADLINE, at_length, eventually

BACKENDS: tuple[Any, Any] = (fastsinks, pure)
SIDES = ("c", "python")

# FASTSINKS_MODEL_EXAMPLES asks for more, which then differ from run to run.
EXAMPLES = int(os.environ.get("FASTSINKS_MODEL_EXAMPLES", "0"))
TIME = 3600 if EXAMPLES else 30


def limits(examples: int, steps: int = 30) -> settings:
    return settings(
        max_examples=EXAMPLES or at_length(examples // 3, examples),
        stateful_step_count=steps,
        deadline=None,
        derandomize=not EXAMPLES,
        suppress_health_check=list(HealthCheck),
    )


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returned or raised, in a form that compares."""
    try:
        value = call()
    except BaseException as error:
        return type(error).__name__, str(error), getattr(error, "undelivered", None)
    return tuple(value) if isinstance(value, tuple) else value


class Twins:
    """Two of a kind. `both(call)` makes the same call on each, which must end alike."""

    def __init__(self, make: Callable[[Any, list[Any]], Any]) -> None:
        self.logs: tuple[list[Any], list[Any]] = ([], [])
        self.sides = tuple(make(*each) for each in zip(BACKENDS, self.logs, strict=True))

    def both(self, call: Callable[[Any], Any]) -> Any:
        compiled, pure = (outcome(lambda side=side: call(side)) for side in self.sides)
        assert compiled == pure, f"compiled {compiled!r}, pure {pure!r}"
        return compiled

    def same(self, look: Callable[[Any], Any]) -> Any:
        """Wait until both look the same."""
        seen: list[Any] = []

        def alike() -> bool:
            seen[:] = [look(side) for side in self.sides]
            return bool(seen[0] == seen[1])

        try:
            eventually(alike, timeout=2.0)
        except AssertionError:
            raise AssertionError(f"compiled {seen[0]!r}, pure {seen[1]!r}") from None
        return seen[0]

    def check_logs(self) -> None:
        compiled, pure = self.logs
        assert compiled == pure, f"compiled {compiled!r}, pure {pure!r}"


class Scripted:
    """A sink that does with its n-th call what it has been told to, and logs it.

    A step of the script is "ok", "error", "permanent", "after" (asks to wait a moment),
    "closed", "interrupt", or a function that is called with the events.
    """

    def __init__(self, log: list[Any], name: Any, script: list[Any]) -> None:
        self.log = log
        self.name = name
        self.script = list(script)

    def _play(self, events: list[Any], how: str) -> None:
        step = self.script.pop(0) if self.script else "ok"
        self.log.append((self.name, how, events, step if isinstance(step, str) else "call"))
        if callable(step):
            step(events)
        elif step == "error":
            raise OSError("no")
        elif step == "permanent":
            error = OSError("never")
            error.permanent = True  # type: ignore[attr-defined]
            raise error
        elif step == "after":
            error = OSError("later")
            error.retry_after = 0.0005  # type: ignore[attr-defined]
            raise error
        elif step == "closed":
            raise fastsinks.SinkClosedError("gone")
        elif step == "interrupt":
            raise KeyboardInterrupt("now")

    def write(self, event: Any) -> None:
        self._play([event], "write")

    def close(self) -> None:
        self.log.append((self.name, "close"))


class ScriptedBlocks(Scripted):
    def write_many(self, events: Any) -> None:
        self._play(list(events), "write_many")


class Listener:
    """Logs what it is told, and raises now and then."""

    def __init__(
        self, log: list[Any], *, raises: bool = False, entered: list[Any] | None = None
    ) -> None:
        self._log = log
        self._entered = log if entered is None else entered
        self._raises = raises

    def _hear(self, what: str, *args: Any) -> None:
        self._log.append(
            (what, *(type(a).__name__ if isinstance(a, Exception) else a for a in args))
        )
        if self._raises:
            raise OSError("a listener's")

    def ingress(self, event: Any) -> None:
        self._entered.append(event)  # by another thread than the rest

    def egress(self, event: Any) -> None:
        self._hear("egress", event)

    def active(self, event: Any) -> None:
        self._hear("active", event)

    def retry(self, event: Any, error: Exception) -> None:
        self._hear("retry", event, error)


class Turnstile(types.SimpleNamespace):
    """Holds each call until it is told to pass, and how the call then ends."""

    def __init__(self, log: list[Any]) -> None:
        super().__init__(log=log, here=None, closes=0, late=False)
        self._end: Any = None
        self._changed = threading.Condition()

    def write(self, event: Any) -> None:
        self._hold([event])

    def _hold(self, events: list[Any]) -> None:
        with self._changed:
            if self.late:
                return
            self.log.append(("arrives", events))
            self.here = events
            assert self._changed.wait_for(lambda: self._end is not None or self.late, DEADLINE)
            end, self._end = self._end, None
        if end == "error":
            raise OSError("no")
        if end == "closed":
            raise fastsinks.SinkClosedError("gone")

    def let(self, end: str) -> None:
        with self._changed:
            self._end, self.here = end, None
            self._changed.notify_all()

    def release(self) -> None:
        """From now on everything passes, unseen."""
        with self._changed:
            self.late = True
            self._changed.notify_all()

    def close(self) -> None:
        self.closes += 1


class BlockTurnstile(Turnstile):
    def write_many(self, events: Any) -> None:
        self._hold(list(events))


class Recording:
    """Keeps what it gets, with its name."""

    def __init__(self, events: list[Any], name: str) -> None:
        self._events = events
        self._name = name

    def write(self, event: Any) -> None:
        self._events.append((self._name, event))

    def close(self) -> None: ...
