from .sink cimport Sink
from .sync cimport fs_thread


cdef class Driver(Sink):
    # A queue, as a RetryingSink knows it.
    cdef int end_back_off(self) except -1


cdef class Delivery:
    # Guarded by the RetryingSink's turn, but for what a closer of the driver uses when it takes
    # the block over: the turn may then go on.
    cdef list events  # set once
    cdef Py_ssize_t done  # events that are finished, from the front; the closer reads it
    cdef bint waited  # the wait that the strategy asked for is over
    cdef bint taken  # the closer sets it: it could not wait, and has accounted for the rest
    cdef bint held  # this block has the sink's turn
    cdef bint failing  # its latest attempt has failed
    cdef fs_thread runner  # the thread that is in an attempt at it, or 0
    cdef double not_before  # what a receiver's retry_after asks for; 0 if nothing
    cdef list failures  # by event, once there are any
    cdef list since  # each event's first failure
    cdef unsigned long thread  # set once: the one that writes by itself and waits; 0 for a queue's
    cdef Driver driver  # set once: the queue that takes the steps; None where a thread waits
