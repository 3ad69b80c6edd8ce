"""Objects that each process makes for itself: a fork copies the parent's in any state."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object per process. A lock, say: a copy of it may be held by a thread of the parent.

    It goes by the process id, and so also works where C code forks and runs none of Python's
    hooks. ``disown`` is called with the parent's object once the child has its own.
    """

    __slots__ = ("_disown", "_made", "_make")

    def __init__(self, make: Callable[[], T], disown: Callable[[T], object] | None = None) -> None:
        self._make = make
        self._disown = disown
        self._made: dict[int, T] = {}
        self.get()

    def get(self) -> T:
        """This process's object. Single dict operations are atomic, so all threads get the same."""
        pid = os.getpid()
        made = self._made.get(pid)
        if made is None:
            made = self._made.setdefault(pid, self._make())
            for other in [key for key in self._made.copy() if key != pid]:
                inherited = self._made.pop(other, None)
                if inherited is not None and self._disown is not None:
                    self._disown(inherited)
        return made
