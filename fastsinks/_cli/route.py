"""Route: one endpoint of the command, and what became of its events."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from .._core.backend import ExponentialBackoff
from .._core.errors import CloseTimeoutError
from ..endpoint import Endpoint


class Row(NamedTuple):
    """A line of the summary; counts are of events, but for ``requests``."""

    name: str
    accepted: int
    delivered: int
    dropped: int
    pending: int
    retries: int
    requests: int
    rate: float  #: delivered events per second, until the last of them


class Dropped:
    """A dead letter that counts, and remembers only the first: memory stays bounded."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0
        self.first: Any = None

    def write(self, event: Any) -> None:
        with self._lock:
            if not self.count:
                self.first = event
            self.count += 1

    def close(self) -> None:
        pass


class Route:
    """An endpoint, and what became of its events."""

    def __init__(
        self, name: str, url: str, *, max_attempts: int | None = None, **options: Any
    ) -> None:
        self.name = name
        self.dropped = Dropped()
        # A user waits for the command, so it retries sooner than the library's default.
        strategy = ExponentialBackoff(0.1, 0.1, 2.0, max_attempts=max_attempts)
        self.endpoint = Endpoint(name, url, strategy=strategy, dead_letter=self.dropped, **options)
        self._started = self._last_progress = time.monotonic()
        self._last_delivery = self._started
        self._finished = 0  # events delivered or dropped at the last look
        self._delivered = 0

    def look(self) -> Row:
        """The numbers of this moment. Call it often, as rates and stalls are seen between calls."""
        now = time.monotonic()
        metrics = self.endpoint.metrics
        delivered = metrics.successes
        if delivered != self._delivered:
            self._delivered, self._last_delivery = delivered, now
        if delivered + metrics.dropped != self._finished or not metrics.pending:
            self._finished, self._last_progress = delivered + metrics.dropped, now
        elapsed = self._last_delivery - self._started
        return Row(
            self.name,
            metrics.events,
            delivered,
            metrics.dropped,
            metrics.pending,
            metrics.retries,
            self.endpoint.requests,
            delivered / elapsed if elapsed > 0 else 0.0,
        )

    @property
    def stalled(self) -> float:
        """Seconds for which events have been pending and none was delivered or dropped."""
        return time.monotonic() - self._last_progress

    def close(self, timeout: float) -> None:
        """Close the endpoint; what is left at the deadline is in ``dropped``."""
        try:
            self.endpoint.close(timeout=timeout)
        except CloseTimeoutError:
            pass


def close_all(routes: Iterable[Route], timeout: float) -> None:
    """Close all at the same time, and wait little longer than ``timeout`` for all of them."""
    closers = [
        threading.Thread(target=route.close, args=(timeout,), daemon=True) for route in routes
    ]
    deadline = time.monotonic() + timeout + 0.3
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join(max(0.0, deadline - time.monotonic()))
