from collections.abc import Iterable
from typing import Any

from typing_extensions import disjoint_base

from .protocols import Destination, Matcher
from .wrapper import Wrapper

@disjoint_base
class Filter(Wrapper):
    def __init__(self, dst: Destination, matcher: Matcher) -> None: ...

@disjoint_base
class ignore:
    def __init__(self, media_types: Iterable[str] = (), actions: Iterable[str] = ()) -> None: ...
    @property
    def media_types(self) -> frozenset[str]: ...
    @property
    def actions(self) -> frozenset[str]: ...
    def match(self, event: Any) -> bool: ...
    def __call__(self, event: Any) -> bool: ...
