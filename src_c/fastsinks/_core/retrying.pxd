from .dispatcher cimport Dispatcher, Strand
from .strategy cimport Bounded
from .sync cimport fs_count, fs_thread
from .wrapper cimport Wrapper


cdef class Attempt:
    # How far one block has got. Guarded by its sink's turn, but for what its driver's closer
    # uses when it gives up on the block, in a turn that goes on.
    cdef list events  # set once
    cdef Py_ssize_t done  # events that are finished, from the front; the closer reads it
    cdef bint waited  # the wait that the strategy asked for is over
    cdef bint taken  # the closer's to set: it could not wait, and has accounted for the rest
    cdef bint held  # this block has the sink's turn
    cdef double not_before  # what a receiver's retry_after asks for; 0 if nothing
    cdef list failures  # by event, once there are any
    cdef list since  # each event's first failure
    cdef unsigned long thread  # set once: that writes by itself, and sits its back-offs out; or 0
    cdef object driver  # set once: the queue that drives it by steps; None for a blocked thread
    cdef Dispatcher dispatcher  # set once: the driver's, like its strand
    cdef Strand *strand  # set once


cdef class RetryingSink(Wrapper):
    cdef object _strategy  # set once, like the next five
    cdef object _fit  # the sink's, if it has an opinion on how much to attempt at once
    cdef Bounded _limits  # the strategy, if the counting of attempts is left to this sink
    cdef tuple _listeners
    cdef object _dead_letter
    cdef str _label  # set once: what log lines call the sink
    cdef bint _backing_off  # and the log says so; the turn's
    cdef object _retry_trouble  # set once, like the next
    cdef object _drop_trouble
    cdef Attempt _current  # _lock: whose turn it is
    cdef fs_thread _owner  # the thread that is in _try, by the turn
    cdef Py_ssize_t _piece  # events to attempt at once; by the turn
    cdef fs_count _retries  # the turn's to write, like the next
    cdef fs_count _dropped

    cdef int write_list(self, list events) except -1
    cdef double step(self, Attempt attempt) except? -2  # seconds to wait, -1 when finished
    cdef int take_turn(self, Attempt attempt) except -1
    cdef void end_turn(self, Attempt attempt) noexcept
    cdef double attempt_once(self, Attempt attempt) except? -2
    cdef int succeeded(self, Attempt attempt, list piece) except -1
    cdef int failed(self, Attempt attempt, list piece, object error) except -1
