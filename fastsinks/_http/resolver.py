"""Resolver: the addresses that stand behind a host name, found in time and allowed."""

from __future__ import annotations

import encodings.idna  # noqa: F401  (else the first lookup imports it: bad luck for a fork then)
import socket
import threading
from typing import Any

from .._core.errors import SinkClosedError
from .._core.locked import Locked
from .addresses import Allow, choose
from .exchange import Exchange


class Lookup:
    """A host name being resolved, by a thread that cannot be interrupted."""

    def __init__(self) -> None:
        self.addresses: list[Any] | None = None
        self.error: Exception | None = None
        self.done = False
        self.orphaned = False  # a signal struck the thread that began it: it may never be done


class Resolver(Locked):
    """Finds the addresses that one sink may connect to, in one process.

    The system's resolver can take half a minute and cannot be interrupted. So each name has a
    thread that waits for it, one for all exchanges that ask. The lock is re-entrant for the
    same reason as InFlight's, and no user code runs under it.
    """

    def __init__(self, allow: Allow | None) -> None:
        self._allow = allow
        super().__init__()
        # Guarded by _lock.
        self._lookups: dict[tuple[str, int], Lookup] = {}
        self._closed = False

    def resolve(self, host: str, port: int, exchange: Exchange) -> list[Any]:
        """What ``getaddrinfo`` finds and ``allow`` accepts.

        Raises OSError, TimeoutError at the exchange's deadline, SinkClosedError once closed,
        and a permanent DeliveryError if no address is allowed.
        """
        found = self._find(host, port, exchange)
        return found if self._allow is None else choose(self._allow, host, found)

    def _find(self, host: str, port: int, exchange: Exchange) -> list[Any]:
        try:
            return _getaddrinfo(host, port, socket.AI_NUMERICHOST)
        except OSError:
            pass
        key = (host, port)
        mine = Lookup()
        try:
            with self._lock:
                lookup = self._lookups.get(key, mine)
                if lookup.orphaned or lookup is mine:
                    self._lookups[key] = lookup = mine
            if lookup is mine:
                threading.Thread(
                    target=self._look_up, args=(key, mine), name=f"resolve {host}", daemon=True
                ).start()
        except RuntimeError:  # the interpreter is shutting down: no more threads
            self._look_up(key, mine)
        except BaseException:
            mine.orphaned = True
            raise

        def over() -> bool:
            if self._closed and not lookup.done:
                raise SinkClosedError
            return lookup.done or lookup.orphaned

        if not self._changed.until(over, exchange.deadline):
            exchange.remaining()
        if not lookup.done:
            return self._find(host, port, exchange)
        if lookup.addresses is None:
            # One error may serve several threads: each raises its own, without the others' frames.
            assert lookup.error is not None
            raise OSError(f"cannot resolve {host}: {lookup.error}")
        return lookup.addresses

    def close(self) -> None:
        """Make all lookups fail at once: those that wait for a name, and later ones."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

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
                self._changed.notify_all()


def _getaddrinfo(host: str, port: int, flags: int) -> list[Any]:
    return socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, flags)
