from typing_extensions import disjoint_base

from .delivery import Driver

@disjoint_base
class Carrier(Driver):
    @property
    def name(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def maxsize(self) -> int: ...
