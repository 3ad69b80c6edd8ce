"""A block on its way through a RetryingSink, over as many attempts as it takes."""

from threading import get_ident
from typing import Any

from .dispatcher import Dispatcher
from .strand import Strand


class Delivery:
    """How far one block has got. Guarded by its sink's turn, but for ``taken``."""

    done = 0  # events that are finished, from the front
    taken = False  # by a closer that could not wait, which has accounted for the rest
    waited = False  # the wait that the strategy asked for is over
    not_before = 0.0  # what a receiver's retry_after asks for

    def __init__(
        self, events: list[Any], dispatcher: Dispatcher | None = None, strand: Strand | None = None
    ) -> None:
        self.events = events
        self.dispatcher = dispatcher  # of the queue that drives it, as is the next
        self.strand = strand  # None for a thread that waits
        self.thread = get_ident() if strand is None else None  # ... which is this one
        self.failures = [0] * len(events)
        self.since = [0.0] * len(events)  # of each event's first failure
