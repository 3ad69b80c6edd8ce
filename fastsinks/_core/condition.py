"""Where threads wait for a change of what a lock guards: in the twin, and over HTTP.

``threading.Condition`` releases the lock and takes it again in Python code. If a signal's handler
raises in between, the ``with`` block ends without the lock. Here a thread waits after its ``with``
block has ended, so Ctrl-C always strikes it without the lock.
"""

from __future__ import annotations

import _thread
import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

NEVER = math.inf  #: a time that the clock does not reach
RECHECK = 0.5  #: seconds until a waiting thread looks again, as a signal may lose a notification
HELP = 0.02  #: ... if it has something to do meanwhile


class Condition:
    """A place to wait. ``lock`` is re-entrant; a thread holds it to notify."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._sleepers: deque[Any] = deque()  # guarded by the lock; each is a held lock

    def notify(self) -> bool:
        """Under the lock: wake the thread that has waited longest. False if none waits."""
        if not self._sleepers:
            return False
        self._sleepers.popleft().release()
        return True

    def notify_all(self) -> None:
        """Under the lock: wake all threads that wait."""
        while self._sleepers:
            self._sleepers.popleft().release()

    def until(
        self,
        predicate: Callable[[], bool],
        deadline: float = NEVER,
        meanwhile: Callable[[], bool] | None = None,
    ) -> bool:
        """Call ``predicate`` under the lock until it is true; false if the deadline passes first.

        Without the lock, ``meanwhile`` is called before each wait, and every HELP seconds; if
        it returns true, there is no wait. Ctrl-C ends a wait and leaves nothing behind. What
        the calls raise is raised.
        """
        while True:
            with self._lock:
                left = deadline - monotonic()
                if predicate():
                    return True
                if left <= 0:
                    return False
                sleeper = self._new_sleeper()
            if self._lock._is_owned():
                # A signal's handler interrupted the thread that holds the lock: none can notify.
                raise RuntimeError("a signal's handler would wait for its own thread")
            try:
                if meanwhile is None:
                    notified = sleeper.acquire(True, min(left, RECHECK))
                else:
                    notified = not meanwhile() and sleeper.acquire(True, min(left, HELP))
            except BaseException:
                self._forget(sleeper)
                raise
            if not notified:
                self._forget(sleeper)

    def wait(self, left: float) -> None:
        """Under the lock, which is released meanwhile: wait for ``left`` seconds at most.

        For workers: no signal strikes them.
        """
        sleeper = self._new_sleeper()
        self._lock.release()
        notified = sleeper.acquire(True, max(0.0, left))
        self._lock.acquire()
        if not notified:
            self._forget(sleeper)

    def _new_sleeper(self) -> Any:
        """Under the lock: what to wait for, until the next notification."""
        sleeper = _thread.allocate_lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        return sleeper

    def _forget(self, sleeper: Any) -> None:
        with self._lock:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)
