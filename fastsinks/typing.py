"""The shapes of what users hand in: for type checkers, and for readers who implement one.

None of these needs to be inherited: an object that has the methods will do. Any thread may call
it. What it raises harms neither an event that has its outcome nor other objects; each class here
says what becomes of the exception. None is called under a lock: all of them may call back into
any sink.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from ._core.protocols import (
    Destination,
    HasMatch,
    Matcher,
    QueueListener,
    RetryListener,
    Strategy,
    WhenFull,
)
from ._http.addresses import Allow, IPAddress

__all__ = [
    "Allow",
    "Destination",
    "Encoder",
    "HTTPListener",
    "HasMatch",
    "IPAddress",
    "Matcher",
    "QueueListener",
    "RetryListener",
    "SignedHeaders",
    "Signer",
    "Strategy",
    "WhenFull",
]


class Encoder(Protocol):
    """Makes the body of one request out of events, for HTTPSink.

    ``encode`` may be called by several threads at once. It gets the events of one
    request in their order, never none, and must not change them. Whatever it
    raises means that the block as it is can never be sent. With the optional attribute
    ``takes_blocks = False`` it gets one event per request.
    """

    @property
    def media_type(self) -> str: ...

    def encode(self, events: Sequence[Any]) -> bytes: ...


class HTTPListener(Protocol):
    """Is told of each event of each request of an HTTPSink, on the thread that writes.

    ``success`` and ``failure`` get the status of the answer, ``error`` the exception where
    there was none. What they raise is logged.
    """

    def success(self, status: int, event: Any, /) -> object: ...

    def failure(self, status: int, event: Any, /) -> object: ...

    def error(self, error: Exception, event: Any, /) -> object: ...


SignedHeaders: TypeAlias = Mapping[str, str | Sequence[str]]
"""Headers that a signer adds to a request: a string or several for each name."""

Signer: TypeAlias = Callable[[bytes], SignedHeaders] | Callable[[bytes, str], SignedHeaders]
"""Signs each body before it is sent, with the payload's id if it takes two arguments. Whatever
it raises makes the attempt fail; its text is shown nowhere, because a signer knows a secret."""
