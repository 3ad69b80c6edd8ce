# cython: freethreading_compatible=True
"""What became of the attempts at an endpoint. Compare metrics.go of distribution."""

from .sync cimport fs_acquire, fs_init, fs_is_inherited, fs_lock_init, fs_release

fs_init()


cdef class Counters:
    """Counts attempts by outcome, in events. Any thread may count and read; nothing blocks."""

    def __cinit__(self):
        fs_lock_init(&self._lock)
        self._statuses = {}

    cdef void _acquire(self) noexcept:
        if fs_is_inherited(&self._lock):
            fs_lock_init(&self._lock)
        fs_acquire(&self._lock)

    def success(self, str status, unsigned long long count):
        """``count`` events were answered with ``status``, such as ``"200 OK"``: accepted."""
        self._acquire()
        self.successes += count
        self._statuses[status] = self._statuses.get(status, 0) + count
        fs_release(&self._lock)

    def failure(self, str status, unsigned long long count):
        """``count`` events were answered with ``status``: not accepted."""
        self._acquire()
        self.failures += count
        self._statuses[status] = self._statuses.get(status, 0) + count
        fs_release(&self._lock)

    def error(self, unsigned long long count):
        """``count`` events got no answer."""
        self._acquire()
        self.errors += count
        fs_release(&self._lock)

    def statuses(self):
        """A copy: ``{"200 OK": 102}``."""
        return self._statuses.copy()  # atomic; a new container under the lock might collect garbage
