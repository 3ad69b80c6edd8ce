"""The shapes of what users hand in to the core; ``fastsinks.typing`` is their door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias


class Destination(Protocol):
    """The sink that another one writes to.

    ``write`` raises if the event was not committed; SinkClosedError says that none ever will
    be. A ``write_many(events)`` is used for blocks if there is one, and so is a ``timeout`` of
    ``close``.
    """

    def write(self, event: Any, /) -> object: ...

    def close(self) -> object: ...


class HasMatch(Protocol):
    """Decides which events a Filter lets through. What it raises goes to the writer."""

    def match(self, event: Any, /) -> object: ...


Matcher: TypeAlias = HasMatch | Callable[[Any], object]
"""A callable, or an object with ``match``; a true value lets the event through."""

WhenFull: TypeAlias = Literal["block", "raise", "drop_newest", "drop_oldest"]
"""What a queue does when it is full."""


class QueueListener(Protocol):
    """Is told of each event that enters and leaves a Queue. What it raises is logged."""

    def ingress(self, event: Any, /) -> object: ...

    def egress(self, event: Any, /) -> object: ...


class RetryListener(Protocol):
    """Is told of the events of a RetryingSink: before each attempt, and when one failed and is to
    be repeated. What it raises is logged."""

    def active(self, event: Any, /) -> object: ...

    def retry(self, event: Any, error: BaseException, /) -> object: ...


class Strategy(Protocol):
    """Decides when to attempt and when to give up, as RetryStrategy does.

    ``proceed`` returns the seconds to wait before an attempt; a true value of ``failure``
    drops the event.
    """

    def proceed(self, event: Any, /) -> float: ...

    def failure(self, event: Any, error: BaseException, /) -> object: ...

    def success(self, event: Any, /) -> object: ...
