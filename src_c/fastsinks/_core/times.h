/* The durations that the compiled core has chosen, in seconds, and what each is for. */
#ifndef FASTSINKS_TIMES_H
#define FASTSINKS_TIMES_H

/* Longer waits are as good as for ever; a timespec holds it on every platform. */
#define FS_FOREVER (86400.0 * 365)
/* A time of fs_now() that never comes; nothing waits until then. */
#define FS_NEVER ((double)INFINITY)

/* Between two checks for signals, while the main thread waits. */
#define FS_SIGNAL_CHECK 0.05
/* Between two checks whether a thread that waits for a queue has to help, because workers may be
 * missing. */
#define FS_HELP 0.02
/* Between two checks whether the dispatcher has been closed, while a thread waits for a queue: the
 * close notifies no thread that waits there. */
#define FS_RECHECK 0.5

/* The longest time that a C loop keeps the GIL before it lets other threads have it. */
#define FS_GIL_HOLD 0.0003
/* The longest run of a queue while others are ready. */
#define FS_QUANTUM 0.0003
/* If two looks at the clock are closer than this, the calls in between are quick, and the clock is
 * looked at less often. */
#define FS_QUICK 0.00002
/* While events are pending, a delivery marks the next event only if the latest mark is so old. */
#define FS_MARKING 0.001

/* Without progress for so long, active workers count as blocked. */
#define FS_TICK 0.001
/* The same for workers that took over from blocked ones: on a busy machine the system may not yet
 * have let them run. */
#define FS_NEXT_TICK 0.004

/* After a closer's deadline the destination is closed, and has so long to let go of its events. */
#define FS_GRACE 0.03
/* Its close() then has so long to end. */
#define FS_CLOSE_GRACE 0.06
/* Longer for the close() of an inner queue, because that queue has a grace of its own. */
#define FS_CLOSE_GRACE_OF_QUEUE 0.5

#endif
