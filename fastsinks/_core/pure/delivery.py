"""A block on its way through a RetryingSink, over as many attempts as it takes."""

from threading import get_ident
from typing import Any

from .sink import Sink


class Driver(Sink):
    """Drives blocks through a RetryingSink, a step at a time."""

    def _end_back_off(self) -> None:
        """The RetryingSink has been closed: a back-off is to end at once."""
        raise NotImplementedError


class Delivery:
    """How far one block has got. Guarded by its sink's turn, but for ``taken``."""

    done = 0  # events that are finished, from the front
    taken = False  # by a closer that could not wait, which has accounted for the rest
    failing = False  # its latest attempt has failed
    runner: int | None = None  # ident of the thread that is in an attempt at it
    waited = False  # the wait that the strategy asked for is over
    not_before = 0.0  # what a receiver's retry_after asks for

    def __init__(self, events: list[Any], driver: Driver | None = None) -> None:
        self.events = events
        self.driver = driver  # the queue that takes the steps; None where a thread waits
        self.thread = get_ident() if driver is None else None  # ... which is this one
        self.failures = [0] * len(events)
        self.since = [0.0] * len(events)  # of each event's first failure
