/* Every duration that the compiled core has chosen, in seconds, and why it is as long. */
#ifndef FASTSINKS_TIMES_H
#define FASTSINKS_TIMES_H

/* Longer waits are as good as for ever; a timespec holds it on every platform. */
#define FS_FOREVER (86400.0 * 365)
/* A time of fs_now() that never comes; nothing waits until then. */
#define FS_NEVER ((double)INFINITY)

/* The main thread looks for signals after so long a wait. */
#define FS_SIGNAL_CHECK 0.05
/* A thread that waits for a queue looks so often whether it has to help, while workers may be
 * missing. */
#define FS_HELP 0.02
/* A thread that waits for a queue looks so often whether the dispatcher has been closed, which
 * notifies nobody at its queues. */
#define FS_RECHECK 0.5

/* A C loop keeps the GIL so long before others may have it. */
#define FS_GIL_HOLD 0.0003
/* A queue runs so long while others are ready. */
#define FS_QUANTUM 0.0003
/* Two looks at the clock that are closer than this were too early: the calls between are quick. */
#define FS_QUICK 0.00002
/* Marks of a queue's latency are so far apart, where deliveries take less. */
#define FS_MARKING 0.001

/* Active workers count as blocked after so long without progress. */
#define FS_TICK 0.001
/* So do those that took over from them: on a busy machine they may just not have been let run. */
#define FS_NEXT_TICK 0.004

/* At a closer's deadline a destination, once it is closed, has so long to let go of its events. */
#define FS_GRACE 0.03
/* Its close() then has so long to end. */
#define FS_CLOSE_GRACE 0.06
/* The close() of an inner queue has so long, because that queue has a grace of its own. */
#define FS_CLOSE_GRACE_OF_QUEUE 0.5

#endif
