# cython: freethreading_compatible=True
"""The queue: writers append, a worker delivers. Compare queue.go of docker/go-events.

An event's way. A writer appends it to the backlog, under the lock, and makes the queue's
strand ready if it was idle. A worker of the dispatcher then has a turn(): it takes what
is next (from then on it is in flight), calls the destination with no lock held, and
accounts for the outcome. Each event ends as delivered, as dropped (counted, logged, and in
the dead letter), or in the hands of a closer whose deadline has passed.

`accepted == delivered + dropped + pending` holds whenever the lock is free, because
pending is computed. What has finished is told by positions: an event's is the value of
`_appended` before it entered the backlog; all up to `_appended - waiting - in flight
- settling` have finished, for delivery is in order and discards come from the front.

A closer that gives up takes the backlog, closes the destination, and after a moment of
grace also takes what is in flight, by setting `_in_flight` to 0. Whoever finds it 0 after
a call into the destination has nothing to account for.
"""

import _thread

cimport cython
from cpython.list cimport PyList_New, PyList_SET_ITEM
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free, malloc

from fastsinks._core import arguments, callbacks, log, thread_state
from fastsinks._core.errors import CloseTimeoutError, QueueFullError, SinkClosedError
from fastsinks._core.log import Drops, describe_error
from fastsinks._core.stats import LATENCY_BOUNDS, QueueStats

from .backlog cimport (
    FEW,
    Chunk,
    backlog_append,
    backlog_clear,
    backlog_detach,
    backlog_init,
    backlog_pop,
    backlog_push,
    backlog_reserve,
    free_chunk,
)
from .dispatcher cimport IDLE, MORE, TIMED, Summons, default_dispatcher
from .latency cimport BUCKETS, latency_done, latency_find, latency_latest, latency_mark
from .sink cimport NullSink, register_native, uninitialised
from .sync cimport (
    FS_FOREVER,
    FS_HELP,
    FS_NEVER,
    FS_RECHECK,
    decref,
    fs_acquire,
    fs_breathe,
    fs_init,
    fs_generation,
    fs_lock_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_signal_init,
    fs_wait,
    incref,
)

cdef extern from "Python.h":
    void Py_SET_SIZE(object, Py_ssize_t)

fs_init()

# At a deadline, the seconds for a destination to let go of its events, once it is closed, and
# for its close() to end: that of an inner queue has a grace of its own.
cdef double GRACE = 0.03
cdef double CLOSE_GRACE = 0.06
cdef double LATE = 0.5
cdef Py_ssize_t BREATH = 1 << 16  # events dropped in one go, of a few nanoseconds each
cdef double QUICK = 0.00002  # seconds between two looks at the clock that were too early
cdef double MARKING = 0.001  # seconds between marks, where deliveries take less
cdef double TURN = 0.0003  # seconds after which other queues have their turn
cdef unsigned long long NO_GOAL = <unsigned long long>-1
cdef unsigned long long NEVER = <unsigned long long>-1
cdef double[BUCKETS - 1] BOUNDS = LATENCY_BOUNDS
cdef dict POLICIES = {
    "block": BLOCK,
    "raise": RAISE,
    "drop_newest": DROP_NEWEST,
    "drop_oldest": DROP_OLDEST,
}


cdef inline void acquire(Queue self) noexcept:
    if self._generation != fs_generation:
        self.after_fork()
    fs_acquire(&self._lock)


cdef inline unsigned long long pending(Queue self) noexcept:
    return self._accepted - self._delivered - self._dropped


cdef inline unsigned long long finished_up_to(Queue self) noexcept:
    return self._appended - self._backlog.count - self._in_flight - self._settling


cdef inline bint is_full(Queue self) noexcept:
    return self.maxsize > 0 and pending(self) >= <unsigned long long>self.maxsize


cdef inline int push(Queue self, object event) except -1:
    """Accept one event. What has no bounds and no listeners never leaves this function."""
    cdef Summons call = NULL
    acquire(self)
    if self._slow or self._dispatcher._stopped:
        fs_release(&self._lock)
        return self.accept((event,))
    if not backlog_append(&self._backlog, <PyObject *>event):
        fs_release(&self._lock)
        raise MemoryError
    incref(<PyObject *>event)
    if self._appended >= self._mark_due:
        self.mark()
    self._accepted += 1
    self._appended += 1
    if not self._scheduled or self._linger_until:
        call = self.wake()
    fs_release(&self._lock)
    if call != NULL:
        self._dispatcher.answer(call)
    return 0


