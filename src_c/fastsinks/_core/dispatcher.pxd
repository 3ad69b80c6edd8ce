from cpython.object cimport PyObject

from .sync cimport fs_condition, fs_count, fs_flag, fs_lock, fs_number, fs_signal, fs_spot

cdef extern from "sync.h":
    ctypedef Strand *First "fs_pointer"


cdef enum Outcome:
    IDLE  # nothing to do, until scheduled again
    MORE  # would go on, but others are to have their turn
    TIMED  # has put itself on a timer


cdef struct Strand:
    # What runs one after the other: the dispatcher's side of a queue.
    #
    # It is idle, ready, running or on a timer; while it is not idle, the dispatcher owns
    # a reference to `owner`.
    PyObject *owner  # set once
    Outcome (*run)(PyObject *owner) noexcept  # set once; called with the GIL, under no lock
    Strand *next  # dispatcher's lock: in the list of the ready
    Py_ssize_t slot  # dispatcher's lock: index in the timers + 1, 0 if not there
    double when  # dispatcher's lock: of the timer


# Whom call() wants at work: NULL nobody, START a new worker, else the one at that spot.
ctypedef fs_spot *Summons


cdef class Dispatcher:
    cdef object __weakref__
    cdef readonly int max_workers  # set once, like the next two
    cdef readonly double idle_timeout
    cdef readonly str name

    cdef fs_lock _lock  # guards all below; the last in the order of locks
    cdef fs_spot *_spots  # where standing workers wait for a turn
    cdef fs_condition _watch  # the one that keeps the time waits here
    cdef fs_signal _change  # closers wait here
    cdef First _first  # the ready, in order; queues look without the lock
    cdef Strand *_last
    cdef Strand **_timers  # a binary heap by `when`
    cdef Py_ssize_t _timed  # how many
    cdef Py_ssize_t _room  # how many fit
    cdef Py_ssize_t _strands  # how many exist, each of which has room in the heap
    cdef Py_ssize_t _busy  # how many are not idle
    cdef Py_ssize_t _open  # how many belong to queues that are not closed
    cdef fs_number _workers  # alive or being started; queues look without the lock
    cdef int _coming  # ... of which so many have not yet begun to work
    cdef int _standing  # parked at a spot, waiting for a turn
    cdef bint _watching  # one more is parked: it keeps the time
    cdef bint _ticking  # ... and looks every millisecond whether running workers are blocked
    cdef bint _called  # a worker has been called, or started, and has not yet come
    cdef int _running  # workers that have a turn
    cdef int _inside  # ... of which so many call a destination, since the epoch began
    cdef int _limit  # how many may have one
    cdef unsigned long _epoch  # counts the times that all running workers lost their turn
    cdef fs_count _progress  # moves whenever something is delivered; not exact
    cdef fs_flag _closing  # close() has been called
    cdef fs_flag _stopped  # ... and is over: workers leave

    # For queues. A result that is not NULL is for answer(), called with no lock held.
    cdef int attach(self) except -1
    cdef void detach(self) noexcept
    cdef void closed_one(self) noexcept
    cdef Summons schedule(self, Strand *strand) noexcept  # was idle
    cdef void schedule_at(self, Strand *strand, double when, bint lingers) noexcept  # is running
    cdef Summons expedite(self, Strand *strand) noexcept  # if on a timer
    cdef void answer(self, Summons call) noexcept
    cdef bint needs_stand_by(self) noexcept
    cdef void not_started(self) noexcept
    cdef bint may_need_help(self) except -1
    cdef bint is_deserted(self, bint is_worker) noexcept nogil
    cdef bint help(self) except -1

    cdef Summons call(self) noexcept nogil
    cdef void promote(self, double now) noexcept nogil
    cdef void push_ready(self, Strand *strand) noexcept nogil
    cdef Strand *pop_ready(self) noexcept nogil
    cdef void settle(self, Strand *strand, Outcome outcome) noexcept nogil
    cdef Summons pop_spot(self) noexcept nogil
    cdef void call_all(self) noexcept nogil
    cdef bint park(self, fs_spot *spot) noexcept nogil
    cdef int work(self) except -1
    cdef void acquire(self) noexcept
    cdef void after_fork(self) noexcept


cdef Dispatcher default_dispatcher()
