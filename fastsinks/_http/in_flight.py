"""InFlight: the exchanges that a sink has begun and not ended, their permits and sockets."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Callable
from threading import get_ident
from time import monotonic

from .._core.errors import SinkClosedError
from .._core.locked import Locked
from .exchange import Exchange


class InFlight(Locked):
    """What one sink has in flight in one process: at most ``permits`` exchanges at a time.

    It also knows their sockets, so that a close can interrupt them. The lock is re-entrant:
    a signal handler or a finaliser that runs while its own thread holds it may close the
    sink. No user code runs under it. A signal whose handler raises may strike a writer
    anywhere; no other writer may suffer from that.
    """

    def __init__(self, permits: int) -> None:
        self._permits = permits
        super().__init__()
        # All below is guarded by _lock.
        self._exchanges: dict[int, Exchange] = {}  # by the ident of the thread
        # Open sockets, idle connections included. Weak: one that a signal left behind is closed
        # by the garbage collector.
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._closed = False
        self.requests = 0

    def begin(self, exchange: Exchange) -> None:
        """Wait for a permit, then start the clock. Raises SinkClosedError.

        Whatever it raises, the caller has to set ``exchange.over`` and call ``end``.
        """
        me = get_ident()

        def permitted() -> bool:
            if self._closed:
                raise SinkClosedError
            if me in self._exchanges or len(self._exchanges) >= self._permits:
                self._forget_what_is_over()
            if me in self._exchanges:
                raise RuntimeError("a request's own thread wrote to the sink that it is serving")
            if len(self._exchanges) >= self._permits:
                return False
            exchange.start()
            self._exchanges[me] = exchange
            return True

        self._changed.until(permitted)

    def end(self, exchange: Exchange) -> None:
        """Give the permit back."""
        me = get_ident()
        with self._lock:
            if self._exchanges.get(me) is exchange:
                del self._exchanges[me]
            self._changed.notify_all()

    def _forget_what_is_over(self) -> None:
        known = self._exchanges
        self._exchanges = {key: known[key] for key in known if not known[key].over}

    def current(self) -> Exchange:
        """The calling thread's exchange."""
        return self._exchanges[get_ident()]

    def count_request(self) -> None:
        with self._lock:
            self.requests += 1

    def __len__(self) -> int:
        """The exchanges in flight now. It takes no lock: monitoring may run in a forked child,
        where the lock may be held."""
        return sum(not exchange.over for exchange in list(self._exchanges.values()))

    # -- sockets: closing one and interrupting it exclude each other, because a shutdown
    # that comes late would hit whichever file has the same descriptor by then

    def track(self, sock: socket.socket) -> None:
        """From now on ``interrupt`` reaches ``sock``. Raises SinkClosedError."""
        with self._lock:
            if self._closed:
                raise SinkClosedError
            self._sockets.add(sock)

    def release(self, sock: socket.socket, close: Callable[[], object]) -> None:
        """Call ``close``, which closes ``sock`` now or when its last reader does."""
        with self._lock:
            close()
            if sock.fileno() < 0:
                self._sockets.discard(sock)

    def interrupt(self) -> None:
        """Refuse further exchanges, and make those in flight fail at once."""
        with self._lock:
            self._closed = True
            for sock in self._sockets:
                try:
                    # Not SSLSocket's, which would remove the TLS state while its reader uses it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:  # not connected yet, or no longer
                    pass
            self._changed.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no other thread has an exchange in flight; false if one still has."""
        me = get_ident()

        def idle() -> bool:
            self._forget_what_is_over()
            return not self._exchanges.keys() - {me}

        return self._changed.until(idle, monotonic() + timeout)

    def disown(self) -> None:
        """In a forked child: let go of the parent's sockets without touching its connections.

        The lock may be held by a thread that does not exist here, so nothing waits for it.
        """
        for sock in self._sockets.copy():
            try:
                os.close(sock.detach())
            except OSError:  # was closed, or being closed, when the process forked
                pass
