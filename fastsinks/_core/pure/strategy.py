"""When to try again, and when to give up."""

from operator import attrgetter
from time import monotonic
from typing import Any

from .. import arguments
from .. import backoff as rules
from ..locked import Locked


class RetryStrategy:
    """Decides when to attempt a write, and whether to give up. Subclass it, or be like it.

    Its methods are called by any thread, under no lock. This one never waits or gives up.
    """

    def proceed(self, event: Any) -> float:
        """Seconds to wait before an attempt; asked once, the wait is not followed by another."""
        return 0.0

    def failure(self, event: Any, error: BaseException) -> bool:
        """An attempt failed with ``error``. True drops the event."""
        return False

    def success(self, event: Any) -> None:
        """An attempt succeeded."""


class Bounded(Locked, RetryStrategy):
    """Counts consecutive failures, of all events; gives up on an event by its own count."""

    max_attempts = property(attrgetter("_max_attempts"))
    max_elapsed = property(attrgetter("_max_elapsed"))

    def __init__(self, max_attempts: int | None = None, max_elapsed: float | None = None) -> None:
        self._max_attempts, self._max_elapsed = arguments.limits(max_attempts, max_elapsed)
        super().__init__()
        self._failures = 0
        self._last = 0.0
        self._tracked: dict[int, list[Any]] = {}  # id -> [event, attempts, first failure]

    def failure(self, event: Any, error: BaseException) -> bool:
        now = self._failed()
        if self._max_attempts is None and self._max_elapsed is None:
            return False
        with self._lock:
            tracked = self._tracked.setdefault(id(event), [event, 0, now])
            tracked[1] += 1
            drop = self._gives_up(tracked[1], tracked[2])
            if drop:
                del self._tracked[id(event)]
        return drop

    def success(self, event: Any) -> None:
        with self._lock:
            self._failures = 0
            tracked = self._tracked.pop(id(event), None)
        del tracked  # its event may have a finaliser: outside the lock

    def _failed(self) -> float:
        """Count a failure; when it was."""
        now = monotonic()
        with self._lock:
            self._failures += 1
            self._last = now
        return now

    def _gives_up(self, attempts: int, since: float) -> bool:
        elapsed = monotonic() - since
        return rules.gives_up(self._max_attempts, self._max_elapsed, attempts, elapsed)


class Breaker(Bounded):
    """No wait below ``threshold`` consecutive failures, then ``backoff`` seconds since the last."""

    threshold = property(attrgetter("_threshold"))
    backoff = property(attrgetter("_backoff"))

    def __init__(self, threshold: int, backoff: float, **limits: Any) -> None:
        super().__init__(**limits)
        self._threshold = arguments.size("threshold", threshold)
        self._backoff = arguments.seconds("backoff", backoff)

    def proceed(self, event: Any) -> float:
        with self._lock:
            failures, last = self._failures, self._last
        return rules.breaker(failures, self._threshold, monotonic() - last, self._backoff)


class ExponentialBackoff(Bounded):
    """After n failures in a row a uniform draw from ``[0, min(max, base + factor * 2**(n-1)))``."""

    base = property(attrgetter("_base"))
    factor = property(attrgetter("_factor"))
    max = property(attrgetter("_max"))

    def __init__(
        self, base: float = 1.0, factor: float = 1.0, max: float = 20.0, **limits: Any
    ) -> None:
        super().__init__(**limits)
        self._base = arguments.seconds("base", base)
        self._factor = arguments.seconds("factor", factor)
        self._max = arguments.seconds("max", max)

    def proceed(self, event: Any) -> float:
        return rules.exponential(self._failures, self._base, self._factor, self._max)
