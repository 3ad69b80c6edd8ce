"""Calls into what users hand in beside their sinks: they may fail, and nothing else does then."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core import log
from .arguments import FOREVER
from .log import describe_error


def notify(listeners: tuple[Any, ...], method: str, *args: Any) -> None:
    """Call ``method`` of every listener, whatever one of them raises but Ctrl-C."""
    for listener in listeners:
        try:
            getattr(listener, method)(*args)
        except BaseException as error:
            log.error("a listener's %s() raised %s", method, describe_error(error))
            if log.is_interrupt(error):
                raise


def bury(dead_letter: Any, events: Iterable[Any]) -> None:
    """Hand dropped events to the dead letter, in order, if there is one. Ctrl-C, which may
    come in between two of them as well, waits until all are there."""
    if dead_letter is None:
        return
    left = iter(events)
    interrupt: BaseException | None = None
    while True:
        try:
            for event in left:
                dead_letter.write(event)
            break
        except BaseException as error:
            if log.is_interrupt(error):
                interrupt = error
            log.error("a dead letter refused an event: %s", describe_error(error))
    if interrupt is not None:
        raise interrupt


def is_permanent(error: BaseException) -> bool:
    """Whether an exception says that trying again cannot help."""
    try:
        return bool(getattr(error, "permanent", False))
    except Exception:  # a property of its own: as good as none
        return False


def retry_after(error: BaseException) -> float:
    """How many seconds an exception asks to wait, 0 if it does not."""
    try:
        after = getattr(error, "retry_after", None)
    except Exception:
        return 0.0
    if isinstance(after, (int, float)) and after > 0:  # NaN is not
        return FOREVER if after >= FOREVER else float(after)
    return 0.0
