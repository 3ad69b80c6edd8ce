from collections.abc import Iterable

from .dispatcher import Dispatcher
from .flight import Carrier
from .protocols import Destination, QueueListener, WhenFull
from .stats import QueueStats as QueueStats

class Queue(Carrier):
    def __init__(
        self,
        dst: Destination,
        *,
        maxsize: int = 0,
        when_full: WhenFull = "block",
        batch_size: int = 1,
        linger: float = 0.0,
        concurrency: int = 1,
        listeners: Iterable[QueueListener] = (),
        dead_letter: Destination | None = None,
        dispatcher: Dispatcher | None = None,
        name: str | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def stats(self) -> QueueStats: ...
    def latencies(self) -> tuple[tuple[int, ...], float]: ...
    def oldest(self) -> float: ...
    def flush(self, timeout: float | None = None) -> bool: ...
    def _delivers_here(self) -> bool: ...
