/* Locks, waits, time and fork: all that the compiled core needs of the platform.
 *
 * Two kinds of locks, and the rules that every caller keeps:
 *
 * - An object's own lock (fs_acquire, fs_release) is taken with the GIL, for a few
 *   instructions. They run no Python code, make no container (that may start the garbage
 *   collector) and drop no reference that may be the last. Nothing between the two gives the
 *   GIL away. So where there is a GIL, the GIL is the lock, and both functions are empty: a
 *   mutex as well would cost 10 of the 30 ns of a write. On a free-threaded build the lock is a
 *   mutex. A thread tries it first, and detaches if it has to wait: else a stop of the world
 *   would have to wait for that thread.
 * - A leaf lock (fs_acquire_leaf, fs_release_leaf) is always a mutex: threads that wait for
 *   work take it without the GIL. It may be taken with the GIL and under an object's lock. No
 *   other lock is taken under it, and it is never held while waiting for the GIL.
 * - A thread waits for a condition in fs_wait, without the GIL. It releases the mutex before
 *   it takes the GIL again: held, the mutex would turn every wake-up into a hand-over between
 *   two threads. The caller then checks its predicate again.
 * - After a fork the child's only thread may find a lock held by a thread that the child does
 *   not have. The fork generation shows that. pthread_atfork advances it, even where C code
 *   forks and Python's hooks do not run. An object asks fs_is_inherited before it takes its
 *   lock; if so, it initialises the lock and the rest of its state anew.
 */
#ifndef FASTSINKS_SYNC_H
#define FASTSINKS_SYNC_H

#include <Python.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#include "times.h"

static inline unsigned long fs_self(void) { return (unsigned long)pthread_self(); }

/* What the hook of pthread_atfork has recorded. */
typedef struct {
    volatile unsigned long generation; /* of processes: one more in each child */
    /* The thread that forked, the only one of the parent's that a child has. Compare it with a
     * thread that the parent recorded: a thread that the child starts may reuse an identity. */
    unsigned long forker;
} fs_fork_record;

/* All extension modules share one record, whenever they are loaded, because one module looks at
 * objects that another has made. The first one loaded, `sink`, has it (fs_init_forks); the others
 * find it there (fs_init). */
static fs_fork_record *fs_forks;
#define FS_FORKS "fastsinks._core.sink._forks"

static fs_fork_record fs_own_forks = {1, 0}; /* used only in the module that has it */

static inline void fs_forked(void) {
    fs_own_forks.generation++;
    fs_own_forks.forker = fs_self();
}

/* Count forks from now on. Returns a new reference to the capsule that fs_init looks for. */
static inline PyObject *fs_init_forks(void) {
    if (fs_forks == NULL && pthread_atfork(NULL, NULL, fs_forked) != 0) {
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
        return NULL;
    }
    fs_forks = &fs_own_forks;
    return PyCapsule_New(fs_forks, FS_FORKS, NULL);
}

/* Each module calls it first of all. It does not use PyCapsule_Import, which needs a package that
 * is completely loaded. */
static inline int fs_init(void) {
    PyObject *module = PyImport_ImportModule("fastsinks._core.sink");
    PyObject *capsule = module == NULL ? NULL : PyObject_GetAttrString(module, "_forks");
    if (capsule != NULL)
        fs_forks = (fs_fork_record *)PyCapsule_GetPointer(capsule, FS_FORKS);
    Py_XDECREF(capsule);
    Py_XDECREF(module);
    return fs_forks == NULL ? -1 : 0;
}

static inline unsigned long fs_generation(void) { return fs_forks->generation; }

static inline unsigned long fs_forker(void) { return fs_forks->forker; }

/* Types for what is changed under a lock and read without it. Such a value only ever becomes true,
 * or the reader only compares it with its own, or it is a hint. */
#ifdef Py_GIL_DISABLED
#define FS_SHARED _Atomic
#define FS_HAS_GIL 0
#else
#define FS_SHARED
#define FS_HAS_GIL 1
#endif
typedef FS_SHARED int fs_flag;
typedef FS_SHARED int fs_number;
typedef FS_SHARED unsigned long fs_thread;
typedef FS_SHARED unsigned long long fs_count;
typedef void *FS_SHARED fs_pointer;

/* An object's lock; the threads that wait for one of its conditions sleep at `cond`. */
typedef struct {
    unsigned long generation; /* set when it is initialised, also anew in a child */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
} fs_lock;

/* Where threads wait for a change of what the lock guards. It counts notifications: a thread
 * reads `count` under the lock, decides to wait, and sleeps until the count has changed. So no
 * notification in between is lost. */
typedef struct {
    unsigned int count;   /* of notifications; guarded by the lock */
    unsigned int waiters; /* guarded by the mutex */
} fs_condition;

/* Where the worker that watches the time sleeps; guarded by a leaf lock. */
typedef struct {
    pthread_cond_t cond;
    unsigned int sleepers; /* guarded by the leaf lock */
} fs_bed;

static inline void fs_init_cond(pthread_cond_t *cond) {
#if defined(__APPLE__)
    pthread_cond_init(cond, NULL);
#else
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
#endif
}

