"""Calls into what users hand in beside their sinks: they may fail, and nothing else does then."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from ._log import describe_error, logger


def notify(listeners: tuple[Any, ...], method: str, *args: Any) -> None:
    """Call ``method`` of every listener, whatever one of them raises."""
    for listener in listeners:
        try:
            getattr(listener, method)(*args)
        except BaseException as error:
            _tolerate(error, f"a listener's {method}()")


def bury(dead_letter: Any, events: Iterable[Any]) -> None:
    """Hand dropped events to the dead letter, in order, if there is one."""
    if dead_letter is None:
        return
    for event in events:
        try:
            dead_letter.write(event)
        except BaseException as error:
            _tolerate(error, "a dead letter's write()")


def _tolerate(error: BaseException, where: str) -> None:
    """Log what was raised; but Ctrl-C, which reaches the main thread alone, goes on."""
    logger.error("%s raised %s", where, describe_error(error))
    if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
        raise error
