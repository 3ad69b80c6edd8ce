"""What the twin alone needs: objects with a lock, which a fork makes anew."""

import threading
from typing import Any

from .. import wording
from ..condition import Condition
from ..fork import look_for_fork, mind_forks


class Locked:
    """Has a lock, which in a child is free whoever held it in the parent.

    ``_lock`` guards what changes. It is re-entrant, because a finaliser or a signal's handler
    that runs while it is held may call back. ``_changed`` is where threads wait.
    """

    def __init__(self) -> None:
        """To be called when all that ``_after_fork`` looks at is there."""
        self._make_lock()
        mind_forks(self)

    def _make_lock(self) -> None:
        lock = threading.RLock()
        self._own = lock, Condition(lock)

    def _after_fork(self) -> None:
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
