"""Outcomes: how a sink's latest requests ended, which is what an operator asks first."""

from __future__ import annotations

import ssl
from time import monotonic, time

from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

_SHOWN = 500  # characters of an error that are kept: a URL may be long


class Outcomes:
    """How the latest requests ended; kept for each request, not for each event.

    Written by the threads that post, read by any thread, and never locked: each attribute is
    replaced as a whole. Where several requests end at once, one may go uncounted. Times of day
    are for showing, the monotonic clock for measuring.
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
        """A request failed; what is ``permanent`` is the event's fault, not the receiver's."""
        self.last_error = error[:_SHOWN]
        self.last_error_at = time()
        if permanent:
            return
        self.consecutive_failures += 1
        if self.failing_since is None:
            self.failing_since = monotonic()


def explain(error: BaseException, timeout: float) -> str:
    """What went wrong, in words that contain neither headers nor what the receiver sent."""
    while isinstance(error, HTTPError):
        inner = error.args[-1] if error.args else None
        cause = inner if isinstance(inner, BaseException) else error.__cause__
        if cause is None:
            break
        error = cause
    if isinstance(error, (TimeoutError, PoolTimeoutError)):
        return f"no answer within {timeout:g} s"
    kind = type(error).__name__
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{kind}: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"{kind}: {error.reason}" if error.reason else kind
    if isinstance(error, OSError) and not isinstance(error, HTTPError):
        text = error.strerror or str(error)
        return f"{kind}: {text}" if text else kind
    return kind
