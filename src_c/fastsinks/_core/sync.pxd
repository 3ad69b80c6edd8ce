"""What sync.h declares, for Cython."""

from cpython.object cimport PyObject

cdef extern from "sync.h":
    const bint FS_HAS_GIL
    # Changed under a lock, looked at without.
    ctypedef bint fs_flag
    ctypedef int fs_number
    ctypedef unsigned long fs_thread
    ctypedef unsigned long long fs_count

    ctypedef struct fs_lock:
        pass

    ctypedef struct fs_condition:
        unsigned int count
        unsigned int waiters

    ctypedef struct fs_bed:
        pass

    ctypedef struct fs_spot:
        pass

    object fs_init_forks()
    int fs_init() except -1
    unsigned long fs_generation()
    unsigned long fs_forker()
    # An object's own lock.
    void fs_acquire(fs_lock *lock)
    void fs_release(fs_lock *lock)
    void fs_notify(fs_lock *lock, fs_condition *condition)
    int fs_wait(
        fs_lock *lock, fs_condition *condition, unsigned int seen, double deadline
    ) except -1
    void fs_breathe()

cdef extern from "Python.h":
    void incref "Py_INCREF"(PyObject *thing)
    void decref "Py_DECREF"(PyObject *thing)

cdef extern from "sync.h" nogil:
    void fs_lock_init(fs_lock *lock)
    void fs_condition_init(fs_condition *condition)
    double fs_now()
    unsigned long fs_self()
    bint fs_is_inherited(const fs_lock *lock)
    void fs_acquire_leaf(fs_lock *lock)
    void fs_release_leaf(fs_lock *lock)
    void fs_notify_leaf(fs_lock *lock, fs_condition *condition)
    void fs_bed_init(fs_bed *bed)
    void fs_wake(fs_bed *bed)
    void fs_sleep(fs_bed *bed, fs_lock *lock, double until)
    bint fs_spot_init(fs_spot *spot)
    void fs_spot_free(fs_spot *spot)
    fs_spot *fs_pop(fs_spot **top)
    void fs_wake_spot(fs_spot *spot)
    bint fs_stand(fs_spot **top, fs_spot *spot, fs_lock *lock, double until)
    void FS_PREFETCH(const void *address, int offset)
    void FS_ADD(unsigned long long counter, unsigned long long n)
    unsigned long long FS_READ(unsigned long long counter)
