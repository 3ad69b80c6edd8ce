"""fastsinks: composable sinks that carry events out of a busy server."""

from __future__ import annotations

from ._backend import (
    Breaker,
    Broadcaster,
    Channel,
    Dispatcher,
    ExponentialBackoff,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    RetryStrategy,
    Sink,
    backend,
    ignore,
)
from ._errors import CloseTimeoutError, DeliveryError, QueueFullError, SinkClosedError, SinkError

__all__ = [
    "Breaker",
    "Broadcaster",
    "Channel",
    "CloseTimeoutError",
    "DeliveryError",
    "Dispatcher",
    "ExponentialBackoff",
    "Filter",
    "NullSink",
    "Queue",
    "QueueFullError",
    "RetryStrategy",
    "RetryingSink",
    "Sink",
    "SinkClosedError",
    "SinkError",
    "backend",
    "ignore",
]
