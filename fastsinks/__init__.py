"""fastsinks: composable sinks that carry events out of a busy server."""

from __future__ import annotations

from ._core.backend import (
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
from ._core.errors import (
    CloseTimeoutError,
    DeliveryError,
    QueueFullError,
    SinkClosedError,
    SinkError,
)
from ._core.version import __version__
from .endpoint import Endpoint, EndpointMetrics
from .http import HTTPSink

__all__ = [
    "Breaker",
    "Broadcaster",
    "Channel",
    "CloseTimeoutError",
    "DeliveryError",
    "Dispatcher",
    "Endpoint",
    "EndpointMetrics",
    "ExponentialBackoff",
    "Filter",
    "HTTPSink",
    "NullSink",
    "Queue",
    "QueueFullError",
    "RetryStrategy",
    "RetryingSink",
    "Sink",
    "SinkClosedError",
    "SinkError",
    "__version__",
    "backend",
    "ignore",
]
