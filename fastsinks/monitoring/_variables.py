"""The variables of a registry's /debug/vars, for the endpoints of this process."""

from __future__ import annotations

from typing import Any

from ..endpoint import Endpoint, open_endpoints

_LONGEST = 2**63 - 1  # the most nanoseconds in the registry's integers, 292 years


def variables() -> dict[str, Any]:
    """The open endpoints as a registry shows them under ``/debug/vars``, key for key.

    ``Timeout`` and ``Backoff`` are in nanoseconds, counts are of events; ``Dropped`` and
    ``Retries`` are ours. Values of headers and credentials of URLs are redacted. A new
    structure each time, of types that ``json`` knows. Any thread may call it; it does not block.
    """
    endpoints = [_endpoint(endpoint) for endpoint in open_endpoints()]
    return {"registry": {"notifications": {"endpoints": endpoints}}}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    metrics = endpoint.metrics
    media_types = list(endpoint.ignore_media_types)
    return {
        "name": endpoint.name,
        "url": endpoint.url,
        "Headers": endpoint.headers or None,
        "Timeout": _nanoseconds(endpoint.timeout),
        "Threshold": endpoint.threshold,
        "Backoff": _nanoseconds(endpoint.backoff),
        "IgnoredMediaTypes": media_types or None,
        "Ignore": {
            "MediaTypes": media_types.copy() or None,
            "Actions": list(endpoint.ignore_actions) or None,
        },
        "Metrics": {
            "Pending": metrics.pending,
            "Events": metrics.events,
            "Successes": metrics.successes,
            "Failures": metrics.failures,
            "Errors": metrics.errors,
            "Statuses": metrics.statuses,
            "Dropped": metrics.dropped,
            "Retries": metrics.retries,
        },
    }


def _nanoseconds(seconds: float) -> int:
    return round(min(seconds * 1e9, _LONGEST))
