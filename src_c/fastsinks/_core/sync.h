/* Locks, waits, time and fork: all that the compiled core needs of the platform.
 *
 * Two kinds of locks, and the rules that every caller keeps:
 *
 * - An object's own lock (fs_acquire, fs_release) is taken with the GIL, for a few
 *   instructions that run no Python code, make no container (that may start the garbage
 *   collector) and drop no reference that may be the last. Nothing between the two gives the
 *   GIL away, so where there is a GIL, the GIL is the lock, and both are empty: a mutex
 *   besides would cost 10 of 30 ns of a write. On a free-threaded build it is a mutex, tried
 *   first; who has to wait for it detaches, so that a stop of the world does not wait too.
 * - A leaf lock (fs_acquire_leaf, fs_release_leaf) is a mutex always: threads that wait for
 *   work take it without the GIL. It may be taken with the GIL and under an object's lock,
 *   is itself the last, and is never held while waiting for the GIL.
 * - Who waits for a condition does so in fs_wait, without the GIL, and gives the mutex back
 *   before it takes the GIL again: held, it would turn every wake-up into a hand-over
 *   between two threads. The caller then looks at its predicate again.
 * - After a fork the child's only thread may find a lock held by a thread that is not
 *   there. The generation, advanced by pthread_atfork, which also works where C code
 *   forks and Python's hooks do not run, tells: an object asks fs_is_inherited before it
 *   takes its lock, and makes the lock and what else concerns the parent anew.
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

/* How long the main thread waits at most before it looks for signals, in seconds. */
#define FS_SIGNAL_CHECK 0.05
/* How long who waits for a queue goes without a look whether to help, while workers may be
 * missing, in seconds. */
#define FS_HELP 0.02
/* How long who waits for a queue goes without a look whether its dispatcher has been closed,
 * which wakes nobody at its queues, in seconds. */
#define FS_RECHECK 0.5
/* Longer waits are as good as for ever; a timespec holds it on every platform. */
#define FS_FOREVER (86400.0 * 365)
/* A time of fs_now() that never comes; nothing waits until then. */
#define FS_NEVER ((double)INFINITY)

/* Each extension module has its own copy, and registers its own handler in fs_init;
 * an object compares only within its module. */
static volatile unsigned long fs_generation = 1;
/* The one thread that a child has of its parent's. To be compared with what the parent noted:
 * a thread that the child starts may get the identity of one that did not come along. */
static unsigned long fs_forker;

static inline unsigned long fs_self(void) { return (unsigned long)pthread_self(); }

static inline void fs_forked(void) {
    fs_generation++;
    fs_forker = fs_self();
}

static inline int fs_init(void) {
    if (pthread_atfork(NULL, NULL, fs_forked) != 0) {
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
        return -1;
    }
    return 0;
}

/* What is changed under a lock, and looked at without one: it only ever becomes true, is only
 * compared with the looker's own, or is a hint. */
#ifdef Py_GIL_DISABLED
#define FS_SHARED _Atomic
#else
#define FS_SHARED
#endif
typedef FS_SHARED int fs_flag;
typedef FS_SHARED int fs_number;
typedef FS_SHARED unsigned long fs_thread;
typedef FS_SHARED unsigned long long fs_count;
typedef void *FS_SHARED fs_pointer;

/* An object's lock, and where those sleep who wait for one of the object's signals. */
typedef struct {
    unsigned long generation; /* set when it is made, or made anew in a child */
    pthread_mutex_t mutex;
    pthread_cond_t cond;
} fs_lock;

/* An event count: a waiter notes `count` under the lock, decides to wait, and sleeps
 * until it has changed, so that no notification between the two is lost. */
typedef struct {
    unsigned int count;   /* of notifications; guarded by the lock */
    unsigned int waiters; /* guarded by the mutex */
} fs_signal;

/* A condition of its own, for a worker that waits under a leaf lock. */
typedef struct {
    pthread_cond_t cond;
    unsigned int waiters; /* guarded by the leaf lock */
} fs_condition;

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
    lock->generation = fs_generation;
}

static inline void fs_signal_init(fs_signal *signal) { signal->count = signal->waiters = 0; }

static inline void fs_condition_init(fs_condition *condition) {
    fs_init_cond(&condition->cond);
    condition->waiters = 0;
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
    return 1; /* not known: look for signals anyway */
#endif
}

