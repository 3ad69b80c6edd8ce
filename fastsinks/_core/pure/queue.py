"""The queue: writers append, a worker delivers.

An event is in the backlog, then in flight, then delivered, dropped, or in the hands of a
closer whose deadline has passed; ``accepted == delivered + dropped + pending``, whenever the
lock is free. All up to position ``_appended - backlog - in flight - unreported`` have
finished, for delivery is in order and discards come from the front.

A closer that abandons takes the backlog, closes the destination, and after a moment of
grace also takes the flight. A worker that then finds another flight than its own has
nothing to account for.
"""

import _thread
import sys
from collections import deque
from collections.abc import Callable, Iterable
from operator import attrgetter
from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, callbacks, log, thread_state, wording
from ..arguments import FOREVER
from ..errors import CloseTimeoutError
from ..fork import look_for_fork
from ..log import describe_error
from ..queue_options import queue_options
from ..stats import QueueStats
from .closing import CLOSE_GRACE, CLOSE_GRACE_OF_QUEUE, GRACE, Closing
from .delivery import Delivery
from .destination import Destination
from .dispatcher import Dispatcher, default_dispatcher
from .flight import Flight
from .latency import Latency
from .locked import Locked
from .retrying import RetryingSink
from .sink import Sink
from .strand import State, Strand

QUANTUM = 0.0005  #: seconds after which other queues are served


