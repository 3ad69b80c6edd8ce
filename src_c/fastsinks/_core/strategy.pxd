from .sync cimport fs_lock


cdef class RetryStrategy:
    cdef object __weakref__


cdef class Bounded(RetryStrategy):
    cdef readonly object max_attempts  # set once, like max_elapsed
    cdef readonly object max_elapsed
    cdef bint _limited  # set once: either is given
    cdef fs_lock _lock
    cdef unsigned long long _failures  # _lock: consecutive, of all events
    cdef double _last  # _lock: when the last one was
    cdef dict _tracked  # id of an event -> Tracked; its own operations are atomic

    cdef void acquire(self) noexcept
    cdef double failed(self) noexcept
    cdef bint gives_up(self, unsigned long attempts, double since) except -1


cdef class Breaker(Bounded):
    cdef readonly unsigned long long threshold  # set once
    cdef readonly double backoff  # set once


cdef class ExponentialBackoff(Bounded):
    cdef readonly double base  # set once, like the next two
    cdef readonly double factor
    cdef readonly double max


cdef Bounded own_limits(object strategy)
