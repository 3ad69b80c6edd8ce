# cython: freethreading_compatible=True
"""Fan-out. Compare broadcast.go of docker/go-events.

Writers take turns, so that every sink sees the same order. The turn is a field, not a held
lock: sinks are called with no lock held. A write from inside the writing thread's own turn,
by one of the sinks, is deferred and follows the current event.
"""

from cpython.object cimport PyObject
from libc.stdlib cimport free, malloc

from fastsinks._core import arguments, callbacks, log, thread_state, wording
from fastsinks._core.errors import CloseTimeoutError, SinkClosedError
from fastsinks._core.log import describe_error
from fastsinks._core.refusals import Refusals

from .callbacks cimport write, write_many
from .destination cimport Destination
from .sink cimport Sink, register_native
from .sync cimport (
    FS_PREFETCH,
    fs_acquire,
    fs_breathe,
    fs_condition_init,
    fs_forker,
    fs_init,
    fs_is_inherited,
    fs_lock_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_wait,
)
from .times cimport FS_FOREVER, GIL_HOLD

fs_init()

cdef Py_ssize_t AHEAD = 6  # sinks between asking for one's memory and writing to it
cdef double HOLD = 0.0003  # seconds that a fan-out keeps the GIL before others may have it


cdef class Snapshot:
    def __cinit__(self, tuple destinations):
        cdef Py_ssize_t i
        self.destinations = destinations
        self.count = len(destinations)
        self.natives = <PyObject **>malloc((self.count + 1) * sizeof(PyObject *))
        if self.natives == NULL:
            raise MemoryError
        for i in range(self.count):
            native = (<Destination>destinations[i])._native
            self.natives[i] = NULL if native is None else <PyObject *>native

    def __dealloc__(self):
        free(self.natives)


cdef inline void acquire(Broadcaster self) noexcept:
    if fs_is_inherited(&self._lock):
        self.after_fork()
    fs_acquire(&self._lock)


cdef inline Snapshot present(Broadcaster self):
    """The snapshot, with a reference of the caller's: another may replace it at once."""
    cdef Snapshot snapshot
    acquire(self)
    snapshot = self._snapshot
    fs_release(&self._lock)
    return snapshot


cdef inline bint has(Snapshot snapshot, object sink):
    return any([(<Destination>known).sink is sink for known in snapshot.destinations])


