from .delivery cimport Delivery
from .strategy cimport Bounded
from .sync cimport fs_count
from .wrapper cimport Wrapper


cdef class RetryingSink(Wrapper):
    cdef object _strategy  # set once, like the next five
    cdef object _fit  # the sink's, if it has an opinion on how many events to write together
    cdef Bounded _limits  # the strategy, if the counting of attempts is left to this sink
    cdef tuple _listeners
    cdef object _dead_letter
    cdef object _log  # what it says of this sink
    cdef list _current  # _lock: the deliveries that have the turn; several only of one driver
    cdef fs_count _piece  # events to try at once
    cdef unsigned long long _retries  # FS_ADD, FS_READ, like the next
    cdef unsigned long long _dropped

    cdef int write_list(self, list events) except -1
    cdef double step(self, Delivery delivery) except? -2  # seconds to wait, -1 when finished
    cdef int take_turn(self, Delivery delivery) except -1
    cdef bint may_go(self, Delivery delivery)
    cdef bint is_nested(self)
    cdef void end_turn(self, Delivery delivery) noexcept
    cdef double attempt(self, Delivery delivery) except? -2
    cdef int succeeded(self, Delivery delivery, list piece) except -1
    cdef int failed(self, Delivery delivery, list piece, object error) except -1
