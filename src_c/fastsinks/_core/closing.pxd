from .sync cimport fs_flag


cdef class Closing:
    # Guarded by the queue's lock; `abandoned` is also read without it.
    cdef double by  # the earliest deadline of all closers
    cdef bint started  # somebody closes the destination, or has
    cdef fs_flag abandoned  # a closer's deadline has passed: it takes what is left
    cdef bint finished  # the destination is closed, or a closer has abandoned it
    cdef object error  # raised by the destination's close(), for one closer

    # Under the lock, but for close().
    cdef bint start(self) noexcept
    cdef bint abandon(self) noexcept
    cdef object close(self, object sink, double left, str name)
    cdef object take_error(self)
    cdef void after_fork(self) noexcept
