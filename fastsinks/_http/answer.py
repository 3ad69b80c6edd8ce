"""Answer: the parts of a receiver's answer to one request that matter here."""

from __future__ import annotations

import email.utils
import re
import time
from http import HTTPStatus
from typing import NamedTuple

# Phrases that Python renamed in 3.13: a metric's label should not depend on the interpreter.
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}
_FOLLOWED = frozenset({301, 302, 307, 308})
_WITH_RETRY_AFTER = frozenset({429, 503})
_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?")


class Answer(NamedTuple):
    """The status of an answer, and those of its headers that matter."""

    status: int
    location: str | None
    retry_after: str | None

    @property
    def accepted(self) -> bool:
        """Whether it means that the receiver has the events, unless it is to be followed."""
        return 200 <= self.status < 400

    @property
    def redirects(self) -> bool:
        """Whether the same request is to be sent to its ``location``."""
        return self.location is not None and self.status in _FOLLOWED

    @property
    def status_text(self) -> str:
        """The status with its standard phrase. The receiver's own could be anything, and differ
        each time."""
        phrase = _PHRASES.get(self.status)
        return f"{self.status} {phrase}" if phrase else str(self.status)

    def seconds_to_wait(self, most: float) -> float | None:
        """What the receiver asked for by Retry-After, as a number or a date, cut to ``most``;
        ``None`` if it makes no sense."""
        if self.retry_after is None or self.status not in _WITH_RETRY_AFTER:
            return None
        text = self.retry_after.strip()
        if _SECONDS.fullmatch(text):
            return min(float(text), most)
        try:
            moment = email.utils.parsedate_to_datetime(text)
        except ValueError:
            return None
        return min(max(0.0, moment.timestamp() - time.time()), most)
