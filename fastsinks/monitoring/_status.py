"""What the page shows: more than the registry's variables, and closed endpoints, too."""

from __future__ import annotations

import os
from time import monotonic, time
from typing import Any

from ..endpoint import Endpoint, EndpointMetrics, open_endpoints
from ._accounts import Closed, accounts

STUCK = 30.0
"""Seconds of failures, with events pending, after which an endpoint is called stuck."""

CLOSED_SHOWN = 50
"""How many closed endpoints are shown: the latest ones."""


def status() -> dict[str, Any]:
    """All open endpoints and the latest closed ones, with the time of day and the process."""
    opened = open_endpoints()
    names = {endpoint.name for endpoint in opened}
    endpoints = [_open(endpoint) for endpoint in opened]
    endpoints += [
        _closed(closed)
        for closed in accounts.latest_closed(CLOSED_SHOWN)
        if closed.name not in names
    ]
    return {"now": time(), "process": os.getpid(), "endpoints": endpoints}


def _open(endpoint: Endpoint) -> dict[str, Any]:
    metrics, outcomes = endpoint.metrics, endpoint.outcomes
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "state": state(metrics.pending, outcomes.failing_since),
        **_numbers(metrics),
        "oldest": endpoint.oldest,
        "in_flight": endpoint.in_flight,
        "breaker_open": endpoint.breaker_open,
        "failures_in_a_row": outcomes.consecutive_failures,
        "last_error": outcomes.last_error,
        "last_error_at": outcomes.last_error_at,
        "closed_at": None,
    }


def _closed(closed: Closed) -> dict[str, Any]:
    return {
        "name": closed.name,
        "url": closed.url,
        "state": "closed",
        **_numbers(closed.metrics),
        "oldest": 0.0,
        "in_flight": 0,
        "breaker_open": False,
        "failures_in_a_row": 0,
        "last_error": closed.last_error,
        "last_error_at": closed.last_error_at,
        "closed_at": closed.at,
    }


def _numbers(metrics: EndpointMetrics) -> dict[str, Any]:
    return metrics._asdict()


def state(pending: int, failing_since: float | None) -> str:
    """The state of an endpoint in a word or two."""
    if failing_since is None or not pending:
        return "delivering"
    return "stuck" if monotonic() - failing_since >= STUCK else "backing off"
