# cython: freethreading_compatible=True
"""When to try again, and when to give up. Compare retry.go of docker/go-events."""

from fastsinks._core import arguments, backoff

from .sync cimport fs_acquire, fs_init, fs_is_inherited, fs_lock_init, fs_now, fs_release

fs_init()


cdef class RetryStrategy:
    """Decides when to attempt a write, and whether to give up. Subclass it, or be like it.

    One strategy may serve several sinks: its methods are called by any thread, under no
    lock. This one never waits and never gives up.
    """

    def proceed(self, event):
        """Seconds to wait before an attempt; asked once, the wait is not followed by another."""
        return 0.0

    def failure(self, event, error):
        """An attempt failed with ``error``. True drops the event."""
        return False

    def success(self, event):
        """An attempt succeeded."""


cdef class Tracked:
    """One event's attempts, for a caller of failure() that does not count for itself."""

    cdef object event  # set once: kept, so that its id stays its own
    cdef unsigned long attempts  # the strategy's _lock
    cdef double since  # set once


cdef class Bounded(RetryStrategy):
    """Counts consecutive failures, of all events; gives up on an event by its own count.

    The first drives the back-off and may be shared by several sinks; attempts are an
    event's own, or one sink's failures would use up another one's.
    """

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        self._tracked = {}

    def __init__(self, max_attempts=None, max_elapsed=None):
        self.max_attempts, self.max_elapsed = arguments.limits(max_attempts, max_elapsed)
        self._limited = max_attempts is not None or max_elapsed is not None

    def failure(self, event, error):
        """Count a failure; true once this event has used up its attempts or its time."""
        cdef double now = self.failed()
        cdef Tracked tracked
        cdef unsigned long attempts
        cdef bint drop
        if not self._limited:
            return False
        tracked = Tracked()
        tracked.event = event
        tracked.since = now
        tracked = self._tracked.setdefault(id(event), tracked)
        self.acquire()
        tracked.attempts += 1  # of another sink at the same moment, too
        attempts = tracked.attempts
        fs_release(&self._lock)
        drop = self.gives_up(attempts, tracked.since)
        if drop:
            self._tracked.pop(id(event), None)
        return drop

    def success(self, event):
        """Count a success: the failures in a row are over."""
        self.acquire()
        self._failures = 0
        fs_release(&self._lock)
        if self._tracked:
            self._tracked.pop(id(event), None)

    cdef void acquire(self) noexcept:
        if fs_is_inherited(&self._lock):
            fs_lock_init(&self._lock)
        fs_acquire(&self._lock)

    cdef double failed(self) noexcept:
        cdef double now = fs_now()
        self.acquire()
        self._failures += 1
        self._last = now
        fs_release(&self._lock)
        return now

    cdef bint gives_up(self, unsigned long attempts, double since) except -1:
        if not self._limited:
            return False
        return backoff.gives_up(self.max_attempts, self.max_elapsed, attempts, fs_now() - since)


cdef class Breaker(Bounded):
    """No wait below ``threshold`` consecutive failures, then ``backoff`` seconds since the last.

    Never drops unless ``max_attempts`` or ``max_elapsed`` (seconds since an event's first
    failure) is given. Thread-safe; may be shared. Time is monotonic.
    """

    def __init__(self, threshold, backoff, *, max_attempts=None, max_elapsed=None):
        super().__init__(max_attempts, max_elapsed)
        self.threshold = arguments.size("threshold", threshold)
        self.backoff = arguments.seconds("backoff", backoff)

    def proceed(self, event):
        """What is left of the back-off, in seconds."""
        cdef unsigned long long n
        cdef double last
        self.acquire()
        n = self._failures
        last = self._last
        fs_release(&self._lock)
        if n == 0:  # as nearly always
            return 0.0
        return backoff.breaker(n, self.threshold, fs_now() - last, self.backoff)


cdef class ExponentialBackoff(Bounded):
    """After n failures in a row a uniform draw from ``[0, min(max, base + factor * 2**(n-1)))``.

    Never drops unless ``max_attempts`` or ``max_elapsed`` (seconds since an event's first
    failure) is given. Thread-safe; may be shared.
    """

    def __init__(self, base=1.0, factor=1.0, max=20.0, *, max_attempts=None, max_elapsed=None):
        super().__init__(max_attempts, max_elapsed)
        self.base = arguments.seconds("base", base)
        self.factor = arguments.seconds("factor", factor)
        self.max = arguments.seconds("max", max)

    def proceed(self, event):
        """A new draw, in seconds."""
        cdef unsigned long long n
        self.acquire()
        n = self._failures
        fs_release(&self._lock)
        if n == 0:  # as nearly always
            return 0.0
        return backoff.exponential(n, self.base, self.factor, self.max)


cdef Bounded own_limits(object strategy):
    """The strategy, if its failure() is ours: its sink then counts an event's attempts."""
    if isinstance(strategy, Bounded) and type(strategy).failure is Bounded.failure:
        return <Bounded>strategy
    return None
