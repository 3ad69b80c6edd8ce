# cython: freethreading_compatible=True
"""Trying again. Compare retry.go of docker/go-events.

One block at a time has the sink's turn, from its first attempt to its end, back-offs
included: that is what serialises writes. The blocks of one queue share the turn, as many as
its `concurrency` allows. The turn belongs to the block, not to a thread, because a queue
drives its blocks a step at a time and by whichever worker is at hand: a back-off goes on the
queue's timer and holds no thread. A thread that writes by itself waits on `_changed`, which
close() notifies.
"""

from fastsinks._core import arguments, callbacks
from fastsinks._core.errors import SinkClosedError
from fastsinks._core.retry_log import RetryLog

from .callbacks cimport write, write_many
from .delivery cimport Delivery, Driver
from .sink cimport Sink, register_native
from .strategy cimport own_limits
from .sync cimport (
    FS_ADD,
    FS_READ,
    fs_acquire,
    fs_init,
    fs_is_inherited,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_wait,
)
from .times cimport FS_FOREVER

fs_init()

cdef unsigned long long WHOLE = 1 << 40  # more events than any block has


cdef class RetryingSink(Wrapper):
    """Writes until success, until the strategy drops the event, or until closed.

    Any thread may write. Writes are serialised, and block while they back off; a queue
    that delivers to this sink blocks no thread. An exception of the sink with a true
    ``permanent`` is not retried; one with ``retry_after`` (seconds) is waited for, even if
    the strategy asks for less. A dropped event goes to ``dead_letter``, is logged, and
    ``write`` returns. A block that fails is taken apart: only an event that failed by
    itself is dropped. SinkClosedError, of the inner sink or by ``close`` from any thread,
    ends the write. A Sink that has ``fit(events)`` is asked how many of a block, from its
    front, it wants to be written together. Listeners have ``active(event)``, called before
    each attempt, and ``retry(event, error)``.
    """

    def __cinit__(self, *args, **kwargs):
        self._piece = WHOLE
        self._current = []

    def __init__(self, sink, strategy, *, listeners=(), dead_letter=None):
        super().__init__(sink)
        self._strategy = arguments.strategy(strategy)
        self._limits = own_limits(strategy)
        self._listeners = arguments.listeners(listeners, "active", "retry")
        self._dead_letter = arguments.dead_letter(dead_letter)
        self._fit = arguments.own_fit(sink, Sink)
        self._log = RetryLog(sink)

    @property
    def retries(self):
        """Events whose attempt failed and was to be repeated, counted each time."""
        return FS_READ(self._retries)

    @property
    def dropped(self):
        """Events that were dropped."""
        return FS_READ(self._dropped)

    def write(self, event, /):
        self.write_list([event])

    def write_many(self, events):
        self.write_list(list(events))

    def close(self, timeout=None):
        """Close the inner sink, interrupting a back-off; its write raises SinkClosedError.

        Every caller returns when that is done; idempotent.
        """
        Wrapper.close(self, timeout)
        self._log.over()

    cdef int write_c(self, object event) except -1:
        return self.write_list([event])

    cdef int write_many_c(self, object events) except -1:
        return self.write_list(list(events))

    cdef int write_list(self, list events) except -1:
        cdef Delivery delivery = Delivery(events)
        cdef double wait
        cdef double deadline
        cdef unsigned int seen
        delivery.thread = fs_self()
        if self._closed:
            self.refuse()
        if not events:
            return 0
        try:
            while True:
                wait = self.step(delivery)
                if wait < 0:
                    return 0
                deadline = fs_now() + min(wait, FS_FOREVER)
                while not self._closed and fs_now() < deadline:
                    fs_acquire(&self._lock)
                    seen = self._changed.count
                    fs_release(&self._lock)
                    if not self._closed:
                        fs_wait(&self._lock, &self._changed, seen, deadline)
        finally:
            self.end_turn(delivery)

    cdef double step(self, Delivery delivery) except? -2:
        """At most one attempt. Seconds until the next step, or -1 when the block is finished."""
        cdef double wait
        self.take_turn(delivery)
        try:
            wait = self.attempt(delivery)
        except BaseException:
            self.end_turn(delivery)
            raise
        if wait < 0:
            self.end_turn(delivery)
        return wait

    cdef int take_turn(self, Delivery delivery) except -1:
        cdef unsigned int seen
        if fs_is_inherited(&self._lock):
            self.after_fork()
        if delivery.held:
            return 0
        fs_acquire(&self._lock)
        while not self._closed and not self.may_go(delivery):
            if self.is_nested():
                fs_release(&self._lock)
                return 0
            seen = self._changed.count
            fs_release(&self._lock)
            fs_wait(&self._lock, &self._changed, seen, fs_now() + FS_FOREVER)
            fs_acquire(&self._lock)
        if self._closed:
            fs_release(&self._lock)
            raise SinkClosedError
        self._current.append(delivery)
        delivery.held = True
        fs_release(&self._lock)
        return 0

    cdef bint may_go(self, Delivery delivery):
        """Under the lock: whether nobody has the turn, or blocks of the same queue."""
        if not self._current:
            return True
        return delivery.driver is not None and (<Delivery>self._current[0]).driver is delivery.driver

    cdef bint is_nested(self):
        """Under the lock: whether the calling thread would wait for itself.

        The sink or the dead letter wrote to us, or a signal's handler does during a back-off.
        """
        cdef Delivery current
        for current in self._current:
            if current.runner == fs_self() or current.thread == fs_self():
                return True
        return False

    cdef void end_turn(self, Delivery delivery) noexcept:
        if not delivery.held:
            return
        delivery.held = False
        fs_acquire(&self._lock)
        self._current.remove(delivery)
        fs_notify(&self._lock, &self._changed)
        fs_release(&self._lock)

    cdef double attempt(self, Delivery delivery) except? -2:
        cdef double wait
        cdef list piece
        cdef unsigned long long size = self._piece
        if self._closed:
            raise SinkClosedError
        delivery.runner = fs_self()
        try:
            event = delivery.events[delivery.done]
            if not delivery.waited:
                wait = callbacks.proceed(self._strategy, event)
                if delivery.not_before:
                    wait = max(wait, delivery.not_before - fs_now())
                if wait > 0:
                    # What follows this wait is an attempt, not another wait.
                    delivery.waited = True
                    self._log.backs_off(wait)
                    return wait
            delivery.waited = False
            delivery.not_before = 0.0
            piece = delivery.events[
                delivery.done : delivery.done + (size if self._dst.takes_blocks else 1)
            ]
            if self._fit is not None and len(piece) > 1:
                piece = piece[: callbacks.fit(self._dst.sink, piece)]
            if self._listeners:
                callbacks.tell_all(self._listeners, "active", piece)
            try:
                if len(piece) > 1:
                    write_many(self._dst, piece[:])  # a copy: the destination may change it
                else:
                    write(self._dst, piece[0])
            except SinkClosedError:
                raise
            except Exception as error:
                self.failed(delivery, piece, error)
            else:
                self.succeeded(delivery, piece)
        finally:
            delivery.runner = 0
        return -1.0 if delivery.done == len(delivery.events) else 0.0

    cdef int succeeded(self, Delivery delivery, list piece) except -1:
        cdef unsigned long long grown = 2 * len(piece)
        delivery.failing = False
        delivery.done += len(piece)
        if self._piece < grown:
            self._piece = grown
        self._log.succeeds()
        callbacks.success(self._strategy, piece[0])
        return 0

    cdef int failed(self, Delivery delivery, list piece, object error) except -1:
        """Wait, take apart, or drop; only an event that failed by itself is dropped."""
        cdef bint drop = callbacks.is_permanent(error)
        cdef double after
        cdef Py_ssize_t i
        cdef double now
        delivery.failing = True
        if not drop:
            after = callbacks.retry_after(error)
            if after:
                delivery.not_before = fs_now() + after
            if self._limits is not None:
                now = self._limits.failed()
                if delivery.failures is None:
                    delivery.failures = [0] * len(delivery.events)
                    delivery.since = [now] * len(delivery.events)
                for i in range(delivery.done, delivery.done + len(piece)):
                    delivery.since[i] = delivery.since[i] if delivery.failures[i] else now
                    delivery.failures[i] += 1
                drop = self._limits.gives_up(
                    delivery.failures[delivery.done], delivery.since[delivery.done]
                )
            else:
                drop = callbacks.failure(self._strategy, piece[0], error)
        if len(piece) > 1:
            self._piece = len(piece) // 2
        elif drop:
            if self._closed or delivery.taken:
                raise SinkClosedError  # what is left has been, or will be, accounted for
            delivery.done += 1
            FS_ADD(self._dropped, 1)
            try:
                self._log.drops(piece[0], error)
            finally:  # Ctrl-C
                callbacks.bury(self._dead_letter, piece)
            return 0
        FS_ADD(self._retries, len(piece))
        self._log.retries(piece[0], error)
        if self._listeners:
            callbacks.tell_all(self._listeners, "retry", piece, error)
        return 0

    cdef int after_fork(self) except -1:
        Wrapper.after_fork(self)
        self._current = []
        return 0

    cdef void interrupt(self) noexcept:
        """Closing: end a back-off that waits on a queue's timer; threads have been notified."""
        cdef Driver driver = None
        fs_acquire(&self._lock)
        if self._current:
            driver = (<Delivery>self._current[0]).driver
        fs_release(&self._lock)
        if driver is not None:
            driver.end_back_off()


register_native(RetryingSink)
