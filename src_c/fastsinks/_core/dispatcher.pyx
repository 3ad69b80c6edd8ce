# cython: freethreading_compatible=True
"""What runs the queues: many of them on few threads, one after the other in each.

A thread per queue collapses at a thousand: every wake-up is a fight for the GIL. Here
a worker goes through the list of ready strands and drains what the queue of each holds.

Only an active worker takes strands from the list. With the GIL one worker is active, for a
second thread would only contend. User code may block, though, and must not hold up other
queues. Therefore one parked worker watches. If strands are ready and nothing was delivered for
a millisecond, it declares the workers that are in a destination blocked: with the next `_epoch`
they are active no more, and it is. As long as nothing moves, the limit doubles every four
milliseconds. A worker that returns from a long call finds another epoch, and parks. While
nothing is ready nobody wakes up, except for timers.

Where threads wait:
- standing workers at `_spots`, until woken or `idle_timeout` has passed;
- one watching worker on `_watch`, until woken, the next timer, a tick, or idle;
- closers on `_change`, until no strand is busy.
All re-check under `_lock`. A waiting worker holds no GIL and runs no signal handlers, which
only the main thread does.

Under `_lock` no Python code runs and no reference is dropped; it may be taken under a
queue's lock and is itself the last. Threads are started under no lock: that allocates,
may collect garbage, and may so run anything.
"""

import _thread
import threading
import weakref

from cpython.object cimport PyObject
from libc.stdlib cimport free

from fastsinks._core import arguments, thread_state, wording
from fastsinks._core.atexit import at_exit, close_dispatchers

from .strand cimport IDLE, READY, TIMED, State, Strand
from .sync cimport (
    FS_PREFETCH,
    decref,
    fs_acquire_leaf,
    fs_bed_init,
    fs_breathe,
    fs_condition_init,
    fs_init,
    fs_is_inherited,
    fs_lock_init,
    fs_notify_leaf,
    fs_now,
    fs_pop,
    fs_release_leaf,
    fs_sleep,
    fs_spot_free,
    fs_spot_init,
    fs_stand,
    fs_wait,
    fs_wake,
    fs_wake_spot,
    incref,
)
from .timers cimport timers_add, timers_due, timers_make_room, timers_remove
from .times cimport FS_HELP, FS_NEVER, GIL_HOLD, NEXT_TICK, TICK

cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define FS_ACTIVE ((int)sysconf(_SC_NPROCESSORS_ONLN))
    #else
    #define FS_ACTIVE 1
    #endif
    """
    int FS_ACTIVE

fs_init()

cdef Wakeup START = <Wakeup>1
cdef int MOST_ACTIVE = 1 << 16


cdef class Dispatcher:
    """Runs queues, many on few threads; the queues of a process share a default one.

    A queue is served in order and by one thread at a time. While other queues have events, it
    is served for a moment only, so that a long backlog starves nobody. One that is blocked in
    its destination, or waits to retry, never holds up another. At most ``max_workers`` daemon
    threads are started, when there is something to do, and go away when there was nothing for
    ``idle_timeout`` seconds. ``name`` begins their names.
    """

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        fs_bed_init(&self._watch)
        fs_condition_init(&self._change)
        self._limit = FS_ACTIVE

    def __init__(self, *, max_workers=1024, idle_timeout=30.0, name="fastsinks"):
        self.max_workers = arguments.size("max_workers", max_workers, least=1, most=arguments.MANY)
        self.idle_timeout = arguments.seconds("idle_timeout", idle_timeout)
        self.name = str(name)
        _dispatchers.add(self)

    def __dealloc__(self):
        free(self._timers.heap)

    def close(self, timeout=None):
        """Let the queues deliver what is pending, then let the workers go; idempotent.

        Blocks for up to ``timeout`` seconds, then raises CloseTimeoutError; what is still
        pending can be had by closing the queues. They refuse events from now on.
        """
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef unsigned int seen
        cdef Py_ssize_t late
        cdef Wakeup wakeup = NULL
        self.acquire()
        self._closing = True  # no queue lingers any more
        # Those on a timer run at once: what lingered, and one more attempt.
        self.promote(FS_NEVER)
        if self._first != NULL:
            wakeup = self.choose_wakeup()
        fs_release_leaf(&self._lock)
        self.wake(wakeup)
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
        self.wake_all()
        fs_wake(&self._watch)
        fs_release_leaf(&self._lock)
        if late:
            raise wording.busy_queues(late)

    cdef void acquire(self) noexcept:
        if fs_is_inherited(&self._lock):
            self.after_fork()
        fs_acquire_leaf(&self._lock)

    # ---------------------------------------------------------------- called by queues

    cdef int attach(self, Py_ssize_t strands) except -1:
        """A queue is made, with places among the timers, so that scheduling cannot fail."""
        cdef bint attached
        self.acquire()
        attached = timers_make_room(&self._timers, strands)
        self._open += attached
        fs_release_leaf(&self._lock)
        if not attached:
            raise MemoryError
        return 0

    cdef void detach(self, Py_ssize_t strands) noexcept:
        """A queue is gone."""
        self.acquire()
        self._timers.strands -= strands
        fs_release_leaf(&self._lock)

    cdef void closed_one(self) noexcept:
        """A queue refuses further events; without any open queue, workers do not linger."""
        self.acquire()
        self._open -= 1
        if self._open == 0:
            self.wake_all()
            fs_wake(&self._watch)
        fs_release_leaf(&self._lock)

    cdef Wakeup schedule(self, Strand *strand) noexcept:
        """Make an idle strand ready, with those that follow it by `next`."""
        cdef Strand *following
        cdef Wakeup wakeup
        self.acquire()
        while strand != NULL:
            following = strand.next
            incref(strand.owner)
            self._busy += 1
            self.push_ready(strand)
            strand = following
        wakeup = self.choose_wakeup()
        fs_release_leaf(&self._lock)
        return wakeup

    cdef void schedule_at(self, Strand *strand, double when, bint lingers) noexcept:
        self.acquire()
        if lingers and self._closing:  # since the queue looked
            self.push_ready(strand)
            fs_release_leaf(&self._lock)
            return
        timers_add(&self._timers, strand, when)
        if strand.slot == 1:
            fs_wake(&self._watch)  # it sleeps until a later time
        fs_release_leaf(&self._lock)

    cdef void postpone(self, Strand *strand, double when) noexcept:
        self.acquire()
        if strand.slot and strand.when < when:
            timers_remove(&self._timers, strand)
            timers_add(&self._timers, strand, when)
        fs_release_leaf(&self._lock)

    cdef Wakeup expedite(self, Strand *strand) noexcept:
        cdef Wakeup wakeup = NULL
        self.acquire()
        if strand.slot:
            timers_remove(&self._timers, strand)
            self.push_ready(strand)
            wakeup = self.choose_wakeup()
        fs_release_leaf(&self._lock)
        return wakeup

    cdef void wake(self, Wakeup wakeup) noexcept:
        """Have that worker come. A new one is started by way of a bare thread: the start() of a
        threading.Thread waits for it, and takes locks of threading's, which this thread may hold
        if a finaliser got us here. With the first worker comes its stand-by: should the program
        end now, then from 3.12 on the worker could start none.
        """
        if wakeup == NULL:
            return
        if wakeup != START:
            fs_wake_spot(wakeup)
            return
        try:
            _thread.start_new_thread(_start, (self,))
            if self.needs_stand_by():
                _thread.start_new_thread(_start, (self,))
        except BaseException:  # no more threads or memory; or the interpreter is shutting down
            self.not_started()

    cdef bint needs_stand_by(self) noexcept:
        """Whether there is but one worker; the next is then already hired. Not where the
        two and the two bare threads would for a moment be more threads than allowed."""
        cdef bint hired
        fs_acquire_leaf(&self._lock)
        hired = self._workers == 1 and self.max_workers >= 4 and self.hire() == START
        fs_release_leaf(&self._lock)
        return hired

    cdef void not_started(self) noexcept:
        """One that was hired does not come. Events stay pending: the next one that is written
        asks again, and a thread that waits for a queue helps."""
        fs_acquire_leaf(&self._lock)
        self._workers -= 1
        self._coming -= 1
        self._woken = False
        fs_release_leaf(&self._lock)

    cdef bint may_need_help(self) except -1:
        """Whether a thread that waits for a queue has to call help() now and then."""
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
        cdef State state
        cdef Wakeup wakeup = NULL
        cdef bint is_worker = thread_state.here.runs_queues
        self.acquire()
        self.promote(fs_now())
        if self._first != NULL and not self._stopped:
            wakeup = self.choose_wakeup()
            if wakeup == NULL and self.is_deserted(is_worker):
                wakeup = self.hire()
        fs_release_leaf(&self._lock)
        self.wake(wakeup)
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
        # raise in it, and the strand would never be put back.
        owner = strand.owner
        state = strand.run(strand)
        fs_acquire_leaf(&self._lock)
        self.put_back(strand, state)
        fs_release_leaf(&self._lock)
        here.runs_queues = is_worker
        if not is_worker:
            here.interrupts = None  # else they, their frames and events would outlive the call
        if state == IDLE:
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
            # The queue around the next one, most of which its run will need.
            FS_PREFETCH(strand.next, -192)
            FS_PREFETCH(strand.next, -128)
            FS_PREFETCH(strand.next, -64)
            FS_PREFETCH(strand.next, 0)
            FS_PREFETCH(strand.next, 64)
        return strand

    cdef Wakeup choose_wakeup(self) noexcept nogil:
        """Something is ready: see to it that a worker will notice. The result is for wake()."""
        cdef Wakeup wakeup = NULL
        if self._woken:
            return NULL
        if self._active < self._limit:
            if self._standing:
                self._woken = True
                return self.pop_spot()
            if self._watching:
                self._woken = True
                fs_wake(&self._watch)
            else:
                wakeup = self.hire()
                self._woken = wakeup != NULL
        elif self._watching and not self._ticking:
            self._ticking = True
            fs_wake(&self._watch)  # those that are active may be blocked
        return wakeup

    cdef Wakeup hire(self) noexcept nogil:
        """Count one more worker, which is START, if there may be another; else NULL."""
        if self._workers >= self.max_workers or self._stopped:
            return NULL
        self._workers += 1
        self._coming += 1
        return START

    cdef void promote(self, double now) noexcept nogil:
        """Make ready what was on a timer until now."""
        cdef Strand *strand
        while timers_due(&self._timers, now):
            strand = self._timers.heap[0]
            timers_remove(&self._timers, strand)
            self.push_ready(strand)

    cdef bint is_deserted(self, bint is_worker) noexcept nogil:
        """Something is ready, and only the calling thread, which waits, can run it."""
        if self._first == NULL:
            return False
        if not self._workers:
            return True
        return is_worker and not (self._coming or self._watching or self._standing)

    cdef void put_back(self, Strand *strand, State state) noexcept nogil:
        """After a run. With IDLE the strand may already be ready again, or run elsewhere:
        only its count is looked after here."""
        self._progress += 1
        if state == READY:
            self.push_ready(strand)
        elif state == IDLE:
            self._busy -= 1
            if self._busy == 0:
                self._limit = FS_ACTIVE
                fs_notify_leaf(&self._lock, &self._change)
                if self._open == 0:
                    fs_wake(&self._watch)  # the one that stands by waits for nothing

    cdef Wakeup pop_spot(self) noexcept nogil:
        self._standing -= 1
        return fs_pop(&self._spots)

    cdef void wake_all(self) noexcept nogil:
        while self._standing:
            fs_wake_spot(self.pop_spot())

    cdef bint park(self, fs_spot *spot) noexcept nogil:
        """Wait until the worker may be active, which it then is; or false: leave."""
        cdef double now = fs_now()
        cdef double leave_at = now + self.idle_timeout / (1 + self._standing)  # of a crowd soon
        cdef double tick_at = FS_NEVER  # while ticking: when the tick is over
        cdef double until
        cdef unsigned long long seen = 0  # _progress when the tick began
        cdef bint watching = False
        cdef bint stay = True
        while not self._stopped:
            self._woken = False  # whichever was: this one is awake and looks
            self.promote(now)
            if self._first != NULL and self._active >= self._limit and now >= tick_at:
                if seen != self._progress:
                    self._limit = FS_ACTIVE
                elif self._inside:
                    # A whole tick, and nothing moved: those in a destination are blocked.
                    # Those on their way to one are not; they wait for the GIL.
                    self._epoch += 1
                    self._active -= self._inside
                    self._inside = 0
                    if self._limit < MOST_ACTIVE:
                        self._limit *= 2
            if self._first != NULL and self._active < self._limit:
                self._active += 1
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
                    tick_at = now + (TICK if self._limit == FS_ACTIVE else NEXT_TICK)
                    seen = self._progress
                if (self._open or self._busy) and (
                    self._timers.count or self._active or self._standing
                ):
                    if leave_at <= now:
                        leave_at = now + self.idle_timeout + TICK  # not before the others
                elif leave_at <= now:
                    stay = False
                    break
                until = leave_at if tick_at > leave_at else tick_at
                if self._timers.count and self._timers.heap[0].when < until:
                    until = self._timers.heap[0].when
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
            fs_wake_spot(self.pop_spot())  # another is to watch the time
        return stay

    # ------------------------------------------------------------------------- workers

    cdef int work(self) except -1:
        """A worker's life. The GIL is held but in park() and where a destination gives it away."""
        cdef Strand *strand
        cdef PyObject *owner
        cdef State state
        cdef unsigned long epoch
        cdef double since
        cdef unsigned int runs = 0
        cdef Wakeup wakeup
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
                # In one with becoming active or watching: in between, another would see nobody
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
                if self._first == NULL or self._active > self._limit:
                    self._active -= 1
                    break
                strand = self.pop_ready()
                owner = strand.owner
                epoch = self._epoch
                self._inside += 1
                wakeup = NULL
                if self._first != NULL:
                    wakeup = self.choose_wakeup()  # for another active one, or the watch
                if not (self._woken or self._coming or self._watching or self._standing):
                    wakeup = self.hire()  # to stand by, in case that user code blocks
                    self._woken = wakeup != NULL
                fs_release_leaf(&self._lock)
                if wakeup == START:
                    try:
                        _start_worker(self)  # this thread holds none of threading's locks
                    except BaseException:
                        self.not_started()
                elif wakeup != NULL:
                    fs_wake_spot(wakeup)
                state = strand.run(strand)
                fs_acquire_leaf(&self._lock)
                self.put_back(strand, state)
                blocked = epoch != self._epoch
                if not blocked:
                    self._inside -= 1
                runs += 1
                if state != TIMED or runs % 16 == 0:
                    fs_release_leaf(&self._lock)
                    if state == IDLE:
                        decref(owner)  # may be the last: runs finalisers
                    if (state == READY or runs % 16 == 0) and fs_now() - since > GIL_HOLD:
                        fs_breathe()
                        since = fs_now()
                    fs_acquire_leaf(&self._lock)
                if blocked:
                    break  # and another worker is active in its place
            fs_release_leaf(&self._lock)

    cdef void after_fork(self) noexcept:
        """In a child: no worker is here, and what was scheduled is the parent's to deliver."""
        fs_lock_init(&self._lock)
        self._spots = NULL
        fs_bed_init(&self._watch)
        fs_condition_init(&self._change)
        self._first = self._last = NULL
        self._timers.count = 0
        self._busy = 0
        self._workers = self._coming = self._standing = self._active = self._inside = 0
        self._watching = self._ticking = self._woken = False
        self._limit = FS_ACTIVE


def _start_worker(Dispatcher dispatcher):
    """Start a worker that threading knows, and logs can name."""
    threading.Thread(
        target=_work, args=(dispatcher,), name=f"{dispatcher.name}-worker", daemon=True
    ).start()


def _start(Dispatcher dispatcher):
    """In a bare thread: start a worker; or be it, if the interpreter has begun to shut down
    since, for from 3.12 on no thread can start then."""
    try:
        _start_worker(dispatcher)
    except BaseException:
        dispatcher.work()


def _work(Dispatcher dispatcher):
    dispatcher.work()


# -------------------------------------------------------------------------- the default

_dispatchers = weakref.WeakSet()
cdef Dispatcher _default = Dispatcher()


cdef Dispatcher default_dispatcher():
    """The one that the process's queues share, unless they are given another."""
    return _default


at_exit(close_dispatchers, _dispatchers)
