"""What the core says in the log: which sink, which kind of event, never its contents."""

from __future__ import annotations

import logging
import threading
from typing import Any

from ._errors import SinkError

logger = logging.getLogger("fastsinks")
logger.addHandler(logging.NullHandler())


def describe(event: Any) -> str:
    """Name an event by its type and, where it has one, its id; never by its contents."""
    kind = type(event).__name__
    try:
        ident = event.get("id") if isinstance(event, dict) else getattr(event, "id", None)
    except Exception:  # an event's own property raised: its type must do
        return kind
    if isinstance(ident, (str, int)) and not isinstance(ident, bool):
        return f"{kind} {str(ident)[:80]!r}"
    return kind


def describe_error(error: BaseException) -> str:
    """Name an exception for the log. Its text may quote the event, so only ours is shown."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, SinkError) else kind


class Burst:
    """Rate-limits one kind of trouble: a line when it begins, one with the count when it ends.

    Any thread may call it. The lock guards the count alone; logging, which runs
    handlers of the user's, happens outside it.
    """

    __slots__ = ("_count", "_lock", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._count = 0
        self._lock = threading.Lock()

    def happened(self, event: Any, reason: str, count: int = 1) -> None:
        with self._lock:
            first = self._count == 0
            self._count += count
        if first:
            logger.warning("%s: %s (%s)", self._what, describe(event), reason)

    def over(self) -> None:
        """Call when things work again; cheap when nothing had happened."""
        if not self._count:
            return
        with self._lock:
            count, self._count = self._count, 0
        if count > 1:
            logger.warning("%s: %d events in all", self._what, count)
