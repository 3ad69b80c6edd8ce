"""What a queue has taken from its backlog and not accounted for, and the class that delivers it.

A worker takes what is next, calls the destination with no lock held, and accounts for what
came of it. A closer that abandons the queue may have taken the block meanwhile.

A back-off belongs to the destination, and so to all flights: one is the probe, and the others
are held until an attempt of its succeeds.
"""

from __future__ import annotations

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
from .delivery import Delivery, Driver
from .destination import Destination
from .dispatcher import Dispatcher, default_dispatcher
from .latency import Latency
from .retrying import RetryingSink
from .strand import State, Strand

QUANTUM = 0.0005  #: seconds after which other queues are served


class Block(NamedTuple):
    """Events in flight. Whoever takes it from its flight accounts for them."""

    first: int  # the position of the first event
    events: list[Any]  # never changed
    since: list[float]  # when each was accepted
    delivery: Delivery | None  # how far a RetryingSink has got with them

    @property
    def done(self) -> int:
        """How many, from the front, a RetryingSink has finished."""
        return 0 if self.delivery is None else self.delivery.done


class Flight(Strand):
    """One call of the destination at a time. A queue has ``concurrency`` of them. Each is idle,
    held, or its strand is ready, running or on a timer. Guarded by the queue's lock."""

    owner: Carrier  # the queue; not while idle, when its owner alone keeps it
    block: Block | None = None  # in flight
    landed = False  # the destination let go of it; a closer takes it
    unreported: Block | None = None  # accounted for, but not yet told to listeners and dead letter
    runner: int | None = None  # ident of the thread that delivers just now
    waits = False  # for the end of the back-off, before its next attempt

    def _run(self) -> State:
        return self.owner._run(self)


