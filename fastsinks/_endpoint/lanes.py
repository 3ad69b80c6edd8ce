"""Several requests of an endpoint in flight at a time: a block goes to a lane that is free."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

from .._core import arguments, callbacks
from .._core.backend import Queue, RetryingSink, Sink
from .._core.condition import Condition
from .._core.errors import CloseTimeoutError, SinkClosedError
from .._core.per_process import PerProcess
from ..http import HTTPSink
from .sizing import SizedSink

GRACE = 0.02
"""Seconds for a lane to let go of its block once its request has been interrupted."""

LATE = 0.5
"""Seconds for all lanes to do so, one after the other or on a busy machine."""


class Totals(NamedTuple):
    finished: int
    dropped: int
    retries: int


class Lane:
    """A queue that holds one block at a time, retries it by itself, and says when it is done.

    The queue's listener and dead letter. ``undelivered`` is what it dropped by a close that was
    late, by whichever of several ways.
    """

    def __init__(
        self,
        lanes: Lanes,
        sized: SizedSink,
        strategy: Any,
        *,
        batch_size: int,
        dead_letter: Any,
        name: str,
    ) -> None:
        self._lanes = lanes
        self._dead_letter = dead_letter
        self.expected = 0  # events of its block that are not finished; touched by its owner only
        self.undelivered: list[Any] = []
        sized.log_label = name
        self.retrying = RetryingSink(sized, strategy, dead_letter=dead_letter)
        self.queue = Queue(
            self.retrying, batch_size=batch_size, listeners=[self], dead_letter=self, name=name
        )

    def ingress(self, event: Any) -> None:
        pass

    def egress(self, event: Any) -> None:
        self.expected -= 1
        if not self.expected:
            self._lanes.free(self)

    def write(self, event: Any) -> None:
        if self._lanes.late:
            self.undelivered.append(event)
        if self._dead_letter is not None:
            callbacks.write(self._dead_letter, event)

    def close(self) -> None:
        """Nothing: the dead letter is not the queue's to close."""


class Turns:
    """Which lanes are free, in one process: a child has none of its parent's blocks."""

    def __init__(self, lanes: Iterable[Lane], inherited: int) -> None:
        self.lock = threading.RLock()
        self.change = Condition(self.lock)
        self.idle = list(lanes)  # guarded by the lock
        self.inherited = inherited  # events that were in flight at the fork: the parent's


class Lanes(Sink):
    """Hands each block to a lane that is idle, waiting for one if need be.

    Made for a queue to deliver to. What has been handed over counts as delivered there and
    is accounted for by the lanes.
    """

    def __init__(
        self,
        count: int,
        http: HTTPSink,
        strategy: Any,
        *,
        batch_size: int,
        batch_bytes: int,
        dead_letter: Any,
        name: str,
    ) -> None:
        super().__init__()
        self._http = http
        self.late = False  # the deadline of a close has passed with events in flight
        self.lanes = tuple(
            Lane(
                self,
                SizedSink(http, batch_size=batch_size, batch_bytes=batch_bytes, shared=True),
                strategy,
                batch_size=batch_size,
                dead_letter=dead_letter,
                name=f"{name}, request {i}",
            )
            for i in range(1, count + 1)
        )
        self.queue: Queue | None = None  #: which delivers to the lanes, once there is one
        self._left: list[Any] = []  # guarded by the turns' lock, as is the next
        self._finished = False
        self._turns = PerProcess(self._new_turns)

    def _new_turns(self) -> Turns:
        """A child's are made before it hands anything over."""
        handed = self.queue.stats().delivered if self.queue is not None else 0
        return Turns(self.lanes, handed - self.totals().finished)

    @property
    def inherited(self) -> int:
        """Events that the queue delivered and that are not this process's to finish."""
        return self._turns.get().inherited

    def write(self, event: Any) -> None:
        self.write_many((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        block = list(events)
        turns = self._turns.get()
        taken: list[Lane] = []

        def take() -> bool:
            if self.closed:
                raise SinkClosedError
            taken.extend(turns.idle[-1:])
            del turns.idle[-1:]
            return bool(taken)

        turns.change.until(take)
        lane = taken[0]
        lane.expected = len(block)
        lane.queue.write_many(block)

    def free(self, lane: Lane) -> None:
        turns = self._turns.get()
        with turns.lock:
            turns.idle.append(lane)
            turns.change.notify_all()

    def totals(self) -> Totals:
        """What became of the events that were handed over. Read by any thread."""
        retries = sum(lane.retrying.retries for lane in self.lanes)
        given_up = sum(lane.retrying.dropped for lane in self.lanes)
        stats = [lane.queue.stats() for lane in self.lanes]
        dropped = sum(each.dropped for each in stats)
        return Totals(
            finished=dropped + sum(each.delivered for each in stats),
            dropped=dropped + given_up,
            retries=retries,
        )

    def delivers_here(self) -> bool:
        """Whether the calling thread is inside one of the deliveries: it could wait for itself."""
        return any(lane.queue._delivers_here() for lane in self.lanes)

    def flush(self, timeout: float | None = None) -> bool:
        deadline = monotonic() + arguments.timeout(timeout)
        return all(lane.queue.flush(max(0.0, deadline - monotonic())) for lane in self.lanes)

    def close(self, timeout: float | None = None) -> None:
        """Wait for all lanes, interrupt what is late, then close the HTTPSink. What is left then
        is for ``take_left``: the queue in front may be unable to wait for it."""
        super().close(timeout)
        turns = self._turns.get()
        with turns.lock:
            turns.change.notify_all()
        self.late = not self.flush(timeout)
        # Nothing is in flight now, or else it ends: requests and back-offs.
        self._http.close(0.0 if self.late else timeout)
        for lane in self.lanes:
            lane.retrying.close(0.0 if self.late else timeout)
        deadline = monotonic() + GRACE
        for lane in self.lanes:
            try:
                lane.queue.close(max(0.0, deadline - monotonic()) if self.late else timeout)
            except CloseTimeoutError:
                pass  # its events have come to undelivered
        with turns.lock:
            self._left = [event for lane in self.lanes for event in lane.undelivered]
            self._finished = True
            turns.change.notify_all()

    def take_left(self, timeout: float) -> list[Any]:
        """To one caller, after a close that was late: the events that were handed over, and not
        delivered. Waits for up to ``timeout`` seconds until the lanes have let go of them."""
        turns = self._turns.get()
        turns.change.until(lambda: self._finished, monotonic() + timeout)
        with turns.lock:
            left, self._left = self._left, []
        return left
