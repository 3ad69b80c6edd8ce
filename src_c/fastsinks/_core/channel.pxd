from .sink cimport Sink
from .sync cimport fs_lock, fs_condition


cdef class Offer:
    cdef object event  # set once
    cdef bint taken  # the channel's _lock
    cdef bint withdrawn  # the channel's _lock


cdef class Channel(Sink):
    cdef readonly Py_ssize_t buffer  # set once
    cdef fs_lock _lock
    cdef fs_condition _arrived  # an offer, or closed: readers wait here, and so does done()
    cdef fs_condition _taken  # an offer was taken, or closed: writers wait here
    cdef object _offers  # _lock: a deque, which makes no container when it grows
    cdef Py_ssize_t _count  # _lock: offers that can be taken
    cdef tuple _watchers  # _lock to replace: called when an event arrives, or at the close

    cdef int write_c(self, object event) except -1
    cdef int withdraw(self, Offer offer) except -1
    cdef tuple present(self)
    cdef bint replace(self, tuple known, tuple watchers) except -1
    cdef int after_fork(self) except -1