/* Whether the process has forked since the lock was made. */
static inline int fs_is_inherited(const fs_lock *lock) {
    return __builtin_expect(lock->generation != fs_generation, 0);
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

/* Wake all who wait for the signal; call under the object's lock. */
static inline void fs_notify(fs_lock *lock, fs_signal *signal) {
    signal->count++;
    if (signal->waiters)
        pthread_cond_broadcast(&lock->cond);
}

#else

static inline void fs_acquire(fs_lock *lock) { (void)lock; }

static inline void fs_release(fs_lock *lock) { (void)lock; }

/* Wake all who wait for the signal; call with the GIL. A waiter has counted itself before it
 * gave the GIL away, and looks at the count again under the mutex before it sleeps. */
static inline void fs_notify(fs_lock *lock, fs_signal *signal) {
    __atomic_store_n(&signal->count, signal->count + 1, __ATOMIC_RELAXED);
    if (__builtin_expect(__atomic_load_n(&signal->waiters, __ATOMIC_RELAXED) != 0, 0)) {
        pthread_mutex_lock(&lock->mutex);
        pthread_cond_broadcast(&lock->cond);
        pthread_mutex_unlock(&lock->mutex);
    }
}

#endif

static inline void fs_acquire_leaf(fs_lock *lock) { pthread_mutex_lock(&lock->mutex); }

static inline void fs_release_leaf(fs_lock *lock) { pthread_mutex_unlock(&lock->mutex); }

/* Wake all who wait for the signal; call under the leaf lock. */
static inline void fs_notify_leaf(fs_lock *lock, fs_signal *signal) {
    signal->count++;
    if (signal->waiters)
        pthread_cond_broadcast(&lock->cond);
}

/* Wake the worker that waits, if one does; call under the leaf lock. */
static inline void fs_wake(fs_condition *condition) {
    if (condition->waiters)
        pthread_cond_signal(&condition->cond);
}

/* Sleep until a time of fs_now(); with the mutex, without the GIL. Whether it has come. */
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
static inline void fs_sleep(fs_condition *condition, fs_lock *lock, double until) {
    condition->waiters++;
    fs_sleep_until(&condition->cond, lock, until);
    condition->waiters--;
}

/* Wait until the count differs from `seen`, a deadline, or a signal's handler has run;
 * the caller then looks at its predicate again. Call with the GIL and without the lock.
 * -1 with an exception set where the handler raised one (KeyboardInterrupt). */
static inline int fs_wait(fs_lock *lock, fs_signal *signal, unsigned int seen, double deadline) {
    double until = deadline;
    PyThreadState *state;
    if (fs_on_main_thread()) { /* only there do handlers run */
        double check = fs_now() + FS_SIGNAL_CHECK;
        if (check < until)
            until = check;
    }
#ifdef Py_GIL_DISABLED
    /* Detached first: who has the mutex may wait for a stop of the world, which waits for us. */
    state = PyEval_SaveThread();
    pthread_mutex_lock(&lock->mutex);
    signal->waiters++;
#else
    pthread_mutex_lock(&lock->mutex);
    signal->waiters++; /* while we have the GIL: see fs_notify */
    pthread_mutex_unlock(&lock->mutex);
    state = PyEval_SaveThread();
    pthread_mutex_lock(&lock->mutex);
#endif
    while (__atomic_load_n(&signal->count, __ATOMIC_RELAXED) == seen &&
           !fs_sleep_until(&lock->cond, lock, until))
        ;
    signal->waiters--;
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

/* Where one idle worker stands until it is called: on top of a stack, so that the one whose
 * caches are warm goes first and those below find time to leave. Each has a lock of its own
 * to sleep on, held but for the moment of a call: who wakes from a condition takes a mutex
 * that then counts as contended, and gives it back by a system call, 2 of 18 us of a
 * hand-over. Guarded by a leaf lock. */
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

/* Take the one on top, which there is, to call it; under the leaf lock. */
static inline fs_spot *fs_pop(fs_spot **top) {
    fs_spot *spot = *top;
    *top = spot->below;
    if (spot->below != NULL)
        spot->below->above = NULL;
    spot->standing = 0;
    return spot;
}

/* Call one that was taken: it stays where it is until then. Better without the lock: a thread
 * may wake faster than the system call returns that wakes it, and then wait for the lock. */
static inline void fs_call(fs_spot *spot) { PyThread_release_lock(spot->lock); }

/* Stand until called (1), or a time of fs_now() (0); under the leaf lock, which is given back
 * meanwhile, without the GIL. */
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
    if (!spot->standing) { /* called after all: take the call, or the next wait would */
        pthread_mutex_unlock(&lock->mutex); /* who is to call may want it first */
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

/* Ask for memory that is needed soon, so many bytes from an address, which may be NULL: a
 * queue among thousands is in no cache. */
#define FS_PREFETCH(address, offset) \
    __builtin_prefetch((const void *)((uintptr_t)(address) + (uintptr_t)(offset)))

/* Let other threads have the GIL: the interpreter's request to drop it is honoured only
 * between bytecodes, of which a C loop has none. The nap (with the timer's slack some 50 us)
 * lets one that has just been woken by our giving it away find it free; without, it waited
 * for its next request, 5 ms later, and saw holds of 4 to 25 ms instead of under 1. */
static inline void fs_breathe(void) {
    struct timespec nap = {0, 1000};
    PyThreadState *state = PyEval_SaveThread();
    nanosleep(&nap, NULL);
    PyEval_RestoreThread(state);
}

#endif
