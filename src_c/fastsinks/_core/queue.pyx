# cython: freethreading_compatible=True
"""The queue: writers append, a worker delivers. Compare queue.go of docker/go-events.

An event's way. A writer appends it to the backlog, under the lock, and makes the queue's
strand ready if it was idle. A worker of the dispatcher then runs the queue: see flight.pyx.
Each event ends as delivered, as dropped (counted, logged, and in the dead letter), or in the
hands of a closer whose deadline has passed.

`accepted == delivered + dropped + pending` holds whenever the lock is free, because
pending is computed. What has finished is told by positions: an event's is the value of
`_appended` before it entered the backlog. All before the oldest in flight, or not yet reported,
or in the backlog have finished, for events are taken in order and discards come from the front.
"""

import _thread

cimport cython
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free, malloc

from fastsinks._core import arguments, callbacks, wording
from fastsinks._core.queue_options import queue_options
from fastsinks._core.stats import QueueStats

from .backlog cimport backlog_append, backlog_extend, backlog_pop
from .closing cimport Closing
from .delivery cimport Delivery
from .destination cimport Destination
from .dispatcher cimport Dispatcher, Wakeup, default_dispatcher
from .flight cimport (
    BLOCK,
    BLOCKS,
    DROP_NEWEST,
    DROP_OLDEST,
    INSTANT,
    RAISE,
    RETRYING,
    SINGLE,
    Carrier,
    Flight,
    acquire,
    finished_up_to,
    oldest_pending,
    flight_done,
    flight_drop,
    flight_end,
    flight_events,
    is_abandoned,
    is_full,
    pending,
    release_and_wake,
)
from .latency cimport BUCKETS, Latency, latency_find
from .retrying cimport RetryingSink
from .sink cimport NullSink, register_native, uninitialised
from .sync cimport (
    FS_HAS_GIL,
    decref,
    fs_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_wait,
    incref,
)
from .times cimport (
    CLOSE_GRACE,
    CLOSE_GRACE_OF_QUEUE,
    FS_HELP,
    FS_NEVER,
    FS_RECHECK,
    GRACE,
)

cdef extern from "Python.h":
    Py_ssize_t PySequence_Fast_GET_SIZE(object)
    PyObject **PySequence_Fast_ITEMS(object)

fs_init()

cdef Py_ssize_t ALL = <Py_ssize_t>((<size_t>-1) >> 1)
cdef Py_ssize_t REFUSED = -1
cdef dict POLICIES = {
    "block": BLOCK,
    "raise": RAISE,
    "drop_newest": DROP_NEWEST,
    "drop_oldest": DROP_OLDEST,
}


cdef inline Wakeup appended(Queue self, Py_ssize_t n) noexcept:
    """Under the lock: so many have just come into the backlog. For release_and_wake()."""
    if self._mark_due < self._appended + <unsigned long long>n:
        self.mark()
    self._appended += n
    if not self._scheduled or self._lingers != NULL:
        return self.make_ready()
    return NULL


cdef inline int push(Queue self, object event) except -1:
    """Accept one event. What has no bounds and no listeners never leaves this function."""
    acquire(self)
    if self._slow or self._dispatcher._stopped:
        fs_release(&self._lock)
        return self.accept((event,))
    if not backlog_append(&self._backlog, <PyObject *>event):
        fs_release(&self._lock)
        raise MemoryError
    incref(<PyObject *>event)
    self._accepted += 1
    release_and_wake(self, appended(self, 1))
    return 0


cdef inline bint extend(Queue self, object events) except -1:
    """Accept a tuple, or a list that nobody can change meanwhile; false if there is more to it.

    Without a tuple of its own, whose references would be counted and dropped, a block costs
    half as much.
    """
    cdef Py_ssize_t n
    acquire(self)
    n = PySequence_Fast_GET_SIZE(events)
    if n == 0 or self._slow or self._dispatcher._stopped:
        fs_release(&self._lock)
        return False
    if not backlog_extend(&self._backlog, PySequence_Fast_ITEMS(events), n):
        fs_release(&self._lock)
        raise MemoryError
    self._accepted += n
    release_and_wake(self, appended(self, n))
    return True


