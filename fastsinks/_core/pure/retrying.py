"""Trying again.

One block at a time has the sink's turn, from its first attempt to its end, back-offs
included; the blocks of one queue share it. The turn belongs to the block, not to a thread: a
queue drives its blocks a step at a time, by whichever worker is at hand, and a back-off is on
the queue's timer.
"""

from collections.abc import Iterable
from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, callbacks
from ..errors import SinkClosedError
from ..retry_log import RetryLog
from .delivery import Delivery
from .sink import Sink
from .strategy import Bounded
from .wrapper import Wrapper

WHOLE = 1 << 62  # more events than any block has


class RetryingSink(Wrapper):
    """Writes until success, until the strategy drops the event, or until closed.

    Writes are serialised, and block while they back off; a queue that delivers to this sink
    blocks no thread. A block that fails is taken apart: only an event that failed by itself is
    dropped, for which ``write`` returns. SinkClosedError ends the write.
    """

    retries = property(lambda self: self._retries)
    dropped = property(lambda self: self._dropped)

    def __init__(
        self, sink: Any, strategy: Any, *, listeners: Iterable[Any] = (), dead_letter: Any = None
    ) -> None:
        super().__init__(sink)
        self._strategy = arguments.strategy(strategy)
        # With a strategy of ours, this sink counts an event's attempts.
        ours = isinstance(strategy, Bounded) and type(strategy).failure is Bounded.failure
        self._limits: Bounded | None = strategy if ours else None
        self._listeners = arguments.listeners(listeners, "active", "retry")
        self._dead_letter = arguments.dead_letter(dead_letter)
        self._fits = arguments.own_fit(sink, Sink) is not None
        self._log = RetryLog(sink)
        # Guarded by the lock:
        self._current: list[Delivery] = []  # that have the turn; several only of one driver
        self._retries = self._dropped = 0
        self._piece = WHOLE  # how many events to try at once; any thread's

    def write(self, event: Any, /) -> None:
        self._write_list([event])

    def write_many(self, events: Iterable[Any]) -> None:
        self._write_list(list(events))

    def close(self, timeout: float | None = None) -> None:
        """Close the inner sink, interrupting a back-off; its write raises SinkClosedError.

        Every caller returns when that is done; idempotent.
        """
        super().close(timeout)
        self._log.over()

    def _write_list(self, events: list[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        if not events:
            return
        delivery = Delivery(events)
        try:
            while (wait := self._step(delivery)) is not None:
                self._changed.until(lambda: self._closed, monotonic() + wait)
        finally:
            self._end_turn(delivery)

    def _step(self, delivery: Delivery) -> float | None:
        """At most one attempt: seconds until the next step, or None when all is finished."""
        if delivery not in self._current:
            self._changed.until(lambda: self._take_turn(delivery))
        wait: float | None = None
        try:
            wait = self._attempt(delivery)
        finally:
            if wait is None:
                self._end_turn(delivery)
        return wait

    def _take_turn(self, delivery: Delivery) -> bool:
        """Under the lock: if it is free."""
        if self._closed:
            raise SinkClosedError
        shares = delivery.driver is not None and self._current[:1]
        if not self._current or (shares and shares[0].driver is delivery.driver):
            self._current.append(delivery)
            return True
        # Nested, if the sink or the dead letter wrote to us, or a signal's handler does during
        # the back-off of its own thread: it would wait for itself.
        return any(get_ident() in (current.runner, current.thread) for current in self._current)

    def _end_turn(self, delivery: Delivery) -> None:
        with self._lock:
            if delivery in self._current:
                self._current.remove(delivery)
                self._changed.notify_all()

    def _attempt(self, delivery: Delivery) -> float | None:
        if self._closed:
            raise SinkClosedError
        delivery.runner = get_ident()
        try:
            wait = self._wait_before(delivery)
            if wait > 0:
                return wait
            n = self._piece if self._dst.takes_blocks else 1
            piece = delivery.events[delivery.done : delivery.done + n]
            if self._fits and len(piece) > 1:
                piece = piece[: callbacks.fit(self._dst.sink, piece)]
            callbacks.tell_all(self._listeners, "active", piece)
            try:
                if len(piece) > 1:
                    self._dst.write_many(piece[:])  # a copy: the destination may change it
                else:
                    self._dst.write(piece[0])
            except SinkClosedError:
                raise
            except Exception as error:
                self._failed(delivery, piece, error)
            else:
                self._succeeded(delivery, piece)
        finally:
            delivery.runner = None
        return None if delivery.done == len(delivery.events) else 0.0

    def _wait_before(self, delivery: Delivery) -> float:
        """Seconds to wait; what follows that wait is an attempt, not another wait."""
        if not delivery.waited:
            wait = callbacks.proceed(self._strategy, delivery.events[delivery.done])
            if delivery.not_before:
                wait = max(wait, delivery.not_before - monotonic())
            if wait > 0:
                delivery.waited = True
                self._log.backs_off(wait)
                return min(wait, arguments.FOREVER)
        delivery.waited, delivery.not_before = False, 0.0
        return 0.0

    def _succeeded(self, delivery: Delivery, piece: list[Any]) -> None:
        delivery.failing = False
        delivery.done += len(piece)
        self._piece = max(self._piece, 2 * len(piece))
        self._log.succeeds()
        callbacks.success(self._strategy, piece[0])

    def _failed(self, delivery: Delivery, piece: list[Any], error: Exception) -> None:
        """Wait, take apart, or drop; only an event that failed by itself is dropped."""
        delivery.failing = True
        drop = callbacks.is_permanent(error)
        if not drop:
            after = callbacks.retry_after(error)
            delivery.not_before = monotonic() + after if after else 0.0
            if self._limits is not None:
                first, now = delivery.done, self._limits._failed()
                for i in range(first, first + len(piece)):
                    delivery.since[i] = delivery.since[i] or now
                    delivery.failures[i] += 1
                drop = self._limits._gives_up(delivery.failures[first], delivery.since[first])
            else:
                drop = callbacks.failure(self._strategy, piece[0], error)
        if len(piece) > 1:
            self._piece = len(piece) // 2
        elif drop:
            if self._closed or delivery.taken:
                raise SinkClosedError  # what is left has been, or will be, accounted for
            delivery.done += 1
            with self._lock:
                self._dropped += 1
            self._log.drops(piece[0], error)
            callbacks.bury(self._dead_letter, piece)
            return
        n = len(piece)
        with self._lock:
            self._retries += n
        self._log.retries(piece[0], error)
        callbacks.tell_all(self._listeners, "retry", piece, error)

    def _after_fork(self) -> None:
        super()._after_fork()
        self._current = []

    def _interrupt(self) -> None:
        """Closing: end a back-off that waits on a queue's timer; threads have been notified."""
        for delivery in self._current[:1]:
            if delivery.driver is not None:
                delivery.driver._end_back_off()
