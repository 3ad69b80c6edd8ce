"""What happens to pending events when the interpreter exits, for both backends."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable
from multiprocessing import process, util
from time import monotonic
from typing import Any

from .._core import log
from .errors import CloseTimeoutError

#: Seconds for queues that nobody closed; the variable is for tests only.
EXIT_TIMEOUT = float(os.environ.get("FASTSINKS_EXIT_TIMEOUT", "5"))

LAST = -100  #: of multiprocessing's finalisers: others may write, too


class _Hooks(list[Callable[[], object]]):
    """What is to be called at the end of this process, or of one that multiprocessing made."""

    def __call__(self) -> None:
        for function in reversed(self):
            function()

    def register(self) -> None:
        """In a process of multiprocessing's: it ends by os._exit() and runs finalisers only."""
        util.Finalize(None, self, exitpriority=LAST)


_hooks = _Hooks()
util.register_after_fork(_hooks, _Hooks.register)  # it drops its finalisers before it calls this
if process.parent_process() is not None:  # and has called it, if we are imported only now
    _hooks.register()


def at_exit(function: Callable[..., object], *args: Any) -> None:
    """Call it when the interpreter or a process of multiprocessing's ends, last come first."""
    atexit.register(function, *args)
    _hooks.append(lambda: function(*args))


def close_dispatchers(dispatchers: Iterable[Any]) -> None:
    """Deliver what is pending within one deadline for all, and report the rest.

    Runs by at_exit(): other threads still run, none can start any more on CPython 3.12;
    a dispatcher without workers uses this one.
    """
    deadline = monotonic() + EXIT_TIMEOUT
    for dispatcher in list(dispatchers):
        try:
            dispatcher.close(timeout=max(0.0, deadline - monotonic()))
        except CloseTimeoutError as error:
            log.error("at exit: %s", error)
