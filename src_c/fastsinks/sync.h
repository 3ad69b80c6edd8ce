/* Locks, waits, time and fork: all that the compiled core needs of the platform.
 *
 * The rules that every caller keeps:
 *
 * - A lock is held for a few instructions, by a thread that neither runs Python code
 *   nor drops a reference nor waits for the GIL while it holds it. Holding the GIL and
 *   waiting for such a lock can therefore not deadlock; but the holder may have been
 *   preempted, so fs_acquire gives the GIL away before it waits.
 * - Who waits does so in fs_wait, with the GIL released and the lock given back before
 *   the GIL is taken again: a mutex held while waiting for the GIL would turn every
 *   wake-up into a hand-over between two threads.
 * - After a fork the child's only thread may find a lock held by a thread that is not
 *   there. The generation, advanced by pthread_atfork, which also works where C code
 *   forks and Python's hooks do not run, tells: an object asks fs_is_inherited before it
 *   takes its lock, and makes the lock and what else concerns the parent anew.
 */
#ifndef FASTSINKS_SYNC_H
#define FASTSINKS_SYNC_H

#include <Python.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

/* How long the main thread waits at most before it looks for signals, in seconds. */
#define FS_SIGNAL_CHECK 0.05
/* Longer waits are as good as for ever; a timespec holds it on every platform. */
#define FS_FOREVER (86400.0 * 365)

/* Each extension module has its own copy, and registers its own handler in fs_init;
 * an object compares only within its module. */
static volatile unsigned long fs_generation = 1;

static inline void fs_forked(void) { fs_generation++; }

static inline int fs_init(void) {
    if (pthread_atfork(NULL, NULL, fs_forked) != 0) {
        PyErr_SetString(PyExc_OSError, "pthread_atfork failed");
        return -1;
    }
    return 0;
}

typedef struct {
    pthread_mutex_t mutex;
    unsigned long generation;
} fs_lock;

/* An event count: a waiter notes `count` under the lock, decides to wait, and sleeps
 * until it has changed, so that no notification between the two is lost. */
typedef struct {
    pthread_cond_t cond;
    unsigned int count;   /* of notifications; guarded by the object's lock */
    unsigned int waiters; /* guarded by the object's lock */
} fs_signal;

static inline void fs_lock_init(fs_lock *lock) {
    pthread_mutex_init(&lock->mutex, NULL);
    lock->generation = fs_generation;
}

static inline void fs_signal_init(fs_signal *signal) {
#if defined(__APPLE__)
    pthread_cond_init(&signal->cond, NULL);
#else
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&signal->cond, &attr);
    pthread_condattr_destroy(&attr);
#endif
    signal->count = 0;
    signal->waiters = 0;
}

static inline double fs_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static inline unsigned long fs_self(void) { return (unsigned long)pthread_self(); }

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

static inline void fs_acquire_slow(fs_lock *lock) {
    do {
        PyThreadState *state = PyEval_SaveThread();
        pthread_mutex_lock(&lock->mutex);
        pthread_mutex_unlock(&lock->mutex);
        PyEval_RestoreThread(state);
    } while (pthread_mutex_trylock(&lock->mutex) != 0);
}

/* Take the lock; call with the GIL and no lock. About 6 ns when nobody holds it. */
static inline void fs_acquire(fs_lock *lock) {
    if (__builtin_expect(pthread_mutex_trylock(&lock->mutex) != 0, 0))
        fs_acquire_slow(lock);
}

/* Take a lock that is the last in its order, with or without the GIL, maybe under another
 * lock; never gives the GIL away. */
static inline void fs_acquire_leaf(fs_lock *lock) { pthread_mutex_lock(&lock->mutex); }

static inline void fs_release(fs_lock *lock) { pthread_mutex_unlock(&lock->mutex); }

/* Wake all who wait; call under the lock. */
static inline void fs_notify(fs_signal *signal) {
    signal->count++;
    if (signal->waiters)
        pthread_cond_broadcast(&signal->cond);
}

/* Wake one, for waiters that are all alike; call under the lock. */
static inline void fs_notify_one(fs_signal *signal) {
    signal->count++;
    if (signal->waiters)
        pthread_cond_signal(&signal->cond);
}

/* Sleep on the signal until a time of fs_now(); under the lock, without the GIL. */
static inline int fs_sleep_until(fs_lock *lock, fs_signal *signal, double until) {
    struct timespec at;
    int error;
    signal->waiters++;
#if defined(__APPLE__)
    double left = until - fs_now();
    if (left < 0)
        left = 0;
    at.tv_sec = (time_t)left;
    at.tv_nsec = (long)((left - (double)at.tv_sec) * 1e9);
    error = pthread_cond_timedwait_relative_np(&signal->cond, &lock->mutex, &at);
#else
    at.tv_sec = (time_t)until;
    at.tv_nsec = (long)((until - (double)at.tv_sec) * 1e9);
    error = pthread_cond_timedwait(&signal->cond, &lock->mutex, &at);
#endif
    signal->waiters--;
    return error == ETIMEDOUT;
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
    state = PyEval_SaveThread();
    pthread_mutex_lock(&lock->mutex);
    while (signal->count == seen && !fs_sleep_until(lock, signal, until))
        ;
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

/* Let other threads have the GIL: the interpreter's request to drop it is honoured only
 * between bytecodes, of which a C loop has none. */
static inline void fs_breathe(void) {
    PyThreadState *state = PyEval_SaveThread();
    PyEval_RestoreThread(state);
}

#endif
