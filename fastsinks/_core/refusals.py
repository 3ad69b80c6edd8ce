"""How a broadcaster logs refused events and closes its sinks, for both backends."""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any

from . import callbacks, log, wording
from .arguments import FOREVER
from .errors import CloseTimeoutError
from .log import Drops, describe_error, describe_sink


class Refusals:
    """A burst of drops for each sink that refuses events. Any thread may call it."""

    __slots__ = ("bursts",)

    def __init__(self) -> None:
        #: By the id of the sink; single operations are atomic. The compiled core reads it.
        self.bursts: dict[int, Drops] = {}

    def refused(self, sink: Any, event: Any, error: BaseException, count: int) -> None:
        """A sink refused ``count`` events, of which ``event`` is the first."""
        burst = self.bursts.get(id(sink))
        if burst is None:
            new = Drops(f"broadcaster: {describe_sink(sink)} refused an event")
            burst = self.bursts.setdefault(id(sink), new)
        burst.happened(event, describe_error(error), count)

    def accepted(self, sink: Any) -> None:
        """A sink accepted events. Cheap while no sink has refused any."""
        burst = self.bursts.pop(id(sink), None) if self.bursts else None
        if burst is not None:
            burst.over()

    def forget(self, sink: Any) -> None:
        """A sink was removed. A later one may have the same id."""
        self.bursts.pop(id(sink), None)


def close_each(
    sinks: Iterable[Any], deadline: float, count: int
) -> tuple[list[Any], BaseException | None]:
    """Close all, whatever one of them raises; ordinary exceptions are logged.

    Returns the sinks whose ``close`` was interrupted and has to be called again, and what to
    raise: Ctrl-C, or a CloseTimeoutError for those of ``count`` sinks that were late.
    """
    late: list[CloseTimeoutError] = []
    interrupted: list[Any] = []
    fatal: BaseException | None = None
    for sink in sinks:
        ended = False
        try:
            try:
                callbacks.close(
                    sink, FOREVER if deadline == FOREVER else max(0.0, deadline - monotonic())
                )
            except CloseTimeoutError as error:
                late.append(error)
            except Exception as error:
                ended = True
                log.error("%s.close() raised %s", type(sink).__name__, describe_error(error))
        except BaseException as error:  # raised once all sinks are closed
            fatal = error
            if not ended:
                interrupted.append(sink)
    if fatal is None and late:
        fatal = wording.late_sinks(late, count)
    return interrupted, fatal
