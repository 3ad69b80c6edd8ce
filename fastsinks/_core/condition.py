"""A condition variable for threads that a signal's handler may strike.

On the main thread the handler may raise, as Ctrl-C's does, nearly anywhere. A
``threading.Condition``'s wait() gives the lock back and takes it again in Python:
struck in between, it leaves its ``with`` block without the lock. And a notify() that
is struck leaves a waiter behind that is not there, and that the next one goes to.
"""

from __future__ import annotations

import _thread
import math
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

NEVER = math.inf  #: a time that the clock does not reach
RECHECK = 0.5  #: seconds after which a waiter looks again: who notifies may have been struck


class Change:
    """Where those sleep who wait for a change of what a lock guards; they hold it not."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._sleepers: deque[Any] = deque()

    def notify(self) -> None:
        """Under the lock."""
        if self._sleepers:
            sleeper = self._sleepers[0]
            del self._sleepers[0]
            sleeper.release()

    def notify_all(self) -> None:
        """Under the lock."""
        while self._sleepers:
            sleeper = self._sleepers[0]
            del self._sleepers[0]
            sleeper.release()

    def sleeper(self) -> Any:
        """Under the lock: what to sleep on, until the next notification."""
        sleeper = _thread.allocate_lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        return sleeper

    def sleep(self, sleeper: Any, left: float) -> None:
        """Without the lock: until notified, for ``left`` seconds at most, or less."""
        if not sleeper.acquire(True, max(0.0, min(left, RECHECK))):
            self._forget(sleeper)

    def _forget(self, sleeper: Any) -> None:
        with self._lock:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def wait(self, left: float) -> None:
        """Under the lock, which is given back meanwhile. For workers: no signal strikes them."""
        sleeper = self.sleeper()
        self._lock.release()
        try:
            slept = sleeper.acquire(True, max(0.0, left))
        finally:
            self._lock.acquire()
        if not slept:
            self._forget(sleeper)

    def until(self, attempt: Callable[[], bool], deadline: float = NEVER) -> bool:
        """Call ``attempt`` under the lock until it is true; false if the deadline passes first."""
        while True:
            with self._lock:
                if attempt():
                    return True
                left = deadline - monotonic()
                if left <= 0:
                    return False
                sleeper = self.sleeper()
            if self._lock._is_owned():
                # The handler of a signal that struck under the lock: nobody could ever notify it.
                raise RuntimeError("a signal's handler would wait for its own thread")
            self.sleep(sleeper, left)
