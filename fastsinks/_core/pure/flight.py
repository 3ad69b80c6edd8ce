"""What a queue has taken from its backlog and not accounted for, and the class that delivers it.

A worker takes what is next, calls the destination with no lock held, and accounts for what
came of it. A closer that abandons the queue may have taken the flight meanwhile.
"""

import sys
from collections import deque
from operator import attrgetter
from threading import get_ident
from time import monotonic
from typing import Any, NamedTuple

from .. import arguments, callbacks, log, thread_state, wording
from ..errors import CloseTimeoutError
from ..locked import Locked
from ..queue_options import queue_options
from .closing import Closing
from .delivery import Delivery
from .destination import Destination
from .dispatcher import Dispatcher, default_dispatcher
from .latency import Latency
from .retrying import RetryingSink
from .sink import Sink
from .strand import State, Strand

QUANTUM = 0.0005  #: seconds after which other queues are served


class Flight(NamedTuple):
    """Events in flight. Whoever takes it from the queue, under its lock, accounts for them."""

    events: list[Any]  # never changed
    since: list[float]  # when each was accepted
    delivery: Delivery | None  # how far a RetryingSink has got with them

    @property
    def done(self) -> int:
        """How many, from the front, a RetryingSink has finished."""
        return 0 if self.delivery is None else self.delivery.done


class Carrier(Sink, Strand, Locked):
    """Carries what a queue has accepted to the destination, by one worker at a time."""

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

    def __len__(self) -> int:
        """Events that are accepted and not yet finished."""
        with self._lock:
            return self._accepted - self._delivered - self._dropped

    def _is_full(self) -> bool:
        return bool(self._maxsize) and len(self) >= self._maxsize

    def _delivers_here(self) -> bool:
        """Whether the calling thread is inside this queue's delivery, and must not wait for it."""
        return self._runner == get_ident()

    def _report_drops(self, dropped: list[Any], reason: str) -> None:
        to = self._options.dead_letter
        callbacks.report_drops(self._trouble, to, self._listeners, dropped, reason)

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
            self._finish(flight, flight.done, log.describe_error(error))
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

    def _close_dst(self) -> None:
        """Close ``dst``: on the worker after the last event, else on a thread of its own."""
        raised: BaseException | None = None
        try:
            callbacks.close(
                self._dst.sink, min(arguments.FOREVER, max(0.0, self._closing.by - monotonic()))
            )
        except BaseException as error:
            if not self._closing.abandoned or isinstance(error, CloseTimeoutError):
                raised = error
            else:
                log.error("%s: close() raised %s", self._name, log.describe_error(error))
        self._trouble.over()
        with self._lock:
            self._closing.error, self._closing.finished = raised, True
            self._changed.notify_all()

    def _after_fork(self) -> None:
        """In a child: what was accepted before is the parent's to deliver."""
        super()._after_fork()
        self._accepted = self._delivered + self._dropped
        self._appended = self._hurry = self._unreported = 0
        self._backlog, self._flight, self._announcers = deque(), None, []
        self._linger_until = 0.0
        self._scheduled, self._timer, self._runner = False, None, None
        self._closing.left, self._closing.started = (), self._closing.finished
