# cython: freethreading_compatible=True
"""What a sink writes to, and how it is called: found out once, when sinks are wired."""

from fastsinks._core import arguments

from .sink cimport Sink, is_native


cdef class Destination:
    """Compiled sinks are called through their vtable, others through bound methods.

    A Python call and its argument tuple cost several times what a compiled sink does. The
    calls themselves are in callbacks.pxd.
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
