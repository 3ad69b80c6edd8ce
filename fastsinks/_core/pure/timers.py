"""The strands that wait for a time."""

from bisect import bisect_left, insort

from ..condition import NEVER
from .strand import Strand


class Timers:
    """Strands in the order of their times. Guarded by the dispatcher's lock."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Strand]] = []
        self._tickets = 0

    def first(self) -> float:
        """When the next strand is due; NEVER if there is none."""
        return self._entries[0][0] if self._entries else NEVER

    def is_due(self, now: float) -> bool:
        return bool(self._entries) and self._entries[0][0] <= now

    def add(self, strand: Strand, when: float) -> None:
        self._tickets += 1
        strand._timer = when, self._tickets
        insort(self._entries, (when, self._tickets, strand))

    def remove(self, strand: Strand) -> bool:
        """False if it was on no timer."""
        if strand._timer is None:
            return False
        del self._entries[bisect_left(self._entries, strand._timer)]
        strand._timer = None
        return True

    def pop(self) -> Strand:
        """The first."""
        strand = self._entries.pop(0)[2]
        strand._timer = None
        return strand
