"""What fastsinks logs: the sink and the kind of event, never the event's contents.

This module alone touches the logger. A handler is user code: it may raise, block or call
back into a sink. So nothing is logged under a lock, and what a handler raises is swallowed,
except for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from .errors import SinkError
from .per_process import PerProcess
from .thread_state import is_interrupt

_logger = logging.getLogger("fastsinks")
_logger.addHandler(logging.NullHandler())


# These three look at users' objects, which may raise; then the name of the type has to do.


def describe(event: Any) -> str:
    """Name an event by its type and, where it has one, its id; never by its contents."""
    kind = type(event).__name__
    try:
        ident = event.get("id") if isinstance(event, dict) else getattr(event, "id", None)
        if isinstance(ident, (str, int)) and not isinstance(ident, bool):
            return f"{kind} {str(ident)[:80]!r}"  # str() refuses an int of too many digits
    except BaseException as raised:
        if is_interrupt(raised):
            raise
    return kind


def describe_error(error: BaseException) -> str:
    """Name an exception for the log. Only our own texts are shown: others may quote the event."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}" if isinstance(error, SinkError) else kind
    except BaseException as raised:
        if is_interrupt(raised):
            raise
    return kind


def describe_sink(sink: Any) -> str:
    """Name a destination by its ``log_label``, or else by its type."""
    try:
        label = getattr(sink, "log_label", None)
        if isinstance(label, str):
            return label[:100]
    except BaseException as raised:
        if is_interrupt(raised):
            raise
    return type(sink).__name__


def info(message: str, *args: Any) -> None:
    _log(logging.INFO, message, *args)


def warning(message: str, *args: Any) -> None:
    _log(logging.WARNING, message, *args)


def error(message: str, *args: Any) -> None:
    _log(logging.ERROR, message, *args)


def _log(level: int, message: str, *args: Any) -> None:
    """Log a line. A handler that raises must cost neither an event nor a worker."""
    try:
        _logger.log(level, message, *args)
    except BaseException as raised:
        if is_interrupt(raised):
            raise


@contextlib.contextmanager
def handled_by(handler: logging.Handler) -> Iterator[None]:
    """Within this, ``handler`` gets what is logged, as do the handlers that were there before."""
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)


_lock = PerProcess(threading.Lock)  # one for all bursts: trouble is rare


class Burst:
    """Rate-limits failed attempts: a line for the first, one with their number when it is over.

    Any thread may call it. The lock guards the counts alone; logging, which runs
    handlers of the user's, happens outside it.
    """

    __slots__ = ("_count", "_level", "_what")
    counts = "attempts"

    def __init__(self, what: str, level: int = logging.WARNING) -> None:
        self._what = what
        self._level = level
        self._count = 0

    def happened(self, event: Any, reason: str, count: int = 1) -> None:
        with _lock.get():
            first = self._count == 0
            self._count += count
        if first:
            _log(self._level, "%s: %s (%s)", self._what, describe(event), reason)

    def __bool__(self) -> bool:
        """Whether the burst has begun and is not over."""
        return self._count > 0

    def over(self) -> None:
        """Call it when things work again; cheap if nothing has happened."""
        if not self._count:
            return
        with _lock.get():
            count, self._count = self._count, 0
        if count > 1:
            info("%s: %d %s in all", self._what, count, self.counts)


class Drops(Burst):
    """A burst of events that are dropped, which is an error."""

    __slots__ = ()
    counts = "events"

    def __init__(self, what: str) -> None:
        super().__init__(what, logging.ERROR)
