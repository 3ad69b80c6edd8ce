"""Answer: what a receiver said to one request, as far as anybody here wants to know."""

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
        """Whether it means that the receiver has the events, if it is not followed."""
        return 200 <= self.status < 400

    @property
    def redirects(self) -> bool:
        """Whether the same request is to be sent to its ``location``."""
        return self.location is not None and self.status in _FOLLOWED

    @property
    def status_text(self) -> str:
        """The status with its phrase. Not the receiver's own phrase, which could be anything,
        and another one each time."""
        phrase = _PHRASES.get(self.status)
        return f"{self.status} {phrase}" if phrase else str(self.status)

    def seconds_to_wait(self, most: float) -> float | None:
        """What the receiver asked for by Retry-After, in number or as a date, cut to ``most``;
        none if it makes no sense."""
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
