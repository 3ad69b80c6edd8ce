from .strand cimport State, Strand
from .sync cimport fs_bed, fs_condition, fs_count, fs_flag, fs_lock, fs_number, fs_spot
from .timers cimport Timers

cdef extern from "sync.h":
    ctypedef Strand *First "fs_pointer"


# Which worker to wake: NULL for none, START for a new one, else the one at that spot.
ctypedef fs_spot *Wakeup


cdef class Dispatcher:
    cdef object __weakref__
    cdef readonly int max_workers  # set once, like the next two
    cdef readonly double idle_timeout
    cdef readonly str name

    cdef fs_lock _lock  # guards all below; the last in the order of locks
    cdef fs_spot *_spots  # where workers stand by
    cdef fs_bed _watch  # where the worker sleeps that watches the time
    cdef fs_condition _change  # closers wait here
    cdef First _first  # the ready strands, in order; queues read it without the lock
    cdef Strand *_last
    cdef Timers _timers
    cdef Py_ssize_t _busy  # how many strands are not idle
    cdef Py_ssize_t _open  # how many belong to queues that are not closed
    cdef fs_number _workers  # alive or being started; queues read it without the lock
    cdef int _coming  # ... of these, those that have not yet begun to work
    cdef int _standing  # ... and those that stand by at a spot
    cdef bint _watching  # one more is parked: it watches the time
    cdef bint _ticking  # ... and checks every millisecond whether active workers are blocked
    cdef bint _woken  # a worker has been woken, or started, and has not yet come
    cdef int _active  # workers that may take strands from the list
    cdef int _inside  # ... of these, those that call a destination, since the epoch began
    cdef int _limit  # how many may be active
    cdef unsigned long _epoch  # how often those inside were declared blocked, and so not active
    cdef fs_count _progress  # grows whenever something is delivered; not exact
    cdef fs_flag _closing  # close() has been called
    cdef fs_flag _stopped  # ... and is over: workers leave

    # For queues. A result that is not NULL is for wake(), called with no lock held.
    cdef int attach(self, Py_ssize_t strands) except -1
    cdef void detach(self, Py_ssize_t strands) noexcept
    cdef void closed_one(self) noexcept
    cdef Wakeup schedule(self, Strand *strand) noexcept  # it was idle
    cdef void postpone(self, Strand *strand, double when) noexcept  # if it is on a timer
    cdef void schedule_at(self, Strand *strand, double when, bint lingers) noexcept  # it is running
    cdef Wakeup expedite(self, Strand *strand) noexcept  # if it is on a timer
    cdef void wake(self, Wakeup wakeup) noexcept
    cdef bint may_need_help(self) except -1
    cdef bint help(self) except -1

    cdef void acquire(self) noexcept
    cdef void push_ready(self, Strand *strand) noexcept nogil
    cdef Strand *pop_ready(self) noexcept nogil
    cdef void promote(self, double now) noexcept nogil
    cdef void put_back(self, Strand *strand, State state) noexcept nogil
    cdef Wakeup choose_wakeup(self) noexcept nogil
    cdef Wakeup hire(self) noexcept nogil
    cdef bint needs_stand_by(self) noexcept
    cdef void not_started(self) noexcept
    cdef bint is_deserted(self, bint is_worker) noexcept nogil
    cdef Wakeup pop_spot(self) noexcept nogil
    cdef void wake_all(self) noexcept nogil
    cdef bint park(self, fs_spot *spot) noexcept nogil
    cdef int work(self) except -1
    cdef void after_fork(self) noexcept


cdef Dispatcher default_dispatcher()
