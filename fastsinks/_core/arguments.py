"""Checks of arguments, written once for both backends. Imports nothing of the package."""

from __future__ import annotations

import math
import sys
from typing import Any

FOREVER = 86400.0 * 365  #: the longest wait in seconds; platforms' clocks overflow beyond
MANY = 2**31 - 1  #: more threads than any system has


def seconds(name: str, value: Any) -> float:
    """A duration: a finite or infinite number, not negative."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    if math.isnan(value) or value < 0:
        raise ValueError(f"{name} must not be negative or NaN, got {value!r}")
    return FOREVER if value >= FOREVER else float(value)


def timeout(value: Any) -> float:
    """A timeout argument in seconds; ``None`` means to wait for ever."""
    return FOREVER if value is None else seconds("timeout", value)


def size(name: str, value: Any, *, least: int = 0, most: int = sys.maxsize) -> int:
    """A whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value!r}")
    return value


def strings(name: str, values: Any) -> tuple[str, ...]:
    """A tuple of strings, from any iterable of them except a string."""
    if isinstance(values, (str, bytes)):
        raise TypeError(f"{name} must be an iterable of strings, not {values!r}")
    found = tuple(values)
    for value in found:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be strings, not {value!r}")
    return found


def policy(value: Any) -> str:
    """What a queue does when it is full."""
    if value not in ("block", "raise", "drop_newest", "drop_oldest"):
        raise ValueError(
            f"when_full must be 'block', 'raise', 'drop_newest' or 'drop_oldest', not {value!r}"
        )
    return str(value)


def destination(value: Any, *, role: str = "a destination") -> Any:
    """An object with ``write`` and ``close``; checked when sinks are wired, not later."""
    for method in ("write", "close"):
        if not callable(getattr(value, method, None)):
            raise TypeError(f"{role} needs a {method}() method, {type(value).__name__!r} has none")
    return value


def dead_letter(value: Any) -> Any:
    """Where dropped events go: a destination, or ``None``."""
    return None if value is None else destination(value, role="a dead letter")


def strategy(value: Any) -> Any:
    """An object that decides about retries, as RetryStrategy does."""
    for method in ("proceed", "failure", "success"):
        if not callable(getattr(value, method, None)):
            raise TypeError(f"a strategy needs a {method}() method, {value!r} has none")
    return value


def matcher(value: Any) -> Any:
    """The callable that accepts events: ``value.match`` or ``value``."""
    match = getattr(value, "match", value)
    if not callable(match):
        raise TypeError(f"a matcher is callable or has match(event), unlike {value!r}")
    return match


def dispatcher(value: Any, kind: type, default: Any) -> Any:
    """A dispatcher of the backend's ``kind``; ``None`` is the process's default one."""
    if value is None:
        return default
    if not isinstance(value, kind):
        raise TypeError(f"dispatcher must be a Dispatcher, not {value!r}")
    return value


def limits(max_attempts: Any, max_elapsed: Any) -> tuple[int | None, float | None]:
    """When a strategy gives up; ``None`` means never."""
    return (
        None if max_attempts is None else size("max_attempts", max_attempts, least=1),
        None if max_elapsed is None else seconds("max_elapsed", max_elapsed),
    )


def listeners(values: Any, *methods: str) -> tuple[Any, ...]:
    """A tuple of objects that each have all of ``methods``."""
    found = tuple(values)
    for value in found:
        for method in methods:
            if not callable(getattr(value, method, None)):
                raise TypeError(
                    f"a listener needs a {method}() method, {type(value).__name__!r} has none"
                )
    return found


def own_write_many(dst: Any, base: type) -> Any:
    """``dst.write_many`` if ``dst`` takes blocks by itself, else ``None``.

    The base class's loop over ``write`` is no block operation: a failure in its
    middle could not say which events were committed. A sink that has
    ``takes_blocks = False`` gets no blocks either.
    """
    if isinstance(dst, base) and type(dst).write_many is base.write_many:  # type: ignore[attr-defined]
        return None
    if getattr(dst, "takes_blocks", True) is False:
        return None
    write_many = getattr(dst, "write_many", None)
    return write_many if callable(write_many) else None


def own_fit(dst: Any, base: type) -> Any:
    """``dst.fit`` if ``dst`` is one of our sinks and has such a method, else ``None``."""
    return getattr(dst, "fit", None) if isinstance(dst, base) else None
