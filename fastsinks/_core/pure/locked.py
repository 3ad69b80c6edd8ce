"""What the twin alone needs: objects with a lock that a fork makes anew."""

import os
import threading
import weakref
from typing import Any

from .. import wording
from ..condition import Condition
from ..per_process import PerProcess

_forkable: weakref.WeakSet[Any] = weakref.WeakSet()
_forked = PerProcess(threading.RLock)
_process = _made_anew = os.getpid()


def look_for_fork() -> None:
    """In a child, make locks and workers anew; what was accepted before is the parent's.

    Also called where Python's hooks may not have been: C code may fork and run none of them.
    """
    global _process, _made_anew
    process = os.getpid()
    if process == _process:
        return
    with _forked.get():
        if process != _made_anew:  # else by now, or further up: a finaliser got us here
            _made_anew = process
            for thing in list(_forkable):
                thing._after_fork()
            _process = process


os.register_at_fork(after_in_child=look_for_fork)


class Locked:
    """Has a lock, which in a child is free whoever held it in the parent.

    ``_lock`` guards what changes. It is re-entrant, because a finaliser or a signal's handler
    that runs while it is held may call back. ``_changed`` is where threads wait.
    """

    def __init__(self) -> None:
        """To be called when all that ``_after_fork`` looks at is there."""
        self._make_lock()
        _forkable.add(self)

    def _make_lock(self) -> None:
        lock = threading.RLock()
        self._own = lock, Condition(lock)

    def _after_fork(self) -> None:
        """In a child, where the only thread is the one that forked."""
        self._make_lock()

    def __getattr__(self, name: str) -> Any:
        """What is not there: for want of an ``__init__``, if it is ours."""
        if name.startswith("_") and not name.startswith("__") and "_own" not in vars(self):
            raise wording.uninitialised(self)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _lock(self) -> Any:
        look_for_fork()
        return self._own[0]

    @property
    def _changed(self) -> Condition:
        look_for_fork()
        return self._own[1]
