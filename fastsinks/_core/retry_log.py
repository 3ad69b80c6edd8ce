"""What is logged of a RetryingSink, for both backends."""

from __future__ import annotations

from typing import Any

from . import log
from .log import Burst, Drops, describe_error, describe_sink


class RetryLog:
    """A burst of failed attempts, and one of drops. Any thread may call it."""

    __slots__ = ("_backing_off", "_drops", "_label", "_retries")

    def __init__(self, sink: Any) -> None:
        self._label = describe_sink(sink)
        self._retries = Burst(f"{self._label}: an attempt failed, retrying")
        self._drops = Drops(f"{self._label}: dropped an event")
        self._backing_off = False  # logged once between two successes

    def backs_off(self, wait: float) -> None:
        if self._retries and not self._backing_off:
            self._backing_off = True
            log.warning("%s: backing off for %.3g s", self._label, wait)

    def retries(self, event: Any, error: BaseException) -> None:
        """An attempt failed, at a block of which ``event`` is the first."""
        self._retries.happened(event, describe_error(error))

    def drops(self, event: Any, error: BaseException) -> None:
        self._drops.happened(event, describe_error(error))

    def succeeds(self) -> None:
        self._backing_off = False
        self.over()

    def over(self) -> None:
        """Log how many there were, if there were any."""
        self._retries.over()
        self._drops.over()
