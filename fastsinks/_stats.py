"""The ledger of a queue, for both backends."""

from __future__ import annotations

from typing import NamedTuple


class QueueStats(NamedTuple):
    """A snapshot in events; ``accepted == delivered + dropped + pending``, always."""

    accepted: int
    delivered: int
    dropped: int
    pending: int
