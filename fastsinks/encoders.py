"""Encoders: what makes the body of one request out of a block of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ._errors import DeliveryError
from .events import EVENTS_MEDIA_TYPE, encode

__all__ = ["Encoder", "EnvelopeEncoder"]


class Encoder(Protocol):
    """What HTTPSink asks of an encoder; any object of this shape will do.

    ``encode`` may be called by several threads at once. It gets the events of one
    request in their order, never none, and must not change them. Whatever it
    raises means that the block as it is can never be sent.
    """

    @property
    def media_type(self) -> str: ...

    def encode(self, events: Sequence[Any]) -> bytes: ...


class EnvelopeEncoder:
    """Writes the registry's envelope ``{"events": [...]}``, from any JSON-able events.

    Stateless: one may serve any number of sinks and threads.
    """

    media_type = EVENTS_MEDIA_TYPE

    def encode(self, events: Sequence[Any]) -> bytes:
        """Return the envelope; DeliveryError (permanent) if an event cannot be written.

        The error names the type of the first such event, and nothing of its contents.
        """
        try:
            return encode(events)
        except Exception as error:
            # An error's text may quote the event, so neither it nor its traceback goes on.
            raise _refusal(events, error) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _refusal(events: Sequence[Any], error: Exception) -> DeliveryError:
    """Find out which event of the block was to blame."""
    for event in events:
        try:
            encode((event,))
        except Exception as own:
            kind, reason = type(event).__name__, type(own).__name__
            return DeliveryError(
                f"event of type {kind} cannot be encoded: {reason}", permanent=True
            )
    return DeliveryError(f"events cannot be encoded: {type(error).__name__}", permanent=True)
