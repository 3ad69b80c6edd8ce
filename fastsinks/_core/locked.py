"""Objects with a lock, which a fork makes anew: in the twin, over HTTP, and in monitoring."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from . import wording
from .condition import Condition
from .per_process import PerProcess

_all: weakref.WeakSet[Locked] = weakref.WeakSet()
_turn = PerProcess(threading.RLock)
_process = _begun = os.getpid()


class Locked:
    """Has a lock, which in a child is free whoever held it in the parent.

    ``_lock`` guards what changes. It is re-entrant, because a finaliser or a signal's handler
    that runs while it is held may call back. ``_changed`` is where threads wait.
    """

    def __init__(self) -> None:
        """To be called when all that ``_after_fork`` looks at is there."""
        self._make_lock()
        _all.add(self)

    def _make_lock(self) -> None:
        lock = threading.RLock()
        self._own = lock, Condition(lock)

    def _after_fork(self) -> None:
        """In a child, where only the thread that forked is there: forget the others."""
        self._make_lock()

    def __getattr__(self, name: str) -> Any:
        """What is not there: for want of an ``__init__``, if it is ours."""
        if name.startswith("_") and not name.startswith("__") and "_own" not in vars(self):
            raise wording.uninitialised(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _lock(self) -> Any:
        _look_for_fork()
        return self._own[0]

    @property
    def _changed(self) -> Condition:
        _look_for_fork()
        return self._own[1]


def _look_for_fork() -> None:
    """In a child, call ``_after_fork`` of all, once.

    Python calls this after a fork, and each use of a lock does: C code may fork and not tell
    Python.
    """
    global _process, _begun
    process = os.getpid()
    if process == _process:
        return
    with _turn.get():
        if process != _begun:  # else it is done, or under way and a finaliser got us here
            _begun = process
            for thing in list(_all):
                thing._after_fork()
            _process = process


os.register_at_fork(after_in_child=_look_for_fork)
