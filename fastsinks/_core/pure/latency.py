"""How long events took."""

from bisect import bisect_left
from collections.abc import Iterable
from time import monotonic

from ..stats import LATENCY_BOUNDS


class Latency:
    """A histogram of the ages of events that are done with. Guarded by the queue's lock."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(LATENCY_BOUNDS) + 1)
        self.total = 0.0

    def measure(self, since: Iterable[float]) -> None:
        """Events that were accepted at these times are done with."""
        now = monotonic()
        for time in since:
            self.buckets[bisect_left(LATENCY_BOUNDS, now - time)] += 1
            self.total += now - time
