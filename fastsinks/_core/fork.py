"""What to make anew in a forked child, where only the thread that forked is there."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from .per_process import PerProcess


class Forkable(Protocol):
    def _after_fork(self) -> None:
        """In a child: make locks anew, and forget the parent's threads."""


_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()
_turn = PerProcess(threading.RLock)
_process = _begun = os.getpid()


def mind_forks(thing: Forkable) -> None:
    """Have its ``_after_fork`` called in each child from now on. Keeps it by a weak reference."""
    _forkables.add(thing)


def look_for_fork() -> None:
    """In a child, call ``_after_fork`` of all, once.

    Python calls this after a fork. C code may fork without telling Python, so whoever is to
    work there calls it as well, before it looks at what may be the parent's.
    """
    global _process, _begun
    process = os.getpid()
    if process == _process:
        return
    with _turn.get():
        if process != _begun:  # else it is done, or under way and a finaliser got us here
            _begun = process
            for thing in list(_forkables):
                thing._after_fork()
            _process = process


os.register_at_fork(after_in_child=look_for_fork)
