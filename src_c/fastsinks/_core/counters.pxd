from .sync cimport fs_count, fs_lock


cdef class Counters:
    cdef fs_lock _lock
    cdef dict _statuses  # _lock
    cdef readonly fs_count successes  # _lock to write
    cdef readonly fs_count failures  # _lock to write
    cdef readonly fs_count errors  # _lock to write

    cdef void _acquire(self) noexcept
