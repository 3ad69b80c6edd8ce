"""The only place that chooses between the compiled core and its pure-Python twin.

``FASTSINKS_BACKEND=python`` selects the twin. Without it a missing or broken
extension is an ImportError: a slow path that nobody asked for would go unnoticed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

_choice = os.environ.get("FASTSINKS_BACKEND", "") or "c"
if _choice not in ("c", "python"):
    raise ImportError(f"FASTSINKS_BACKEND must be 'c' or 'python', not {_choice!r}")
backend: str = _choice

if TYPE_CHECKING or _choice == "c":
    try:
        from .broadcaster import Broadcaster
        from .channel import Channel
        from .counters import Counters
        from .dispatcher import Dispatcher
        from .filter import Filter, ignore
        from .queue import Queue
        from .retrying import RetryingSink
        from .sink import NullSink, Sink
        from .strategy import Breaker, ExponentialBackoff, RetryStrategy
    except ImportError as error:
        raise ImportError(
            f"the compiled core of fastsinks cannot be loaded ({error}); "
            "reinstall fastsinks, or set FASTSINKS_BACKEND=python to use the slower pure-Python one"
        ) from error
else:
    from .pure import (
        Breaker,
        Broadcaster,
        Channel,
        Counters,
        Dispatcher,
        ExponentialBackoff,
        Filter,
        NullSink,
        Queue,
        RetryingSink,
        RetryStrategy,
        Sink,
        ignore,
    )

__all__ = [
    "Breaker",
    "Broadcaster",
    "Channel",
    "Counters",
    "Dispatcher",
    "ExponentialBackoff",
    "Filter",
    "NullSink",
    "Queue",
    "RetryStrategy",
    "RetryingSink",
    "Sink",
    "backend",
    "ignore",
]
