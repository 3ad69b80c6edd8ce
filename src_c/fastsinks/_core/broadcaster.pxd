from cpython.object cimport PyObject

from .destination cimport Destination
from .sink cimport Sink
from .sync cimport fs_count, fs_lock, fs_condition


cdef class Snapshot:
    # The sinks at one moment; never changed.
    cdef tuple destinations  # a Destination each
    cdef PyObject **natives  # borrowed from it: the sink, if compiled, else NULL
    cdef Py_ssize_t count


cdef class Broadcaster(Sink):
    cdef fs_lock _lock
    cdef fs_condition _changed  # the turn is free, or the broadcaster closed
    cdef Snapshot _snapshot  # _lock to replace
    cdef unsigned long _owner  # _lock: the thread whose turn it is, or 0
    cdef list _deferred  # the owner's: blocks, or None for close(), from inside its write
    cdef unsigned long _closer  # _lock: the thread that closes the sinks, or 0
    cdef bint _finished  # _lock: all sinks are closed
    cdef list _unclosed  # the closer's: those whose close() has not ended; at first None
    cdef fs_count _dropped  # the owner's to write
    cdef object _refusals  # what the log says of sinks that refuse
    cdef dict _bursts  # its own: not empty while there are such sinks

    cdef bint replace(self, Snapshot old, Snapshot new) except -1
    cdef int send(self, object event, tuple block) except -1
    cdef bint start_to_close(self, double deadline) except -1
    cdef int take_turn(self) except -1
    cdef int end_turn(self, object fatal) except -1
    cdef object fan_out(self, object event, tuple block)
    cdef int hand_on(self, Destination dst, object event, tuple block) except -1
    cdef object refused(self, object sink, object event, Py_ssize_t n, object error, object fatal)
    cdef object accepted(self, object sink, object fatal)
    cdef int close_all(self, double deadline) except -1
    cdef int after_fork(self) except -1
