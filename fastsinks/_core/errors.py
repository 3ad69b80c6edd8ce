"""The exceptions of fastsinks. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class SinkError(Exception):
    """Base class of everything that fastsinks raises about delivery."""


class SinkClosedError(SinkError):
    """The sink is closed, for good: retrying the same write cannot help."""

    def __init__(self, message: str = "sink is closed") -> None:
        super().__init__(message)


class QueueFullError(SinkError):
    """A bounded queue with ``when_full="raise"`` has no room; nothing was accepted."""


class CloseTimeoutError(SinkError, TimeoutError):
    """``close(timeout)`` reached its deadline. The sink is closed all the same.

    ``undelivered`` holds the events that were accepted and not delivered, in
    the order in which they were written.
    """

    def __init__(self, message: str = "close timed out", undelivered: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.undelivered: list[Any] = list(undelivered)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.undelivered)


class DeliveryError(SinkError):
    """One attempt to deliver failed.

    ``status`` is the HTTP status, ``None`` when there was no answer;
    ``retry_after`` the seconds that the receiver asked for, if it did;
    ``permanent`` is true where trying again cannot help.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        permanent: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.permanent = permanent

    def __reduce__(self) -> tuple[Any, ...]:
        state = {
            "status": self.status,
            "retry_after": self.retry_after,
            "permanent": self.permanent,
        }
        return type(self), (self.args[0],), state
