"""What a queue has taken from its backlog and not accounted for."""

from typing import Any, NamedTuple

from .delivery import Delivery


class Flight(NamedTuple):
    """Events in flight. Whoever takes it from the queue, under its lock, accounts for them."""

    events: list[Any]  # never changed
    since: list[float]  # when each was accepted
    delivery: Delivery | None  # how far a RetryingSink has got with them

    @property
    def done(self) -> int:
        """How many, from the front, a RetryingSink has finished."""
        return 0 if self.delivery is None else self.delivery.done
