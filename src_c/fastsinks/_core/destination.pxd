from .sink cimport Sink


cdef class Destination:
    # All set once, when the sink that writes to it is made.
    cdef readonly object sink
    cdef Sink _native  # the same object, if its write is compiled
    cdef Sink _native_many  # likewise for write_many
    cdef object _write  # bound methods, of the others
    cdef object _write_many  # None: loop over write
    cdef readonly bint takes_blocks  # has a write_many of its own
