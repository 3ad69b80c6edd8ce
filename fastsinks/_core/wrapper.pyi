from typing_extensions import disjoint_base

from .protocols import Destination
from .sink import Sink

@disjoint_base
class Wrapper(Sink):
    def __init__(self, dst: Destination) -> None: ...