class Carrier(Driver, Locked):
    """Carries what a queue has accepted to the destination, in one flight or several."""

    concurrency = property(lambda self: len(self._flights))
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
        self._latency = Latency()
        self._hurry = 0  # _appended at the last flush: no lingering below
        self._flights = [Flight() for _ in range(self._options.concurrency)]
        self._all_idle()
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
        return any(flight.runner == get_ident() for flight in self._flights)

    # -- flights

    def _all_idle(self) -> None:
        """Nothing is in flight."""
        self._idle = self._flights[::-1]
        self._lingers: Flight | None = None  # on its timer, until its block is full
        self._probe: Flight | None = None  # while the destination backs off: the one that will try
        self._held: list[Flight] = []  # those that wait for that
        self._back_off_until = 0.0  # the probe waits so long
        self._scheduled = False  # some flight will look for events before it rests

    def _start_idle(self) -> None:
        """Under the lock: have an idle flight look for events, unless the destination backs off."""
        if self._idle and self._probe is None:
            flight = self._idle.pop()
            flight.owner = self
            self._scheduled = True
            self._dispatcher._schedule(flight)

    def _rest(self, flight: Flight) -> State:
        """Under the lock: a flight has nothing to do."""
        del flight.owner
        self._idle.append(flight)
        self._scheduled = self._lingers is not None
        return State.IDLE

    def _call_another(self) -> None:
        """Under the lock: events were taken. If some are left, an idle flight is to come."""
        if self._idle and self._backlog:
            self._start_idle()
        elif self._idle:
            self._scheduled = self._lingers is not None

    # -- back-off

    def _back_off(self, flight: Flight, until: float) -> None:
        """The destination is to be left alone until then."""
        with self._lock:
            self._back_off_until = max(self._back_off_until, until)
            self._probe = self._probe or flight
            flight.waits = self._probe is flight
            if not flight.waits:
                self._dispatcher._postpone(self._probe, self._back_off_until)

    def _tried(self, flight: Flight, works: bool) -> None:
        """Under the lock: an attempt of the probe's has succeeded, or its events were dropped."""
        if self._probe is not flight:
            return
        if not self._held or (works and self._back_off_until <= monotonic()):
            self._resume()
            return
        self._probe = successor = self._held.pop()
        successor.waits = works
        if not works and successor.block is not None and successor.block.delivery is not None:
            # Since it asked how long to wait, there was one more failure.
            successor.block.delivery.waited = False
        self._dispatcher._schedule(successor)

    def _resume(self) -> None:
        """Under the lock: the back-off is over, and all flights go on."""
        held, self._held = self._held, []
        self._probe, self._back_off_until = None, 0.0
        for flight in reversed(held):
            self._dispatcher._schedule(flight)

    def _end_back_off(self) -> None:
        with self._lock:
            self._dispatcher._expedite(self._probe)
            self._resume()

    # -- running

    def _report_drops(self, dropped: list[Any], reason: str) -> None:
        to = self._options.dead_letter
        callbacks.report_drops(self._trouble, to, self._listeners, dropped, reason)

    def _run(self, flight: Flight) -> State:
        """Deliver until nothing is left, or others are to be served, or it has to wait."""
        end = monotonic() + QUANTUM
        while True:
            with self._lock:
                flight.runner = get_ident()
                state = self._next_state(flight, end)
                if state is not None:
                    flight.runner = None
                    return state
                block = flight.block
            if block is None:
                self._close_dst()
            else:
                self._deliver(flight, block)
            del block  # its events may have finalisers, which run outside the lock
            with self._lock:
                self._dispatcher._progress += 1

    def _next_state(self, flight: Flight, end: float) -> State | None:
        """Under the lock. None: deliver what is in flight, or close dst if there is nothing."""
        if flight.block is not None and self._closing.abandoned:
            self._land(flight)
            return self._rest(flight)  # a closer takes it, and the backlog with it
        if self._probe is not None and self._retrying is not None and not self._retrying.closed:
            if self._probe is not flight and flight.block is None:
                return self._rest(flight)
            if self._probe is not flight:
                self._held.append(flight)
                return State.IDLE
            if flight.waits:
                flight.waits = False
                self._dispatcher._schedule_at(flight, self._back_off_until, False)
                return State.TIMED
        if flight.block is not None:
            return None  # another attempt
        if not self._backlog:
            if self._closed and len(self) == 0 and self._closing.start():
                return None
            return self._rest(flight)
        if self._lingers is flight:
            self._lingers = None  # its time is over, or its block is full
        elif (
            self._options.linger
            and len(self._backlog) < self._block_size
            and not (self._closed or self._is_full() or self._dispatcher._closing)
            and self._taken_up_to() >= self._hurry
        ):
            if self._lingers is not None:
                return self._rest(flight)
            self._lingers = flight
            self._dispatcher._schedule_at(flight, monotonic() + self._options.linger, True)
            return State.TIMED
        if monotonic() >= end:
            return State.READY
        flight.block = self._take()
        self._call_another()
        return None

    def _take(self) -> Block:
        """Under the lock: take the next events from the backlog."""
        first = self._taken_up_to()
        n = min(self._block_size, len(self._backlog))
        taken = [self._backlog.popleft() for _ in range(n)]
        events, since = [event for event, _ in taken], [at for _, at in taken]
        delivery = None if self._retrying is None else Delivery(events, self)
        return Block(first, events, since, delivery)

    def _taken_up_to(self) -> int:
        """The position of the oldest event in the backlog, or of the next to come."""
        return self._appended - len(self._backlog)

    def _finished_up_to(self) -> int:
        """All events before are delivered or dropped, and that has been reported."""
        flying = [block for f in self._flights for block in (f.block, f.unreported) if block]
        return min([block.first for block in flying], default=self._taken_up_to())

    def _deliver(self, flight: Flight, block: Block) -> None:
        """One call of the destination, without the lock."""
        try:
            if self._retrying is not None and block.delivery is not None:
                wait = self._retrying._step(block.delivery)
                if wait:
                    self._back_off(flight, monotonic() + wait)
                elif not block.delivery.failing:
                    with self._lock:
                        self._tried(flight, True)
                if wait is not None:
                    return
            elif self._block_size > 1:
                self._dst.write_many(block.events[:])  # a copy: the destination may change it
            else:
                self._dst.write(block.events[0])
        except BaseException as error:
            if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                thread_state.here.interrupts.append(error)  # Ctrl-C, on a thread that helps
            self._finish(flight, block, block.done, log.describe_error(error))
        else:
            self._finish(flight, block, len(block.events))

    def _land(self, flight: Flight) -> None:
        """Under the lock: a closer takes what is in flight; no attempt at it follows."""
        flight.landed = True
        self._changed.notify_all()

    def _finish(self, flight: Flight, block: Block, delivered: int, reason: str = "") -> None:
        """Account for a block, unless a closer has or will; then tell all who are to know."""
        dropped = block.events[delivered:]
        n = len(dropped)
        with self._lock:
            if flight.block is not block:
                return
            if dropped and self._closing.abandoned:
                self._land(flight)
                return
            flight.block, flight.unreported = None, block
            if self._measures:
                self._latency.measure(block.since)
            self._delivered += delivered
            self._dropped += n
            self._tried(flight, False)  # if it still is the probe, its events were dropped
            self._changed.notify_all()
        try:
            if dropped:
                self._report_drops(dropped, reason)
            else:
                self._trouble.over()
            callbacks.tell_all(self._listeners, "egress", block.events[:delivered])
        finally:
            with self._lock:
                flight.unreported = None  # only now has it finished
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
        self._appended = self._hurry = 0
        self._backlog, self._announcers = deque(), []
        self._flights = [Flight() for _ in self._flights]
        self._all_idle()
        self._closing.started = self._closing.finished
