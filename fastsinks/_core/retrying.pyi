from collections.abc import Iterable

from typing_extensions import disjoint_base

from .protocols import Destination, RetryListener, Strategy
from .wrapper import Wrapper

@disjoint_base
class RetryingSink(Wrapper):
    def __init__(
        self,
        sink: Destination,
        strategy: Strategy,
        *,
        listeners: Iterable[RetryListener] = (),
        dead_letter: Destination | None = None,
    ) -> None: ...
    @property
    def retries(self) -> int: ...
    @property
    def dropped(self) -> int: ...
