"""A sink around another one, which it closes once."""

from threading import get_ident
from time import monotonic
from typing import Any

from .. import arguments, callbacks, thread_state, wording
from ..locked import Locked
from .destination import Destination
from .sink import Sink


class Wrapper(Sink, Locked):
    """Closes its inner sink exactly once, and lets every other closer wait for that."""

    def __init__(self, dst: Any) -> None:
        self._dst = Destination(dst)
        self._closer: int | None = None  # ident of the thread that closes dst
        self._finished = False  # dst is closed
        super().__init__()

    def close(self, timeout: float | None = None) -> None:
        """Close the inner sink. Every caller returns when that is done, but for those that a
        queue has called; idempotent. CloseTimeoutError if another one takes too long. An
        interrupted ``close`` (Ctrl-C) may be called again, and then calls the inner one.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        me = get_ident()
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            # The inner close() calls back, or a queue that the closer may be waiting for.
            if self._closer == me or (self._closer and thread_state.here.runs_queues):
                return
        if not self._changed.until(self._may_close, deadline):
            raise wording.still_closing(type(self).__name__)
        if self._closer != me:
            return
        finished = True
        try:
            self._interrupt()
            left = arguments.FOREVER if timeout is None else deadline - monotonic()
            callbacks.close(self._dst.sink, left)
        except BaseException as error:
            finished = isinstance(error, Exception)
            raise
        finally:
            with self._lock:
                self._closer, self._finished = None, finished
                self._changed.notify_all()

    def _may_close(self) -> bool:
        """Under the lock: the first to ask is the closer, the others wait until it has ended."""
        if self._closer is None and not self._finished:
            self._closer = get_ident()
        return self._finished or self._closer == get_ident()

    def _interrupt(self) -> None:
        """For subclasses: the sink has just been closed; no lock is held."""

    def _after_fork(self) -> None:
        super()._after_fork()
        self._closer = None
