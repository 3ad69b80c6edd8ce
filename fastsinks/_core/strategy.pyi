from typing import Any

from typing_extensions import disjoint_base

class RetryStrategy:
    def proceed(self, event: Any) -> float: ...
    def failure(self, event: Any, error: BaseException) -> bool: ...
    def success(self, event: Any) -> None: ...

@disjoint_base
class Tracked: ...

@disjoint_base
class Bounded(RetryStrategy):
    def __init__(
        self, max_attempts: int | None = None, max_elapsed: float | None = None
    ) -> None: ...
    @property
    def max_attempts(self) -> int | None: ...
    @property
    def max_elapsed(self) -> float | None: ...

@disjoint_base
class Breaker(Bounded):
    def __init__(
        self,
        threshold: int,
        backoff: float,
        *,
        max_attempts: int | None = None,
        max_elapsed: float | None = None,
    ) -> None: ...
    @property
    def threshold(self) -> int: ...
    @property
    def backoff(self) -> float: ...

@disjoint_base
class ExponentialBackoff(Bounded):
    def __init__(
        self,
        base: float = 1.0,
        factor: float = 1.0,
        max: float = 20.0,
        *,
        max_attempts: int | None = None,
        max_elapsed: float | None = None,
    ) -> None: ...
    @property
    def base(self) -> float: ...
    @property
    def factor(self) -> float: ...
    @property
    def max(self) -> float: ...
