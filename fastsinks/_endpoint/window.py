"""Window: how many events the next piece of a block may have."""

from __future__ import annotations

FIRST = 8
"""Events in the first piece: few enough for a receiver that is slow with each event."""


class Window:
    """A limit that finds its place between 1 and ``most``, as TCP's congestion window does.

    It doubles with each full piece that succeeds, up to half of a size that has failed, and
    from there grows by one. So a receiver with a limit of its own is sent too much once in a
    while, and not every other time. A failure halves it. An event that fails by itself shows
    that size is not the reason: then doubling is allowed again, up to ``most``.

    Any thread may use it. If two change the limit at the same moment, one change may be lost.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._sober = most  # from this size on it grows by one
        self.limit = min(FIRST, most)

    def succeeded(self, size: int) -> None:
        if size < self.limit:
            return  # says nothing about larger ones
        grown = min(2 * self.limit, self._sober) if self.limit < self._sober else self.limit + 1
        self.limit = min(grown, self._most)

    def failed(self, size: int) -> None:
        if size > 1:
            self.limit = self._sober = size // 2
        else:
            self.limit, self._sober = 1, self._most
