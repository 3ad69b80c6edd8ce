"""fastsinks: composable sinks that carry events out of a busy server.

Importing it loads the core, and raises ImportError if the compiled core cannot be loaded. What
needs urllib3 is loaded on first use: a program that only queues does not pay for HTTP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from . import encoders as encoders
    from . import endpoint as endpoint
    from . import events as events
    from . import http as http
    from . import signing as signing
    from . import typing as typing
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

# Names that are loaded on first use, each with its door.
_LAZY = {"Endpoint": "endpoint", "EndpointMetrics": "endpoint", "HTTPSink": "http"}
_DOORS = ("encoders", "endpoint", "events", "http", "signing", "typing")


def __getattr__(name: str) -> Any:
    """Load a door on first use of anything behind it (PEP 562)."""
    if name in _DOORS:
        return import_module(f".{name}", __name__)
    if name in _LAZY:
        value = getattr(import_module(f".{_LAZY[name]}", __name__), name)
        globals()[name] = value  # later lookups do not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_DOORS})