@cython.no_gc_clear  # like Carrier
cdef class Queue(Carrier):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Any thread may call anything. Events reach ``dst`` in the order in which they were
    accepted, one call at a time, on a thread of the dispatcher. With ``concurrency`` above one
    so many calls are under way at a time, and order is kept within a call only; ``dst`` is
    called by several threads, unless it is a RetryingSink, whose back-off then is for all the
    calls. ``write`` blocks only with ``maxsize`` and ``when_full="block"``. An exception of
    ``dst`` drops the event, or block: it is counted, logged, and handed to ``dead_letter``,
    which is never closed. A queue with pending events stays alive until they are delivered; an
    idle one costs no thread.
    """

    def __init__(
        self,
        dst,
        *,
        maxsize=0,
        when_full="block",
        batch_size=1,
        linger=0.0,
        concurrency=1,
        listeners=(),
        dead_letter=None,
        dispatcher=None,
        name=None,
    ):
        if self._dst is not None:
            raise RuntimeError("a queue is initialised once")
        cdef Destination inner
        destination = Destination(dst)
        options = queue_options(
            maxsize=maxsize,
            when_full=when_full,
            batch_size=batch_size,
            linger=linger,
            concurrency=concurrency,
            listeners=listeners,
            dead_letter=dead_letter,
            name=name,
        )
        dispatcher = arguments.dispatcher(dispatcher, Dispatcher, default_dispatcher())
        self.maxsize = options.maxsize
        self._policy = POLICIES[options.when_full]
        self._batch_size = options.batch_size
        self._linger = options.linger
        self._listeners = options.listeners
        self._dead_letter = options.dead_letter
        self._name = options.name
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
        if self._mode != INSTANT:  # which never blocks
            self.add_flights(options.concurrency)
        self._dispatcher = dispatcher
        self._dispatcher.attach(self.concurrency)
        self._dst = destination
        self._slow = self.maxsize > 0 or bool(self._listeners)
        self._closed = False

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
        cdef unsigned long long position = 0
        cdef double since = 0.0
        acquire(self)
        if self._latency != NULL:
            position = oldest_pending(self)
        if self._latency != NULL and self._latency.count and position < self._appended:
            since = self._latency.time[latency_find(self._latency, position)]
        fs_release(&self._lock)
        return fs_now() - since if since else 0.0

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
        if (type(events) is tuple or (FS_HAS_GIL and type(events) is list)) and extend(
            self, events
        ):
            return 0
        cdef tuple block = tuple(events)  # a list may be changed by others while we wait
        if self.maxsize and len(block) > self.maxsize:
            raise wording.too_large(len(block), self.maxsize)
        if block:
            self.accept(block)
        return 0

    cdef int accept(self, tuple events) except -1:
        """The whole of it: wait or discard if there is no room, count, tell listeners, append."""
        cdef Py_ssize_t n = len(events)
        cdef Py_ssize_t i
        cdef PyObject **evicted = NULL
        cdef Py_ssize_t evictions = self.admit(n, &evicted)
        cdef list dropped
        try:
            # First the listeners, so that no egress comes before its ingress.
            if self._listeners:
                self.announce(events)
            if evictions != REFUSED:
                self.append(events)
        except BaseException:
            if evictions != REFUSED:
                self.withdraw(n)
            raise
        finally:
            if evictions == REFUSED:
                self.report_drops(list(events), wording.QUEUE_FULL)
            elif evictions:
                dropped = []
                for i in range(evictions):
                    dropped.append(<object>evicted[i])
                    decref(evicted[i])
                free(evicted)
                self.report_drops(dropped, wording.QUEUE_FULL)
        return 0

    cdef Py_ssize_t admit(self, Py_ssize_t n, PyObject ***evicted) except -2:
        """Count n events, which holds their place while ingress() runs, without the lock.

        How many older ones are dropped for them, which are the caller's; or REFUSED.
        """
        cdef Py_ssize_t evictions = 0
        cdef Py_ssize_t held
        cdef Py_ssize_t over
        cdef Py_ssize_t i
        cdef Wakeup wakeup
        cdef unsigned int seen
        acquire(self)
        while True:
            if self._closed or self._dispatcher._stopped:
                fs_release(&self._lock)
                if self._dst is None:
                    uninitialised(self)
                raise wording.closed(self.name)
            held = pending(self)
            over = held + n - self.maxsize
            if self.maxsize == 0 or over <= 0:
                break
            if self._policy == BLOCK:
                seen = self._space.count
                wakeup = NULL
                if self._lingers != NULL:  # what does not fit cannot fill the block
                    wakeup = self._dispatcher.expedite(self._lingers)
                release_and_wake(self, wakeup)
                if self.is_delivering():
                    raise wording.full_for_itself(self.name)
                fs_wait(&self._lock, &self._space, seen, fs_now() + FS_RECHECK)
                acquire(self)
            elif self._policy == RAISE:
                fs_release(&self._lock)
                raise wording.full(self.name, held, self.maxsize)
            else:
                if self._policy == DROP_OLDEST and self._backlog.count >= over:
                    evicted[0] = <PyObject **>malloc(over * sizeof(PyObject *))
                if evicted[0] == NULL:
                    self._dropped += n
                    evictions = REFUSED
                    break
                for i in range(over):
                    evicted[0][i] = backlog_pop(&self._backlog)
                self._dropped += over
                evictions = over
                if self._goal <= finished_up_to(self):
                    fs_notify(&self._lock, &self._done)
                break
        self._accepted += n
        fs_release(&self._lock)
        return evictions

    cdef int withdraw(self, Py_ssize_t n) except -1:
        """They are not appended after all."""
        cdef Wakeup wakeup = NULL
        acquire(self)
        self._accepted -= n
        fs_notify(&self._lock, &self._space)
        fs_notify(&self._lock, &self._done)
        if self._closed:  # a close() may have found nothing to do but to wait for this
            wakeup = self.make_ready()
        release_and_wake(self, wakeup)
        return 0

    cdef int announce(self, tuple events) except -1:
        """Tell the listeners of events to come."""
        cdef list announcers = self._announcers
        me = fs_self()
        announcers.append(me)
        try:
            callbacks.tell_all(self._listeners, "ingress", events)
        finally:
            announcers.remove(me)
        return 0

    cdef int append(self, tuple events) except -1:
        """Append what has been admitted."""
        cdef Py_ssize_t n = len(events)
        acquire(self)
        if is_abandoned(self):
            fs_release(&self._lock)
            raise wording.closed_meanwhile(self.name)
        if not backlog_extend(&self._backlog, PySequence_Fast_ITEMS(events), n):
            fs_release(&self._lock)
            raise MemoryError
        release_and_wake(self, appended(self, n))
        return 0

    cdef Wakeup make_ready(self) noexcept:
        """Under the lock: there is something to do. The result is for release_and_wake()."""
        if not self._scheduled:
            return self.start_idle()
        if self._lingers != NULL and (self._backlog.count >= self._batch_size or is_full(self)):
            return self._dispatcher.expedite(self._lingers)
        return NULL

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
        cdef Wakeup wakeup = NULL
        acquire(self)
        goal = self._hurry = self._appended
        if self._lingers != NULL:
            wakeup = self._dispatcher.expedite(self._lingers)
        release_and_wake(self, wakeup)
        return self.wait(goal, None, deadline)

    def _delivers_here(self):
        """Whether the calling thread is inside this queue's delivery, and must not wait for it."""
        return self.is_delivering()

    cdef bint is_delivering(self) noexcept:
        """Whether the calling thread is inside this queue's delivery. Takes the lock."""
        cdef bint here = False
        cdef Py_ssize_t i
        acquire(self)
        for i in range(self.concurrency):
            here |= self.flight(i).runner == fs_self()
        fs_release(&self._lock)
        return here

    cdef bint is_inside(self) except -1:
        """Whether the calling thread is inside this queue, and a close() would wait for itself."""
        return self.is_delivering() or fs_self() in self._announcers

    cdef bint wait(self, unsigned long long goal, Closing closing, double deadline) except -1:
        """Until all up to a position has finished, or the closing has; false if it has not."""
        cdef unsigned int seen
        cdef double now
        while True:
            acquire(self)
            if finished_up_to(self) >= goal if closing is None else closing.finished:
                fs_release(&self._lock)
                return True
            if closing is None and goal < self._goal:
                self._goal = goal
            seen = self._done.count
            fs_release(&self._lock)
            now = fs_now()
            if now >= deadline or self.is_delivering():
                return False
            if closing is not None and self.is_inside():
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
        cdef Closing closing = self.start_closing(FS_NEVER if timeout is None else deadline)
        cdef bint abandons
        if not self.wait(0, closing, deadline):
            if self.is_inside():
                return
            acquire(self)
            abandons = closing.abandon()
            fs_release(&self._lock)
            if abandons:
                self.abandon(closing)
            else:
                self.wait(0, closing, fs_now() + 2 * CLOSE_GRACE)  # another closer sees to it
            return
        acquire(self)
        error = closing.take_error()
        fs_release(&self._lock)
        if error is not None:
            raise error

    cdef Closing start_closing(self, double by):
        """Refuse further events, and have ``dst`` closed after the last one. Does not wait."""
        cdef Closing mine = Closing()  # dropped, where it is not the first, without the lock
        cdef Closing closing
        cdef Wakeup wakeup = NULL
        cdef bint first
        acquire(self)
        if self._closing is None:
            self._closing = mine
        closing = self._closing
        first = not self._closed
        self._closed = self._slow = True
        closing.by = min(closing.by, by)
        fs_notify(&self._lock, &self._space)
        if not closing.finished and not closing.started:
            if not self._scheduled:
                wakeup = self.make_ready()
            elif self._lingers != NULL:
                wakeup = self._dispatcher.expedite(self._lingers)
        release_and_wake(self, wakeup)
        if first:
            self._dispatcher.closed_one()
        return closing

    cdef int abandon(self, Closing closing) except -1:
        """A deadline has passed: close ``dst`` at once and give back what is left."""
        cdef list waiting = self.take(NULL, ALL)
        cdef list passed = []
        cdef list left = []
        cdef bint mine
        cdef bint late
        acquire(self)
        mine = closing.start()
        fs_release(&self._lock)
        if mine:
            try:
                _thread.start_new_thread(self._close_dst, ())
            except RuntimeError:  # the interpreter is shutting down
                self._close_dst()
        interrupt = self.wait_for_flights(closing)
        while self.take_over(passed, left):
            pass
        left += waiting
        acquire(self)
        error = closing.take_error()
        self._delivered += len(passed)
        self._dropped += len(left)
        late = not closing.finished
        closing.finished = True
        fs_notify(&self._lock, &self._done)
        fs_release(&self._lock)
        if left:
            self.report_drops(left, wording.CLOSED_BEFORE)
            self.trouble().over()
        if passed:
            self.tell_egress(passed)
        raised = interrupt or wording.undelivered(self.name, left, error, late)
        if raised is not None:
            raise raised
        return 0

    cdef bint take_over(self, list passed, list left) except -1:
        """End the oldest flight, whose events a closer accounts for; false if there is none."""
        cdef Flight *flight = NULL
        cdef Flight ended
        cdef Py_ssize_t done
        cdef Py_ssize_t i
        acquire(self)
        for i in range(self.concurrency):
            if self.flight(i).count and (flight == NULL or self.flight(i).first < flight.first):
                flight = self.flight(i)
        if flight == NULL:
            fs_release(&self._lock)
            return False
        done = flight_done(flight)
        ended = flight_end(flight)  # its references are dropped later, without the lock
        if ended.delivery != NULL:
            (<Delivery>ended.delivery).taken = True
        fs_release(&self._lock)
        events = flight_events(&ended)
        flight_drop(&ended)
        passed += events[:done]
        left += events[done:]
        return True

    cdef object wait_for_flights(self, Closing closing):
        """Let the destination, which is being closed, let go of what is in flight, then close.

        What interrupted the wait, if anything. A queue keeps to its own deadline, and then says
        what is left: the complete list is worth more than being punctual on a machine that has
        too much to do.
        """
        cdef double now = fs_now()
        cdef double grace = now + GRACE
        cdef double deadline = now + (
            CLOSE_GRACE_OF_QUEUE if isinstance(self._dst.sink, Queue) else CLOSE_GRACE
        )
        cdef double until
        cdef unsigned int seen
        interrupt = None
        while True:
            acquire(self)
            until = grace if self.is_in_flight() else deadline
            if fs_now() >= until or (until == deadline and closing.finished):
                fs_release(&self._lock)
                return interrupt
            seen = self._done.count
            fs_release(&self._lock)
            try:
                fs_wait(&self._lock, &self._done, seen, until)
            except BaseException as error:  # Ctrl-C: not before everything is accounted for
                interrupt = error
                deadline = grace = 0.0


    cdef bint is_in_flight(self) noexcept:
        """Under the lock: whether the destination has not let go of something."""
        cdef Py_ssize_t i
        for i in range(self.concurrency):
            if self.flight(i).count and not self.flight(i).landed:
                return True
        return False


register_native(Queue)
