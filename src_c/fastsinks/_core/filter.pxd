from .wrapper cimport Wrapper


cdef class Filter(Wrapper):
    cdef object _match  # set once
