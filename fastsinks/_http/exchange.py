"""Exchange: one request with its redirects and their answers, under one deadline."""

from __future__ import annotations

from time import monotonic

HEAD_LIMIT = 1024 * 1024
"""The most bytes of status lines and headers in an answer, interim responses included."""

LONGEST = 1e6
"""The longest single wait in seconds; beyond it, platforms overflow."""


class Exchange:
    """One write on its way: a request, its redirects, and their answers.

    It belongs to the thread that began it. ``deadline`` bounds all of it, on the
    monotonic clock, counted from when it gets its permit.
    """

    __slots__ = ("answered", "begun", "budget", "deadline", "over", "reset", "reused", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.begun = False
        self.over = False  # set before its permit is given back, where a signal may strike

    def start(self) -> None:
        self.deadline = monotonic() + self.timeout
        self.restart()
        self.begun = True

    def restart(self) -> None:
        """Forget the previous request of the same exchange, but not its deadline."""
        self.reused = False  # the connection has served an earlier request
        self.answered = False  # a byte of an answer has come
        self.reset = False  # the receiver broke the connection off, rather than ending it
        self.budget = HEAD_LIMIT  # bytes that may still come

    def remaining(self) -> float:
        """Seconds to the deadline, more than zero; TimeoutError once it has passed."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, LONGEST)
