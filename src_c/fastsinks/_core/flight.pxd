"""What a queue has taken from its backlog and not accounted for, and the class that delivers it."""

from cpython.object cimport PyObject

from .backlog cimport Backlog
from .closing cimport Closing
from .delivery cimport Delivery, Driver
from .destination cimport Destination
from .dispatcher cimport Dispatcher, Wakeup
from .latency cimport Latency
from .retrying cimport RetryingSink
from .sink cimport NullSink
from .strand cimport State, Strand
from .sync cimport (
    decref,
    fs_acquire,
    fs_condition,
    fs_generation,
    fs_lock,
    fs_release,
    fs_thread,
    incref,
)


cdef struct Flight:
    # One call of the destination at a time, by whichever worker runs its strand. A queue has
    # `concurrency` of them. Each is idle, held, or its strand is ready, running or on a timer.
    # Guarded by the queue's lock; only the thread that runs its strand puts events into it.
    Strand strand  # the first member, because it is what the dispatcher hands back
    Py_ssize_t count  # events not accounted for; 0 once a closer has taken them over
    fs_thread runner  # the thread that delivers just now, or 0
    Py_ssize_t unreported  # accounted for, but not yet told to listeners and dead letter
    PyObject *single  # the event, where each has a call of its own; the reference is the runner's
    PyObject *block  # else a list, never changed; the flight has a reference to it
    PyObject *delivery  # and to the Delivery of it, with a RetryingSink
    unsigned long long first  # the position of the first event
    bint waits  # for the end of the back-off, before its next attempt
    bint landed  # the destination let go of it; a closer takes it, with a reference to `single`


cdef inline void flight_init(Flight *self) noexcept:
    """Nothing is in flight; what was is leaked on purpose."""
    self.strand.slot = 0
    self.strand.next = NULL
    self.count = self.unreported = 0
    self.runner = 0
    self.single = self.block = self.delivery = NULL
    self.landed = self.waits = False


cdef inline void flight_begin(Flight *self, list block, unsigned long long first) noexcept:
    """A block is in flight from now on."""
    incref(<PyObject *>block)
    self.block = <PyObject *>block
    self.count = len(block)
    self.first = first


cdef inline Py_ssize_t flight_done(Flight *self) noexcept:
    """How many of its events, from the front, are delivered or dropped already."""
    return 0 if self.delivery == NULL else (<Delivery>self.delivery).done


cdef inline Flight flight_end(Flight *self) noexcept:
    """What was in flight, and is no more. The references are the caller's: see flight_drop."""
    cdef Flight ended = self[0]
    if ended.single != NULL and not ended.landed:
        incref(ended.single)
    self.count = 0
    self.single = self.block = self.delivery = NULL
    self.landed = False
    return ended


cdef inline void flight_land(Flight *self) noexcept:
    """The destination has let go of it, after a closer began to wait for that."""
    if self.single != NULL:
        incref(self.single)
    self.landed = True


cdef inline list flight_events(Flight *ended):
    """The events of a flight that has ended, in order; without the lock."""
    if ended.block != NULL:
        return <list>ended.block
    return [<object>ended.single] if ended.single != NULL else []


cdef inline void flight_drop(Flight *ended) noexcept:
    """Give back the references of a flight that has ended; without the lock."""
    if ended.single != NULL:
        decref(ended.single)
    if ended.block != NULL:
        decref(ended.block)
    if ended.delivery != NULL:
        decref(ended.delivery)


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
    REST  # nothing, until its strand is scheduled again
    WAIT  # its strand is on a timer
    DELIVER
    CLOSE


