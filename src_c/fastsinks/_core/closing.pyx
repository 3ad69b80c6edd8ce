# cython: freethreading_compatible=True
"""The state that the closers of a queue share, from the first close() on.

Closing starts without waiting: further events are refused, and whoever delivers the last one
closes the destination. Waiting for that is another matter, and so is abandoning it: the first
closer whose deadline passes has the destination closed at once, and takes what is left.
"""

from fastsinks._core import callbacks, log
from fastsinks._core.errors import CloseTimeoutError
from fastsinks._core.log import describe_error

from .times cimport FS_NEVER


cdef class Closing:
    """How far the closing of one queue has got."""

    def __cinit__(self):
        self.by = FS_NEVER

    cdef bint start(self) noexcept:
        """Whether the caller is the one to close the destination."""
        cdef bint mine = not self.started
        self.started = True
        return mine

    cdef bint abandon(self) noexcept:
        """Whether the caller, whose deadline has passed, is the one to say what is left."""
        cdef bint mine = not self.abandoned and not self.finished
        if mine:
            self.abandoned = True
        return mine

    cdef object close(self, object sink, double left, str name):
        """Close the destination, without the lock; what its close() raised, for a closer."""
        try:
            callbacks.close(sink, max(0.0, left))
        except BaseException as error:
            if not self.abandoned or isinstance(error, CloseTimeoutError):
                return error
            log.error("%s: close() raised %s", name, describe_error(error))
        return None

    cdef object take_error(self):
        """What this closer has to raise, and no other."""
        error = self.error
        self.error = None
        return error

    cdef void after_fork(self) noexcept:
        """In a child: the thread that closed the destination is not here."""
        if not self.finished:
            self.started = False
