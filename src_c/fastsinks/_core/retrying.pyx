# cython: freethreading_compatible=True
"""Trying again. Compare retry.go of docker/go-events.

One block at a time has the sink's turn, from its first attempt to its end, back-offs
included: that is what serialises writes. The turn belongs to the block, not to a thread,
because a queue drives its block a step at a time and by whichever worker is at hand: a
back-off goes on the queue's timer and holds no thread. A thread that writes by itself
waits on `_changed`, which close() notifies.
"""

from fastsinks._core import arguments, callbacks, log
from fastsinks._core.errors import SinkClosedError
from fastsinks._core.log import Burst, Drops, describe_error, describe_sink

from .sink cimport Sink, register_native
from .strategy cimport own_limits
from .sync cimport (
    FS_FOREVER,
    fs_acquire,
    fs_init,
    fs_is_inherited,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_wait,
)

fs_init()

cdef Py_ssize_t WHOLE = 1 << 40  # more events than any block has


cdef class Attempt:
    def __cinit__(self, list events):
        self.events = events


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

    def __init__(self, sink, strategy, *, listeners=(), dead_letter=None):
        super().__init__(sink)
        for method in ("proceed", "failure", "success"):
            if not callable(getattr(strategy, method, None)):
                raise TypeError(f"a strategy needs a {method}() method, {strategy!r} has none")
        self._strategy = strategy
        self._limits = own_limits(strategy)
        self._listeners = arguments.listeners(listeners, "active", "retry")
        if dead_letter is not None:
            arguments.destination(dead_letter, role="a dead letter")
        self._dead_letter = dead_letter
        self._fit = arguments.own_fit(sink, Sink)
        self._label = describe_sink(sink)
        self._retry_trouble = Burst(f"{self._label}: an attempt failed, retrying")
        self._drop_trouble = Drops(f"{self._label}: dropped an event")

    @property
    def retries(self):
        """Events whose attempt failed and was to be repeated, counted each time."""
        return self._retries

    @property
    def dropped(self):
        """Events that were given up."""
        return self._dropped

    def write(self, event, /):
        self.write_list([event])

    def write_many(self, events):
        self.write_list(list(events))

    def close(self, timeout=None):
        """Close the inner sink, interrupting a back-off; its write raises SinkClosedError.

        Every caller returns when that is done; idempotent.
        """
        Wrapper.close(self, timeout)
        self._retry_trouble.over()
        self._drop_trouble.over()

    cdef int write_c(self, object event) except -1:
        return self.write_list([event])

    cdef int write_many_c(self, object events) except -1:
        return self.write_list(list(events))

    cdef int write_list(self, list events) except -1:
        cdef Attempt attempt = Attempt(events)
        cdef double wait
        cdef double deadline
        cdef unsigned int seen
        attempt.thread = fs_self()
        if self._closed:
            self.refuse()
        if not events:
            return 0
        try:
            while True:
                wait = self.step(attempt)
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
            self.end_turn(attempt)

    cdef double step(self, Attempt attempt) except? -2:
        """At most one attempt. Seconds until the next step, or -1 when the block is finished."""
        cdef double wait
        self.take_turn(attempt)
        try:
            wait = self.attempt_once(attempt)
        except BaseException:
            self.end_turn(attempt)
            raise
        if wait < 0:
            self.end_turn(attempt)
        return wait

    cdef int take_turn(self, Attempt attempt) except -1:
        cdef unsigned int seen
        if fs_is_inherited(&self._lock):
            self.after_fork()
        if attempt.held or self._owner == fs_self():
            return 0  # nested: the sink or the dead letter wrote to us, and would wait for itself
        fs_acquire(&self._lock)
        while self._current is not None and not self._closed:
            if self._current.thread == fs_self():  # a signal's handler writes during the back-off
                fs_release(&self._lock)
                return 0
            seen = self._changed.count
            fs_release(&self._lock)
            fs_wait(&self._lock, &self._changed, seen, fs_now() + FS_FOREVER)
            fs_acquire(&self._lock)
        if self._closed:
            fs_release(&self._lock)
            raise SinkClosedError
        self._current = attempt
        attempt.held = True
        fs_release(&self._lock)
        return 0

    cdef void end_turn(self, Attempt attempt) noexcept:
        if not attempt.held:
            return
        attempt.held = False
        fs_acquire(&self._lock)
        self._current = None
        fs_notify(&self._lock, &self._changed)
        fs_release(&self._lock)

    cdef double attempt_once(self, Attempt attempt) except? -2:
        cdef double wait
        cdef list piece
        cdef unsigned long owner = self._owner
        if self._closed:
            raise SinkClosedError
        self._owner = fs_self()
        try:
            event = attempt.events[attempt.done]
            if not attempt.waited:
                wait = callbacks.proceed(self._strategy, event)
                if attempt.not_before:
                    wait = max(wait, attempt.not_before - fs_now())
                if wait > 0:
                    # What follows this wait is an attempt, not another wait.
                    attempt.waited = True
                    if not self._backing_off and self._retry_trouble:
                        self._backing_off = True
                        log.warning("%s: backing off for %.3g s", self._label, wait)
                    return wait
            attempt.waited = False
            attempt.not_before = 0.0
            piece = attempt.events[
                attempt.done : attempt.done + (self._piece if self._dst.takes_blocks else 1)
            ]
            if self._fit is not None and len(piece) > 1:
                piece = piece[: callbacks.fit(self._dst.sink, piece)]
            if self._listeners:
                for event in piece:
                    callbacks.tell(self._listeners, "active", event)
            try:
                if len(piece) > 1:
                    self._dst.write_many(piece[:])  # a copy: the destination may change it
                else:
                    self._dst.write(piece[0])
            except SinkClosedError:
                raise
            except Exception as error:
                self.failed(attempt, piece, error)
            else:
                self.succeeded(attempt, piece)
        finally:
            self._owner = owner
        return -1.0 if attempt.done == len(attempt.events) else 0.0

    cdef int succeeded(self, Attempt attempt, list piece) except -1:
        attempt.done += len(piece)
        if self._piece < WHOLE:
            self._piece = max(self._piece, 2 * len(piece))
        self._backing_off = False
        self._retry_trouble.over()
        self._drop_trouble.over()
        callbacks.success(self._strategy, piece[0])
        return 0

    cdef int failed(self, Attempt attempt, list piece, object error) except -1:
        """Wait, take apart, or drop; only an event that failed by itself is dropped."""
        cdef bint drop = callbacks.is_permanent(error)
        cdef double after
        cdef Py_ssize_t i
        cdef double now
        if not drop:
            after = callbacks.retry_after(error)
            if after:
                attempt.not_before = fs_now() + after
            if self._limits is not None:
                now = self._limits.failed()
                if attempt.failures is None:
                    attempt.failures = [0] * len(attempt.events)
                    attempt.since = [now] * len(attempt.events)
                for i in range(attempt.done, attempt.done + len(piece)):
                    attempt.since[i] = attempt.since[i] if attempt.failures[i] else now
                    attempt.failures[i] += 1
                drop = self._limits.gives_up(
                    attempt.failures[attempt.done], attempt.since[attempt.done]
                )
            else:
                drop = callbacks.failure(self._strategy, piece[0], error)
        if len(piece) > 1:
            self._piece = len(piece) // 2
        elif drop:
            if self._closed or attempt.taken:
                raise SinkClosedError  # what is left has been, or will be, accounted for
            attempt.done += 1
            self._dropped += 1
            self._drop_trouble.happened(piece[0], describe_error(error))
            callbacks.bury(self._dead_letter, piece)
            return 0
        self._retries += len(piece)
        self._retry_trouble.happened(piece[0], describe_error(error), len(piece))
        if self._listeners:
            for event in piece:
                callbacks.tell(self._listeners, "retry", event, error)
        return 0

    cdef int after_fork(self) except -1:
        Wrapper.after_fork(self)
        self._current = None
        self._owner = 0
        return 0

    cdef void interrupt(self) noexcept:
        """Closing: end a back-off that waits on a queue's timer; threads have been notified."""
        cdef Attempt attempt
        fs_acquire(&self._lock)
        attempt = self._current
        fs_release(&self._lock)
        if attempt is not None and attempt.driver is not None:
            driver = attempt.driver  # keeps the strand
            attempt.dispatcher.answer(attempt.dispatcher.expedite(attempt.strand))


register_native(RetryingSink)
