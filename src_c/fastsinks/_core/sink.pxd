from .sync cimport fs_flag


cdef class Sink:
    cdef object __weakref__
    cdef fs_flag _closed  # once initialised only ever becomes true; read without a lock

    cdef int write_c(self, object event) except -1
    cdef int write_many_c(self, object events) except -1  # a list or a tuple


cdef class NullSink(Sink):
    cdef unsigned long long _count  # FS_ADD, FS_READ

    cdef void count_c(self, Py_ssize_t n) noexcept


cdef int uninitialised(object sink) except -1
cdef int register_native(type sink) except -1
cdef bint is_native(object sink, str method)
