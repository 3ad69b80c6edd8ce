"""What became of the attempts at an endpoint."""

from collections import Counter
from operator import attrgetter

from ..locked import Locked


class Counters(Locked):
    """Counts attempts by outcome, in events. Any thread may count and read; nothing blocks."""

    successes = property(attrgetter("_successes"))
    failures = property(attrgetter("_failures"))
    errors = property(attrgetter("_errors"))

    def __init__(self) -> None:
        super().__init__()
        self._statuses: Counter[str] = Counter()
        self._successes = self._failures = self._errors = 0

    def success(self, status: str, count: int) -> None:
        """``count`` events were answered with ``status``, such as ``"200 OK"``: accepted."""
        with self._lock:
            self._successes += count
            self._statuses[status] += count

    def failure(self, status: str, count: int) -> None:
        """``count`` events were answered with ``status``: not accepted."""
        with self._lock:
            self._failures += count
            self._statuses[status] += count

    def error(self, count: int) -> None:
        """``count`` events got no answer."""
        with self._lock:
            self._errors += count

    def statuses(self) -> dict[str, int]:
        with self._lock:
            return dict(self._statuses)
