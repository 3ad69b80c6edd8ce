from .destination cimport Destination
from .sink cimport Sink
from .sync cimport fs_lock, fs_condition


cdef class Wrapper(Sink):
    cdef Destination _dst  # set once
    cdef fs_lock _lock
    cdef fs_condition _changed  # of the fields below and of the subclass's
    cdef unsigned long _closer  # _lock: the thread that closes the inner sink
    cdef bint _closing  # _lock: somebody does
    cdef bint _finished  # _lock: it is closed

    cdef int refuse(self) except -1
    cdef void interrupt(self) noexcept
    cdef int after_fork(self) except -1
