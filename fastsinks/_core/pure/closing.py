"""What the closers of a queue share."""

from ..condition import NEVER

GRACE = 0.03  #: seconds for a destination that was closed at a deadline to let go of its events
CLOSE_GRACE = 0.06  #: ... and for its close() to end
CLOSE_GRACE_OF_QUEUE = 0.5  #: ... of such a queue


class Closing:
    """How far the close of a queue has got. Guarded by the queue's lock."""

    by = NEVER  # the earliest deadline of all closers
    started = False  # somebody closes dst
    abandoned = False  # a closer's deadline has passed, and it says what is left
    error: BaseException | None = None  # raised by dst.close(), for one closer
    finished = False  # dst is closed, or abandoned

    def start(self) -> bool:
        """Whether the caller is the one to close dst."""
        begun, self.started = self.started, True
        return not begun

    def abandon(self) -> bool:
        """Whether the caller, whose deadline has passed, is the one to say what is left."""
        if self.abandoned or self.finished:
            return False
        self.abandoned = True
        return True

    def take_error(self) -> BaseException | None:
        error, self.error = self.error, None
        return error
