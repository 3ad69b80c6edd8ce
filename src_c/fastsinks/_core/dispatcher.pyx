# cython: freethreading_compatible=True
"""Who runs the queues: many of them on few threads, one after the other in each.

A thread per queue collapses at a thousand: every wake-up is a fight for the GIL. Here
a worker goes through the list of ready queues and drains what each holds.

Turns. Only a worker that has a turn takes queues from the list; with the GIL there is
one turn, for a second thread would only contend. User code may block, though, and must
not hold up other queues. Therefore one parked worker watches: while queues are ready
and for a millisecond nothing was delivered, it declares the workers that are in a destination
blocked (`_epoch`), which takes their turns away, and takes one itself; as long as nothing
moves, there are twice as many every four milliseconds. A worker that returns from a long
call finds another epoch, and parks. While nothing is ready nobody wakes up, except for timers.

Who waits where:
- standing workers at `_spots`, until called or `idle_timeout` has passed;
- one watching worker on `_watch`, until called, the next timer, a tick, or idle;
- closers on `_change`, until no queue is busy.
All re-check under `_lock`; a wait by a worker holds no GIL and runs no signal handlers,
which only the main thread does.

Under `_lock` no Python code runs and no reference is dropped; it may be taken under a
queue's lock and is itself the last. Threads are started under no lock: that allocates,
may collect garbage, and may so run anything.
"""

import _thread
import threading
import weakref

from cpython.object cimport PyObject
from libc.stdlib cimport free, realloc

from fastsinks._core import arguments, thread_state
from fastsinks._core.errors import CloseTimeoutError
from fastsinks._core.atexit import at_exit, close_dispatchers