cdef class Broadcaster(Sink):
    """Hands every event to every sink; all sinks see the same events in the same order.

    Any thread may call anything. ``write`` calls the sinks on the caller's thread and waits
    while another thread writes; ``add`` and ``remove`` never wait. A sink that raises
    SinkClosedError is removed; any other exception is logged and counted in ``dropped``, and
    affects neither another sink nor the caller. An exception that is no ``Exception``
    (KeyboardInterrupt) is raised after all sinks were served.
    """

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        fs_condition_init(&self._changed)
        self._snapshot = Snapshot(())
        self._deferred = []
        self._refusals = Refusals()
        self._bursts = self._refusals.bursts

    def __init__(self, *sinks):
        for sink in sinks:
            self.add(sink)

    @property
    def sinks(self):
        """The present sinks, in order."""
        return tuple([(<Destination>known).sink for known in present(self).destinations])

    @property
    def dropped(self):
        """How many events sinks have refused, summed over the sinks."""
        return self._dropped

    def add(self, sink):
        """Add a sink. Adding it twice does nothing; identity decides."""
        cdef Snapshot old
        new = Destination(sink)
        while True:
            # The new snapshot is made without the lock, and again if another came first.
            old = present(self)
            if self._closed:
                raise SinkClosedError
            if has(old, sink):
                return
            if self.replace(old, Snapshot(old.destinations + (new,))):
                return

    def remove(self, sink):
        """Remove a sink. Removing a stranger does nothing. It may still get the current event."""
        cdef Snapshot old
        while True:
            old = present(self)
            kept = tuple([known for known in old.destinations if (<Destination>known).sink is not sink])
            if len(kept) == old.count or self.replace(old, Snapshot(kept)):
                break
        self._refusals.forget(sink)

    cdef bint replace(self, Snapshot old, Snapshot new) except -1:
        cdef bint done
        acquire(self)
        done = self._snapshot is old
        if done:
            self._snapshot = new  # `old` lives on in the caller: nothing is dropped here
        fs_release(&self._lock)
        return done

    def write(self, event, /):
        """Hand an event to every sink."""
        self.send(event, None)

    def write_many(self, events):
        """Hand a block to every sink."""
        self.write_many_c(events)

    cdef int write_c(self, object event) except -1:
        return self.send(event, None)

    cdef int write_many_c(self, object events) except -1:
        block = tuple(events)
        return self.send(None, block) if block else 0

    def close(self, timeout=None):
        """Close every sink, whatever one of them raises; idempotent.

        Ordinary exceptions are logged. CloseTimeoutError is raised at the end, with the
        ``undelivered`` of all. From inside a write, ``close`` returns at once and follows it.
        An interrupted ``close`` (Ctrl-C) may be called again, for the sink that it waited for.
        Called by a queue, it does not wait for another thread that closes already.
        """
        cdef bint others, closes
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        acquire(self)
        others = self._closed and (self._owner != 0 or self._closer != 0)
        self._closed = True
        closes = self._closer == fs_self()
        if self._owner == fs_self():
            fs_release(&self._lock)
            if not closes:
                self._deferred.append(None)
            return
        fs_notify(&self._lock, &self._changed)
        fs_release(&self._lock)
        if others and thread_state.here.runs_queues:
            return
        if not self.start_to_close(deadline):
            return
        fatal = None
        try:
            self.close_all(FS_FOREVER if timeout is None else deadline)
        except BaseException as error:
            fatal = error
        if self._owner == fs_self():
            self.end_turn(fatal)
        elif fatal is not None:
            raise fatal

    cdef bint start_to_close(self, double deadline) except -1:
        """Wait for the turn, to close all; false once another thread has done so."""
        cdef unsigned int seen
        cdef bint late
        acquire(self)
        # Where a sink's close() calls back, there is nothing to wait for.
        while not self._finished and self._closer != fs_self():
            late = fs_now() >= deadline
            if self._closer == 0 and (self._owner == 0 or late):
                # Late, a sink is stuck in a write, which closing it may end.
                self._closer = fs_self()
                if self._owner == 0:
                    self._owner = self._closer
                fs_release(&self._lock)
                return True
            seen = self._changed.count
            fs_release(&self._lock)
            if late:
                raise wording.still_closing("the broadcaster")
            fs_wait(&self._lock, &self._changed, seen, deadline)
            acquire(self)
        fs_release(&self._lock)
        return False

    cdef int take_turn(self) except -1:
        """Wait for the turn, to write."""
        cdef unsigned int seen
        acquire(self)
        while self._owner != 0 and not self._closed:
            seen = self._changed.count
            fs_release(&self._lock)
            fs_wait(&self._lock, &self._changed, seen, fs_now() + FS_FOREVER)
            acquire(self)
        if self._closed:
            fs_release(&self._lock)
            raise SinkClosedError
        self._owner = fs_self()
        fs_release(&self._lock)
        return 0

    cdef int end_turn(self, object fatal) except -1:
        """Do what was deferred, give the turn back, then raise `fatal` if there is such."""
        cdef bint closes
        while self._deferred:
            block = self._deferred.pop(0)
            try:
                if block is not None:
                    raised = self.fan_out(None, block)
                    fatal = fatal if raised is None else raised
                    continue
                acquire(self)
                closes = self._closer == 0 and not self._finished
                if closes:
                    self._closer = fs_self()
                fs_release(&self._lock)
                if closes:
                    self.close_all(FS_FOREVER)
            except BaseException as error:
                fatal = error
        acquire(self)
        self._owner = 0
        fs_notify(&self._lock, &self._changed)
        fs_release(&self._lock)
        if fatal is not None:
            raise fatal
        return 0

    cdef int send(self, object event, tuple block) except -1:
        cdef bint served = False
        acquire(self)
        if self._owner == 0 and not self._closed:
            self._owner = fs_self()
            fs_release(&self._lock)
        elif self._owner == fs_self() and not self._closed:
            fs_release(&self._lock)
            self._deferred.append((event,) if block is None else block)
            return 0
        else:
            fs_release(&self._lock)
            self.take_turn()
        try:
            fatal = self.fan_out(event, block)
            served = True
        finally:
            if not served:  # no memory, perhaps: others have their turn all the same
                self.end_turn(None)
        if self._deferred or fatal is not None:
            return self.end_turn(fatal)
        acquire(self)
        self._owner = 0
        fs_notify(&self._lock, &self._changed)
        fs_release(&self._lock)
        return 0

    cdef object fan_out(self, object event, tuple block):
        """Serve every sink of the snapshot; returns an exception that is to be raised later."""
        cdef Snapshot snapshot = present(self)
        cdef Py_ssize_t count = snapshot.count
        cdef Py_ssize_t i = 0
        cdef PyObject *native
        cdef Py_ssize_t n = 1
        cdef Destination dst
        cdef double since = 0.0
        fatal = None
        if block is not None:
            n = len(block)
            if n == 1:  # a block of one is an event
                event = block[0]
                block = None
        while i < count:
            try:
                # One handler around the loop, not one around each call: it costs as much.
                while i < count:
                    native = snapshot.natives[i]
                    i += 1
                    if native != NULL and block is None:
                        if i + AHEAD < count and snapshot.natives[i + AHEAD] != NULL:
                            # Of a thousand queues few are in a cache: this halves their cost.
                            FS_PREFETCH(snapshot.natives[i + AHEAD], 0)
                            FS_PREFETCH(snapshot.natives[i + AHEAD], 64)
                            FS_PREFETCH(snapshot.natives[i + AHEAD], 128)
                        (<Sink>native).write_c(event)
                    else:
                        self.hand_on(<Destination>snapshot.destinations[i - 1], event, block)
                    if self._bursts:
                        dst = <Destination>snapshot.destinations[i - 1]
                        fatal = self.accepted(dst.sink, fatal)
                    if i % 256 == 0:
                        if not since:
                            since = fs_now()
                        elif fs_now() - since > HOLD:
                            fs_breathe()
                            since = fs_now()
            except BaseException as error:
                dst = <Destination>snapshot.destinations[i - 1]
                first = event if block is None else block[0]
                fatal = self.refused(dst.sink, first, n, error, fatal)
        return fatal

    cdef int hand_on(self, Destination dst, object event, tuple block) except -1:
        """To one sink, if not by its vtable. Apart, to keep the loop above in few registers."""
        return write(dst, event) if block is None else write_many(dst, block)

    # The next two return what is to be raised once all sinks were served, `fatal` until now.
    # They log, and a signal may strike there: its exception waits too.

    cdef object refused(self, object sink, object event, Py_ssize_t n, object error, object fatal):
        if not isinstance(error, Exception):
            fatal = error
        try:
            if isinstance(error, SinkClosedError):
                self.remove(sink)
                return fatal
            self._dropped += n
            self._refusals.refused(sink, event, error, n)
            if not has(present(self), sink):  # removed meanwhile
                self._refusals.forget(sink)
        except Exception:
            pass  # no memory or no stack left to say so
        except BaseException as struck:
            fatal = struck
        return fatal

    cdef object accepted(self, object sink, object fatal):
        try:
            self._refusals.accepted(sink)
        except Exception:
            pass
        except BaseException as struck:
            fatal = struck
        return fatal

    cdef int close_all(self, double deadline) except -1:
        """Close every sink. The caller has made itself the closer."""
        cdef Py_ssize_t at = 0
        cdef bint ended
        late = []
        fatal = None
        try:
            if self._unclosed is None:
                self._unclosed = list(self.sinks)
            while at < len(self._unclosed):
                sink = self._unclosed[at]
                ended = False
                try:
                    try:
                        callbacks.close(
                            sink,
                            FS_FOREVER if deadline == FS_FOREVER else max(0.0, deadline - fs_now()),
                        )
                    except CloseTimeoutError as error:
                        late.append(error)
                    except Exception as error:
                        ended = True
                        log.error(
                            "%s.close() raised %s", type(sink).__name__, describe_error(error)
                        )
                    ended = True
                except BaseException as error:  # Ctrl-C: the others come first
                    fatal = error
                if ended:
                    del self._unclosed[at]
                else:
                    at += 1  # close() may be called again
        finally:
            acquire(self)
            self._closer = 0
            self._finished = self._unclosed is not None and not self._unclosed
            fs_notify(&self._lock, &self._changed)
            fs_release(&self._lock)
        if fatal is not None:
            raise fatal
        if late:
            raise CloseTimeoutError(
                f"{len(late)} of {present(self).count} sinks did not close in time",
                [event for error in late for event in error.undelivered],
            )
        return 0

    cdef int after_fork(self) except -1:
        """In a child: a writer of the parent's is not here, nor one that closed."""
        fs_lock_init(&self._lock)
        fs_condition_init(&self._changed)
        if self._owner != fs_forker():
            self._owner = 0
            self._deferred = []
        if self._closer != fs_forker():
            self._closer = 0
        return 0


register_native(Broadcaster)
