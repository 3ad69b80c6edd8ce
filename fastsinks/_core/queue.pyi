from collections.abc import Iterable

from typing_extensions import disjoint_base

from .dispatcher import Dispatcher
from .protocols import Destination, QueueListener, WhenFull
from .sink import Sink
from .stats import LATENCY_BOUNDS as LATENCY_BOUNDS
from .stats import QueueStats as QueueStats

@disjoint_base
class Queue(Sink):
    def __init__(
        self,
        dst: Destination,
        *,
        maxsize: int = 0,
        when_full: WhenFull = "block",
        batch_size: int = 1,
        linger: float = 0.0,
        listeners: Iterable[QueueListener] = (),
        dead_letter: Destination | None = None,
        dispatcher: Dispatcher | None = None,
        name: str | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def maxsize(self) -> int: ...
    def __len__(self) -> int: ...
    def stats(self) -> QueueStats: ...
    def latencies(self) -> tuple[tuple[int, ...], float]: ...
    def oldest(self) -> float: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def _delivers_here(self) -> bool: ...
