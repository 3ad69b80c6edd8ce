"""How a sink's latest requests went: what an operator asks about first."""

from __future__ import annotations

from time import monotonic, time

_SHOWN = 500  # characters of an error that are kept: a URL may be long


class Attempts:
    """The outcome of the latest requests; kept for each request, not for each event.

    Written by whoever posts, read by any thread, and never locked: each attribute is replaced
    as a whole; where several requests end at once, one may go uncounted. Times of day are
    for showing, the monotonic clock for measuring.
    """

    __slots__ = ("consecutive_failures", "failing_since", "last_error", "last_error_at")

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.failing_since: float | None = None  # monotonic; None while all is well
        self.last_error: str | None = None
        self.last_error_at: float | None = None  # seconds since the epoch

    def succeeded(self) -> None:
        self.consecutive_failures = 0
        self.failing_since = None

    def failed(self, error: str, *, permanent: bool = False) -> None:
        """An attempt failed; what is ``permanent`` is the event's fault, not the receiver's."""
        self.last_error = error[:_SHOWN]
        self.last_error_at = time()
        if permanent:
            return
        self.consecutive_failures += 1
        if self.failing_since is None:
            self.failing_since = monotonic()
