"""The dispatcher runs many queues on few threads, in each one after the other.

Normally one worker runs: a second one would only contend for the GIL. Others are parked.
Where strands are ready and for a tick nothing was delivered, a parked worker declares those
that run blocked. They count no more then, and it runs in their place; with each further tick
that nothing moves, twice as many may. One that comes back from a long call parks.

The lock may be taken under a queue's lock and is itself the last.
"""

import _thread
import threading
import weakref
from collections import deque
from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, thread_state, wording
from ..atexit import at_exit, close_dispatchers
from ..condition import NEVER, Condition
from ..locked import Locked
from .strand import State, Strand
from .timers import Timers

TICK = 0.001  #: seconds without progress after which a worker that runs counts as blocked
NEXT_TICK = 0.004  #: ... and those that took over from it

_dispatchers: weakref.WeakSet[Any] = weakref.WeakSet()


class Dispatcher(Locked):
    """Runs queues, many on few threads; the queues of a process share a default one.

    A queue that is blocked in its destination, or waits to retry, never holds up another. At
    most ``max_workers`` daemon threads are started, when there is something to do, and go away
    when there was nothing for ``idle_timeout`` seconds.
    """

    def __init__(
        self, *, max_workers: int = 1024, idle_timeout: float = 30.0, name: str = "fastsinks"
    ) -> None:
        self.max_workers = arguments.size("max_workers", max_workers, least=1, most=arguments.MANY)
        self.idle_timeout = arguments.seconds("idle_timeout", idle_timeout)
        self.name = str(name)
        self._open = 0  # how many strands belong to queues that are not closed
        self._closing = False  # close() has been called
        self._stopped = False  # ... and is over: workers leave
        super().__init__()
        _dispatchers.add(self)

    def _make_lock(self) -> None:
        """With it, no worker is here, and nothing is to be done. Closers wait on _changed."""
        super()._make_lock()
        self._parked = Condition(self._own[0])  # where workers wait
        self._ready: deque[Strand] = deque()
        self._timers = Timers()
        self._busy = 0  # how many strands are not idle
        self._workers = 0  # alive or being started
        self._spare = 0  # ... of which so many are coming, or parked
        self._woken = False  # a worker has been woken, or started, and has not yet come
        self._ticking = False  # a parked one will look whether those that run are blocked
        self._running: set[int] = set()  # idents of workers in a run, and not blocked
        self._limit = 1  # how many may be
        self._progress = 0  # moves whenever something is delivered; not exact

    def close(self, timeout: float | None = None) -> None:
        """Let the queues deliver what is pending, then let the workers go; idempotent.

        After ``timeout`` seconds it raises CloseTimeoutError. Queues refuse events from now on.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            self._closing = True  # nobody lingers any more
            self._promote(NEVER)  # what lingered, and one more attempt
            self._wake()
        self._changed.until(lambda: not self._busy or self._stopped, deadline, self._help)
        with self._lock:
            late = self._busy
            self._stopped = True
            self._parked.notify_all()
        if late:
            raise wording.busy_queues(late)

    # -- called by queues, with that queue's lock held, or none

    def _attach(self) -> None:
        """A queue is made."""
        with self._lock:
            self._open += 1

    def _closed_one(self) -> None:
        """A queue refuses further events; without any open queue, workers do not linger."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self._parked.notify_all()

    def _schedule(self, strand: Strand) -> None:
        """Make an idle strand ready."""
        with self._lock:
            self._busy += 1
            self._ready.append(strand)
            self._wake()

    def _schedule_at(self, strand: Strand, when: float, lingers: bool) -> None:
        """Put a running strand on a timer."""
        with self._lock:
            if lingers and self._closing:  # since the queue looked
                self._ready.append(strand)
                return
            if when < self._timers.first():
                self._parked.notify()  # all of them sleep until a later time
            self._timers.add(strand, when)

    def _postpone(self, strand: Strand, when: float) -> None:
        """If it is on a timer, to a later time."""
        with self._lock:
            if strand._timer is not None and strand._timer[0] < when:
                self._timers.remove(strand)
                self._timers.add(strand, when)

    def _expedite(self, strand: Strand | None) -> None:
        """Make a strand ready that is on a timer; else do nothing."""
        with self._lock:
            if strand is not None and self._timers.remove(strand):
                self._ready.append(strand)
                self._wake()

    def _help(self) -> bool:
        """Run a queue on the calling thread, if there is no worker and none can be started.

        For threads that wait for a queue where no thread starts, as at exit, and for workers
        that wait in a destination. Any other's help could leave it in the next destination that
        blocks, beyond its own deadline. Whether something was run.
        """
        here = thread_state.here
        is_worker = here.runs_queues
        with self._lock:
            self._promote(monotonic())
            self._wake()
            if self._is_deserted(is_worker):
                self._hire()
            if not self._is_deserted(is_worker):
                return False
            strand = self._ready.popleft()
        outer, interrupts = here.interrupts, list[BaseException]()
        here.interrupts = outer if is_worker else interrupts
        here.runs_queues = True
        state = State.READY
        try:
            state = strand._run()
        finally:
            here.runs_queues, here.interrupts = is_worker, outer
            with self._lock:
                self._put_back(strand, state)
                self._wake()
        if interrupts:
            raise interrupts[0]
        return True

    # -- under the lock

    def _wake(self) -> None:
        """If something is ready, see to it that a worker will notice."""
        may_run = len(self._running) < self._limit
        if self._woken or not self._ready or (self._ticking and not may_run):
            return
        if self._parked.notify():
            self._woken = True
        elif self._spare or not may_run:
            return  # one is awake, or coming, and will look
        elif self._hire() and self._workers == 1 and self.max_workers >= 4:
            # With the first worker comes its stand-by: should the program end now, then from
            # 3.12 on the worker could start none. Not where the two and the two bare threads
            # would for a moment be more threads than allowed.
            self._hire()

    def _hire(self) -> bool:
        """Start a worker, by way of a bare thread; false if that is not possible.

        ``threading.Thread.start()`` waits, for the new thread and for locks of threading's,
        which this thread may hold if a finaliser got us here.
        """
        if self._workers >= self.max_workers or self._stopped:
            return False
        self._woken = True
        self._workers += 1
        self._spare += 1
        try:
            _thread.start_new_thread(_start, (self,))
        except Exception:  # no more threads or memory; or the interpreter is shutting down
            # Events stay pending: the next one asks again, and a thread that waits helps.
            self._woken = False
            self._workers -= 1
            self._spare -= 1
            return False
        return True

    def _promote(self, now: float) -> None:
        """Make ready what was on a timer until now."""
        while (strand := self._timers.pop_due(now)) is not None:
            self._ready.append(strand)

    def _is_deserted(self, is_worker: bool) -> bool:
        """Something is ready, and only the calling thread, which waits, can run it."""
        return bool(self._ready) and (not self._workers or (is_worker and not self._spare))

    def _put_back(self, strand: Strand, state: State) -> None:
        """After a run. With IDLE the strand may already be ready again, or run elsewhere."""
        self._progress += 1
        if state is State.READY:
            self._ready.append(strand)
        elif state is State.IDLE:
            self._busy -= 1
            if self._busy == 0:
                self._limit = 1
                self._changed.notify_all()
                if self._open == 0:
                    self._parked.notify_all()  # those that are parked wait for nothing

    # -- workers

    def _park(self) -> Strand | None:
        """Under the lock: wait for a strand that this worker may run. None: it is to leave."""
        now = monotonic()
        leave_at = now + self.idle_timeout / self._spare  # of a crowd soon
        tick_at = NEVER  # when this worker is to judge whether those that run are blocked
        seen = 0  # _progress when that tick began
        strand: Strand | None = None
        while not self._stopped:
            self._woken = False  # whoever was woken: this one is awake and looks
            self._promote(now)
            if tick_at <= now:
                self._judge(seen)
                self._ticking, tick_at = False, NEVER
            if self._ready and len(self._running) < self._limit:
                strand = self._ready.popleft()
                self._running.add(get_ident())
                break
            if not (self._open or self._busy):
                break
            if leave_at <= now:
                if self._spare > 1 or not (self._running or self._timers.first() < NEVER):
                    break
                leave_at = now + self.idle_timeout + TICK  # the last one keeps the time
            if self._ready and not self._ticking:
                self._ticking = True
                tick_at = now + (TICK if self._limit == 1 else NEXT_TICK)
                seen = self._progress
            self._parked.wait(min(leave_at, tick_at, self._timers.first()) - now)
            now = monotonic()
        self._spare -= 1
        self._ticking = self._ticking and tick_at == NEVER  # another's
        if self._timers.first() < NEVER:
            self._parked.notify()  # another is to keep the time
        self._wake()
        return strand

    def _judge(self, seen: int) -> None:
        """A tick is over. If nothing moved, those that run are blocked."""
        if seen != self._progress:
            self._limit = 1
        elif self._ready and self._running:
            self._running.clear()
            self._limit *= 2

    def _work(self) -> None:
        """A worker's life."""
        thread_state.here.runs_queues = True
        new = True
        while True:
            with self._lock:
                if not new:  # only now, for a finaliser has run: see below
                    self._running.discard(get_ident())
                    self._spare += 1
                new = False
                strand = self._park()
                if strand is None:
                    self._workers -= 1
                    self._changed.notify_all()
                    return
                if not (self._woken or self._spare):
                    self._hire()  # somebody has to stand by, in case that user code blocks
            state = strand._run()
            with self._lock:
                self._put_back(strand, state)
            del strand  # perhaps the last reference: finalisers run, outside the lock


def _start(dispatcher: Dispatcher) -> None:
    """In a bare thread: start a worker that threading knows, and logs can name; or be it, if
    the interpreter is shutting down, for from 3.12 on no thread can start then."""
    name = f"{dispatcher.name}-worker"
    try:
        threading.Thread(target=dispatcher._work, name=name, daemon=True).start()
    except Exception:
        dispatcher._work()


default_dispatcher = Dispatcher()  #: the queues of a process share it, unless given another
at_exit(close_dispatchers, _dispatchers)
