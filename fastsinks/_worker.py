"""Whether the calling thread runs a queue just now, for both backends.

What it calls there may close something that another thread is closing already; that thread
may be waiting for this very queue, and so this one must not wait for it.
"""

from __future__ import annotations

import threading

_here = threading.local()


def runs_queues(whether: bool = True) -> bool:
    """Say so of the calling thread; what was said before."""
    before = is_one()
    _here.runs_queues = whether
    return before


def is_one() -> bool:
    return getattr(_here, "runs_queues", False)
