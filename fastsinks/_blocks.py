"""HTTPSink behind a RetryingSink: requests of the size that the receiver can take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ._errors import DeliveryError
from ._window import Window
from .http import HTTPSink


class BlockSink(HTTPSink):
    """Says how much of a block to send at once: by what has gone well, and by bytes.

    For one writer at a time, as a RetryingSink is.
    """

    def __init__(self, url: str, *, batch_size: int, batch_bytes: int, **options: Any) -> None:
        super().__init__(url, **options)
        self._window = Window(batch_size)
        self._most_bytes = batch_bytes
        self._event_bytes = 0.0  # of the latest body, on average

    def fit(self, events: Sequence[Any]) -> int:
        """How many of ``events``, from the first, to write next: at least one.

        Their body is kept for that write.
        """
        size = min(len(events), self._window.limit)
        if self._event_bytes * size > self._most_bytes:
            size = max(1, int(self._most_bytes / self._event_bytes))
        while size > 1:
            try:
                length = len(self._encode(tuple(events[:size])).body)
            except DeliveryError:
                break  # which the write will raise again, and account for
            self._event_bytes = length / size
            if length <= self._most_bytes:
                break
            size = max(1, min(size - 1, int(size * self._most_bytes / length)))
        return size

    def _deliver(self, events: tuple[Any, ...]) -> None:
        try:
            super()._deliver(events)
        except DeliveryError:
            self._window.failed(len(events))
            raise
        self._window.succeeded(len(events))
