"""What happens to pending events when the interpreter exits, for both backends."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

from . import _log
from ._errors import CloseTimeoutError

EXIT_TIMEOUT = 5.0  #: seconds for queues that nobody closed


def close_dispatchers(dispatchers: Iterable[Any]) -> None:
    """Deliver what is pending within one deadline for all, and report the rest.

    Runs from atexit: other threads still run, none can start any more on CPython 3.12
    and later; a dispatcher without workers uses this one.
    """
    deadline = monotonic() + EXIT_TIMEOUT
    for dispatcher in list(dispatchers):
        try:
            dispatcher.close(timeout=max(0.0, deadline - monotonic()))
        except CloseTimeoutError as error:
            _log.error("at exit: %s", error)
