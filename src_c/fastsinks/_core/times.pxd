"""The durations of times.h, for Cython."""

cdef extern from "times.h":
    const double FS_FOREVER
    const double FS_NEVER
    const double FS_HELP
    const double FS_RECHECK
    const double GIL_HOLD "FS_GIL_HOLD"
    const double QUANTUM "FS_QUANTUM"
    const double QUICK "FS_QUICK"
    const double MARKING "FS_MARKING"
    const double TICK "FS_TICK"
    const double NEXT_TICK "FS_NEXT_TICK"
    const double GRACE "FS_GRACE"
    const double CLOSE_GRACE "FS_CLOSE_GRACE"
    const double CLOSE_GRACE_OF_QUEUE "FS_CLOSE_GRACE_OF_QUEUE"
