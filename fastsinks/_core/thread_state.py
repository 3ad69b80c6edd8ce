"""Whether the calling thread runs a queue just now, for both backends.

What it calls there may close something that another thread is closing already; that thread
may be waiting for this very queue, and so this one must not wait for it.
"""

from __future__ import annotations

import threading


class _Here(threading.local):
    """Of the calling thread. Read and set without a call, in which a signal could strike."""

    runs_queues = False
    interrupts: list[BaseException] | None = None  #: who helps gets what ended a destination's call


here = _Here()