static inline void fs_lock_init(fs_lock *lock) {
    pthread_mutex_init(&lock->mutex, NULL);
    fs_init_cond(&lock->cond);
    lock->generation = fs_generation();
}

static inline void fs_condition_init(fs_condition *condition) {
    condition->count = condition->waiters = 0;
}

static inline void fs_bed_init(fs_bed *bed) {
    fs_init_cond(&bed->cond);
    bed->sleepers = 0;
}

static inline double fs_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline int fs_on_main_thread(void) {
#if defined(__linux__)
    return syscall(SYS_gettid) == getpid(); /* true for the forking thread in a child, too */
#elif defined(__APPLE__)
    return pthread_main_np();
#else
    return 1; /* not known: check for signals anyway */
#endif
}

/* Whether the process has forked since the lock was made. */
static inline int fs_is_inherited(const fs_lock *lock) {
    return __builtin_expect(lock->generation != fs_generation(), 0);
}

#ifdef Py_GIL_DISABLED

static inline void fs_acquire_slow(fs_lock *lock) {
    do {
        PyThreadState *state = PyEval_SaveThread();
        pthread_mutex_lock(&lock->mutex);
        pthread_mutex_unlock(&lock->mutex);
        PyEval_RestoreThread(state);
    } while (pthread_mutex_trylock(&lock->mutex) != 0);
}

static inline void fs_acquire(fs_lock *lock) {
    if (__builtin_expect(pthread_mutex_trylock(&lock->mutex) != 0, 0))
        fs_acquire_slow(lock);
}

static inline void fs_release(fs_lock *lock) { pthread_mutex_unlock(&lock->mutex); }

/* Notify all threads that wait for the condition; call it under the object's lock. */
static inline void fs_notify(fs_lock *lock, fs_condition *condition) {
    condition->count++;
    if (condition->waiters)
        pthread_cond_broadcast(&lock->cond);
}

#else

static inline void fs_acquire(fs_lock *lock) { (void)lock; }

static inline void fs_release(fs_lock *lock) { (void)lock; }

/* Notify all threads that wait for the condition; call it with the GIL. A waiting thread has added
 * itself to `waiters` before it released the GIL, and reads `count` again under the mutex before
 * it sleeps. */
static inline void fs_notify(fs_lock *lock, fs_condition *condition) {
    __atomic_store_n(&condition->count, condition->count + 1, __ATOMIC_RELAXED);
    if (__builtin_expect(__atomic_load_n(&condition->waiters, __ATOMIC_RELAXED) != 0, 0)) {
        pthread_mutex_lock(&lock->mutex);
        pthread_cond_broadcast(&lock->cond);
        pthread_mutex_unlock(&lock->mutex);
    }
}

#endif

static inline void fs_acquire_leaf(fs_lock *lock) { pthread_mutex_lock(&lock->mutex); }

static inline void fs_release_leaf(fs_lock *lock) { pthread_mutex_unlock(&lock->mutex); }

/* Notify all threads that wait for the condition; call it under the leaf lock. */
static inline void fs_notify_leaf(fs_lock *lock, fs_condition *condition) {
    condition->count++;
    if (condition->waiters)
        pthread_cond_broadcast(&lock->cond);
}

/* Wake the worker that sleeps, if one does; call it under the leaf lock. */
static inline void fs_wake(fs_bed *bed) {
    if (bed->sleepers)
        pthread_cond_signal(&bed->cond);
}

/* Sleep until a time of fs_now(); with the mutex, without the GIL. True once that time has come. */
static inline int fs_sleep_until(pthread_cond_t *cond, fs_lock *lock, double until) {
    struct timespec at;
#if defined(__APPLE__)
    double left = until - fs_now();
    if (left < 0)
        left = 0;
    at.tv_sec = (time_t)left;
    at.tv_nsec = (long)((left - (double)at.tv_sec) * 1e9);
    return pthread_cond_timedwait_relative_np(cond, &lock->mutex, &at) == ETIMEDOUT;
#else
    at.tv_sec = (time_t)until;
    at.tv_nsec = (long)((until - (double)at.tv_sec) * 1e9);
    return pthread_cond_timedwait(cond, &lock->mutex, &at) == ETIMEDOUT;
#endif
}

/* The same for a worker: under a leaf lock, without the GIL; returns at any wake-up. */
static inline void fs_sleep(fs_bed *bed, fs_lock *lock, double until) {
    bed->sleepers++;
    fs_sleep_until(&bed->cond, lock, until);
    bed->sleepers--;
}

/* Wait until the count differs from `seen`, until a deadline, or until a signal's handler has run;
 * the caller then checks its predicate again. Call it with the GIL and without the lock.
 * Returns -1 with an exception set if the handler raised one (KeyboardInterrupt). */