cdef Outcome run(PyObject *owner) noexcept:
    # A reference of its own: once the queue is on a timer, another worker may run it, find
    # nothing left and drop the dispatcher's, while this one still leaves.
    cdef Queue queue = <Queue>owner
    return queue.turn()


@cython.no_gc_clear  # the dispatcher is needed in __dealloc__; cycles end at the destination
cdef class Queue(Sink):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Any thread may call anything. Events reach ``dst`` in the order in which they were
    accepted, one call at a time, on a thread of the dispatcher. ``write`` blocks only with
    ``maxsize`` and ``when_full="block"``. An exception of ``dst`` drops the event, or block:
    it is counted, logged, and handed to ``dead_letter``, which is never closed. A queue
    with pending events stays alive until they are delivered; an idle one costs no thread.
    """

    def __cinit__(self, *args, **kwargs):
        self._generation = fs_generation
        fs_lock_init(&self._lock)
        fs_signal_init(&self._space)
        fs_signal_init(&self._done)
        backlog_init(&self._backlog)
        self._strand.owner = <PyObject *>self
        self._strand.run = run
        self._goal = NO_GOAL
        self._announcers = []
        self._mark_due = NEVER
        self._close_by = FS_NEVER
        self._closed = self._slow = True  # until there is a destination

    def __init__(
        self,
        dst,
        *,
        maxsize=0,
        when_full="block",
        batch_size=1,
        linger=0.0,
        listeners=(),
        dead_letter=None,
        dispatcher=None,
        name=None,
    ):
        if self._dst is not None:
            raise RuntimeError("a queue is initialised once")
        cdef Destination inner
        destination = Destination(dst)
        self.maxsize = arguments.size("maxsize", maxsize)
        self._policy = POLICIES[arguments.policy(when_full)]
        self._batch_size = arguments.size("batch_size", batch_size, least=1)
        self._linger = arguments.seconds("linger", linger)
        self._listeners = arguments.listeners(listeners, "ingress", "egress")
        if dead_letter is not None:
            arguments.destination(dead_letter, role="a dead letter")
        self._dead_letter = dead_letter
        if dispatcher is not None and not isinstance(dispatcher, Dispatcher):
            raise TypeError(f"dispatcher must be a Dispatcher, not {dispatcher!r}")
        self._name = None if name is None else str(name)
        if type(dst) is RetryingSink:
            self._mode = RETRYING
            self._retrying = dst
            # Code in Python lets go of the GIL by itself, while it waits for a receiver
            # anyhow: a nap for each of its requests would be longer than most of them.
            inner = self._retrying._dst
            if inner is None:
                uninitialised(dst)
            self._lets_others_run = inner._native is None and inner._native_many is None
        elif self._batch_size > 1 and destination.takes_blocks:
            self._mode = BLOCKS
        elif type(dst) is NullSink and not self._listeners:
            self._mode = INSTANT
            self._null = dst
        else:
            self._mode = SINGLE
        if self._mode == RETRYING or self._mode == BLOCKS:
            self._latency = <Latency *>calloc(1, sizeof(Latency))
            if self._latency == NULL:
                raise MemoryError
            self.mark_next()
        self._dispatcher = default_dispatcher() if dispatcher is None else dispatcher
        self._dispatcher.attach()
        self._dst = destination
        self._slow = self.maxsize > 0 or bool(self._listeners)
        self._closed = False

    def __dealloc__(self):
        free(self._latency)
        if self._dst is None:
            return  # not even attached
        while self._backlog.count:
            decref(backlog_pop(&self._backlog))
        backlog_clear(&self._backlog)
        if not self._closed:
            self._dispatcher.closed_one()
        self._dispatcher.detach()

    @property
    def name(self):
        """What log lines call the queue."""
        if self._dst is None:
            uninitialised(self)
        if self._name is None:
            return f"queue to {type(self._dst.sink).__name__}"
        return self._name

    def __repr__(self):
        return f"<{type(self).__name__} {self.name!r} pending={len(self)}>"

    def __len__(self):
        """Events that are accepted and not yet finished."""
        acquire(self)
        count = pending(self)
        fs_release(&self._lock)
        return count

    def stats(self):
        """``(accepted, delivered, dropped, pending)``, which always adds up."""
        cdef unsigned long long accepted
        cdef unsigned long long delivered
        cdef unsigned long long dropped
        acquire(self)
        accepted = self._accepted
        delivered = self._delivered
        dropped = self._dropped
        fs_release(&self._lock)
        return QueueStats(accepted, delivered, dropped, accepted - delivered - dropped)

    def latencies(self):
        """How long events took from being accepted to being delivered, or given up by the sink.

        A count for each bound of LATENCY_BOUNDS and one for what took longer, and the seconds
        of all of them together. Zeros for a queue that delivers neither to a RetryingSink nor
        in blocks: it does not look at the clock so often.
        """
        cdef unsigned long long[BUCKETS] buckets
        cdef double total = 0.0
        cdef int i
        for i in range(BUCKETS):
            buckets[i] = 0
        acquire(self)
        if self._latency != NULL:
            total = self._latency.total
            for i in range(BUCKETS):
                buckets[i] = self._latency.buckets[i]
        fs_release(&self._lock)
        return tuple([buckets[i] for i in range(BUCKETS)]), total

    def oldest(self):
        """Seconds for which the oldest pending event has waited; 0.0 if there is none.

        Also 0.0 where ``latencies`` are not measured.
        """
        cdef unsigned long long position
        cdef double since = 0.0
        acquire(self)
        if (
            self._latency != NULL
            and self._latency.count
            and (self._in_flight or self._backlog.count)
        ):
            position = self._first if self._in_flight else self._appended - self._backlog.count
            since = self._latency.time[latency_find(self._latency, position)]
        fs_release(&self._lock)
        return fs_now() - since if since else 0.0

    cdef void mark(self) noexcept:
        """Under the lock: note when the event that is about to be appended was accepted."""
        self._mark_due = latency_mark(self._latency, self._appended, fs_now())

    cdef void mark_next(self) noexcept:
        """Under the lock, after each attempt: note when the next event will be accepted."""
        self._latency.stride = 1
        self._mark_due = self._appended

    # ---------------------------------------------------------------------- accepting

    def write(self, event, /):
        """Accept an event: append it and return. See ``when_full`` for a full queue."""
        push(self, event)

    def write_many(self, events):
        """Accept a block, stored contiguously, or refuse it as a whole."""
        self.write_many_c(events)

    cdef int write_c(self, object event) except -1:
        return push(self, event)

    cdef int write_many_c(self, object events) except -1:
        cdef tuple block = tuple(events)  # a list may be changed by others while we wait
        if self.maxsize and len(block) > self.maxsize:
            raise ValueError(f"a block of {len(block)} events exceeds maxsize={self.maxsize}")
        if block:
            self.accept(block)
        return 0

    cdef int accept(self, tuple events) except -1:
        """The whole of it: wait or discard if there is no room, count, append, tell listeners."""
        cdef Py_ssize_t n = len(events)
        cdef Py_ssize_t over
        cdef Py_ssize_t i
        cdef Py_ssize_t held
        cdef PyObject **evicted = NULL
        cdef Py_ssize_t evictions = 0
        cdef bint refused = False
        cdef Summons call = NULL
        cdef unsigned int seen
        acquire(self)
        while True:
            if self._closed or self._dispatcher._stopped:
                fs_release(&self._lock)
                if self._dst is None:
                    uninitialised(self)
                raise SinkClosedError(f"{self.name} or its dispatcher is closed")
            held = pending(self)
            over = held + n - self.maxsize
            if self.maxsize == 0 or over <= 0:
                break
            if self._policy == BLOCK:
                seen = self._space.count
                if self._linger_until:  # what does not fit cannot fill the block
                    call = self._dispatcher.expedite(&self._strand)
                fs_release(&self._lock)
                if call != NULL:
                    self._dispatcher.answer(call)
                    call = NULL
                if self._runner == fs_self():
                    raise QueueFullError(f"{self.name} is full, and only its own delivery waits")
                fs_wait(&self._lock, &self._space, seen, fs_now() + FS_RECHECK)
                acquire(self)
            elif self._policy == RAISE:
                fs_release(&self._lock)
                raise QueueFullError(f"{self.name} holds {held} of {self.maxsize} events")
            else:
                if self._policy == DROP_OLDEST and self._backlog.count >= over:
                    evicted = <PyObject **>malloc(over * sizeof(PyObject *))
                if evicted != NULL:
                    evictions = over
                    for i in range(over):
                        evicted[i] = backlog_pop(&self._backlog)
                else:
                    refused = True
                break
        self._accepted += n  # holds the place while ingress() runs, without the lock
        self._dropped += n if refused else evictions
        if evictions and self._goal <= finished_up_to(self):
            fs_notify(&self._lock, &self._done)
        if not self._listeners and not refused:
            if backlog_reserve(&self._backlog, n):
                if self._mark_due < self._appended + <unsigned long long>n:
                    self.mark()
                for i in range(n):
                    incref(<PyObject *>events[i])
                    backlog_push(&self._backlog, <PyObject *>events[i])
                self._appended += n
                call = self.wake()
            else:
                self._accepted -= n
                n = -1
        fs_release(&self._lock)
        if call != NULL:
            self._dispatcher.answer(call)
        try:
            if n < 0:
                raise MemoryError
            if self._listeners:
                self.announce(events, not refused)
        finally:
            if refused:
                self.report(list(events), "the queue is full")
            elif evictions:
                lost = []
                for i in range(evictions):
                    lost.append(<object>evicted[i])
                    decref(evicted[i])
                free(evicted)
                self.report(lost, "the queue is full")
        return 0

    cdef int announce(self, tuple events, bint append) except -1:
        """Tell the listeners first, so that no egress comes before its ingress."""
        cdef list announcers = self._announcers
        cdef Summons call = NULL
        me = fs_self()
        announcers.append(me)
        try:
            for event in events:
                callbacks.tell(self._listeners, "ingress", event)
            if append:
                self.append(events)
        except BaseException:
            if append:
                acquire(self)
                self._accepted -= len(events)
                fs_notify(&self._lock, &self._space)
                fs_notify(&self._lock, &self._done)
                if self._closed:  # a close() may have found nothing to do but to wait for this
                    call = self.wake()
                fs_release(&self._lock)
                if call != NULL:
                    self._dispatcher.answer(call)
            raise
        finally:
            announcers.remove(me)
        return 0

    cdef int append(self, tuple events) except -1:
        """Append what has been accepted."""
        cdef Py_ssize_t i
        cdef Summons call
        acquire(self)
        if self._abandoned:
            fs_release(&self._lock)
            raise SinkClosedError(f"{self.name} was closed meanwhile")
        if not backlog_reserve(&self._backlog, len(events)):
            fs_release(&self._lock)
            raise MemoryError
        if self._mark_due < self._appended + <unsigned long long>len(events):
            self.mark()
        for i in range(len(events)):
            incref(<PyObject *>events[i])
            backlog_push(&self._backlog, <PyObject *>events[i])
        self._appended += len(events)
        call = self.wake()
        fs_release(&self._lock)
        if call != NULL:
            self._dispatcher.answer(call)
        return 0

    cdef Summons wake(self) noexcept:
        """Under the lock: something was appended. The result is for answer()."""
        if not self._scheduled:
            self._scheduled = True
            return self._dispatcher.schedule(&self._strand)
        if self._linger_until and (self._backlog.count >= self._batch_size or is_full(self)):
            return self._dispatcher.expedite(&self._strand)
        return NULL

    cdef object trouble(self):
        """How drops are logged, once there was one."""
        acquire(self)
        trouble = self._trouble
        fs_release(&self._lock)
        return trouble

    cdef int report(self, list lost, str reason) except -1:
        """What a drop owes beside the count: a log line, the dead letter, the listeners."""
        trouble = self.trouble()
        if trouble is None:
            new = Drops(f"{self.name}: dropped an event")
            acquire(self)
            if self._trouble is None:
                self._trouble = new
            trouble = self._trouble  # or another thread's, which came first
            fs_release(&self._lock)
        try:
            trouble.happened(lost[0], reason, len(lost))
        finally:  # Ctrl-C
            acquire(self)
            self._troubled = True  # not before: a delivery's over() would come too early
            fs_release(&self._lock)
            callbacks.bury(self._dead_letter, lost)
            self.tell_egress(lost)
        return 0

    cdef int tell_egress(self, list events) except -1:
        if self._listeners:
            for event in events:
                callbacks.tell(self._listeners, "egress", event)
        return 0

    # --------------------------------------- delivering: a worker, one at a time

    cdef Outcome turn(self) noexcept:
        """Deliver until nothing is left, it is others' turn, or there is something to wait for."""
        cdef double end = 0.0
        cdef double wait
        cdef Step step
        cdef Outcome outcome
        cdef Summons call = NULL
        cdef PyObject *finished = NULL  # delivered; to be dropped without the lock
        acquire(self)
        self._runner = fs_self()
        while True:
            step = self.next_step()
            if step == REST:
                outcome = IDLE
                break
            if step == LINGER:
                outcome = TIMED
                break
            if step == DELIVER and end and fs_now() >= end:
                if self._dispatcher._first != NULL or not self._lets_others_run:
                    outcome = MORE
                    break
                end = 0.0
            wait = 0.0
            if step == DELIVER and self._mode == INSTANT and self.deliver_instantly(&end) == 0:
                continue
            try:
                if step == CLOSE:
                    fs_release(&self._lock)
                    self._close_dst()
                elif self._mode == SINGLE:
                    self.deliver_singles(&end, &finished)
                    continue  # with the lock
                elif self._mode == INSTANT:
                    raise SinkClosedError
                else:
                    fs_release(&self._lock)
                    end = end or fs_now() + TURN
                    if self._mode == BLOCKS:
                        self.deliver_block()
                    else:
                        wait = self.deliver_step()
            except BaseException as error:
                if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                    thread_state.here.interrupts.append(error)  # Ctrl-C, on the thread of who helps
                try:
                    self.failed(error)
                except BaseException as again:
                    log.error("%s: %s", self.name, describe_error(again))
            if finished != NULL:
                decref(finished)
                finished = NULL
            acquire(self)
            if wait > 0 and not self._abandoned:
                self._dispatcher.schedule_at(&self._strand, fs_now() + min(wait, FS_FOREVER), False)
                # Its close() expedites who is on the timer: look once more, now that we are.
                if self._retrying._closed:
                    call = self._dispatcher.expedite(&self._strand)
                outcome = TIMED
                break
        self._runner = 0
        fs_release(&self._lock)
        if call != NULL:
            self._dispatcher.answer(call)
        if finished != NULL:
            decref(finished)
        return outcome

    cdef Step next_step(self) noexcept:
        """Under the lock: what there is to do."""
        if self._in_flight:
            return DELIVER  # another attempt
        if self._backlog.count == 0:
            if self._closed and not self._dst_closing and pending(self) == 0:
                self._dst_closing = True
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

    cdef int deliver_instantly(self, double *end) except -1:
        """A chunk to a NullSink, which may be called under the lock: it only counts.

        Held on entry and on return. 1 if the sink is closed: that event is in flight, and the
        lock is given back.
        """
        cdef PyObject *few[FEW]
        cdef PyObject **items = few
        cdef Chunk *chunk
        cdef Py_ssize_t first = 0
        cdef Py_ssize_t stop = 0
        cdef Py_ssize_t i
        cdef bint troubled
        if self._null._closed:
            self._single = backlog_pop(&self._backlog)
            self._in_flight = 1
            fs_release(&self._lock)
            return 1
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
            end[0] = fs_now() + TURN
        acquire(self)
        return 0

    cdef int deliver_singles(self, double *end, PyObject **finished) except -1:
        """An event a call. The lock is held on entry and on return, not after an exception."""
        cdef PyObject *event
        cdef unsigned int calls = 0
        cdef unsigned int look = 1  # at the clock, after so many calls
        cdef unsigned int every = 1
        cdef double now
        cdef double last = 0.0
        while True:
            event = backlog_pop(&self._backlog)
            self._single = event
            self._in_flight = 1
            fs_release(&self._lock)
            if finished[0] != NULL:
                decref(finished[0])  # here, where the lock is free anyhow
                finished[0] = NULL
            self._dst.write(<object>event)
            acquire(self)
            finished[0] = event
            self._single = NULL
            if self._in_flight:
                if self._listeners or self._troubled:
                    self._settling = 1
                self.finish(1, 0)
                if self._settling:
                    fs_release(&self._lock)
                    self.observed(None, event)
                    acquire(self)
                    self.settled()
            if self._backlog.count == 0:
                return 0
            calls += 1
            # The clock costs a third of a quick call: look after each slow one while others
            # wait, after eight quick ones, and now and then if nobody does.
            if calls >= look and (self._dispatcher._first != NULL or calls % 64 == 0):
                now = fs_now()
                if not end[0]:
                    end[0] = now + TURN
                elif now >= end[0]:
                    return 0
                every = min(8, 2 * every) if now - last < QUICK else 1
                look = calls + every
                last = now

    cdef int deliver_block(self) except -1:
        """A block a call. Without the lock."""
        cdef list block = self.take_block()
        if block is None:
            return 0
        self._dst.write_many(block[:])  # a copy: the destination may change what it gets
        self.delivered(block)
        return 0

    cdef double deliver_step(self) except -1:
        """One step of the retrying sink; seconds to wait for the next. Without the lock."""
        cdef list block
        cdef Attempt attempt
        cdef double wait
        cdef bint mine
        acquire(self)
        attempt = self._attempt
        fs_release(&self._lock)
        if attempt is None:
            block = self.take_block()
            if block is None:
                return 0.0
            attempt = Attempt(block)
            attempt.driver = self
            attempt.dispatcher = self._dispatcher
            attempt.strand = &self._strand
            acquire(self)
            mine = self._in_flight > 0  # else a closer has taken the block
            if mine:
                self._attempt = attempt
            fs_release(&self._lock)
            if not mine:
                return 0.0
        block = attempt.events
        wait = self._retrying.step(attempt)
        self._dispatcher._progress += 1
        if wait >= 0:
            acquire(self)
            self.mark_next()
            fs_release(&self._lock)
            return wait
        self.delivered(block)
        return 0.0

    cdef list take_block(self):
        """Put the next events in flight; None if there are none."""
        # Room is made without the lock, since a new list may start the garbage collector.
        cdef Py_ssize_t n
        cdef Py_ssize_t i
        cdef list block
        acquire(self)
        n = min(self._batch_size, self._backlog.count)
        fs_release(&self._lock)
        block = PyList_New(n)
        acquire(self)
        if n > self._backlog.count:  # discarded meanwhile
            n = self._backlog.count
            Py_SET_SIZE(block, n)
        self._first = self._appended - self._backlog.count
        for i in range(n):
            # The list takes over the reference.
            PyList_SET_ITEM_pointer(block, i, backlog_pop(&self._backlog))
        if n:
            self._block = block
            self._in_flight = n
        fs_release(&self._lock)
        return block if n else None

    cdef int delivered(self, list block) except -1:
        """Account for the block in flight, unless a closer has."""
        cdef bint mine
        acquire(self)
        mine = self._in_flight > 0
        if mine:
            self._block = None
            self._attempt = None
            if self._listeners or self._troubled:
                self._settling = len(block)
            self.measured(len(block))
            self.finish(len(block), 0)
        fs_release(&self._lock)
        if mine and self._settling:
            self.observed(block, NULL)
            acquire(self)
            self.settled()
            fs_release(&self._lock)
        return 0

    cdef void measured(self, Py_ssize_t n) noexcept:
        """Under the lock: so many events in flight are done with."""
        cdef double now
        if self._latency != NULL:
            now = fs_now()
            latency_done(self._latency, self._first, n, &BOUNDS[0], now)
            if self._backlog.count == 0 or now >= latency_latest(self._latency) + MARKING:
                self.mark_next()

    cdef int failed(self, object error) except -1:
        """The destination raised: account for what was in flight."""
        cdef list lost
        cdef list block
        cdef Attempt attempt
        cdef PyObject *single = NULL
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t n = 1
        cdef bint mine
        acquire(self)
        block = self._block
        attempt = self._attempt
        fs_release(&self._lock)
        if attempt is not None:
            done = attempt.done
            if block is not None and done == len(block):
                return self.delivered(block)  # a strategy's success() raised; it is too late
        if block is not None:
            n = len(block) - done
        else:
            single = self._single
            if single == NULL:
                # Nothing was in flight (no memory for a block), or a closer has taken it.
                if not self._abandoned:
                    log.error("%s: cannot deliver: %s", self.name, describe_error(error))
                return 0
        try:
            lost = [<object>single] if block is None else block[done:]
        except MemoryError:
            lost = None  # counted all the same
        acquire(self)
        mine = self._in_flight > 0  # else a closer has accounted for it
        if mine:
            self.measured(done + n)
            self._settling = done + n
            if self._abandoned and lost is not None:
                self.finish(done, 0)
                self._left = lost
                lost = None
            else:
                self.finish(done, n)
            self._block = None
            self._attempt = None
        self._single = NULL
        fs_release(&self._lock)
        if single != NULL:
            decref(single)
        if mine:
            try:
                if lost is not None:
                    self.report(lost, describe_error(error))
                if done:
                    self.tell_egress(block[:done])
            finally:
                acquire(self)
                self.settled()
                fs_release(&self._lock)
        return 0

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

    cdef void finish(self, Py_ssize_t delivered, Py_ssize_t dropped) noexcept:
        """Under the lock: nothing is in flight any more."""
        self._in_flight = 0
        self._delivered += delivered
        self._dropped += dropped
        self._dispatcher._progress += 1
        if self.maxsize:
            fs_notify(&self._lock, &self._space)
        if self._goal <= finished_up_to(self) or self._abandoned:
            self._goal = NO_GOAL  # those who wait for more say so again
            fs_notify(&self._lock, &self._done)

    cdef void settled(self) noexcept:
        """Under the lock: the last outcome is reported, too. Only now has it finished."""
        self._settling = 0
        if self._goal <= finished_up_to(self):
            self._goal = NO_GOAL
            fs_notify(&self._lock, &self._done)

    # ------------------------------------------------------------ waiting and closing

    def flush(self, timeout=None):
        """Wait until all that was accepted before the call has finished; cuts ``linger`` short.

        False if it has not within ``timeout`` seconds, and at once from inside the queue's
        own delivery, which could only wait for itself.
        """
        if self._dst is None:
            uninitialised(self)
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef unsigned long long goal
        cdef Summons call = NULL
        acquire(self)
        goal = self._hurry = self._appended
        if self._linger_until:
            call = self._dispatcher.expedite(&self._strand)
        fs_release(&self._lock)
        if call != NULL:
            self._dispatcher.answer(call)
        return self.wait(goal, False, deadline)

    def _delivers_here(self):
        """Whether the calling thread is inside this queue's delivery, and must not wait for it."""
        cdef bint here
        acquire(self)
        here = self._runner == fs_self()
        fs_release(&self._lock)
        return here

    cdef bint wait(self, unsigned long long goal, bint closing, double deadline) except -1:
        """Until all up to a position has finished, or the queue has; false if it has not."""
        cdef unsigned int seen
        cdef double now
        while True:
            acquire(self)
            if self._finished if closing else finished_up_to(self) >= goal:
                fs_release(&self._lock)
                return True
            if not closing and goal < self._goal:
                self._goal = goal
            seen = self._done.count
            fs_release(&self._lock)
            now = fs_now()
            if now >= deadline or self._runner == fs_self():
                return False
            if closing and fs_self() in self._announcers:
                return False
            if not self._dispatcher.may_need_help():
                fs_wait(&self._lock, &self._done, seen, min(deadline, now + FS_RECHECK))
            elif not self._dispatcher.help():
                fs_wait(&self._lock, &self._done, seen, min(deadline, now + FS_HELP))

    def close(self, timeout=None):
        """Refuse further events, deliver what is pending, close ``dst``. Idempotent.

        Every caller returns when that is done. The first whose deadline passes ends it:
        ``dst`` is closed at once, what is left goes to the dead letter, and that caller gets
        CloseTimeoutError with the events in ``undelivered``. An exception of ``dst.close()``
        is raised to one caller. From inside the queue's own delivery, or a listener's
        ``ingress``, ``close`` returns at once, and delivery goes on. An interrupted ``close``
        (Ctrl-C) may be called again.
        """
        if self._dst is None:
            uninitialised(self)
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef Summons call = NULL
        cdef bint first
        acquire(self)
        first = not self._closed
        self._closed = self._slow = True
        if timeout is not None and deadline < self._close_by:
            self._close_by = deadline
        fs_notify(&self._lock, &self._space)
        if not self._finished and not self._dst_closing:
            if not self._scheduled:
                self._scheduled = True
                call = self._dispatcher.schedule(&self._strand)
            elif self._linger_until:
                call = self._dispatcher.expedite(&self._strand)
        fs_release(&self._lock)
        if call != NULL:
            self._dispatcher.answer(call)
        if first:
            self._dispatcher.closed_one()
        if not self.wait(0, True, deadline):
            if self._runner == fs_self() or fs_self() in self._announcers:
                return
            acquire(self)
            first = not self._abandoned and not self._finished
            if first:
                self._abandoned = True
            fs_release(&self._lock)
            if first:
                self.abandon()
            else:
                self.wait(0, True, fs_now() + 2 * CLOSE_GRACE)  # another closer sees to it
            return
        acquire(self)
        error = self._close_error
        self._close_error = None
        fs_release(&self._lock)
        if error is not None:
            raise error

    def _close_dst(self):
        """Close ``dst``: on the worker after the last event, else on a thread of its own."""
        cdef double left
        raised = None
        acquire(self)
        left = self._close_by - fs_now()
        fs_release(&self._lock)
        try:
            callbacks.close(self._dst.sink, max(0.0, left))
        except BaseException as error:
            if self._abandoned and not isinstance(error, CloseTimeoutError):
                log.error("%s: close() raised %s", self.name, describe_error(error))
            else:
                raised = error
        trouble = self.trouble()
        if trouble is not None:
            trouble.over()
        acquire(self)
        self._close_error = raised
        self._finished = True
        fs_notify(&self._lock, &self._done)
        fs_release(&self._lock)

    cdef int abandon(self) except -1:
        """A deadline has passed: close ``dst`` at once and give back what is left."""
        cdef list waiting = self.take_waiting()
        cdef list left
        cdef list block = None
        cdef Attempt attempt = None
        cdef PyObject *single = NULL
        cdef Py_ssize_t done = 0
        cdef double now = fs_now()
        # A queue keeps to its own deadline, and then says what is left: the complete list is
        # worth more than being punctual on a machine that has too much to do.
        cdef double deadline = now + (LATE if isinstance(self._dst.sink, Queue) else CLOSE_GRACE)
        cdef double grace = now + GRACE
        cdef unsigned int seen
        cdef bint mine
        cdef bint late
        interrupt = None
        acquire(self)
        mine = not self._dst_closing
        self._dst_closing = True
        fs_release(&self._lock)
        if mine:
            try:
                _thread.start_new_thread(self._close_dst, ())
            except RuntimeError:  # the interpreter is shutting down
                self._close_dst()
        while True:
            acquire(self)
            now = fs_now()
            if (self._finished or now >= deadline) if not self._in_flight else now >= grace:
                break
            seen = self._done.count
            fs_release(&self._lock)
            try:
                fs_wait(&self._lock, &self._done, seen, grace if now < grace else deadline)
            except BaseException as error:  # Ctrl-C: not before everything is accounted for
                interrupt = error
                deadline = grace = 0.0
        if self._in_flight:
            block = self._block
            attempt = self._attempt  # to be dropped later, without the lock
            if attempt is not None:
                done = attempt.done
                attempt.taken = True
            if block is None:
                single = self._single
                incref(single)
            self._block = None
            self._attempt = None
            self._in_flight = 0
        left = self._left
        self._left = None
        error = self._close_error
        self._close_error = None
        fs_release(&self._lock)
        left = left or []
        if block is not None:
            left = left + block[done:]
        elif single != NULL:
            left = left + [<object>single]
            decref(single)
        left = left + waiting
        acquire(self)
        self._delivered += done
        self._dropped += len(left)
        late = not self._finished
        self._finished = True
        fs_notify(&self._lock, &self._done)
        fs_release(&self._lock)
        if left:
            self.report(left, "closed before it was delivered")
            self.trouble().over()
        if done:
            self.tell_egress(block[:done])
        if interrupt is not None:
            raise interrupt
        if isinstance(error, CloseTimeoutError):
            left = error.undelivered + left  # what dst had accepted, and not delivered, came first
            late = True
        if not left and not late:
            return 0  # and dst closed in no time: that is no news
        raise CloseTimeoutError(f"{self.name}: {len(left)} events were not delivered", left)

    cdef list take_waiting(self):
        """The backlog of a queue that accepts nothing any more."""
        cdef Py_ssize_t n
        cdef Py_ssize_t i
        cdef list waiting
        acquire(self)
        n = self._backlog.count
        fs_release(&self._lock)
        waiting = PyList_New(n)
        acquire(self)
        if n > self._backlog.count:
            n = self._backlog.count
            Py_SET_SIZE(waiting, n)
        for i in range(n):
            PyList_SET_ITEM_pointer(waiting, i, backlog_pop(&self._backlog))
        fs_release(&self._lock)
        return waiting

    cdef int after_fork(self) except -1:
        """In a child: what was accepted before is the parent's to deliver.

        References to it are leaked: a thread that is not here may have been moving them.
        """
        self._generation = fs_generation
        fs_lock_init(&self._lock)
        fs_signal_init(&self._space)
        fs_signal_init(&self._done)
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
        self._runner = 0
        self._announcers = []
        self._single = NULL
        self._block = None
        self._attempt = None
        self._in_flight = self._settling = 0
        self._left = None
        self._linger_until = 0.0
        if not self._finished:
            self._dst_closing = False
        return 0


cdef extern from *:
    """
    #define PyList_SET_ITEM_pointer(list, i, item) PyList_SET_ITEM(list, i, item)
    """
    void PyList_SET_ITEM_pointer(list, Py_ssize_t, PyObject *)


register_native(Queue)
