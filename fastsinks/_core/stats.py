"""The ledger of a queue, for both backends."""

from __future__ import annotations

from typing import NamedTuple


class QueueStats(NamedTuple):
    """A snapshot in events; ``accepted == delivered + dropped + pending``, always."""

    accepted: int
    delivered: int
    dropped: int
    pending: int


LATENCY_BOUNDS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0, 300.0)
"""Upper bounds of a latency histogram's buckets, in seconds. One more bucket is for the rest."""
