# cython: freethreading_compatible=True
"""The workers' half of a queue: from the backlog through a flight to the destination.

A worker of the dispatcher runs a flight of the queue. It takes what is next, which from then
on is in flight, calls the destination with no lock held, and accounts for what came of it. A
flight that takes events and leaves some has an idle flight carry those.

A back-off belongs to the destination, and so to all flights. The first that has to wait is the
probe; the others are held until an attempt of its succeeds. None of them holds a thread.

A closer that abandons the queue takes the backlog, closes the destination, and after a moment
of grace also ends the flights. A worker that finds nothing in flight after a call of the
destination has nothing to account for.
"""

cimport cython
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free

from fastsinks._core import callbacks, log, stats, thread_state, wording
from fastsinks._core.log import describe_error

from .backlog cimport (
    FEW,
    Chunk,
    backlog_clear,
    backlog_detach,
    backlog_init,
    backlog_pop,
    free_chunk,
)
from .callbacks cimport write, write_many
from .delivery cimport Delivery
from .dispatcher cimport Wakeup
from .latency cimport BUCKETS, latency_done, latency_latest, latency_mark
from .sink cimport uninitialised
from .strand cimport IDLE, READY, TIMED, State
from .sync cimport (
    decref,
    fs_acquire,
    fs_breathe,
    fs_condition_init,
    fs_generation,
    fs_init,
    fs_lock_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
)
from .times cimport FS_FOREVER, MARKING, QUANTUM, QUICK

cdef extern from "Python.h":
    void Py_SET_SIZE(object, Py_ssize_t)

cdef extern from *:
    """
    #define PyList_SET_ITEM_pointer(list, i, item) PyList_SET_ITEM(list, i, item)
    """
    void PyList_SET_ITEM_pointer(list, Py_ssize_t, PyObject *)

fs_init()

cdef Py_ssize_t BREATH = 1 << 16  # events dropped in one go, of a few nanoseconds each
cdef unsigned long long NO_GOAL = <unsigned long long>-1
cdef unsigned long long NEVER = <unsigned long long>-1
cdef double[BUCKETS - 1] BOUNDS = stats.LATENCY_BOUNDS


cdef State run(Strand *strand) noexcept:
    # A reference of its own: once the strand is on a timer, another worker may run it, find
    # nothing left and drop the dispatcher's, while this one still leaves.
    cdef Carrier carrier = <Carrier>strand.owner
    return carrier.run(<Flight *>strand)


