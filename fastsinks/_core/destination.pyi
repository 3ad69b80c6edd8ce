from typing_extensions import disjoint_base

from . import protocols

@disjoint_base
class Destination:
    def __init__(self, sink: protocols.Destination) -> None: ...
    @property
    def sink(self) -> protocols.Destination: ...
    @property
    def takes_blocks(self) -> bool: ...
