"""SizedSink: what stands between an endpoint's retries and its HTTPSink."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .._core.backend import Sink
from .._core.errors import DeliveryError
from ..http import HTTPSink
from .window import Window


class SizedSink(Sink):
    """Chooses the size of each request: how many events of a block to post at once.

    It keeps no events. The RetryingSink asks ``fit`` how large the next piece of a block may be;
    that depends on which sizes have succeeded, and on the bytes of the body.

    Any thread may write. Threads share what they find out about sizes, and one of two findings
    at the same moment may be lost.
    """

    def __init__(self, http: HTTPSink, *, batch_size: int, batch_bytes: int) -> None:
        super().__init__()
        self._http = http
        self.log_label = http.log_label  #: what log lines call it
        self._window = Window(batch_size)
        self._most_bytes = batch_bytes
        self._event_bytes = 0.0  # of the latest body, on average

    @property
    def takes_blocks(self) -> bool:
        return self._http.takes_blocks

    def fit(self, events: Sequence[Any]) -> int:
        """How many of ``events``, from the first, to write next: at least one.

        The HTTPSink keeps their body for that write.
        """
        size = min(len(events), self._window.limit)
        if self._event_bytes * size > self._most_bytes:
            size = max(1, int(self._most_bytes / self._event_bytes))
        while size > 1:
            try:
                length = self._http.measure(events[:size])
            except DeliveryError:
                break  # the write will raise it again, and count it
            self._event_bytes = length / size
            if length <= self._most_bytes:
                break
            size = max(1, min(size - 1, int(size * self._most_bytes / length)))
        return size

    def write(self, event: Any) -> None:
        try:
            self._http.write(event)
        except DeliveryError:
            self._window.failed(1)
            raise
        self._window.succeeded(1)

    def write_many(self, events: Iterable[Any]) -> None:
        block = tuple(events)
        try:
            self._http.write_many(block)
        except DeliveryError:
            self._window.failed(len(block))
            raise
        self._window.succeeded(len(block))

    def close(self, timeout: float | None = None) -> None:
        super().close(timeout)
        self._http.close(timeout)
