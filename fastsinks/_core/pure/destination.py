"""How to call what a sink writes to, found out once, when sinks are wired."""

from collections.abc import Sequence
from typing import Any

from .. import arguments, callbacks
from .sink import Sink


class Destination:
    """What a sink writes to. Called under no lock; raises what the sink raises."""

    def __init__(self, sink: Any) -> None:
        self.sink = arguments.destination(sink)
        self.takes_blocks = arguments.own_write_many(sink, Sink) is not None

    def write(self, event: Any) -> None:
        callbacks.write(self.sink, event)

    def write_many(self, events: Sequence[Any]) -> None:
        """Hand on a list or a tuple: as a block where the sink takes blocks."""
        if self.takes_blocks:
            callbacks.write_many(self.sink, events)
        else:
            for event in events:
                callbacks.write(self.sink, event)
