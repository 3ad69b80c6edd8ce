from typing_extensions import disjoint_base

from . import _types

@disjoint_base
class Destination:
    def __init__(self, sink: _types.Destination) -> None: ...
    @property
    def sink(self) -> _types.Destination: ...
    @property
    def takes_blocks(self) -> bool: ...
