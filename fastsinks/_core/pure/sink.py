"""What every sink is, and the one that keeps nothing."""

from collections.abc import Iterable
from typing import Any

from .. import arguments, wording
from ..errors import SinkClosedError
from ..locked import Locked


class Sink:
    """A destination of events, and the base class of fastsinks' own sinks."""

    _closed = False

    def write(self, event: Any, /) -> None:
        """Take one event; returns once it is committed, and raises otherwise."""
        raise wording.unimplemented(self)

    def write_many(self, events: Iterable[Any]) -> None:
        """Take a block of events. Here: one ``write`` after the other."""
        for event in events:
            self.write(event)

    def close(self, timeout: float | None = None) -> None:
        """Refuse further events. Idempotent; blocks until the sink has finished closing."""
        arguments.timeout(timeout)
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class NullSink(Locked, Sink):
    """Accepts everything and keeps nothing but ``count``. Never blocks."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def write(self, event: Any, /) -> None:
        self.write_many((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        n = len(events) if isinstance(events, (list, tuple)) else sum(1 for _ in events)
        with self._lock:
            self._count += n
