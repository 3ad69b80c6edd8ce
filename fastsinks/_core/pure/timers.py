"""The strands that wait for a time."""

from bisect import insort

from ..condition import NEVER
from .strand import Strand


class Timers:
    """Strands in the order of their times. Guarded by the dispatcher's lock."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Strand]] = []

    def first(self) -> float:
        """When the next strand is due; NEVER if there is none."""
        return self._entries[0][0] if self._entries else NEVER

    def add(self, strand: Strand, when: float) -> None:
        strand._timer = when, id(strand), strand
        insort(self._entries, strand._timer)

    def remove(self, strand: Strand) -> bool:
        """False if it was on no timer."""
        if strand._timer is None:
            return False
        self._entries.remove(strand._timer)
        strand._timer = None
        return True

    def pop_due(self, now: float) -> Strand | None:
        """The next strand whose time has come, if there is one."""
        if not self._entries or self._entries[0][0] > now:
            return None
        strand = self._entries.pop(0)[2]
        strand._timer = None
        return strand
