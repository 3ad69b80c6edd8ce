"""What runs one after the other: the dispatcher's side of a queue's flight."""

from enum import Enum, auto
from typing import Any


class State(Enum):
    """That a run leaves its strand in."""

    IDLE = auto()  # nothing to do, until it is scheduled again
    READY = auto()  # there is more to do, but others are to run first
    TIMED = auto()  # on a timer, where the run has put it


class Strand:
    """A flight derives from it. It is idle, ready, running or on a timer."""

    _timer: tuple[float, int, Any] | None = None  # its entry there; the dispatcher's lock

    def _run(self) -> State:
        """Called by one thread at a time, under no lock."""
        raise NotImplementedError