cdef class Carrier(Driver):
    # In the order of use: a thousand queues are in no cache, and what a write and a delivery
    # touch should be few lines of 64 bytes. What has no other guard is guarded by _lock,
    # under which the dispatcher's may be taken.
    cdef Dispatcher _dispatcher  # set once
    cdef bint _slow  # closed, bounded or listened to: accept() sees to it all
    cdef bint _scheduled  # some flight will look for events before it rests
    cdef unsigned long _generation  # of processes: another one after a fork
    cdef unsigned long long _accepted
    cdef unsigned long long _appended  # events that ever entered the backlog
    cdef unsigned long long _mark_due  # the event to mark, or NEVER; see latency.pxd
    cdef Strand *_lingers  # on its timer, until its block is full; or NULL
    cdef Backlog _backlog  # accepted, not yet taken for delivery
    cdef Flight _flight  # the first of them
    cdef Mode _mode  # set once
    cdef bint _troubled  # drops were reported since the last delivery
    cdef unsigned long long _delivered
    cdef unsigned long long _goal  # the least _appended that a flush waits for, or NO_GOAL
    cdef NullSink _null  # set once: dst, with INSTANT
    cdef readonly Py_ssize_t maxsize  # set once
    cdef Closing _closing  # set once, by the first closer; None before
    cdef Strand *_idle  # flights that have nothing to do, linked by `next`
    cdef Strand *_probe  # while the destination backs off: the one that will try; or NULL
    cdef Strand *_held  # flights that wait for that, linked by `next`
    cdef double _back_off_until  # the probe waits so long
    cdef Flight *_more  # set once: the other flights, NULL with concurrency=1
    cdef readonly Py_ssize_t concurrency  # set once
    cdef Destination _dst  # set once
    cdef double _linger  # set once
    cdef tuple _listeners  # set once
    cdef list _announcers  # the threads that tell them of an event to come; each its own entry
    cdef unsigned long long _dropped
    cdef Policy _policy  # set once
    cdef bint _lets_others_run  # set once: what it retries to is in Python
    cdef Py_ssize_t _batch_size  # set once
    cdef unsigned long long _hurry  # _appended at the last flush: no lingering below
    cdef RetryingSink _retrying  # set once: dst, with RETRYING
    cdef Latency *_latency  # with BLOCKS and RETRYING; others do not look at the clock so often
    cdef object _dead_letter  # set once
    cdef object _trouble  # logs drops; set once, at the first
    cdef str _name  # set once
    cdef fs_lock _lock
    cdef fs_condition _space  # there is room, or no more writing: writers wait for it
    cdef fs_condition _done  # something has finished: flush and close wait for it

    # For accepting and closing.
    cdef int add_flights(self, Py_ssize_t concurrency) except -1
    cdef void all_idle(self) noexcept
    cdef Flight *flight(self, Py_ssize_t i) noexcept
    cdef Wakeup start_idle(self) noexcept
    cdef list take(self, Flight *flight, Py_ssize_t most)
    cdef void mark(self) noexcept
    cdef void mark_next(self) noexcept
    cdef object trouble(self)
    cdef int report_drops(self, list dropped, str reason) except -1
    cdef int tell_egress(self, list events) except -1
    cdef int after_fork(self) except -1

    cdef State run(self, Flight *flight) noexcept
    cdef Step next_step(self, Flight *flight) noexcept
    cdef void rest(self, Flight *flight) noexcept
    cdef Wakeup call_another(self) noexcept
    cdef void back_off(self, Flight *flight, double until) noexcept
    cdef Wakeup tried(self, Flight *flight, bint works) noexcept
    cdef Wakeup resume(self) noexcept
    cdef int deliver_instantly(self, double *end) except -1
    cdef int deliver_singles(self, Flight *flight, double *end, PyObject **carried) except -1
    cdef int deliver_block(self, Flight *flight) except -1
    cdef int deliver_step(self, Flight *flight) except -1
    cdef int delivered(self, Flight *flight) except -1
    cdef int failed(self, Flight *flight, object error) except -1
    cdef void measured(self, Flight *flight, Py_ssize_t n) noexcept
    cdef void land(self, Flight *flight) noexcept
    cdef void finish(self, Flight *flight, Py_ssize_t delivered, Py_ssize_t dropped) noexcept
    cdef int observed(self, list block, PyObject *single) except -1
    cdef void reported(self, Flight *flight) noexcept


cdef inline void acquire(Carrier self) noexcept:
    if self._generation != fs_generation():
        self.after_fork()
    fs_acquire(&self._lock)


cdef inline void release_and_wake(Carrier self, Wakeup wakeup) noexcept:
    """Release the lock; then have the worker come that was chosen under it, if any was."""
    fs_release(&self._lock)
    if wakeup != NULL:
        self._dispatcher.wake(wakeup)


cdef inline unsigned long long pending(Carrier self) noexcept:
    return self._accepted - self._delivered - self._dropped


cdef inline unsigned long long taken_up_to(Carrier self) noexcept:
    """The position of the oldest event in the backlog, or of the next to come."""
    return self._appended - self._backlog.count


cdef inline unsigned long long finished_up_to(Carrier self) noexcept:
    """All events before this position are delivered or dropped, and that has been reported."""
    cdef unsigned long long position = taken_up_to(self)
    cdef Flight *flight
    cdef Py_ssize_t i
    if self._more == NULL:
        return position - self._flight.count - self._flight.unreported
    for i in range(self.concurrency):
        flight = self.flight(i)
        if (flight.count or flight.unreported) and flight.first < position:
            position = flight.first
    return position


cdef inline unsigned long long oldest_pending(Carrier self) noexcept:
    """The position of the oldest event in flight or in the backlog, or of the next to come."""
    cdef unsigned long long position = taken_up_to(self)
    cdef Py_ssize_t i
    for i in range(self.concurrency):
        if self.flight(i).count and self.flight(i).first < position:
            position = self.flight(i).first
    return position


cdef inline bint is_full(Carrier self) noexcept:
    return self.maxsize > 0 and pending(self) >= <unsigned long long>self.maxsize


cdef inline bint is_abandoned(Carrier self) noexcept:
    return self._closing is not None and self._closing.abandoned
