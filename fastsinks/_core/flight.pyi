from typing_extensions import disjoint_base

from .sink import Sink

@disjoint_base
class Carrier(Sink):
    @property
    def name(self) -> str: ...
    @property
    def maxsize(self) -> int: ...