@cython.no_gc_clear  # the dispatcher is needed in __dealloc__; cycles end at the destination
cdef class Carrier(Driver):
    """Carries what a queue has accepted to the destination, in one flight or several."""

    def __cinit__(self, *args, **kwargs):
        self._generation = fs_generation()
        fs_lock_init(&self._lock)
        fs_condition_init(&self._space)
        fs_condition_init(&self._done)
        backlog_init(&self._backlog)
        self._flight.strand.owner = <PyObject *>self
        self._flight.strand.run = run
        self._idle = &self._flight.strand
        self.concurrency = 1
        self._goal = NO_GOAL
        self._announcers = []
        self._mark_due = NEVER
        self._closed = self._slow = True  # until there is a destination

    def __dealloc__(self):
        cdef Flight ended
        cdef Py_ssize_t i
        free(self._latency)
        if self._dst is not None:  # else it is not even attached
            while self._backlog.count:
                decref(backlog_pop(&self._backlog))
            backlog_clear(&self._backlog)
            for i in range(self.concurrency):
                if self.flight(i).landed:  # and its closer was interrupted
                    ended = flight_end(self.flight(i))
                    flight_drop(&ended)
            if not self._closed:
                self._dispatcher.closed_one()
            self._dispatcher.detach(self.concurrency)
        free(self._more)

    @property
    def name(self):
        """What log lines call the queue."""
        if self._dst is None:
            uninitialised(self)
        if self._name is None:
            return wording.queue_name(self._dst.sink)
        return self._name

    # ------------------------------------------------------------------------- flights

    cdef int add_flights(self, Py_ssize_t concurrency) except -1:
        """To the first one, before any of them runs."""
        cdef Py_ssize_t i
        if concurrency == 1:
            return 0
        self._more = <Flight *>calloc(concurrency - 1, sizeof(Flight))
        if self._more == NULL:
            raise MemoryError
        self.concurrency = concurrency
        for i in range(concurrency - 1):
            self._more[i].strand = self._flight.strand
        self.all_idle()
        return 0

    cdef void all_idle(self) noexcept:
        """Nothing is in flight."""
        cdef Py_ssize_t i
        self._idle = self._lingers = self._probe = self._held = NULL
        for i in range(self.concurrency - 1, -1, -1):
            flight_init(self.flight(i))
            self.rest(self.flight(i))

    cdef Flight *flight(self, Py_ssize_t i) noexcept:
        return &self._flight if i == 0 else &self._more[i - 1]

    cdef Wakeup start_idle(self) noexcept:
        """Under the lock: have an idle flight look for events, unless the destination backs off."""
        cdef Strand *strand = self._idle
        if strand == NULL or self._probe != NULL:
            return NULL
        self._idle = strand.next
        strand.next = NULL
        self._scheduled = True
        return self._dispatcher.schedule(strand)

    cdef void rest(self, Flight *flight) noexcept:
        """Under the lock: a flight has nothing to do."""
        flight.strand.next = self._idle
        self._idle = &flight.strand
        self._scheduled = self._lingers != NULL

    cdef Wakeup call_another(self) noexcept:
        """Under the lock: events were taken. If some are left, an idle flight is to come."""
        if self._idle == NULL:
            return NULL
        if self._backlog.count:
            return self.start_idle()
        self._scheduled = self._lingers != NULL
        return NULL

    # ------------------------------------------------------------------------ back-off

    cdef void back_off(self, Flight *flight, double until) noexcept:
        """Under the lock: the destination is to be left alone until then."""
        self._back_off_until = max(self._back_off_until, until)
        if self._probe == NULL:
            self._probe = &flight.strand
        flight.waits = self._probe == &flight.strand
        if not flight.waits:
            self._dispatcher.postpone(self._probe, self._back_off_until)

    cdef Wakeup tried(self, Flight *flight, bint works) noexcept:
        """Under the lock: an attempt of the probe's has succeeded, or its events were dropped."""
        cdef Strand *successor = self._held
        if self._probe != &flight.strand:
            return NULL
        if successor == NULL or (works and self._back_off_until <= fs_now()):
            return self.resume()
        self._held = successor.next
        successor.next = NULL
        self._probe = successor
        (<Flight *>successor).waits = works
        if not works and (<Flight *>successor).delivery != NULL:
            # Since it asked how long to wait, there was one more failure.
            (<Delivery>(<Flight *>successor).delivery).waited = False
        return self._dispatcher.schedule(successor)

    cdef Wakeup resume(self) noexcept:
        """Under the lock: the back-off is over, and all flights go on."""
        cdef Strand *held = self._held
        self._probe = self._held = NULL
        self._back_off_until = 0.0
        return NULL if held == NULL else self._dispatcher.schedule(held)

    cdef int end_back_off(self) except -1:
        cdef Wakeup wakeup = NULL
        acquire(self)
        if self._probe != NULL:
            wakeup = self._dispatcher.expedite(self._probe)
        release_and_wake(self, wakeup)
        acquire(self)
        wakeup = self.resume()
        release_and_wake(self, wakeup)
        return 0

    # ------------------------------------------------------------------------- running

    cdef State run(self, Flight *flight) noexcept:
        """Deliver until nothing is left, others are to run, or there is something to wait for."""
        cdef double end = 0.0
        cdef Step step
        cdef State state
        cdef PyObject *carried = NULL  # the last single event; to be dropped without the lock
        acquire(self)
        flight.runner = fs_self()
        while True:
            step = self.next_step(flight)
            if step == REST:
                state = IDLE
                break
            if step == WAIT:
                state = TIMED
                break
            if step == DELIVER and end and fs_now() >= end:
                if self._dispatcher._first != NULL or not self._lets_others_run:
                    state = READY
                    break
                end = 0.0
            if step == DELIVER and self._mode == INSTANT and not self._null._closed:
                self.deliver_instantly(&end)
                continue
            try:
                if step == CLOSE:
                    fs_release(&self._lock)
                    self._close_dst()
                elif self._mode == SINGLE or self._mode == INSTANT:
                    self.deliver_singles(flight, &end, &carried)
                    continue  # with the lock
                else:
                    fs_release(&self._lock)
                    end = end or fs_now() + QUANTUM
                    if self._mode == BLOCKS:
                        self.deliver_block(flight)
                    else:
                        self.deliver_step(flight)
            except BaseException as error:
                if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                    thread_state.here.interrupts.append(error)  # Ctrl-C, where a thread helps
                try:
                    self.failed(flight, error)
                except BaseException as again:
                    log.error("%s: %s", self.name, describe_error(again))
            if carried != NULL:
                decref(carried)
                carried = NULL
            acquire(self)
        flight.runner = 0
        fs_release(&self._lock)
        if carried != NULL:
            decref(carried)
        return state

    cdef Step next_step(self, Flight *flight) noexcept:
        """Under the lock: what there is to do."""
        cdef Strand *strand = &flight.strand
        if flight.count and is_abandoned(self):
            if not flight.landed:
                self.land(flight)
            self.rest(flight)
            return REST  # a closer takes it, and the backlog with it
        if self._probe != NULL and not self._retrying._closed:
            if self._probe != strand:
                if flight.count:
                    strand.next = self._held
                    self._held = strand
                else:
                    self.rest(flight)
                return REST
            if flight.waits:
                flight.waits = False
                self._dispatcher.schedule_at(strand, self._back_off_until, False)
                return WAIT
        if flight.count:
            return DELIVER  # another attempt
        if self._backlog.count == 0:
            if self._closed and pending(self) == 0 and self._closing.start():
                return CLOSE
            self.rest(flight)
            return REST
        if self._lingers == strand:
            self._lingers = NULL  # its time is over, or its block is full
        elif (
            self._linger
            and self._batch_size > self._backlog.count
            and (self._mode == BLOCKS or self._mode == RETRYING)
            and not self._closed
            and not is_full(self)
            and not self._dispatcher._closing
            and self._appended - self._backlog.count >= self._hurry
        ):
            if self._lingers != NULL:
                self.rest(flight)
                return REST
            self._lingers = strand
            self._dispatcher.schedule_at(strand, fs_now() + self._linger, True)
            return WAIT
        return DELIVER

    cdef list take(self, Flight *flight, Py_ssize_t most):
        """The next events, so many at most; in flight from now on, but with NULL."""
        # Room is made without the lock, since a new list may start the garbage collector.
        cdef unsigned long long first
        cdef Wakeup wakeup = NULL
        cdef Py_ssize_t n
        cdef Py_ssize_t i
        cdef list events
        acquire(self)
        n = min(most, self._backlog.count)
        fs_release(&self._lock)
        events = PyList_New(n)
        acquire(self)
        if n > self._backlog.count:  # discarded meanwhile
            n = self._backlog.count
            Py_SET_SIZE(events, n)
        first = taken_up_to(self)
        for i in range(n):
            # The list takes over the reference.
            PyList_SET_ITEM_pointer(events, i, backlog_pop(&self._backlog))
        if n and flight != NULL:
            flight_begin(flight, events, first)
            wakeup = self.call_another()
        release_and_wake(self, wakeup)
        return events

    cdef int deliver_instantly(self, double *end) except -1:
        """A chunk to a NullSink, which may be called under the lock: it only counts.

        Held on entry and on return.
        """
        cdef PyObject *few[FEW]
        cdef PyObject **items = few
        cdef Chunk *chunk
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t stop = 0
        cdef Py_ssize_t i
        cdef bint troubled
        chunk = backlog_detach(&self._backlog, &first, &stop)
        if chunk != NULL:
            items = chunk.items
        else:
            while stop < FEW and self._backlog.count:
                few[stop] = backlog_pop(&self._backlog)
                stop += 1
        self._null.count_c(stop - first)
        self.finish(&self._flight, stop - first, 0)
        troubled = self._troubled
        fs_release(&self._lock)
        for i in range(first, stop):
            decref(items[i])  # may run finalisers
            if i - first > BREATH and (i - first) % BREATH == 0:
                fs_breathe()  # a block of millions is one chunk
        if chunk != NULL:
            free_chunk(chunk)
        if troubled:
            self.observed(None, NULL)
        if not end[0] and stop - first >= 64:
            end[0] = fs_now() + QUANTUM
        acquire(self)
        return 0

    cdef int deliver_singles(self, Flight *flight, double *end, PyObject **carried) except -1:
        """An event a call. The lock is held on entry and on return, not after an exception.

        The reference to the last event is left in `carried`, also after an exception.
        """
        cdef PyObject *event
        cdef unsigned int calls = 0
        cdef unsigned int look = 1  # at the clock, after so many calls
        cdef unsigned int every = 1
        cdef double now
        cdef double last = 0.0
        while True:
            flight.first = taken_up_to(self)
            event = backlog_pop(&self._backlog)
            flight.single = event
            flight.count = 1
            release_and_wake(self, self.call_another())
            if carried[0] != NULL:
                decref(carried[0])  # here, where the lock is free anyhow
            carried[0] = event
            write(self._dst, <object>event)
            acquire(self)
            flight.single = NULL
            if flight.count:
                if self._listeners or self._troubled:
                    flight.unreported = 1
                self.finish(flight, 1, 0)
                if flight.unreported:
                    fs_release(&self._lock)
                    self.observed(None, event)
                    acquire(self)
                    self.reported(flight)
            if self._backlog.count == 0:
                return 0
            calls += 1
            # The clock costs a third of a quick call: look after each slow one while others
            # wait, after eight quick ones, and now and then if no other does.
            if calls >= look and (self._dispatcher._first != NULL or calls % 64 == 0):
                now = fs_now()
                if not end[0]:
                    end[0] = now + QUANTUM
                elif now >= end[0]:
                    return 0
                every = min(8, 2 * every) if now - last < QUICK else 1
                look = calls + every
                last = now

    cdef int deliver_block(self, Flight *flight) except -1:
        """A block a call. Without the lock."""
        cdef list block = self.take(flight, self._batch_size)
        if block:
            write_many(self._dst, block[:])  # a copy: the destination may change what it gets
            self.delivered(flight)
        return 0

    cdef int deliver_step(self, Flight *flight) except -1:
        """One step of the retrying sink. Without the lock."""
        cdef list block
        cdef Delivery delivery = None
        cdef Wakeup wakeup = NULL
        cdef double wait
        cdef bint mine
        acquire(self)
        if flight.delivery != NULL:
            delivery = <Delivery>flight.delivery
        fs_release(&self._lock)
        if delivery is None:
            block = self.take(flight, self._batch_size)
            if not block:
                return 0
            delivery = Delivery(block)
            delivery.driver = self
            acquire(self)
            mine = flight.count > 0  # else a closer has taken the block
            if mine:
                incref(<PyObject *>delivery)
                flight.delivery = <PyObject *>delivery
            fs_release(&self._lock)
            if not mine:
                return 0
        wait = self._retrying.step(delivery)
        self._dispatcher._progress += 1
        acquire(self)
        if wait > 0:
            self.back_off(flight, fs_now() + min(wait, FS_FOREVER))
        elif not delivery.failing:
            wakeup = self.tried(flight, True)
        if wait >= 0:
            self.mark_next()
        release_and_wake(self, wakeup)
        if wait < 0:
            self.delivered(flight)
        return 0

    def _close_dst(self):
        """Close ``dst``: on the worker after the last event, else on a thread of its own."""
        cdef double left
        acquire(self)
        left = self._closing.by - fs_now()
        fs_release(&self._lock)
        raised = self._closing.close(self._dst.sink, left, self.name)
        trouble = self.trouble()
        if trouble is not None:
            trouble.over()
        acquire(self)
        self._closing.error = raised
        self._closing.finished = True
        fs_notify(&self._lock, &self._done)
        fs_release(&self._lock)

    # ---------------------------------------------------------------------- accounting

    cdef int delivered(self, Flight *flight) except -1:
        """Account for the block in flight, unless a closer has."""
        cdef Flight ended
        cdef Wakeup wakeup
        acquire(self)
        if not flight.count:
            fs_release(&self._lock)
            return 0
        ended = flight_end(flight)
        if self._listeners or self._troubled:
            flight.unreported = ended.count
        self.measured(flight, ended.count)
        self.finish(flight, ended.count, 0)
        wakeup = self.tried(flight, False)  # if it still is the probe, it was dropped in the end
        release_and_wake(self, wakeup)
        if flight.unreported:
            self.observed(<list>ended.block, NULL)
            acquire(self)
            self.reported(flight)
            fs_release(&self._lock)
        flight_drop(&ended)
        return 0

    cdef int failed(self, Flight *flight, object error) except -1:
        """The destination raised: account for what is in flight, unless a closer has or will."""
        cdef Flight ended
        cdef Wakeup wakeup
        cdef Py_ssize_t done
        cdef bint abandoned
        acquire(self)
        abandoned = is_abandoned(self)
        if flight.count == 0 or abandoned:
            if flight.count:
                self.land(flight)
            fs_release(&self._lock)
            if not abandoned:  # there was no memory for a block
                log.error("%s: cannot deliver: %s", self.name, describe_error(error))
            return 0
        done = flight_done(flight)
        if done == flight.count:  # a strategy's success() raised; it is too late
            fs_release(&self._lock)
            return self.delivered(flight)
        ended = flight_end(flight)
        flight.unreported = ended.count
        self.measured(flight, ended.count)
        self.finish(flight, done, ended.count - done)
        wakeup = self.tried(flight, False)
        release_and_wake(self, wakeup)
        try:
            events = flight_events(&ended)
            self.report_drops(events[done:], describe_error(error))
            if done:
                self.tell_egress(events[:done])
        finally:
            acquire(self)
            self.reported(flight)
            fs_release(&self._lock)
            flight_drop(&ended)
        return 0

    cdef void land(self, Flight *flight) noexcept:
        """Under the lock: a closer takes what is in flight; no attempt at it follows."""
        flight_land(flight)
        fs_notify(&self._lock, &self._done)

    cdef void finish(self, Flight *flight, Py_ssize_t delivered, Py_ssize_t dropped) noexcept:
        """Under the lock: a flight has come to its end."""
        flight.count = 0
        self._delivered += delivered
        self._dropped += dropped
        self._dispatcher._progress += 1
        if self.maxsize:
            fs_notify(&self._lock, &self._space)
        if self._goal <= finished_up_to(self) or is_abandoned(self):
            self._goal = NO_GOAL  # threads that wait for more say so again
            fs_notify(&self._lock, &self._done)

    cdef void reported(self, Flight *flight) noexcept:
        """Under the lock: the last outcome is reported, too. Only now has it finished."""
        flight.unreported = 0
        if self._goal <= finished_up_to(self):
            self._goal = NO_GOAL
            fs_notify(&self._lock, &self._done)

    cdef int observed(self, list block, PyObject *single) except -1:
        """After a delivery of either, where somebody wants to know. Never fails it."""
        cdef bint troubled
        acquire(self)
        troubled = self._troubled
        self._troubled = False
        fs_release(&self._lock)
        try:
            if troubled:
                self.trouble().over()
            if self._listeners:
                self.tell_egress([<object>single] if block is None else block)
        except BaseException as error:
            log.error("%s: %s", self.name, describe_error(error))
        return 0

    cdef object trouble(self):
        """How drops are logged, once there was one."""
        acquire(self)
        trouble = self._trouble
        fs_release(&self._lock)
        return trouble

    cdef int report_drops(self, list dropped, str reason) except -1:
        """What a drop owes beside the count: a log line, the dead letter, the listeners."""
        trouble = self.trouble()
        if trouble is None:
            new = wording.drops(self.name)
            acquire(self)
            if self._trouble is None:
                self._trouble = new
            trouble = self._trouble  # or another thread's, which came first
            fs_release(&self._lock)
        # As callbacks.report_drops() does, which Ctrl-C could strike before its `try`.
        try:
            trouble.happened(dropped[0], reason, len(dropped))
        finally:
            acquire(self)
            self._troubled = True  # not before: a delivery's over() would come too early
            fs_release(&self._lock)
            callbacks.bury(self._dead_letter, dropped)
            self.tell_egress(dropped)
        return 0

    cdef int tell_egress(self, list events) except -1:
        if self._listeners:
            callbacks.tell_all(self._listeners, "egress", events)
        return 0

    cdef void mark(self) noexcept:
        """Under the lock: note when the event that is about to be appended was accepted."""
        self._mark_due = latency_mark(self._latency, self._appended, fs_now())

    cdef void mark_next(self) noexcept:
        """Under the lock, after each attempt: note when the next event will be accepted."""
        self._latency.stride = 1
        self._mark_due = self._appended

    cdef void measured(self, Flight *flight, Py_ssize_t n) noexcept:
        """Under the lock: so many events of a flight that has ended are done with."""
        cdef double now
        if self._latency != NULL:
            now = fs_now()
            latency_done(
                self._latency, flight.first, n, oldest_pending(self), &BOUNDS[0], now
            )
            if self._backlog.count == 0 or now >= latency_latest(self._latency) + MARKING:
                self.mark_next()

    cdef int after_fork(self) except -1:
        """In a child: what was accepted before is the parent's to deliver.

        References to it are leaked: a thread that is not here may have been moving them.
        """
        self._generation = fs_generation()
        fs_lock_init(&self._lock)
        fs_condition_init(&self._space)
        fs_condition_init(&self._done)
        self._accepted = self._delivered + self._dropped
        self._appended = 0
        self._hurry = 0
        self._goal = NO_GOAL
        backlog_init(&self._backlog)  # not cleared: it may be in any state
        if self._latency != NULL:
            self._latency.count = 0
            self.mark_next()
        self._announcers = []
        self._back_off_until = 0.0
        self.all_idle()
        if self._closing is not None:
            self._closing.after_fork()
        return 0