class Queue(Sink, Strand, Locked):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Events reach ``dst`` in the order in which they were accepted, one call at a time. Its
    exception drops the event, or block: it is counted, logged, and handed to ``dead_letter``,
    which is never closed.
    """

    maxsize = property(attrgetter("_maxsize"))
    name = property(attrgetter("_name"))
    _attached = False

    def __init__(self, dst: Any, *, dispatcher: Dispatcher | None = None, **options: Any) -> None:
        # Set once.
        self._dst = Destination(dst)
        self._options = queue_options(**options)
        self._dispatcher = arguments.dispatcher(dispatcher, Dispatcher, default_dispatcher)
        self._listeners, self._maxsize = self._options.listeners, self._options.maxsize
        self._name = wording.queue_name(dst) if self._options.name is None else self._options.name
        self._trouble = wording.drops(self._name)
        # Driven a step at a time: its back-off is on a timer, and holds no worker.
        self._retrying: RetryingSink | None = dst if type(dst) is RetryingSink else None
        in_blocks = self._retrying is not None or self._dst.takes_blocks
        self._block_size = self._options.batch_size if in_blocks else 1
        self._measures = self._retrying is not None or self._block_size > 1
        # Guarded by the lock, under which the dispatcher's may be taken.
        self._accepted = self._delivered = self._dropped = 0
        self._backlog: deque[tuple[Any, float]] = deque()  # events, and when they were accepted
        self._appended = 0  # events that ever entered the backlog
        self._flight: Flight | None = None
        self._unreported = 0  # counted, but not yet reported to listeners and dead letter
        self._latency = Latency()
        self._linger_until = 0.0  # 0: does not linger
        self._hurry = 0  # _appended at the last flush: no lingering below
        self._scheduled = False  # the strand is ready, running or on a timer
        self._runner: int | None = None  # ident of the thread that delivers just now
        self._announcers: list[int] = []  # idents of those that tell listeners of an event to come
        self._closing = Closing()
        super().__init__()
        self._dispatcher._attach()
        self._attached = True

    def __del__(self) -> None:
        # At exit the lock may be held by a worker that is frozen already.
        if self._attached and not self._closed and not sys.is_finalizing():
            self._dispatcher._closed_one()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} pending={len(self)}>"

    def __len__(self) -> int:
        """Events that are accepted and not yet finished."""
        look_for_fork()
        return self._accepted - self._delivered - self._dropped

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

    def _is_full(self) -> bool:
        return bool(self._maxsize) and len(self) >= self._maxsize

    def _report_drops(self, dropped: list[Any], reason: str) -> None:
        to = self._options.dead_letter
        callbacks.report_drops(self._trouble, to, self._listeners, dropped, reason)

    # -- delivering: a worker, one at a time

    def _run(self) -> State:
        """Deliver until nothing is left, or others are to be served, or it has to wait."""
        end = monotonic() + QUANTUM
        while True:
            with self._lock:
                self._runner = get_ident()
                state = self._next_state(end)
                if state is not None:
                    self._runner = None
                    return state
                flight = self._flight
            if flight is None:
                self._close_dst()
                continue
            wait = self._deliver(flight)
            del flight  # its events may have finalisers, which run outside the lock
            with self._lock:
                self._dispatcher._progress += 1
                if wait > 0 and not self._closing.abandoned:
                    self._dispatcher._schedule_at(self, monotonic() + wait, False)
                    # Its close() expedites what is on the timer: look once more, now that we are.
                    if self._retrying is not None and self._retrying.closed:
                        self._dispatcher._expedite(self)
                    self._runner = None
                    return State.TIMED

    def _next_state(self, end: float) -> State | None:
        """Under the lock. None: deliver what is in flight, or close dst if there is nothing."""
        if self._flight is None and not self._backlog:
            if self._closed and len(self) == 0 and self._closing.start():
                return None
            self._scheduled = False
            return State.IDLE
        if (
            self._options.linger
            and self._flight is None
            and len(self._backlog) < self._block_size
            and not (self._closed or self._is_full() or self._dispatcher._closing)
            and self._appended - len(self._backlog) >= self._hurry
            and not self._linger_until  # else it has lingered, or was told not to
        ):
            self._linger_until = monotonic() + self._options.linger
            self._dispatcher._schedule_at(self, self._linger_until, True)
            return State.TIMED
        self._linger_until = 0.0
        if monotonic() >= end:
            return State.READY
        if self._flight is None:
            self._flight = self._take_flight()
        return None

    def _take_flight(self) -> Flight:
        """Under the lock: take the next events from the backlog."""
        n = min(self._block_size, len(self._backlog))
        taken = [self._backlog.popleft() for _ in range(n)]
        events, since = [event for event, _ in taken], [at for _, at in taken]
        delivery = None if self._retrying is None else Delivery(events, self._dispatcher, self)
        return Flight(events, since, delivery)

    def _deliver(self, flight: Flight) -> float:
        """One call of the destination; seconds to wait for the next. Without the lock."""
        try:
            if self._retrying is not None and flight.delivery is not None:
                wait = self._retrying._step(flight.delivery)
                if wait is not None:
                    return wait
            elif self._block_size > 1:
                self._dst.write_many(flight.events[:])  # a copy: the destination may change it
            else:
                self._dst.write(flight.events[0])
        except BaseException as error:
            if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                thread_state.here.interrupts.append(error)  # Ctrl-C, on a thread that helps
            self._finish(flight, flight.done, describe_error(error))
        else:
            self._finish(flight, len(flight.events))
        return 0.0

    def _finish(self, flight: Flight, delivered: int, reason: str = "") -> None:
        """Account for a flight, unless a closer has; then tell all who are to know."""
        dropped = flight.events[delivered:]
        with self._lock:
            if self._flight is not flight:
                return
            self._flight = None
            if self._measures:
                self._latency.measure(flight.since)
            self._unreported = len(flight.events)
            self._delivered += delivered
            if self._closing.abandoned:
                self._closing.left, dropped = dropped, []
            self._dropped += len(dropped)
            self._changed.notify_all()
        try:
            if dropped:
                self._report_drops(dropped, reason)
            else:
                self._trouble.over()
            callbacks.tell_all(self._listeners, "egress", flight.events[:delivered])
        finally:
            with self._lock:
                self._unreported = 0  # only now has it finished
                self._changed.notify_all()

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

    def _delivers_here(self) -> bool:
        """Whether the calling thread is inside this queue's delivery, and must not wait for it."""
        return self._runner == get_ident()

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

    def _close_dst(self) -> None:
        """Close ``dst``: on the worker after the last event, else on a thread of its own."""
        raised: BaseException | None = None
        try:
            callbacks.close(self._dst.sink, min(FOREVER, max(0.0, self._closing.by - monotonic())))
        except BaseException as error:
            if not self._closing.abandoned or isinstance(error, CloseTimeoutError):
                raised = error
            else:
                log.error("%s: close() raised %s", self._name, describe_error(error))
        self._trouble.over()
        with self._lock:
            self._closing.error, self._closing.finished = raised, True
            self._changed.notify_all()

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

    def _after_fork(self) -> None:
        """In a child: what was accepted before is the parent's to deliver."""
        super()._after_fork()
        self._accepted = self._delivered + self._dropped
        self._appended = self._hurry = self._unreported = 0
        self._backlog, self._flight, self._announcers = deque(), None, []
        self._linger_until = 0.0
        self._scheduled, self._timer, self._runner = False, None, None
        self._closing.left, self._closing.started = (), self._closing.finished
