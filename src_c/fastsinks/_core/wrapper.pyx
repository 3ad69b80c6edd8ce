# cython: freethreading_compatible=True
"""A sink around another one, which it closes once."""

from fastsinks._core import arguments, callbacks, thread_state, wording
from fastsinks._core.errors import SinkClosedError

from .destination cimport Destination
from .sink cimport uninitialised
from .sync cimport (
    fs_acquire,
    fs_condition_init,
    fs_init,
    fs_is_inherited,
    fs_lock_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_self,
    fs_wait,
)
from .times cimport FS_FOREVER

fs_init()


cdef class Wrapper(Sink):
    """Closes its inner sink exactly once, and lets every other closer wait for that."""

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        fs_condition_init(&self._changed)
        self._closed = True  # until there is a destination

    def __init__(self, dst):
        cdef bint first = self._dst is None
        self._dst = Destination(dst)
        if first:
            self._closed = False

    def close(self, timeout=None):
        """Close the inner sink. Every caller returns when that is done; idempotent.

        A caller whose ``timeout`` passes while another one closes gets CloseTimeoutError; one
        that a queue has called does not wait for the other.
        An interrupted ``close`` (Ctrl-C) may be called again, and then calls the inner one.
        """
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef unsigned int seen
        cdef bint done = True
        if self._dst is None:
            uninitialised(self)
        if fs_is_inherited(&self._lock):
            self.after_fork()
        fs_acquire(&self._lock)
        self._closed = True
        fs_notify(&self._lock, &self._changed)
        while self._closing and not self._finished:
            seen = self._changed.count
            if self._closer == fs_self():  # the inner close() calls back
                fs_release(&self._lock)
                return
            fs_release(&self._lock)
            if thread_state.here.runs_queues:  # whose queue the one that closes may be waiting for
                return
            if fs_now() >= deadline:
                raise wording.still_closing(type(self).__name__)
            fs_wait(&self._lock, &self._changed, seen, deadline)
            fs_acquire(&self._lock)
        if self._finished:
            fs_release(&self._lock)
            return
        self._closing = True
        self._closer = fs_self()
        fs_release(&self._lock)
        self.interrupt()
        try:
            callbacks.close(self._dst.sink, FS_FOREVER if timeout is None else deadline - fs_now())
        except Exception:
            raise
        except BaseException:
            done = False
            raise
        finally:
            fs_acquire(&self._lock)
            self._closing = self._finished = done
            self._closer = 0
            fs_notify(&self._lock, &self._changed)
            fs_release(&self._lock)

    cdef int refuse(self) except -1:
        """What a write to a closed sink raises."""
        if self._dst is None:
            uninitialised(self)
        raise SinkClosedError

    cdef void interrupt(self) noexcept:
        """For subclasses: the sink has just been closed; no lock is held."""

    cdef int after_fork(self) except -1:
        """In a child: nobody waits here, and a closer of the parent's is not there."""
        fs_lock_init(&self._lock)
        fs_condition_init(&self._changed)
        self._closing = self._finished
        return 0
