"""The queue: writers append, a worker delivers; see flight for the workers' half.

An event is in the backlog, then in flight, then delivered, dropped, or in the hands of a
closer whose deadline has passed; ``accepted == delivered + dropped + pending``, whenever the
lock is free. All before the oldest in flight, or not yet reported, or in the backlog have
finished, for events are taken in order and discards come from the front.
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
from .flight import Carrier


class Queue(Carrier):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Events reach ``dst`` in the order in which they were accepted, one call at a time; with
    ``concurrency`` as many calls at a time as it says, and order is kept within a call only. An
    exception of ``dst`` drops the event, or block: it is counted, logged, and handed to
    ``dead_letter``, which is never closed.
    """

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} pending={len(self)}>"

    def stats(self) -> QueueStats:
        """``(accepted, delivered, dropped, pending)``, which always adds up."""
        with self._lock:
            # No call in between: a signal's handler, which may write, runs after calls.
            accepted, delivered, dropped = self._accepted, self._delivered, self._dropped
        return QueueStats(accepted, delivered, dropped, accepted - delivered - dropped)

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
            if not self._measures:
                return 0.0
            flying = [(f.block.first, f.block.since[0]) for f in self._flights if f.block]
            waiting = [(self._taken_up_to(), at) for _, at in list(self._backlog)[:1]]
            return min([monotonic() - at for _, at in sorted(flying + waiting)[:1]], default=0.0)

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
            self._dispatcher._expedite(self._lingers)  # what does not fit cannot fill the block
            return False
        if over > 0 and self._options.when_full == "raise":
            raise wording.full(self._name, len(self), self._maxsize)
        if over > 0:
            if self._options.when_full == "drop_oldest" and len(self._backlog) >= over:
                evicted.extend(self._backlog.popleft()[0] for _ in range(over))
            else:
                refused.extend(events)
        n, dropped = len(events), len(evicted) + len(refused)  # no call while adding: see stats()
        self._accepted += n  # holds their place while ingress() runs
        self._dropped += dropped
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
        n, now = len(events), monotonic()
        with self._lock:
            if self._closing.abandoned:
                raise wording.closed_meanwhile(self._name)
            self._backlog += [(event, now) for event in events]
            self._appended += n
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
            self._start_idle()
        elif len(self._backlog) >= self._block_size or self._is_full():
            self._dispatcher._expedite(self._lingers)

    # -- waiting and closing

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted before the call has finished; cuts ``linger`` short.

        False if it has not within ``timeout`` seconds, and at once from inside the queue's
        own delivery, which could only wait for itself.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            goal = self._hurry = self._appended
            self._dispatcher._expedite(self._lingers)
        return self._wait(lambda: self._finished_up_to() >= goal, deadline)

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
            self._dispatcher._expedite(self._lingers)
            if not closing.started:
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
            if self._changed.until(lambda: not self._in_flight(), now + GRACE):
                # A queue keeps to its own deadline, and then says what is left: the complete
                # list is worth more than being punctual on a machine that has too much to do.
                grace = CLOSE_GRACE_OF_QUEUE if isinstance(self._dst.sink, Queue) else CLOSE_GRACE
                self._changed.until(lambda: closing.finished, now + grace)
        except BaseException as struck:  # Ctrl-C: not before everything is accounted for
            interrupt = struck
        with self._lock:
            passed: list[Any] = []
            left: list[Any] = []
            for block in sorted([f.block for f in self._flights if f.block], key=lambda b: b.first):
                if block.delivery is not None:
                    block.delivery.taken = True
                passed += block.events[: block.done]
                left += block.events[block.done :]
            for flight in self._flights:
                flight.block = None
            left += [event for event, _ in waiting]
            done, n = len(passed), len(left)
            self._delivered += done
            self._dropped += n
            late, closing.finished = not closing.finished, True
            error = closing.take_error()
            self._changed.notify_all()
        if left:
            self._report_drops(left, wording.CLOSED_BEFORE)
            self._trouble.over()
        callbacks.tell_all(self._listeners, "egress", passed)
        raised = interrupt or wording.undelivered(self._name, left, error, late)
        if raised is not None:
            raise raised

    def _in_flight(self) -> bool:
        """Under the lock: whether the destination has not let go of something."""
        return any(flight.block and not flight.landed for flight in self._flights)
