"""Requests in progress: whose turn it is, how long each may take, and how to interrupt them."""

from __future__ import annotations

import encodings.idna  # noqa: F401  (else the first lookup imports it: bad luck for a fork then)
import os
import socket
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from time import monotonic
from typing import Any

from .._core.condition import Condition
from .._core.errors import DeliveryError, SinkClosedError
from .addresses import Allow, allows

HEAD_LIMIT = 1024 * 1024
"""Bytes of status lines and headers, interim responses included, that an answer may have."""

LONGEST = 1e6
"""Seconds of the longest wait given to the system in one go; platforms overflow beyond."""


class Exchange:
    """One write on its way: a request, its redirects, and their answers.

    It belongs to the thread that began it. ``deadline`` bounds all of it, on the
    monotonic clock, from when it is its turn.
    """

    __slots__ = ("answered", "begun", "budget", "deadline", "over", "reset", "reused", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.begun = False
        self.over = False  # set before its end is told: telling may be struck by a signal

    def start(self) -> None:
        self.deadline = monotonic() + self.timeout
        self.restart()
        self.begun = True

    def restart(self) -> None:
        """Forget the previous request of the same exchange, but not its deadline."""
        self.reused = False  # the connection has served an earlier request
        self.answered = False  # a byte of an answer has come
        self.reset = False  # the receiver broke the connection off, rather than ending it
        self.budget = HEAD_LIMIT  # bytes that may still come

    def remaining(self) -> float:
        """Seconds to the deadline, more than zero; TimeoutError once it has passed."""
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return min(left, LONGEST)


class Lookup:
    """A host name being resolved by a thread that nobody can interrupt."""

    def __init__(self) -> None:
        self.addresses: list[Any] | None = None
        self.error: Exception | None = None
        self.done = False
        self.lost = False  # a signal struck who began it: it may never be done


class Exchanges:
    """The requests of one sink in one process, at most ``limit`` at once, and their sockets.

    The lock is re-entrant because a signal handler or a finaliser that runs while
    its own thread holds it may close the sink. No user code runs under it. A signal
    whose handler raises may strike a writer anywhere; no one else is to suffer from it.
    """

    def __init__(self, limit: int = 1, allow: Allow | None = None) -> None:
        self._limit = limit
        self._allow = allow
        self._lock = threading.RLock()
        self._change = Condition(self._lock)
        # All below is guarded by _lock.
        self._running: dict[int, Exchange] = {}  # by the ident of the thread
        # Open ones, idle connections included; those that a signal left behind close themselves.
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lookups: dict[tuple[str, int], Lookup] = {}
        self._closed = False
        self.requests = 0

    def begin(self, exchange: Exchange) -> None:
        """Wait for a turn, then start the clock. Raises SinkClosedError.

        Whatever it raises, the caller has to set ``exchange.over`` and call ``end``.
        """
        me = get_ident()

        def turn() -> bool:
            if self._closed:
                raise SinkClosedError
            if me in self._running or len(self._running) >= self._limit:
                self._forget_what_is_over()
            if me in self._running:
                raise RuntimeError("a request's own thread wrote to the sink that it is serving")
            if len(self._running) >= self._limit:
                return False
            exchange.start()
            self._running[me] = exchange
            return True

        self._change.until(turn)

    def end(self, exchange: Exchange) -> None:
        me = get_ident()
        with self._lock:
            if self._running.get(me) is exchange:
                del self._running[me]
            self._change.notify_all()

    def _forget_what_is_over(self) -> None:
        running = self._running
        self._running = {key: running[key] for key in running if not running[key].over}

    def current(self) -> Exchange:
        """The calling thread's."""
        return self._running[get_ident()]

    def count(self) -> None:
        with self._lock:
            self.requests += 1

    @property
    def in_flight(self) -> int:
        """How many run just now. For monitoring: takes no lock, which a fork may have left held."""
        return sum(not exchange.over for exchange in list(self._running.values()))

    # -- sockets: closing one and interrupting it exclude each other, because a shutdown
    # that comes late would hit whatever file has been given the same number since

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
        """Refuse further requests, and make those in progress fail at once."""
        with self._lock:
            self._closed = True
            for sock in self._sockets:
                try:
                    # Not SSLSocket's: that would take the TLS state away under its reader.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:  # not connected yet, or no more
                    pass
            self._change.notify_all()

    def wait_idle(self, timeout: float) -> bool:
        """Wait until no other thread has a request in progress; false if one still has."""
        me = get_ident()

        def idle() -> bool:
            self._forget_what_is_over()
            return not self._running.keys() - {me}

        return self._change.until(idle, monotonic() + timeout)

    def disown(self) -> None:
        """In a forked child: let go of the parent's sockets without touching its connections.

        The lock may be held by a thread that does not exist here, so nothing waits for it.
        """
        for sock in self._sockets.copy():
            try:
                os.close(sock.detach())
            except OSError:  # was closed, or being closed, when the process forked
                pass

    # -- names

    def resolve(self, host: str, port: int) -> list[Any]:
        """``getaddrinfo`` within the deadline of the calling thread's exchange.

        The system's resolver can take half a minute and cannot be interrupted; a
        thread of its own sits that out, one for each name however many ask.
        """
        try:
            return _getaddrinfo(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass
        exchange = self.current()
        key = (host, port)
        mine = Lookup()
        try:
            with self._lock:
                lookup = self._lookups.get(key, mine)
                if lookup.lost or lookup is mine:
                    self._lookups[key] = lookup = mine
            if lookup is mine:
                threading.Thread(
                    target=self._look_up, args=(key, mine), name=f"resolve {host}", daemon=True
                ).start()
        except RuntimeError:  # the interpreter is shutting down: no more threads
            self._look_up(key, mine)
        except BaseException:
            mine.lost = True
            raise

        def over() -> bool:
            if self._closed and not lookup.done:
                raise SinkClosedError
            return lookup.done or lookup.lost

        if not self._change.until(over, exchange.deadline):
            exchange.remaining()
        if not lookup.done:
            return self.resolve(host, port)
        if lookup.addresses is None:
            # One error may serve several threads: each raises its own, without the others' frames.
            assert lookup.error is not None
            raise OSError(f"cannot resolve {host}: {lookup.error}")
        return lookup.addresses

    def allowed(self, host: str, addresses: list[Any]) -> list[Any]:
        """Those of ``addresses`` that the sink may connect to. Raises DeliveryError (permanent)
        if there is none: asking again would not make them other addresses."""
        if self._allow is None:
            return addresses
        try:
            chosen = [info for info in addresses if allows(self._allow, info[4][0])]
        except Exception as error:
            raise DeliveryError(f"allow raised {type(error).__name__}") from error
        if addresses and not chosen:
            raise DeliveryError(f"{host} is at an address that is not allowed", permanent=True)
        return chosen

    def _look_up(self, key: tuple[str, int], lookup: Lookup) -> None:
        try:
            lookup.addresses = _getaddrinfo(*key, 0)
        except Exception as error:
            lookup.error = error.with_traceback(None)
        finally:
            with self._lock:
                lookup.done = True
                if self._lookups.get(key) is lookup:
                    del self._lookups[key]
                self._change.notify_all()


def _getaddrinfo(host: str, port: int, flags: int) -> list[Any]:
    return socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, flags)