static inline int fs_wait(fs_lock *lock, fs_condition *condition, unsigned int seen,
                          double deadline) {
    double until = deadline;
    PyThreadState *state;
    if (fs_on_main_thread()) { /* handlers run only there */
        double check = fs_now() + FS_SIGNAL_CHECK;
        if (check < until)
            until = check;
    }
#ifdef Py_GIL_DISABLED
    /* Detach first: the thread that holds the mutex may wait for a stop of the world, which waits
     * for this thread. */
    state = PyEval_SaveThread();
    pthread_mutex_lock(&lock->mutex);
    condition->waiters++;
#else
    pthread_mutex_lock(&lock->mutex);
    condition->waiters++; /* while we have the GIL: see fs_notify */
    pthread_mutex_unlock(&lock->mutex);
    state = PyEval_SaveThread();
    pthread_mutex_lock(&lock->mutex);
#endif
    while (__atomic_load_n(&condition->count, __ATOMIC_RELAXED) == seen &&
           !fs_sleep_until(&lock->cond, lock, until))
        ;
    condition->waiters--;
    pthread_mutex_unlock(&lock->mutex);
    PyEval_RestoreThread(state);
    return PyErr_CheckSignals();
}

/* Counters that only go up, read at any time. With the GIL a plain addition is exact. */
#ifdef Py_GIL_DISABLED
#define FS_ADD(counter, n) __atomic_fetch_add(&(counter), (n), __ATOMIC_RELAXED)
#define FS_READ(counter) __atomic_load_n(&(counter), __ATOMIC_RELAXED)
#else
#define FS_ADD(counter, n) ((counter) += (n))
#define FS_READ(counter) (counter)
#endif

/* Where one idle worker stands by until it is woken. Spots form a stack: the worker whose caches
 * are warm goes first, and those below have time to leave. Each spot has a lock to sleep on, which
 * is held except for the moment of a wake-up. With a pthread condition instead, a worker would take
 * a contended mutex as it wakes, and need a system call to release it. That costs 2 of the 18 us
 * of a hand-over. Guarded by a leaf lock. */
typedef struct fs_spot {
    PyThread_type_lock lock;
    struct fs_spot *above;
    struct fs_spot *below;
    int standing;
} fs_spot;

static inline int fs_spot_init(fs_spot *spot) {
    spot->lock = PyThread_allocate_lock();
    spot->standing = 0;
    return spot->lock != NULL && PyThread_acquire_lock(spot->lock, NOWAIT_LOCK);
}

static inline void fs_spot_free(fs_spot *spot) {
    if (spot->lock != NULL) {
        PyThread_release_lock(spot->lock);
        PyThread_free_lock(spot->lock);
    }
}

/* Take the spot on top, to wake its worker; the stack must not be empty. Under the leaf lock. */
static inline fs_spot *fs_pop(fs_spot **top) {
    fs_spot *spot = *top;
    *top = spot->below;
    if (spot->below != NULL)
        spot->below->above = NULL;
    spot->standing = 0;
    return spot;
}

/* Wake the worker at a spot that was taken. Better without the leaf lock: a thread may wake before
 * the system call that wakes it returns, and would then wait for the lock. */
static inline void fs_wake_spot(fs_spot *spot) { PyThread_release_lock(spot->lock); }

/* Stand by until woken (1), or until a time of fs_now() (0). Call it under the leaf lock, which is
 * released meanwhile, and without the GIL. */
static inline int fs_stand(fs_spot **top, fs_spot *spot, fs_lock *lock, double until) {
    double left = until - fs_now();
    spot->above = NULL;
    spot->below = *top;
    if (*top != NULL)
        (*top)->above = spot;
    *top = spot;
    spot->standing = 1;
    pthread_mutex_unlock(&lock->mutex);
    if (PyThread_acquire_lock_timed(spot->lock, left > 0 ? (PY_TIMEOUT_T)(left * 1e6) : 0, 0) ==
        PY_LOCK_ACQUIRED) {
        pthread_mutex_lock(&lock->mutex);
        return 1;
    }
    pthread_mutex_lock(&lock->mutex);
    if (!spot->standing) { /* woken after all: consume the wake-up, or the next wait would */
        pthread_mutex_unlock(&lock->mutex); /* the thread that wakes us may need it first */
        PyThread_acquire_lock(spot->lock, WAIT_LOCK);
        pthread_mutex_lock(&lock->mutex);
        return 1;
    }
    spot->standing = 0;
    if (spot->above != NULL)
        spot->above->below = spot->below;
    else
        *top = spot->below;
    if (spot->below != NULL)
        spot->below->above = spot->above;
    return 0;
}

/* Prefetch memory that is needed soon, `offset` bytes from `address`, which may be NULL: one of
 * thousands of queues is in no cache. */
#define FS_PREFETCH(address, offset) \
    __builtin_prefetch((const void *)((uintptr_t)(address) + (uintptr_t)(offset)))

/* Let other threads have the GIL: the interpreter honours a request to drop it only between
 * bytecodes, of which a C loop has none. The nap, some 50 us with the timer's slack, lets a thread
 * that this has just woken find the GIL free. Without it such a thread waited for its next
 * request, 5 ms later, and saw the GIL held for 4 to 25 ms instead of less than 1. */
static inline void fs_breathe(void) {
    struct timespec nap = {0, 1000};
    PyThreadState *state = PyEval_SaveThread();
    nanosleep(&nap, NULL);
    PyEval_RestoreThread(state);
}

#endif
