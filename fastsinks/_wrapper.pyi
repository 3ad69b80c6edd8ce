from typing_extensions import disjoint_base

from ._sink import Sink
from ._types import Destination

@disjoint_base
class Wrapper(Sink):
    def __init__(self, dst: Destination) -> None: ...
