# cython: freethreading_compatible=True
"""How to call what a sink writes to, found out once, when sinks are wired."""

from fastsinks._core import arguments

from .sink cimport Sink, is_native


cdef class Destination:
    """Compiled sinks are called through their vtable, others through bound methods.

    A Python call and its argument tuple cost several times what a compiled sink does.
    """

    def __init__(self, sink):
        self.sink = arguments.destination(sink)
        own = arguments.own_write_many(sink, Sink)
        self.takes_blocks = own is not None
        if is_native(sink, "write"):
            self._native = sink
        else:
            self._write = sink.write
        if own is not None and is_native(sink, "write_many"):
            self._native_many = sink
        else:
            self._write_many = own

    cdef int write(self, object event) except -1:
        if self._native is not None:
            return self._native.write_c(event)
        self._write(event)
        return 0

    cdef int write_many(self, object events) except -1:
        """Hand on a list or a tuple: as a block where the sink takes blocks."""
        if self._native_many is not None:
            return self._native_many.write_many_c(events)
        if self._write_many is not None:
            self._write_many(events)
        else:
            for event in events:
                self.write(event)
        return 0
