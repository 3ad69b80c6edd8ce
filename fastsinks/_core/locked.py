"""Objects whose lock a forked child replaces: in the twin, over HTTP, and in monitoring."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

from . import wording
from .condition import Condition
from .per_process import PerProcess

_all: weakref.WeakSet[Locked] = weakref.WeakSet()
_fork_lock = PerProcess(threading.RLock)
_process = _begun = os.getpid()


class Locked:
    """Has a lock, which is free in a forked child even if a thread of the parent held it.

    ``_lock`` guards what changes. It is re-entrant, because a finaliser or a signal's handler
    that runs while it is held may call back. ``_changed`` is where threads wait.
    """

    def __init__(self) -> None:
        """Call it once all attributes that ``_after_fork`` uses are set."""
        self._make_lock()
        _all.add(self)

    def _make_lock(self) -> None:
        lock = threading.RLock()
        self._own = lock, Condition(lock)

    def _after_fork(self) -> None:
        """In a child, which has only the thread that forked: forget all other threads."""
        self._make_lock()

    def __getattr__(self, name: str) -> Any:
        """An attribute is missing. If it is ours, ``__init__`` was not called."""
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
    """In a child, call ``_after_fork`` of all objects, once.

    Python calls this after a fork. Each use of a lock does so, too, because C code may fork
    without running Python's hooks.
    """
    global _process, _begun
    process = os.getpid()
    if process == _process:
        return
    with _fork_lock.get():
        if process != _begun:  # else done; or under way, and a finaliser called this
            _begun = process
            for thing in list(_all):
                thing._after_fork()
            _process = process


os.register_at_fork(after_in_child=_look_for_fork)