from .sync cimport (
    FS_HELP,
    FS_NEVER,
    FS_PREFETCH,
    decref,
    fs_acquire_leaf,
    fs_breathe,
    fs_call,
    fs_condition_init,
    fs_init,
    fs_is_inherited,
    fs_lock_init,
    fs_notify_leaf,
    fs_pop,
    fs_now,
    fs_release_leaf,
    fs_signal_init,
    fs_sleep,
    fs_spot_free,
    fs_spot_init,
    fs_stand,
    fs_wait,
    fs_wake,
    incref,
)

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FS_TURNS ((int)sysconf(_SC_NPROCESSORS_ONLN))
    #else
    #define FS_TURNS 1
    #endif
    """
    int FS_TURNS

fs_init()

cdef Summons START = <Summons>1

# Seconds without progress after which running workers count as blocked; and for those that
# took over from them, which on a machine with too much to do may just not have been let run.
cdef double TICK = 0.001
cdef double NEXT_TICK = 0.004
cdef double HOLD = 0.0003  # seconds that a worker keeps the GIL before others may have it
cdef int MOST_TURNS = 1 << 16


cdef class Dispatcher:
    """Runs queues, many on few threads; the queues of a process share a default one.

    A queue is served in order and by one thread at a time; queues take turns, so that a
    long backlog does not starve a neighbour; one that is blocked in its destination, or
    waits to retry, never holds up another. At most ``max_workers`` daemon threads are
    started, when there is something to do, and go away when there was nothing for
    ``idle_timeout`` seconds. ``name`` begins their names.
    """

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        fs_condition_init(&self._watch)
        fs_signal_init(&self._change)
        self._limit = FS_TURNS

    def __init__(self, *, max_workers=1024, idle_timeout=30.0, name="fastsinks"):
        self.max_workers = arguments.size("max_workers", max_workers, least=1, most=arguments.MANY)
        self.idle_timeout = arguments.seconds("idle_timeout", idle_timeout)
        self.name = str(name)
        _dispatchers.add(self)

    def __dealloc__(self):
        free(self._timers)

    def close(self, timeout=None):
        """Let the queues deliver what is pending, then let the workers go; idempotent.

        Blocks for up to ``timeout`` seconds, then raises CloseTimeoutError; what is still
        pending can be had by closing the queues. They refuse events from now on.
        """
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef unsigned int seen
        cdef Py_ssize_t late
        cdef Summons call = NULL
        self.acquire()
        self._closing = True  # nobody lingers any more
        # Those on a timer have a go at once: what lingered, and one more attempt.
        self.promote(FS_NEVER)
        if self._first != NULL:
            call = self.call()
        fs_release_leaf(&self._lock)
        self.answer(call)
        fs_acquire_leaf(&self._lock)
        while self._busy and not self._stopped and fs_now() < deadline:
            seen = self._change.count
            fs_release_leaf(&self._lock)
            if not self.may_need_help():
                fs_wait(&self._lock, &self._change, seen, deadline)
            elif not self.help():
                fs_wait(&self._lock, &self._change, seen, min(deadline, fs_now() + FS_HELP))
            fs_acquire_leaf(&self._lock)
        late = self._busy
        self._stopped = True
        self.call_all()
        fs_wake(&self._watch)
        fs_release_leaf(&self._lock)
        if late:
            raise CloseTimeoutError(f"{late} queues still had events pending")

    cdef void acquire(self) noexcept:
        if fs_is_inherited(&self._lock):
            self.after_fork()
        fs_acquire_leaf(&self._lock)

    # ---------------------------------------------------------------- called by queues

    cdef int attach(self) except -1:
        """A queue is made, with its place in the heap, so that scheduling cannot fail."""
        cdef Strand **timers
        self.acquire()
        if self._strands == self._room:
            timers = <Strand **>realloc(self._timers, (2 * self._room + 8) * sizeof(Strand *))
            if timers == NULL:
                fs_release_leaf(&self._lock)
                raise MemoryError
            self._timers = timers
            self._room = 2 * self._room + 8
        self._strands += 1
        self._open += 1
        fs_release_leaf(&self._lock)
        return 0

    cdef void detach(self) noexcept:
        """A queue is gone."""
        self.acquire()
        self._strands -= 1
        fs_release_leaf(&self._lock)

    cdef void closed_one(self) noexcept:
        """A queue refuses further events; without any open queue, workers do not linger."""
        self.acquire()
        self._open -= 1
        if self._open == 0:
            self.call_all()
            fs_wake(&self._watch)
        fs_release_leaf(&self._lock)

    cdef Summons schedule(self, Strand *strand) noexcept:
        cdef Summons call
        incref(strand.owner)
        self.acquire()
        self._busy += 1
        self.push_ready(strand)
        call = self.call()
        fs_release_leaf(&self._lock)
        return call

    cdef void schedule_at(self, Strand *strand, double when, bint lingers) noexcept:
        self.acquire()
        if lingers and self._closing:  # since the queue looked
            self.push_ready(strand)
            fs_release_leaf(&self._lock)
            return
        strand.when = when
        self._timed += 1
        sift_up(self._timers, self._timed, strand)
        if strand.slot == 1:
            fs_wake(&self._watch)  # it sleeps until a later time
        fs_release_leaf(&self._lock)

    cdef Summons expedite(self, Strand *strand) noexcept:
        cdef Summons call = NULL
        self.acquire()
        if strand.slot:
            remove_timer(self._timers, self._timed, strand)
            self._timed -= 1
            self.push_ready(strand)
            call = self.call()
        fs_release_leaf(&self._lock)
        return call

    cdef void answer(self, Summons call) noexcept:
        """Do what call() asked for. A new worker is started by way of a bare thread, for
        threading.Thread.start() takes locks of threading's, which this thread may hold if a
        finaliser got us here, and waits for the new thread. With the first worker comes its
        stand-by: should the program end now, then from 3.12 on the worker could start none.
        """
        if call == NULL:
            return
        if call != START:
            fs_call(call)
            return
        try:
            _thread.start_new_thread(_start, (self,))
            if self.needs_stand_by():
                _thread.start_new_thread(_start, (self,))
        except BaseException:  # no more threads or memory; or the interpreter is shutting down
            self.not_started()

    cdef bint needs_stand_by(self) noexcept:
        """Whether there is but one worker; the next is then already counted. Not where the
        two and the two bare threads would for a moment be more threads than allowed."""
        cdef bint alone
        fs_acquire_leaf(&self._lock)
        alone = self._workers == 1 and self.max_workers >= 4 and not self._stopped
        if alone:
            self._workers += 1
            self._coming += 1
        fs_release_leaf(&self._lock)
        return alone

    cdef void not_started(self) noexcept:
        # Events stay pending: the next one asks again, and who waits for a queue helps.
        fs_acquire_leaf(&self._lock)
        self._workers -= 1
        self._coming -= 1
        self._called = False
        fs_release_leaf(&self._lock)

    cdef bint may_need_help(self) except -1:
        """Whether who waits for a queue has to call help() now and then."""
        return self._stopped or not self._workers or thread_state.here.runs_queues

    cdef bint help(self) except -1:
        """Run a queue on the calling thread, if there is no worker and none can be started.

        For threads that wait for a queue: at the interpreter's exit no thread starts; and for
        a worker that waits in a destination where nobody stands by. Any other's help could
        leave it in the next destination that blocks, beyond its own deadline.
        Whether something was run.
        """
        cdef Strand *strand = NULL
        cdef PyObject *owner
        cdef Outcome outcome
        cdef Summons call = NULL
        cdef bint is_worker = thread_state.here.runs_queues
        self.acquire()
        self.promote(fs_now())
        if self._first != NULL and not self._stopped:
            call = self.call()
            if call == NULL and self.is_deserted(is_worker) and self._workers < self.max_workers:
                self._workers += 1
                self._coming += 1
                call = START
        fs_release_leaf(&self._lock)
        self.answer(call)
        here = thread_state.here
        interrupts = []
        if not is_worker:
            here.interrupts = interrupts
        here.runs_queues = True
        fs_acquire_leaf(&self._lock)
        if self.is_deserted(is_worker):
            strand = self.pop_ready()
        fs_release_leaf(&self._lock)
        if strand == NULL:
            here.runs_queues = is_worker
            if not is_worker:
                here.interrupts = None
            return False
        # No Python code here but in run(), which looks after it: the handler of a signal could
        # raise in it, and the queue would never be settled.
        owner = strand.owner
        outcome = strand.run(owner)
        fs_acquire_leaf(&self._lock)
        self.settle(strand, outcome)
        fs_release_leaf(&self._lock)
        here.runs_queues = is_worker
        if not is_worker:
            here.interrupts = None  # else they, their frames and events would outlive the call
        if outcome == IDLE:
            decref(owner)
        if interrupts:
            raise interrupts[0]
        return True

    # ------------------------------------------------- under the lock, without the GIL

    cdef void push_ready(self, Strand *strand) noexcept nogil:
        strand.next = NULL
        if self._first == NULL:
            self._first = strand
        else:
            self._last.next = strand
        self._last = strand

    cdef Strand *pop_ready(self) noexcept nogil:
        cdef Strand *strand = self._first
        if strand != NULL:
            self._first = strand.next
            # The queue around the next one, most of which the next turn will need.
            FS_PREFETCH(strand.next, -192)
            FS_PREFETCH(strand.next, -128)
            FS_PREFETCH(strand.next, -64)
            FS_PREFETCH(strand.next, 0)
            FS_PREFETCH(strand.next, 64)
        return strand

    cdef Summons call(self) noexcept nogil:
        """Something is ready: see to it that a worker will notice. The result is for answer()."""
        if self._called:
            return NULL
        if self._running < self._limit:
            if self._standing:
                self._called = True
                return self.pop_spot()
            if self._watching:
                self._called = True
                fs_wake(&self._watch)
            elif self._workers < self.max_workers and not self._stopped:
                self._called = True
                self._workers += 1
                self._coming += 1
                return START
        elif self._watching and not self._ticking:
            self._ticking = True
            fs_wake(&self._watch)  # those that run may be blocked
        return NULL

    cdef void promote(self, double now) noexcept nogil:
        """Make ready what was on a timer until now."""
        cdef Strand *strand
        while self._timed and self._timers[0].when <= now:
            strand = self._timers[0]
            remove_timer(self._timers, self._timed, strand)
            self._timed -= 1
            self.push_ready(strand)

    cdef bint is_deserted(self, bint is_worker) noexcept nogil:
        """Something is ready, and nobody but the caller, who waits, can run it."""
        if self._first == NULL:
            return False
        if not self._workers:
            return True
        return is_worker and not (self._coming or self._watching or self._standing)

    cdef void settle(self, Strand *strand, Outcome outcome) noexcept nogil:
        """After a run. With IDLE the strand may already be ready again, or run elsewhere:
        only its count is looked after here."""
        self._progress += 1
        if outcome == MORE:
            self.push_ready(strand)
        elif outcome == IDLE:
            self._busy -= 1
            if self._busy == 0:
                self._limit = FS_TURNS
                fs_notify_leaf(&self._lock, &self._change)
                if self._open == 0:
                    fs_wake(&self._watch)  # who stands by waits for nothing

    cdef Summons pop_spot(self) noexcept nogil:
        self._standing -= 1
        return fs_pop(&self._spots)

    cdef void call_all(self) noexcept nogil:
        while self._standing:
            fs_call(self.pop_spot())

    cdef bint park(self, fs_spot *spot) noexcept nogil:
        """Wait for a turn, which the worker then has; or false: leave."""
        cdef double now = fs_now()
        cdef double leave_at = now + self.idle_timeout / (1 + self._standing)  # of a crowd soon
        cdef double tick_at = FS_NEVER  # while ticking: when the tick is over
        cdef double until
        cdef unsigned long long seen = 0  # _progress when the tick began
        cdef bint watching = False
        cdef bint stay = True
        while not self._stopped:
            self._called = False  # whoever was called: this one is awake and looks
            self.promote(now)
            if self._first != NULL and self._running >= self._limit and now >= tick_at:
                if seen != self._progress:
                    self._limit = FS_TURNS
                elif self._inside:
                    # A whole tick, and nothing moved: who is in a destination is blocked.
                    # Those on their way to one are not; they wait for the GIL.
                    self._epoch += 1
                    self._running -= self._inside
                    self._inside = 0
                    if self._limit < MOST_TURNS:
                        self._limit *= 2
            if self._first != NULL and self._running < self._limit:
                self._running += 1
                break
            if self._open == 0 and self._busy == 0:
                leave_at = now
            if not self._watching:
                self._watching = watching = True
            if watching:
                self._ticking = self._first != NULL
                if not self._ticking:
                    tick_at = FS_NEVER
                elif tick_at == FS_NEVER or tick_at <= now:
                    tick_at = now + (TICK if self._limit == FS_TURNS else NEXT_TICK)
                    seen = self._progress
                if (self._open or self._busy) and (
                    self._timed or self._running or self._standing
                ):
                    if leave_at <= now:
                        leave_at = now + self.idle_timeout + TICK  # not before the others
                elif leave_at <= now:
                    stay = False
                    break
                until = leave_at if tick_at > leave_at else tick_at
                if self._timed and self._timers[0].when < until:
                    until = self._timers[0].when
                fs_sleep(&self._watch, &self._lock, until)
            else:
                if leave_at <= now:
                    stay = False
                    break
                self._standing += 1
                if not fs_stand(&self._spots, spot, &self._lock, leave_at):
                    self._standing -= 1
            now = fs_now()
        else:
            stay = False
        if watching:
            self._watching = self._ticking = False
        if not self._watching and self._standing:
            fs_call(self.pop_spot())  # somebody else is to keep the time
        return stay

    # ------------------------------------------------------------------------- workers

    cdef int work(self) except -1:
        """A worker's life. The GIL is held but in park() and where a destination gives it away."""
        cdef Strand *strand
        cdef PyObject *owner
        cdef Outcome outcome
        cdef unsigned long epoch
        cdef double since
        cdef unsigned int turns = 0
        cdef Summons call
        cdef bint stay
        cdef bint blocked
        cdef bint coming = True
        cdef fs_spot spot
        thread_state.here.runs_queues = True
        if not fs_spot_init(&spot):
            fs_spot_free(&spot)
            self.not_started()
            return 0
        while True:
            with nogil:
                fs_acquire_leaf(&self._lock)
                # In one with its turn or its watch: in between, another would see nobody
                # standing by and start one more.
                self._coming -= coming
                coming = False
                stay = self.park(&spot)
                if not stay:
                    self._workers -= 1
                    fs_notify_leaf(&self._lock, &self._change)
                fs_release_leaf(&self._lock)
            if not stay:
                fs_spot_free(&spot)
                return 0
            since = fs_now()
            fs_acquire_leaf(&self._lock)
            while True:
                if self._first == NULL or self._running > self._limit:
                    self._running -= 1
                    break
                strand = self.pop_ready()
                owner = strand.owner
                epoch = self._epoch
                self._inside += 1
                call = NULL
                if self._first != NULL:
                    call = self.call()  # for another turn, or the watch
                if not (
                    self._called
                    or self._coming
                    or self._watching
                    or self._standing
                    or self._stopped
                ):
                    # Somebody has to stand by, in case that user code blocks.
                    if self._workers < self.max_workers:
                        self._called = True
                        self._workers += 1
                        self._coming += 1
                        call = START
                fs_release_leaf(&self._lock)
                if call == START:
                    try:
                        _hire(self)  # this thread holds none of threading's locks
                    except BaseException:
                        self.not_started()
                elif call != NULL:
                    fs_call(call)
                outcome = strand.run(owner)
                fs_acquire_leaf(&self._lock)
                self.settle(strand, outcome)
                blocked = epoch != self._epoch
                if not blocked:
                    self._inside -= 1
                turns += 1
                if outcome != TIMED or turns % 16 == 0:
                    fs_release_leaf(&self._lock)
                    if outcome == IDLE:
                        decref(owner)  # may be the last: runs finalisers
                    if (outcome == MORE or turns % 16 == 0) and fs_now() - since > HOLD:
                        fs_breathe()
                        since = fs_now()
                    fs_acquire_leaf(&self._lock)
                if blocked:
                    break  # another worker has had this one's turn since
            fs_release_leaf(&self._lock)

    cdef void after_fork(self) noexcept:
        """In a child: no worker is here, and what was scheduled is the parent's to deliver."""
        fs_lock_init(&self._lock)
        self._spots = NULL
        fs_condition_init(&self._watch)
        fs_signal_init(&self._change)
        self._first = self._last = NULL
        self._timed = 0
        self._busy = 0
        self._workers = self._coming = self._standing = self._running = self._inside = 0
        self._watching = self._ticking = self._called = False
        self._limit = FS_TURNS


