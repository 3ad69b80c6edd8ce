from ._sync cimport fs_lock


cdef class Counters:
    cdef fs_lock _lock
    cdef dict _statuses  # _lock
    cdef readonly unsigned long long successes  # _lock to write
    cdef readonly unsigned long long failures  # _lock to write
    cdef readonly unsigned long long errors  # _lock to write

    cdef void _acquire(self) noexcept
