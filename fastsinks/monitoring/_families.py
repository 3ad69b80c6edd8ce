"""What is exported: metric families, and the samples that an account gives for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from .._core.stats import LATENCY_BOUNDS
from ._accounts import Account

Row: TypeAlias = tuple[str, tuple[str, ...], tuple[str, ...], float]
"""One sample: its name, the names and the values of its labels, and the number."""


class Family(NamedTuple):
    """A metric family.

    ``rows`` are those of a scrape. ``shares`` are those that processes write to their files
    where they differ: the buckets of a histogram, each by itself.

    ``merge`` says what a scrape makes of several processes' gauges: "livesum" or
    "livemax", over live processes. Counters are summed over dead ones, too.
    """

    name: str
    kind: str
    help: str
    rows: Callable[[Account], Iterable[Row]]
    merge: str = ""
    shares: Callable[[Account], Iterable[Row]] | None = None


def _events(account: Account) -> Iterator[Row]:
    for kind, count in (
        ("Events", account.events),
        ("Successes", account.successes),
        ("Failures", account.failures),
        ("Errors", account.errors),
        ("Dropped", account.dropped),
        ("Retries", account.retries),
    ):
        yield (
            "registry_notifications_events_total",
            ("type", "endpoint"),
            (kind, account.name),
            count,
        )


def _statuses(account: Account) -> Iterator[Row]:
    for status, count in account.statuses.items():
        yield (
            "registry_notifications_status_total",
            ("code", "endpoint"),
            (status, account.name),
            count,
        )


_LATENCY = "registry_notifications_delivery_seconds"
_BOUNDS = (*(str(bound) for bound in LATENCY_BOUNDS), "+Inf")


def _latency_shares(account: Account) -> Iterator[Row]:
    for bound, count in zip(_BOUNDS, account.latencies, strict=True):
        yield f"{_LATENCY}_bucket", ("le", "endpoint"), (bound, account.name), count
    yield f"{_LATENCY}_sum", ("endpoint",), (account.name,), account.latency_total


def _latencies(account: Account) -> Iterator[Row]:
    for bound, count in zip(_BOUNDS, accumulate(account.latencies), strict=True):
        yield f"{_LATENCY}_bucket", ("le", "endpoint"), (bound, account.name), count
    yield f"{_LATENCY}_sum", ("endpoint",), (account.name,), account.latency_total
    yield f"{_LATENCY}_count", ("endpoint",), (account.name,), sum(account.latencies)


def _gauge(name: str, help: str, number: Callable[[Account], float], merge: str) -> Family:
    def rows(account: Account) -> Iterator[Row]:
        yield name, ("endpoint",), (account.name,), number(account)

    return Family(name, "gauge", help, rows, merge)


FAMILIES = (
    Family(
        "registry_notifications_events",
        "counter",
        "Events by what became of them: accepted (Events), attempted (Successes, Failures, "
        "Errors), to be attempted again (Retries), given up (Dropped).",
        _events,
    ),
    _gauge(  # not a counter, in spite of its name, which is the registry's
        "registry_notifications_pending_total",
        "Events that are accepted and neither delivered nor dropped.",
        lambda account: account.pending,
        "livesum",
    ),
    Family(
        "registry_notifications_status",
        "counter",
        "Events by the status that the receiver answered with, each attempt counted.",
        _statuses,
    ),
    _gauge(
        "registry_notifications_oldest_pending_seconds",
        "How long the oldest pending event has waited; 0 if nothing is pending.",
        lambda account: account.oldest,
        "livemax",
    ),
    Family(
        _LATENCY,
        "histogram",
        "How long events took from being accepted to the end of their last attempt.",
        _latencies,
        shares=_latency_shares,
    ),
    _gauge(
        "registry_notifications_requests_in_flight",
        "HTTP requests that have been begun and not ended.",
        lambda account: account.in_flight,
        "livesum",
    ),
    _gauge(
        "registry_notifications_breaker_open",
        "1 while so many requests in a row have failed that the next one has to wait.",
        lambda account: int(account.breaker_open),
        "livemax",
    ),
)
