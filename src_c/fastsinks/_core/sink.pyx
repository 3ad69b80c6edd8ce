# cython: freethreading_compatible=True
"""What every sink is, and the one that keeps nothing."""

from fastsinks._core import arguments, wording
from fastsinks._core.errors import SinkClosedError

from .sync cimport FS_ADD, FS_READ, fs_init_forks

_forks = fs_init_forks()  # for every other module: see fs_init


cdef class Sink:
    """A destination of events, and the base class of fastsinks' own sinks.

    Any object with ``write(event)`` and ``close()`` is a destination; a subclass of
    this one gets ``write_many``, ``closed`` and the context manager with them.
    """

    def __init__(self):
        pass

    def write(self, event, /):
        """Take one event; any object is one, ``None`` included.

        Returns once the event is committed. Raises otherwise, and the caller may try
        again, except after SinkClosedError.
        """
        raise wording.unimplemented(self)

    def write_many(self, events):
        """Take a block of events. Here: one ``write`` after the other."""
        for event in events:
            self.write(event)

    def close(self, timeout=None):
        """Refuse further events. Idempotent; blocks until the sink has finished closing."""
        arguments.timeout(timeout)
        self._closed = True

    @property
    def closed(self):
        """Whether further events are refused."""
        return self._closed

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc_value, traceback):
        self.close()

    # What fastsinks' sinks call each other by, without Python's calling convention.

    cdef int write_c(self, object event) except -1:
        self.write(event)
        return 0

    cdef int write_many_c(self, object events) except -1:
        self.write_many(events)
        return 0


cdef class NullSink(Sink):
    """Accepts everything and keeps nothing but ``count``. Never blocks."""

    @property
    def count(self):
        """How many events were accepted."""
        return FS_READ(self._count)

    def write(self, event, /):
        self.write_c(event)

    def write_many(self, events):
        self.write_many_c(events if isinstance(events, (list, tuple)) else list(events))

    cdef int write_c(self, object event) except -1:
        if self._closed:
            raise SinkClosedError
        FS_ADD(self._count, 1)
        return 0

    cdef int write_many_c(self, object events) except -1:
        if self._closed:
            raise SinkClosedError
        FS_ADD(self._count, len(events))
        return 0

    cdef void count_c(self, Py_ssize_t n) noexcept:
        """What a queue does instead of writing n events one by one."""
        FS_ADD(self._count, n)


cdef int uninitialised(object sink) except -1:
    """For sinks that need their ``__init__``; until then they are closed."""
    raise wording.uninitialised(sink)


# The methods of compiled sinks: a subclass in Python may override one of them, and must
# then be called through it.
cdef set _native_methods = set()


cdef int register_native(type sink) except -1:
    """Each compiled sink class calls this, once, after its definition."""
    _native_methods.add(sink.write)
    _native_methods.add(sink.write_many)
    return 0


cdef bint is_native(object sink, str method):
    """Whether calling ``sink.method`` comes to the same as calling ``method_c``."""
    if not isinstance(sink, Sink) or method in getattr(sink, "__dict__", ()):
        return False
    return getattr(type(sink), method) in _native_methods


register_native(NullSink)
