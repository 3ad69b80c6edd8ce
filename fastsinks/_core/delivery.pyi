from typing_extensions import disjoint_base

from .sink import Sink

class Driver(Sink): ...

@disjoint_base
class Delivery: ...
