"""What users hand in, by shape: for type checkers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias


class Destination(Protocol):
    """What events can be written to."""

    def write(self, event: Any, /) -> object: ...

    def close(self) -> object: ...


class HasMatch(Protocol):
    def match(self, event: Any, /) -> object: ...


Matcher: TypeAlias = HasMatch | Callable[[Any], object]

WhenFull: TypeAlias = Literal["block", "raise", "drop_newest", "drop_oldest"]


class QueueListener(Protocol):
    def ingress(self, event: Any, /) -> object: ...

    def egress(self, event: Any, /) -> object: ...


class RetryListener(Protocol):
    def active(self, event: Any, /) -> object: ...

    def retry(self, event: Any, error: BaseException, /) -> object: ...


class Strategy(Protocol):
    """What RetryStrategy has; subclassing it is optional."""

    def proceed(self, event: Any, /) -> float: ...

    def failure(self, event: Any, error: BaseException, /) -> object: ...

    def success(self, event: Any, /) -> object: ...
