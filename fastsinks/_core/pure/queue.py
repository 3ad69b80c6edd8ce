"""The queue: writers append, a worker delivers; see flight for the workers' half.

An event is in the backlog, then in flight, then delivered, dropped, or in the hands of a
closer whose deadline has passed; ``accepted == delivered + dropped + pending``, whenever the
lock is free. All up to position ``_appended - backlog - in flight - unreported`` have
finished, for delivery is in order and discards come from the front.
"""

import _thread
from collections import deque
from collections.abc import Callable, Iterable
from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, callbacks, wording
from ..stats import QueueStats
from .closing import CLOSE_GRACE, CLOSE_GRACE_OF_QUEUE, GRACE
from .flight import Carrier, Flight


class Queue(Carrier):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Events reach ``dst`` in the order in which they were accepted, one call at a time. Its
    exception drops the event, or block: it is counted, logged, and handed to ``dead_letter``,
    which is never closed.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} pending={len(self)}>"

    def stats(self) -> QueueStats:
        """``(accepted, delivered, dropped, pending)``, which always adds up."""
        with self._lock:
            return QueueStats(self._accepted, self._delivered, self._dropped, len(self))

    def latencies(self) -> tuple[tuple[int, ...], float]:
        """How many events took how long, by LATENCY_BOUNDS, and the seconds of all together.

        As in the compiled core, zeros with neither a RetryingSink nor blocks.
        """
        with self._lock:
            return tuple(self._latency.buckets), self._latency.total

    def oldest(self) -> float:
        """Seconds for which the oldest pending event has waited; 0.0 if there is none, or
        where ``latencies`` are not measured."""
        with self._lock:
            if not self._measures or (self._flight is None and not self._backlog):
                return 0.0
            return monotonic() - (self._flight.since[0] if self._flight else self._backlog[0][1])

    # -- accepting

    def write(self, event: Any, /) -> None:
        """Accept an event: append it and return. See ``when_full`` for a full queue."""
        self._accept((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        """Accept a block, stored contiguously, or refuse it as a whole."""
        block = tuple(events)  # a list may be changed by others while we wait
        if self._maxsize and len(block) > self._maxsize:
            raise wording.too_large(len(block), self._maxsize)
        if block:
            self._accept(block)

    def _accept(self, events: tuple[Any, ...]) -> None:
        """Wait or discard if there is no room, count, tell listeners, append."""
        evicted: list[Any] = []
        refused: list[Any] = []
        self._changed.until(lambda: self._admit(events, evicted, refused))
        try:
            if self._listeners:  # first they, so that no egress comes before its ingress
                self._announce(events)
                if not refused:
                    self._append(events)
        except BaseException:
            if not refused:
                self._withdraw(len(events))
            raise
        finally:
            if evicted or refused:
                self._report_drops(evicted or refused, wording.QUEUE_FULL)

    def _admit(self, events: tuple[Any, ...], evicted: list[Any], refused: list[Any]) -> bool:
        """Under the lock: accept them, unless there is no room for which to wait."""
        if self._closed or self._dispatcher._stopped:
            raise wording.closed(self._name)
        over = len(self) + len(events) - self._maxsize if self._maxsize else 0
        if over > 0 and self._options.when_full == "block":
            if self._delivers_here():
                raise wording.full_for_itself(self._name)
            if self._linger_until:  # what does not fit cannot fill the block
                self._dispatcher._expedite(self)
            return False
        if over > 0 and self._options.when_full == "raise":
            raise wording.full(self._name, len(self), self._maxsize)
        if over > 0:
            if self._options.when_full == "drop_oldest" and len(self._backlog) >= over:
                evicted.extend(self._backlog.popleft()[0] for _ in range(over))
            else:
                refused.extend(events)
        self._accepted += len(events)  # holds their place while ingress() runs
        self._dropped += len(evicted) + len(refused)
        if not (self._listeners or refused):
            self._append(events)
        return True

    def _announce(self, events: tuple[Any, ...]) -> None:
        """Tell the listeners of events to come."""
        me = get_ident()
        self._announcers.append(me)
        try:
            callbacks.tell_all(self._listeners, "ingress", events)
        finally:
            self._announcers.remove(me)

    def _append(self, events: tuple[Any, ...]) -> None:
        """Append what has been admitted."""
        now = monotonic()
        with self._lock:
            if self._closing.abandoned:
                raise wording.closed_meanwhile(self._name)
            self._backlog += [(event, now) for event in events]
            self._appended += len(events)
            self._make_ready()

    def _withdraw(self, n: int) -> None:
        """They are not appended after all."""
        with self._lock:
            self._accepted -= n
            self._changed.notify_all()
            if self._closed:  # close() may have found nothing to do but wait for this
                self._make_ready()

    def _make_ready(self) -> None:
        """Under the lock: there is something to do."""
        if not self._scheduled:
            self._scheduled = True
            self._dispatcher._schedule(self)
        elif self._linger_until and (len(self._backlog) >= self._block_size or self._is_full()):
            self._dispatcher._expedite(self)

    # -- waiting and closing

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted before the call has finished; cuts ``linger`` short.

        False if it has not within ``timeout`` seconds, and at once from inside the queue's
        own delivery, which could only wait for itself.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            goal = self._hurry = self._appended
            if self._linger_until:
                self._dispatcher._expedite(self)
        return self._wait(lambda: self._finished_up_to() >= goal, deadline)

    def _finished_up_to(self) -> int:
        in_flight = 0 if self._flight is None else len(self._flight.events)
        return self._appended - len(self._backlog) - in_flight - self._unreported

    def _wait(self, predicate: Callable[[], bool], deadline: float) -> bool:
        deadline = 0.0 if self._delivers_here() else deadline
        return self._changed.until(predicate, deadline, self._dispatcher._help)

    def close(self, timeout: float | None = None) -> None:
        """Refuse further events, deliver what is pending, close ``dst``. Idempotent.

        Every caller returns when that is done. The first whose deadline passes abandons it, and
        gets CloseTimeoutError with what is left. An exception of ``dst.close()`` is raised to
        one caller. From inside the delivery, or a listener's ``ingress``, ``close`` returns at
        once. An interrupted ``close`` (Ctrl-C) may be called again.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        closing = self._closing
        with self._lock:
            if not self._closed:
                self._closed = True
                self._dispatcher._closed_one()
            if timeout is not None:
                closing.by = min(closing.by, deadline)
            self._changed.notify_all()
            if self._linger_until:
                self._dispatcher._expedite(self)
            elif not closing.started:
                self._make_ready()
        if self._delivers_here() or get_ident() in self._announcers:
            return
        if self._wait(lambda: closing.finished, deadline):
            with self._lock:
                error = closing.take_error()
            if error is not None:
                raise error
            return
        with self._lock:
            mine = closing.abandon()
        if mine:
            self._abandon()
        else:  # another closer sees to it
            self._wait(lambda: closing.finished, monotonic() + 2 * CLOSE_GRACE)

    def _abandon(self) -> None:
        """A deadline has passed: close ``dst`` at once and give back what is left."""
        closing = self._closing
        now = monotonic()
        with self._lock:
            waiting, self._backlog = self._backlog, deque()
            mine = closing.start()
        if mine:
            try:
                _thread.start_new_thread(self._close_dst, ())
            except Exception:  # the interpreter is shutting down
                self._close_dst()
        interrupt: BaseException | None = None
        try:
            if self._changed.until(lambda: self._flight is None, now + GRACE):
                # A queue keeps to its own deadline, and then says what is left: the complete
                # list is worth more than being punctual on a machine that has too much to do.
                grace = CLOSE_GRACE_OF_QUEUE if isinstance(self._dst.sink, Queue) else CLOSE_GRACE
                self._changed.until(lambda: closing.finished, now + grace)
        except BaseException as struck:  # Ctrl-C: not before everything is accounted for
            interrupt = struck
        with self._lock:
            flight, self._flight = self._flight or Flight([], [], None), None
            if flight.delivery is not None:
                flight.delivery.taken = True
            passed, rest = flight.events[: flight.done], flight.events[flight.done :]
            left = [*closing.left, *rest, *(event for event, _ in waiting)]
            self._delivered += len(passed)
            self._dropped += len(left)
            late, closing.finished = not closing.finished, True
            closing.left, error = (), closing.take_error()
            self._changed.notify_all()
        if left:
            self._report_drops(left, wording.CLOSED_BEFORE)
            self._trouble.over()
        callbacks.tell_all(self._listeners, "egress", passed)
        raised = interrupt or wording.undelivered(self._name, left, error, late)
        if raised is not None:
            raise raised
