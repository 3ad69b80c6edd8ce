"""What the calling thread is doing for fastsinks at the moment, for both backends.

A thread that runs a queue calls a destination, and what the destination calls may close
something that another thread is closing already. That thread may be waiting for this very
queue, so this one must not wait for it.
"""

from __future__ import annotations

import threading


class _Here(threading.local):
    """The calling thread's state. Plain attributes: a function call could be struck by a signal."""

    runs_queues = False
    #: A thread that helps (see Dispatcher.help) raises these once its run is over, and not in
    #: the middle of a delivery, which would then count as failed. None for any other thread.
    interrupts: list[BaseException] | None = None


here = _Here()


def may_be_ctrl_c(raised: BaseException) -> bool:
    """Whether an exception of user code asks the program to stop: only on the main thread.

    On a worker, a KeyboardInterrupt or SystemExit is an error like any other.
    """
    return (
        not isinstance(raised, Exception) and threading.current_thread() is threading.main_thread()
    )


def is_interrupt(raised: BaseException) -> bool:
    """Whether the caller has to raise an exception of user code that does not concern the event.

    Only Ctrl-C is raised. A thread that helps keeps it until the end of its run.
    """
    if not may_be_ctrl_c(raised):
        return False
    if here.interrupts is None:
        return True
    here.interrupts.append(raised)
    return False
