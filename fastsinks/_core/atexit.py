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

#: Seconds that open queues have at exit; the variable is for tests only.
EXIT_TIMEOUT = float(os.environ.get("FASTSINKS_EXIT_TIMEOUT", "5"))

LAST = -100  #: after multiprocessing's other finalisers, which may still write events


class _Hooks(list[Callable[[], object]]):
    """Functions to call at the end of this process, or of a child that multiprocessing made."""

    def __call__(self) -> None:
        for function in reversed(self):
            function()

    def register(self) -> None:
        """In a child of multiprocessing, which ends by os._exit() and runs only finalisers."""
        util.Finalize(None, self, exitpriority=LAST)


_hooks = _Hooks()
util.register_after_fork(_hooks, _Hooks.register)  # a child clears its finalisers before this call
if process.parent_process() is not None:  # first imported in a child, after that call
    _hooks.register()


def at_exit(function: Callable[..., object], *args: Any) -> None:
    """Call ``function`` when the interpreter or a child of multiprocessing ends.

    The function that was registered last is called first.
    """
    atexit.register(function, *args)
    _hooks.append(lambda: function(*args))


def close_dispatchers(dispatchers: Iterable[Any]) -> None:
    """Deliver what is pending within one deadline for all, and report the rest.

    A hook of at_exit(): other threads still run, but from CPython 3.12 on none can start. A
    dispatcher without workers then uses the calling thread.
    """
    deadline = monotonic() + EXIT_TIMEOUT
    for dispatcher in list(dispatchers):
        try:
            dispatcher.close(timeout=max(0.0, deadline - monotonic()))
        except CloseTimeoutError as error:
            log.error("at exit: %s", error)
