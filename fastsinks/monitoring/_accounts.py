"""Accounts: the counts of all endpoints by name, closed ones included."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic, time
from weakref import WeakSet

from .._core.locked import Locked
from .._core.stats import LATENCY_BOUNDS
from ..endpoint import Endpoint, open_endpoints, registry
from ._text import encodable

FINAL_AFTER = 5.0
"""Seconds after which a closed endpoint's counts are final: a worker that was interrupted in the
middle of a request may count that only after ``close`` has returned."""


class Account:
    """The counts of all endpoints of one name, open and closed: a name is a time series."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events = self.successes = self.failures = self.errors = 0
        self.dropped = self.retries = self.pending = self.in_flight = 0
        self.breaker_open = False
        self.oldest = 0.0
        self.statuses: dict[str, int] = {}
        self.latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self.latency_total = 0.0

    def add(self, endpoint: Endpoint) -> None:
        metrics = endpoint.metrics
        self.events += metrics.events
        self.successes += metrics.successes
        self.failures += metrics.failures
        self.errors += metrics.errors
        self.dropped += metrics.dropped
        self.retries += metrics.retries
        self.pending += metrics.pending
        self._add_statuses(metrics.statuses)
        self._add_latencies(*endpoint.latencies)
        self.oldest = max(self.oldest, endpoint.oldest)
        if not endpoint.closed:
            self.in_flight += endpoint.in_flight
            self.breaker_open |= endpoint.breaker_open

    def merge(self, final: Account) -> None:
        """Add the counts of a closed endpoint, of which nothing is pending."""
        self.events += final.events
        self.successes += final.successes
        self.failures += final.failures
        self.errors += final.errors
        self.dropped += final.dropped
        self.retries += final.retries
        self._add_statuses(final.statuses)
        self._add_latencies(final.latencies, final.latency_total)

    def _add_latencies(self, buckets: Sequence[int], seconds: float) -> None:
        if seconds:
            self.latencies = [a + b for a, b in zip(self.latencies, buckets, strict=True)]
            self.latency_total += seconds

    def _add_statuses(self, statuses: dict[str, int]) -> None:
        for status, count in statuses.items():
            self.statuses[status] = self.statuses.get(status, 0) + count


class Closed:
    """What is remembered of a closed endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self.url = endpoint.url
        self.metrics = endpoint.metrics
        self.last_error = endpoint.outcomes.last_error
        self.last_error_at = endpoint.outcomes.last_error_at
        self.at = time()


class Accounts(Locked):
    """Reads the open endpoints and remembers the closed ones. One per process.

    What is remembered grows with the number of different names, not of endpoints. The
    lock is held for a few dict operations, never while an endpoint is read.
    """

    def __init__(self) -> None:
        super().__init__()
        # All below is guarded by _lock.
        self._known: WeakSet[Endpoint] = WeakSet()  # closed ones that are counted already
        self._closing: dict[int, tuple[Endpoint, float]] = {}  # counts may still change
        self._totals: dict[str, Account] = {}  # of those whose counts are final
        self._closed: dict[str, Closed] = {}  # the latest of each name

    def closed(self, endpoint: Endpoint) -> None:
        """Keep the counts of ``endpoint``. May be called more than once."""
        last = Closed(endpoint)
        with self._lock:
            if endpoint in self._known:
                return
            self._known.add(endpoint)
            self._closing[id(endpoint)] = (endpoint, monotonic() + FINAL_AFTER)
            self._closed.pop(last.name, None)  # so that the latest is the last
            self._closed[last.name] = last
        self._finish()

    def by_name(self) -> list[Account]:
        """What to export: an account for each name."""
        found: dict[str, Account] = {}

        def account(name: str) -> Account:
            if name not in found:
                found[name] = Account(name)
            return found[name]

        opened = open_endpoints()
        self._finish()
        with self._lock:
            for total in self._totals.values():
                account(total.name).merge(total)
            endpoints = [endpoint for endpoint, _ in self._closing.values()]
            endpoints += [endpoint for endpoint in opened if endpoint not in self._known]
        for endpoint in endpoints:
            account(encodable(endpoint.name)).add(endpoint)
        return list(found.values())

    def latest_closed(self, limit: int) -> list[Closed]:
        """The endpoints that were closed last, one of each name, in that order."""
        with self._lock:
            return list(self._closed.values())[-limit:]

    def forget(self) -> None:
        """Forget what closed endpoints had counted."""
        with self._lock:
            self._closing.clear()
            self._totals.clear()
            self._closed.clear()

    def _finish(self) -> None:
        """Let go of endpoints that have been closed for a while; keep their numbers."""
        now = monotonic()
        for key, (endpoint, when) in self._closing.copy().items():
            if when > now:
                break
            final = Account(encodable(endpoint.name))
            final.add(endpoint)
            with self._lock:
                if self._closing.pop(key, None) is not None:
                    self._totals.setdefault(final.name, Account(final.name)).merge(final)


accounts = Accounts()
registry.when_closed = accounts.closed
