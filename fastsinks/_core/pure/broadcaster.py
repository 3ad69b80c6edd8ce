"""Fan-out.

Writers take turns, so that every sink sees the same order. A write from inside the writing
thread's own turn, by one of the sinks, is deferred and follows the current event.
"""

from collections.abc import Iterable
from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, thread_state, wording
from ..errors import SinkClosedError
from ..locked import Locked
from ..refusals import Refusals, close_each
from .destination import Destination
from .sink import Sink


class Broadcaster(Sink, Locked):
    """Hands every event to every sink; all sinks see the same events in the same order.

    ``write`` waits while another thread writes; ``add`` and ``remove`` never wait. A sink that
    raises SinkClosedError is removed; another exception is logged, counted in ``dropped``, and
    affects nobody else. Ctrl-C is raised after all sinks were served.
    """

    dropped = property(lambda self: self._dropped, doc="How many events, summed over the sinks.")

    def __init__(self, *sinks: Any) -> None:
        self._destinations: tuple[Destination, ...] = ()  # a snapshot: replaced, never changed
        self._owner: int | None = None  # ident of the thread whose turn it is
        self._deferred: list[tuple[Any, ...] | None] = []  # to be written by it; None: close
        self._closer: int | None = None  # ident of the thread that closes the sinks
        self._finished = False  # all sinks are closed
        self._unclosed: list[Any] | None = None  # the closer's: whose close() has not ended
        self._dropped = 0
        self._refusals = Refusals()
        super().__init__()
        for sink in sinks:
            self.add(sink)

    @property
    def sinks(self) -> tuple[Any, ...]:
        return tuple(destination.sink for destination in self._destinations)

    def add(self, sink: Any) -> None:
        """Adding it twice does nothing; identity decides."""
        destination = Destination(sink)
        with self._lock:
            if self._closed:
                raise SinkClosedError
            if not self._has(sink):
                self._destinations = (*self._destinations, destination)

    def remove(self, sink: Any) -> None:
        """Removing a stranger does nothing. It may still get the current event."""
        with self._lock:
            before = self._destinations  # kept: no sink is dropped under the lock
            self._destinations = tuple(known for known in before if known.sink is not sink)
        self._refusals.forget(sink)

    def _has(self, sink: Any) -> bool:
        return any(known.sink is sink for known in self._destinations)

    def write(self, event: Any, /) -> None:
        self._send((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        block = tuple(events)
        if block:
            self._send(block)

    def _send(self, block: tuple[Any, ...]) -> None:
        with self._lock:
            if self._owner == get_ident() and not self._closed:
                self._deferred.append(block)
                return
        self._changed.until(self._take_turn)
        self._end_turn(self._fan_out(block))

    def _take_turn(self) -> bool:
        """Under the lock: if it is free."""
        if self._closed:
            raise SinkClosedError
        if self._owner is not None:
            return False
        self._owner = get_ident()
        return True

    def _end_turn(self, fatal: BaseException | None) -> None:
        """Do what was deferred, give the turn back, then raise ``fatal`` if there is such."""
        me = get_ident()
        while self._owner == me:  # a late closer has no turn
            with self._lock:
                if not self._deferred:
                    self._owner = None
                    self._changed.notify_all()
                    break
                block = self._deferred.pop(0)
                if block is None:
                    if self._closer or self._finished:
                        continue
                    self._closer = me
            if block is None:
                fatal = self._close_all(arguments.FOREVER) or fatal
            else:
                fatal = self._fan_out(block) or fatal
        if fatal is not None:
            raise fatal

    def _fan_out(self, block: tuple[Any, ...]) -> BaseException | None:
        """Serve every sink of the snapshot; returns an exception that is to be raised later."""
        fatal: BaseException | None = None
        for destination in self._destinations:
            try:
                try:
                    if len(block) > 1:
                        destination.write_many(block)
                    else:
                        destination.write(block[0])
                except SinkClosedError:
                    self.remove(destination.sink)
                except BaseException as error:
                    fatal = fatal if isinstance(error, Exception) else error
                    self._refused(destination.sink, block, error)
                else:
                    self._refusals.accepted(destination.sink)
            except Exception:
                pass  # no memory or no stack left to say so
            except BaseException as struck:  # Ctrl-C, while it was logged
                fatal = struck
        return fatal

    def _refused(self, sink: Any, block: tuple[Any, ...], error: BaseException) -> None:
        n = len(block)
        with self._lock:
            self._dropped += n
        self._refusals.refused(sink, block[0], error, n)
        if not self._has(sink):  # removed meanwhile
            self._refusals.forget(sink)

    def close(self, timeout: float | None = None) -> None:
        """Close every sink, whatever one of them raises; idempotent.

        CloseTimeoutError is raised at the end, with the ``undelivered`` of all. From inside a
        write, ``close`` returns at once and follows it. An interrupted ``close`` (Ctrl-C) may be
        called again. Called by a queue, it does not wait for another thread that closes already.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        me = get_ident()
        with self._lock:
            others = self._closed and (self._owner or self._closer)
            self._closed = True
            if self._closer == me:  # a sink's close() calls back
                return
            if self._owner == me:
                self._deferred.append(None)
                return
            self._changed.notify_all()
        if others and thread_state.here.runs_queues:
            return
        if not self._changed.until(lambda: self._may_close(deadline), deadline):
            raise wording.still_closing("the broadcaster")
        if self._closer == me:
            self._end_turn(self._close_all(arguments.FOREVER if timeout is None else deadline))

    def _may_close(self, deadline: float) -> bool:
        """Under the lock: take the turn, to close all, unless another thread has done so."""
        late = monotonic() >= deadline  # a sink is stuck in a write, which closing it may end
        if not (self._finished or self._closer) and (self._owner is None or late):
            self._closer = get_ident()
            self._owner = self._owner or self._closer
        return self._finished or self._closer == get_ident()

    def _close_all(self, deadline: float) -> BaseException | None:
        """Close every sink, as the closer. Returns what is to be raised later."""
        sinks = list(self.sinks) if self._unclosed is None else self._unclosed
        self._unclosed, fatal = close_each(sinks, deadline, len(self._destinations))
        with self._lock:
            self._closer = None
            self._finished = not self._unclosed
            self._changed.notify_all()
        return fatal

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._owner != get_ident():
            self._owner, self._deferred = None, []
        if self._closer != get_ident():
            self._closer = None
