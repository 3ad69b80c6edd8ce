"""What the calling thread is doing for us just now, for both backends.

A thread that runs a queue calls a destination, and what the destination calls may close
something that another thread is closing already. That thread may be waiting for this very
queue, so this one must not wait for it.
"""

from __future__ import annotations

import threading


class _Here(threading.local):
    """Of the calling thread. Read and set without a call, in which a signal could strike."""

    runs_queues = False
    #: A thread that helps (see Dispatcher.help) raises these once its run is over, and not in
    #: the middle of a delivery, which would then count as failed. None for any other thread.
    interrupts: list[BaseException] | None = None


here = _Here()


def may_be_ctrl_c(raised: BaseException) -> bool:
    """Whether user code raised what asks the program to stop: it does so on the main thread.

    On a worker a KeyboardInterrupt or SystemExit is somebody's mistake, like any other.
    """
    return (
        not isinstance(raised, Exception) and threading.current_thread() is threading.main_thread()
    )


def is_interrupt(raised: BaseException) -> bool:
    """Whether the caller has to raise what user code raised beside the point.

    That is Ctrl-C. A thread that helps keeps it for the end of its run.
    """
    if not may_be_ctrl_c(raised):
        return False
    if here.interrupts is None:
        return True
    here.interrupts.append(raised)
    return False
