"""Endpoint: filter, queue, retry and HTTP wired together."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ._core import arguments
from ._core.backend import Breaker, Filter, Queue, RetryingSink, Sink, ignore
from ._endpoint.registry import Registry
from ._endpoint.sizing import SizedSink
from ._http.outcomes import Outcomes
from .http import HTTPSink
from .typing import Allow, Destination, Encoder, Signer, Strategy, WhenFull

__all__ = ["Endpoint", "EndpointMetrics"]


class EndpointMetrics(NamedTuple):
    """What became of an endpoint's events so far; all counts are of events.

    ``events`` were accepted, ``pending`` of them are not finished. Each attempt at
    an event was one of ``successes``, ``failures`` (answered outside 2xx and 3xx) and
    ``errors`` (no answer); ``retries`` of them failed and were to be repeated. ``dropped``
    events were given up. Once nothing is pending, ``events == successes + dropped``, except
    that an event may count twice if the deadline of a close passed during its request.
    ``statuses`` counts answered events by status, as ``{"200 OK": n}``.
    """

    pending: int
    events: int
    successes: int
    failures: int
    errors: int
    dropped: int
    retries: int
    statuses: dict[str, int]


class Endpoint(Sink):
    """Delivers events to one URL, at least once and in order, without holding up the writer.

    ``write`` checks the event against the ignore lists, appends it to a queue and returns;
    it waits only if ``maxsize`` bounds the queue and ``when_full="block"``. A worker posts
    what is pending in blocks and retries by ``strategy``, by default
    ``Breaker(threshold, backoff)``, which never gives up. What one request carries is small at
    first, grows while requests succeed and halves when they fail. It is never more than
    ``batch_size`` events, nor a body of more than ``batch_bytes`` unless it is a single
    event's. With an encoder that takes no blocks, each event has a request of its own.

    With ``concurrency`` above one, that many requests may be in flight at a time, each for a
    block that is retried by itself. Then order is kept within a request only. A back-off is for
    all of them, and after it one request goes first. ``timeout``, ``backoff``, ``linger``,
    ``close_timeout`` and ``retry_after_max`` are in seconds; HTTPSink explains the last one and
    ``allow``. Dropped events and those left at a close go to ``dead_letter``, which is not closed.

    An endpoint is listed for monitoring until it is closed. One that is still open when
    the interpreter exits is closed then, within its ``close_timeout``.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        timeout: float = 1.0,
        threshold: int = 10,
        backoff: float = 1.0,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        ignore_media_types: Iterable[str] = (),
        ignore_actions: Iterable[str] = (),
        batch_size: int = 100,
        linger: float = 0.0,
        maxsize: int = 0,
        when_full: WhenFull = "block",
        strategy: Strategy | None = None,
        encoder: Encoder | None = None,
        signer: Signer | None = None,
        ssl_context: ssl.SSLContext | None = None,
        dead_letter: Destination | None = None,
        close_timeout: float = 5.0,
        concurrency: int = 1,
        batch_bytes: int = 1024 * 1024,
        retry_after_max: float = 300.0,
        allow: Allow | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(name, str):
            raise TypeError(f"an endpoint's name must be a string, not {type(name).__name__}")
        self._name = name
        # Checked even if the caller gives another strategy, because monitoring shows them.
        breaker = Breaker(threshold, backoff)
        self._strategy: Strategy = breaker if strategy is None else strategy
        # Read once, so that monitoring calls no user code.
        self._opens_at = self._strategy.threshold if isinstance(self._strategy, Breaker) else None
        self._threshold = threshold
        self._backoff = backoff
        self._close_timeout = arguments.seconds("close_timeout", close_timeout)
        self._ignore_media_types = arguments.strings("ignore_media_types", ignore_media_types)
        self._ignore_actions = arguments.strings("ignore_actions", ignore_actions)
        self._http = HTTPSink(
            url,
            timeout=timeout,
            headers=headers,
            encoder=encoder,
            signer=signer,
            ssl_context=ssl_context,
            concurrency=concurrency,
            retry_after_max=retry_after_max,
            allow=allow,
        )
        self._header_counts = {
            key: 1 if isinstance(value, str) else len(value)
            for key, value in (headers or {}).items()
        }
        batch_size = arguments.size("batch_size", batch_size, least=1)
        batch_bytes = arguments.size("batch_bytes", batch_bytes, least=1)
        if not self._http.takes_blocks:
            batch_size = 1
        sized = SizedSink(self._http, batch_size=batch_size, batch_bytes=batch_bytes)
        sized.log_label = f"endpoint {name!r}"
        self._retrying = RetryingSink(sized, self._strategy, dead_letter=dead_letter)
        self._queue = Queue(
            self._retrying,
            maxsize=maxsize,
            when_full=when_full,
            batch_size=batch_size,
            linger=linger,
            concurrency=concurrency,
            dead_letter=dead_letter,
            name=f"endpoint {name!r}",
        )
        # Without ignore lists there is no filter, and so no cost of one.
        self._head: Sink = self._queue
        if self._ignore_media_types or self._ignore_actions:
            matcher = ignore(self._ignore_media_types, self._ignore_actions)
            self._head = Filter(self._queue, matcher)
        # A write then costs no more than the queue's: a method of this class would add a
        # Python call. A subclass that has a write of its own keeps it.
        if type(self).write is Endpoint.write:
            self.write = self._head.write  # type: ignore[assignment,method-assign]
        if type(self).write_many is Endpoint.write_many:
            self.write_many = self._head.write_many  # type: ignore[method-assign]
        registry.add(self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def url(self) -> str:
        """Where events are posted, without the credentials that the URL may have had."""
        return self._http.url

    @property
    def timeout(self) -> float:
        """Seconds that one request may take in all."""
        return self._http.timeout

    @property
    def threshold(self) -> int:
        """Failures in a row before the default strategy starts to wait."""
        return self._threshold

    @property
    def backoff(self) -> float:
        """Seconds that the default strategy then waits."""
        return self._backoff

    @property
    def headers(self) -> dict[str, list[str]]:
        """The names of the configured headers, with a placeholder for each of their values."""
        return {name: [REDACTED] * count for name, count in self._header_counts.items()}

    @property
    def ignore_media_types(self) -> tuple[str, ...]:
        return self._ignore_media_types

    @property
    def ignore_actions(self) -> tuple[str, ...]:
        return self._ignore_actions

    @property
    def close_timeout(self) -> float:
        """Seconds that ``close`` may take unless it is told otherwise."""
        return self._close_timeout

    @property
    def metrics(self) -> EndpointMetrics:
        """A snapshot. Never blocks for longer than it takes to copy a few numbers."""
        # From the end of the pipeline to its start: an event that is finished is also accepted.
        counters = self._http.counters
        statuses = counters.statuses()
        successes, failures, errors = counters.successes, counters.failures, counters.errors
        retries, dropped = self._retrying.retries, self._retrying.dropped
        stats = self._queue.stats()
        return EndpointMetrics(
            pending=stats.pending,
            events=stats.accepted,
            successes=successes,
            failures=failures,
            errors=errors,
            dropped=dropped + stats.dropped,
            retries=retries,
            statuses=statuses,
        )

    @property
    def requests(self) -> int:
        """HTTP requests begun by this process, redirects and repetitions included."""
        return self._http.requests

    @property
    def in_flight(self) -> int:
        """Exchanges (requests with their redirects) in flight in this process, at most
        ``concurrency``."""
        return self._http.in_flight

    @property
    def oldest(self) -> float:
        """Seconds for which the oldest pending event has waited; 0.0 if nothing is pending."""
        return self._queue.oldest()

    @property
    def latencies(self) -> tuple[tuple[int, ...], float]:
        """How long events took from ``write`` to the end of their last attempt: a histogram with
        the bounds of LATENCY_BOUNDS, and the seconds of all of them together."""
        return self._queue.latencies()

    @property
    def outcomes(self) -> Outcomes:
        """How the latest requests ended; callers only read it."""
        return self._http.outcomes

    @property
    def breaker_open(self) -> bool:
        """Whether the next attempt has to wait for a Breaker's back-off, judged by this
        endpoint's own failures. Always false with another strategy."""
        return (
            self._opens_at is not None and 0 < self.outcomes.consecutive_failures >= self._opens_at
        )

    @property
    def closed(self) -> bool:
        """Whether it refuses further events."""
        return self._head.closed

    @property
    def over(self) -> bool:
        """Whether it is closed and can make no further request."""
        return self._http.closed

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} {self.url} pending={self.metrics.pending}>"

    def write(self, event: Any) -> None:
        """Accept one event for delivery. Raises SinkClosedError once closed, QueueFullError
        with ``when_full="raise"``."""
        self._head.write(event)

    def write_many(self, events: Iterable[Any]) -> None:
        """Accept a block of events as a whole. Raises what ``write`` raises, and ValueError for
        more than ``maxsize`` events."""
        self._head.write_many(events)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted before the call has been delivered or dropped.

        False if that took longer than ``timeout`` seconds; ``None`` waits for ever. Also
        false, at once, from inside the endpoint's own delivery (a dead letter, a strategy).
        """
        return self._queue.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Refuse further events, deliver what is pending, close the connections.

        ``timeout`` seconds (``None``: ``close_timeout``) bound all of it: then a request or
        back-off in progress is interrupted, what is left goes to the dead letter, and
        CloseTimeoutError lists it. Idempotent; every caller waits, except inside the endpoint's
        own delivery (a dead letter, a strategy). There ``close`` returns once events are
        refused. Delivery goes on, and what is left at the deadline is logged.
        """
        try:
            self._head.close(self._close_timeout if timeout is None else timeout)
        finally:
            if self.over:  # false after a bad timeout, or Ctrl-C
                registry.remove(self)


REDACTED = "[redacted]"

registry: Registry[Endpoint] = Registry()


def open_endpoints() -> tuple[Endpoint, ...]:
    """All endpoints of this process that are not closed, in the order of construction."""
    return registry.open()
