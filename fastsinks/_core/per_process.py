"""What each process makes for itself, as a fork hands down the parent's in any state."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """One object per process: a lock, say, which in a child might be held by nobody who is there.

    Goes by the process's number, and so also works where C code forks and runs none of
    Python's hooks. ``disown`` is given what the parent had made, once the child has its own.
    """

    __slots__ = ("_disown", "_made", "_make")

    def __init__(self, make: Callable[[], T], disown: Callable[[T], object] | None = None) -> None:
        self._make = make
        self._disown = disown
        self._made: dict[int, T] = {}
        self.get()

    def get(self) -> T:
        """This process's. Single dict operations are atomic, and so its threads agree on one."""
        pid = os.getpid()
        made = self._made.get(pid)
        if made is None:
            made = self._made.setdefault(pid, self._make())
            for other in [key for key in self._made.copy() if key != pid]:
                inherited = self._made.pop(other, None)
                if inherited is not None and self._disown is not None:
                    self._disown(inherited)
        return made
