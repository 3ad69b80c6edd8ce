# cython: freethreading_compatible=True
"""A block on its way through a RetryingSink, over as many attempts as it takes."""


cdef class Delivery:
    """How far one block has got. The block's own: a queue may keep it through a back-off."""

    def __cinit__(self, list events):
        self.events = events
