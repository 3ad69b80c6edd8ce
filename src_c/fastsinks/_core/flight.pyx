# cython: freethreading_compatible=True
"""The workers' half of a queue: from the backlog through a flight to the destination.

A worker of the dispatcher runs the queue. It takes what is next, which from then on is in
flight, calls the destination with no lock held, and accounts for what came of it.

A closer that abandons the queue takes the backlog, closes the destination, and after a moment
of grace also ends the flight. A worker that finds nothing in flight after a call of the
destination has nothing to account for.
"""

cimport cython
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from libc.stdlib cimport free

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


cdef State run(PyObject *owner) noexcept:
    # A reference of its own: once the queue is on a timer, another worker may run it, find
    # nothing left and drop the dispatcher's, while this one still leaves.
    cdef Carrier carrier = <Carrier>owner
    return carrier.run()


@cython.no_gc_clear  # the dispatcher is needed in __dealloc__; cycles end at the destination
cdef class Carrier(Sink):
    """Carries what a queue has accepted to the destination, by one worker at a time."""

    def __cinit__(self, *args, **kwargs):
        self._generation = fs_generation()
        fs_lock_init(&self._lock)
        fs_condition_init(&self._space)
        fs_condition_init(&self._done)
        backlog_init(&self._backlog)
        self._strand.owner = <PyObject *>self
        self._strand.run = run
        self._goal = NO_GOAL
        self._announcers = []
        self._mark_due = NEVER
        self._closed = self._slow = True  # until there is a destination

    def __dealloc__(self):
        cdef Flight ended
        free(self._latency)
        if self._dst is None:
            return  # not even attached
        while self._backlog.count:
            decref(backlog_pop(&self._backlog))
        backlog_clear(&self._backlog)
        if self._flight.landed:  # and its closer was interrupted
            ended = flight_end(&self._flight)
            flight_drop(&ended)
        if not self._closed:
            self._dispatcher.closed_one()
        self._dispatcher.detach()

    @property
    def name(self):
        """What log lines call the queue."""
        if self._dst is None:
            uninitialised(self)
        if self._name is None:
            return wording.queue_name(self._dst.sink)
        return self._name

    # ------------------------------------------------------------------------- running

    cdef State run(self) noexcept:
        """Deliver until nothing is left, others are to run, or there is something to wait for."""
        cdef double end = 0.0
        cdef double wait
        cdef Step step
        cdef State state
        cdef Wakeup wakeup = NULL
        cdef PyObject *carried = NULL  # the last single event; to be dropped without the lock
        acquire(self)
        self._flight.runner = fs_self()
        while True:
            step = self.next_step()
            if step == REST:
                state = IDLE
                break
            if step == LINGER:
                state = TIMED
                break
            if step == DELIVER and end and fs_now() >= end:
                if self._dispatcher._first != NULL or not self._lets_others_run:
                    state = READY
                    break
                end = 0.0
            wait = 0.0
            if step == DELIVER and self._mode == INSTANT and not self._null._closed:
                self.deliver_instantly(&end)
                continue
            try:
                if step == CLOSE:
                    fs_release(&self._lock)
                    self._close_dst()
                elif self._mode == SINGLE or self._mode == INSTANT:
                    self.deliver_singles(&end, &carried)
                    continue  # with the lock
                else:
                    fs_release(&self._lock)
                    end = end or fs_now() + QUANTUM
                    if self._mode == BLOCKS:
                        self.deliver_block()
                    else:
                        wait = self.deliver_step()
            except BaseException as error:
                if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                    thread_state.here.interrupts.append(error)  # Ctrl-C, where a thread helps
                try:
                    self.failed(error)
                except BaseException as again:
                    log.error("%s: %s", self.name, describe_error(again))
            if carried != NULL:
                decref(carried)
                carried = NULL
            acquire(self)
            if wait > 0 and not is_abandoned(self):
                self._dispatcher.schedule_at(&self._strand, fs_now() + min(wait, FS_FOREVER), False)
                # Its close() expedites a strand on a timer: look once more, now that ours is.
                if self._retrying._closed:
                    wakeup = self._dispatcher.expedite(&self._strand)
                state = TIMED
                break
        self._flight.runner = 0
        release_and_wake(self, wakeup)
        if carried != NULL:
            decref(carried)
        return state

    cdef Step next_step(self) noexcept:
        """Under the lock: what there is to do."""
        if self._flight.count:
            if not self._flight.landed:
                return DELIVER  # another attempt
            self._scheduled = False
            return REST  # a closer takes it, and the backlog with it
        if self._backlog.count == 0:
            if self._closed and pending(self) == 0 and self._closing.start():
                return CLOSE
            self._scheduled = False
            return REST
        if (
            self._linger
            and self._batch_size > self._backlog.count
            and (self._mode == BLOCKS or self._mode == RETRYING)
            and not self._closed
            and not is_full(self)
            and not self._dispatcher._closing
            and self._appended - self._backlog.count >= self._hurry
        ):
            if not self._linger_until:  # else it has lingered, or was told not to
                self._linger_until = fs_now() + self._linger
                self._dispatcher.schedule_at(&self._strand, self._linger_until, True)
                return LINGER
        self._linger_until = 0.0
        return DELIVER

    cdef list take(self, Py_ssize_t most, bint flies):
        """The next events, so many at most, which are in flight if they fly."""
        # Room is made without the lock, since a new list may start the garbage collector.
        cdef unsigned long long first
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
        first = self._appended - self._backlog.count
        for i in range(n):
            # The list takes over the reference.
            PyList_SET_ITEM_pointer(events, i, backlog_pop(&self._backlog))
        if n and flies:
            flight_begin(&self._flight, events, first)
        fs_release(&self._lock)
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
        self.finish(stop - first, 0)
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

    cdef int deliver_singles(self, double *end, PyObject **carried) except -1:
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
            event = backlog_pop(&self._backlog)
            self._flight.single = event
            self._flight.count = 1
            fs_release(&self._lock)
            if carried[0] != NULL:
                decref(carried[0])  # here, where the lock is free anyhow
            carried[0] = event
            write(self._dst, <object>event)
            acquire(self)
            self._flight.single = NULL
            if self._flight.count:
                if self._listeners or self._troubled:
                    self._flight.unreported = 1
                self.finish(1, 0)
                if self._flight.unreported:
                    fs_release(&self._lock)
                    self.observed(None, event)
                    acquire(self)
                    self.reported()
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

    cdef int deliver_block(self) except -1:
        """A block a call. Without the lock."""
        cdef list block = self.take(self._batch_size, True)
        if block:
            write_many(self._dst, block[:])  # a copy: the destination may change what it gets
            self.delivered()
        return 0

    cdef double deliver_step(self) except -1:
        """One step of the retrying sink; seconds to wait for the next. Without the lock."""
        cdef list block
        cdef Delivery delivery = None
        cdef double wait
        cdef bint mine
        acquire(self)
        if self._flight.delivery != NULL:
            delivery = <Delivery>self._flight.delivery
        fs_release(&self._lock)
        if delivery is None:
            block = self.take(self._batch_size, True)
            if not block:
                return 0.0
            delivery = Delivery(block)
            delivery.driver = self
            delivery.dispatcher = self._dispatcher
            delivery.strand = &self._strand
            acquire(self)
            mine = self._flight.count > 0  # else a closer has taken the block
            if mine:
                incref(<PyObject *>delivery)
                self._flight.delivery = <PyObject *>delivery
            fs_release(&self._lock)
            if not mine:
                return 0.0
        wait = self._retrying.step(delivery)
        self._dispatcher._progress += 1
        if wait >= 0:
            acquire(self)
            self.mark_next()
            fs_release(&self._lock)
            return wait
        self.delivered()
        return 0.0

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

    cdef int delivered(self) except -1:
        """Account for the block in flight, unless a closer has."""
        cdef Flight ended
        acquire(self)
        if not self._flight.count:
            fs_release(&self._lock)
            return 0
        ended = flight_end(&self._flight)
        if self._listeners or self._troubled:
            self._flight.unreported = ended.count
        self.measured(ended.count)
        self.finish(ended.count, 0)
        fs_release(&self._lock)
        if self._flight.unreported:
            self.observed(<list>ended.block, NULL)
            acquire(self)
            self.reported()
            fs_release(&self._lock)
        flight_drop(&ended)
        return 0

    cdef int failed(self, object error) except -1:
        """The destination raised: account for what is in flight, unless a closer has or will."""
        cdef Flight ended
        cdef Py_ssize_t done
        cdef bint abandoned
        acquire(self)
        abandoned = is_abandoned(self)
        if self._flight.count == 0 or abandoned:
            if self._flight.count:
                flight_land(&self._flight)
                fs_notify(&self._lock, &self._done)
            fs_release(&self._lock)
            if not abandoned:  # there was no memory for a block
                log.error("%s: cannot deliver: %s", self.name, describe_error(error))
            return 0
        done = flight_done(&self._flight)
        if done == self._flight.count:  # a strategy's success() raised; it is too late
            fs_release(&self._lock)
            return self.delivered()
        ended = flight_end(&self._flight)
        self._flight.unreported = ended.count
        self.measured(ended.count)
        self.finish(done, ended.count - done)
        fs_release(&self._lock)
        try:
            events = flight_events(&ended)
            self.report_drops(events[done:], describe_error(error))
            if done:
                self.tell_egress(events[:done])
        finally:
            acquire(self)
            self.reported()
            fs_release(&self._lock)
            flight_drop(&ended)
        return 0

    cdef void finish(self, Py_ssize_t delivered, Py_ssize_t dropped) noexcept:
        """Under the lock: nothing is in flight any more."""
        self._flight.count = 0
        self._delivered += delivered
        self._dropped += dropped
        self._dispatcher._progress += 1
        if self.maxsize:
            fs_notify(&self._lock, &self._space)
        if self._goal <= finished_up_to(self) or is_abandoned(self):
            self._goal = NO_GOAL  # threads that wait for more say so again
            fs_notify(&self._lock, &self._done)

    cdef void reported(self) noexcept:
        """Under the lock: the last outcome is reported, too. Only now has it finished."""
        self._flight.unreported = 0
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

    cdef void measured(self, Py_ssize_t n) noexcept:
        """Under the lock: so many events in flight are done with."""
        cdef double now
        if self._latency != NULL:
            now = fs_now()
            latency_done(self._latency, self._flight.first, n, &BOUNDS[0], now)
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
        self._strand.slot = 0
        self._scheduled = False
        self._announcers = []
        self._linger_until = 0.0
        flight_init(&self._flight)
        if self._closing is not None:
            self._closing.after_fork()
        return 0
