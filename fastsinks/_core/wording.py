"""The texts of both backends, each written once. These functions return errors and raise none.

``name`` is the name of a queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import CloseTimeoutError, QueueFullError, SinkClosedError
from .log import Drops

QUEUE_FULL = "the queue is full"  #: why an event was dropped
CLOSED_BEFORE = "closed before it was delivered"


def uninitialised(sink: Any) -> RuntimeError:
    return RuntimeError(f"{type(sink).__name__}: __init__() of the base class was not called")


def unimplemented(sink: Any) -> NotImplementedError:
    return NotImplementedError(f"{type(sink).__name__} does not implement write()")


def still_closing(what: str) -> CloseTimeoutError:
    """Another thread is closing it, and has not finished in time."""
    return CloseTimeoutError(f"{what} is still being closed")


def no_event(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no event within {timeout} seconds")


def late_sinks(late: Sequence[CloseTimeoutError], count: int) -> CloseTimeoutError:
    """For a broadcaster of ``count`` sinks: lists what the ``late`` ones did not deliver."""
    return CloseTimeoutError(
        f"{len(late)} of {count} sinks did not close in time",
        [event for error in late for event in error.undelivered],
    )


def queue_name(dst: Any) -> str:
    """The name of a queue that was given none."""
    return f"queue to {type(dst).__name__}"


def too_large(count: int, maxsize: int) -> ValueError:
    return ValueError(f"a block of {count} events exceeds maxsize={maxsize}")


def closed(name: str) -> SinkClosedError:
    return SinkClosedError(f"{name} or its dispatcher is closed")


def closed_meanwhile(name: str) -> SinkClosedError:
    return SinkClosedError(f"{name} was closed meanwhile")


def full(name: str, pending: int, maxsize: int) -> QueueFullError:
    return QueueFullError(f"{name} holds {pending} of {maxsize} events")


def full_for_itself(name: str) -> QueueFullError:
    """A write from inside the queue's own delivery, which alone could make room."""
    return QueueFullError(f"{name} is full, and only its own delivery waits")


def undelivered(
    name: str, left: list[Any], error: BaseException | None, late: bool
) -> CloseTimeoutError | None:
    """What a closer raises that has abandoned ``left``; None if nothing was left or late.

    ``error`` is what closing the destination raised; the events that it lists are the older ones.
    """
    if isinstance(error, CloseTimeoutError):
        left, late = error.undelivered + left, True
    if not left and not late:
        return None  # the destination closed at once: nothing to report
    return CloseTimeoutError(f"{name}: {len(left)} events were not delivered", left)


def busy_queues(count: int) -> CloseTimeoutError:
    return CloseTimeoutError(f"{count} queues still had events pending")


def drops(name: str) -> Drops:
    """The burst that logs a queue's drops."""
    return Drops(f"{name}: dropped an event")
