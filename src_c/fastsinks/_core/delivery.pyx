# cython: freethreading_compatible=True
"""A block on its way through a RetryingSink, over as many attempts as it takes."""


cdef class Driver(Sink):
    """Drives blocks through a RetryingSink, a step at a time."""

    cdef int end_back_off(self) except -1:
        """The RetryingSink has been closed: a back-off is to end at once."""
        return 0


cdef class Delivery:
    """How far one block has got. The block's own: a queue may keep it through a back-off."""

    def __cinit__(self, list events):
        self.events = events
