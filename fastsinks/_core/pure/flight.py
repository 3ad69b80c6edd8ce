"""What a queue has taken from its backlog and not accounted for."""

from typing import Any

from .delivery import Delivery


class Flight:
    """Events in flight. The queue's lock guards which flight is its own, and so who is to
    account for it: whoever takes it from the queue."""

    def __init__(self, events: list[Any], since: list[float], delivery: Delivery | None) -> None:
        self.events = events  # never changed
        self.since = since  # when each was accepted, where that is measured
        self.delivery = delivery  # how far a RetryingSink has got with them

    @property
    def done(self) -> int:
        """How many, from the front, a RetryingSink has finished."""
        return 0 if self.delivery is None else self.delivery.done