def _hire(Dispatcher dispatcher):
    """Start a worker that threading knows, and logs can name."""
    threading.Thread(
        target=_work, args=(dispatcher,), name=f"{dispatcher.name}-worker", daemon=True
    ).start()


def _start(Dispatcher dispatcher):
    """In a bare thread: start a worker; or be it, if the interpreter has begun to shut down
    since, for from 3.12 on no thread can start then."""
    try:
        _hire(dispatcher)
    except BaseException:
        dispatcher.work()


def _work(Dispatcher dispatcher):
    dispatcher.work()


# ------------------------------------------------------- a binary heap that knows its slots

cdef void place(Strand **heap, Py_ssize_t at, Strand *strand) noexcept nogil:
    heap[at - 1] = strand
    strand.slot = at


cdef void sift_up(Strand **heap, Py_ssize_t at, Strand *strand) noexcept nogil:
    while at > 1 and heap[at // 2 - 1].when > strand.when:
        place(heap, at, heap[at // 2 - 1])
        at //= 2
    place(heap, at, strand)


cdef void sift_down(Strand **heap, Py_ssize_t size, Py_ssize_t at, Strand *strand) noexcept nogil:
    cdef Py_ssize_t child
    while 2 * at <= size:
        child = 2 * at
        if child < size and heap[child].when < heap[child - 1].when:
            child += 1
        if heap[child - 1].when >= strand.when:
            break
        place(heap, at, heap[child - 1])
        at = child
    place(heap, at, strand)


cdef void remove_timer(Strand **heap, Py_ssize_t size, Strand *strand) noexcept nogil:
    """Take a strand out of a heap of ``size``; the last one fills its place."""
    cdef Py_ssize_t at = strand.slot
    cdef Strand *last = heap[size - 1]
    strand.slot = 0
    if last == strand:
        return
    if at > 1 and heap[at // 2 - 1].when > last.when:
        sift_up(heap, at, last)
    else:
        sift_down(heap, size - 1, at, last)


# -------------------------------------------------------------------------- the default

_dispatchers = weakref.WeakSet()
cdef Dispatcher _default = Dispatcher()


cdef Dispatcher default_dispatcher():
    """The one that the process's queues share, unless they are given another."""
    return _default


at_exit(close_dispatchers, _dispatchers)
