from cpython.object cimport PyObject

from .backlog cimport Backlog
from .destination cimport Destination
from .dispatcher cimport Dispatcher, Outcome, Strand, Summons
from .latency cimport Latency
from .retrying cimport Attempt, RetryingSink
from .sink cimport NullSink, Sink
from .sync cimport fs_flag, fs_lock, fs_signal, fs_thread


cdef enum Policy:
    BLOCK
    RAISE
    DROP_NEWEST
    DROP_OLDEST


cdef enum Mode:  # how to deliver, found out once
    INSTANT  # to a NullSink: a chunk at a time, for it neither blocks nor runs user code
    SINGLE  # an event a call
    BLOCKS  # write_many
    RETRYING  # to a RetryingSink, a step at a time


cdef enum Step:  # what a worker does next
    REST
    LINGER
    DELIVER
    CLOSE


cdef class Queue(Sink):
    # In the order of use: a thousand queues are in no cache, and what a write and a delivery
    # touch should be few lines of 64 bytes. What has no other guard is guarded by _lock,
    # under which the dispatcher's may be taken.
    cdef Dispatcher _dispatcher  # set once
    cdef bint _slow  # closed, bounded or listened to: accept() sees to it all
    cdef bint _scheduled  # the strand is ready, running or on a timer
    cdef unsigned long _generation  # of processes: another one after a fork
    cdef unsigned long long _accepted
    cdef unsigned long long _appended  # events that ever entered the backlog
    cdef unsigned long long _mark_due  # the event to mark, or NEVER; see _latency.pxd
    cdef double _linger_until  # 0: does not linger
    cdef Backlog _backlog  # accepted, not yet taken for delivery
    cdef Strand _strand  # the dispatcher's
    cdef Mode _mode  # set once
    cdef bint _troubled  # drops were reported since the last delivery
    cdef unsigned long long _delivered
    cdef Py_ssize_t _in_flight  # how many events; a closer that gives up on them sets it to 0
    cdef fs_thread _runner  # the thread that delivers just now, or 0
    cdef unsigned long long _goal  # the least _appended that a flush waits for, or NO_GOAL
    cdef Py_ssize_t _settling  # counted, but not yet reported to listeners and dead letter
    cdef NullSink _null  # set once: dst, with INSTANT
    cdef double _linger  # set once
    cdef readonly Py_ssize_t maxsize  # set once
    cdef fs_flag _abandoned  # a closer's deadline has passed
    cdef bint _dst_closing  # somebody closes dst
    cdef Destination _dst  # set once
    cdef tuple _listeners  # set once
    cdef list _announcers  # the threads that tell them of an event to come; each its own entry
    cdef PyObject *_single  # in flight, with SINGLE and INSTANT; the reference is the runner's
    cdef unsigned long long _dropped
    cdef bint _finished  # dst is closed, or a closer has given up
    cdef Policy _policy  # set once
    cdef Py_ssize_t _batch_size  # set once
    cdef unsigned long long _hurry  # _appended at the last flush: no lingering below
    cdef list _block  # in flight, with BLOCKS and RETRYING; never changed
    cdef Attempt _attempt  # how far _block is, with RETRYING
    cdef RetryingSink _retrying  # set once: dst, with RETRYING
    cdef bint _lets_others_run  # set once: what it retries to is in Python
    cdef Latency *_latency  # with BLOCKS and RETRYING; others do not look at the clock so often
    cdef unsigned long long _first  # the position of the first event in flight, likewise
    cdef list _left  # in flight when abandoned, and not delivered
    cdef object _close_error  # raised by dst.close(), for one closer
    cdef double _close_by  # the earliest deadline of all closers
    cdef object _dead_letter  # set once
    cdef object _trouble  # logs drops; set once, at the first
    cdef str _name  # set once
    cdef fs_lock _lock
    cdef fs_signal _space  # there is room, or no more writing: writers wait for it
    cdef fs_signal _done  # something has finished: flush and close wait for it

    cdef int accept(self, tuple events) except -1
    cdef void mark(self) noexcept
    cdef void mark_next(self) noexcept
    cdef int announce(self, tuple events, bint append) except -1
    cdef int append(self, tuple events) except -1
    cdef Summons wake(self) noexcept
    cdef object trouble(self)
    cdef int report(self, list lost, str reason) except -1
    cdef int tell_egress(self, list events) except -1
    cdef Outcome turn(self) noexcept
    cdef Step next_step(self) noexcept
    cdef int deliver_instantly(self, double *end) except -1
    cdef int deliver_singles(self, double *end, PyObject **finished) except -1
    cdef int deliver_block(self) except -1
    cdef double deliver_step(self) except -1
    cdef list take_block(self)
    cdef void measured(self, Py_ssize_t n) noexcept
    cdef int failed(self, object error) except -1
    cdef int observed(self, list block, PyObject *single) except -1
    cdef void finish(self, Py_ssize_t delivered, Py_ssize_t dropped) noexcept
    cdef int delivered(self, list block) except -1
    cdef void settled(self) noexcept
    cdef bint wait(self, unsigned long long goal, bint closing, double deadline) except -1
    cdef int abandon(self) except -1
    cdef list take_waiting(self)
    cdef int after_fork(self) except -1
