from cpython.object cimport PyObject

from .closing cimport Closing
from .dispatcher cimport Wakeup
from .flight cimport Carrier


cdef class Queue(Carrier):
    cdef int accept(self, tuple events) except -1
    cdef Py_ssize_t admit(self, Py_ssize_t n, PyObject ***evicted) except -2
    cdef int withdraw(self, Py_ssize_t n) except -1
    cdef int announce(self, tuple events) except -1
    cdef int append(self, tuple events) except -1
    cdef Wakeup make_ready(self) noexcept
    cdef bint is_delivering(self) noexcept
    cdef bint is_inside(self) except -1
    cdef bint wait(self, unsigned long long goal, Closing closing, double deadline) except -1
    cdef Closing start_closing(self, double by)
    cdef int abandon(self, Closing closing) except -1
    cdef bint take_over(self, list passed, list left) except -1
    cdef object wait_for_flights(self, Closing closing)
    cdef bint is_in_flight(self) noexcept
