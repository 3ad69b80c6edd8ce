"""The connection pools of one sink in one process: a body goes out, an answer comes back."""

from __future__ import annotations

import http.client
import queue
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from .addresses import Allow
from .answer import Answer
from .connection import Connection, TLSConnection
from .exchange import Exchange
from .in_flight import InFlight
from .resolver import Resolver
from .url import URL, Origin

BODY_LIMIT = 64 * 1024
"""Bytes of an answer's body that are read so that its connection can serve again."""

POOLS = 4
"""Origins to keep connections to: the sink's own, and the latest ones of its redirects."""


NO_RETRIES = Retry(False, redirect=False)
"""What urllib3 makes of ``retries=False``, made once: errors are raised as they are."""


class IdleConnections:
    """The idle connections of a urllib3 pool, the one used last first.

    It has no lock, which could stay held in a child, or after a signal struck the thread that
    holds it, as that of queue.LifoQueue does. Operations of a deque are atomic. Two threads may
    put in one connection too many. It never waits, because exchanges wait for a permit.
    """

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._stack: deque[Any] = deque()

    def put(self, connection: Any, block: bool = True, timeout: float | None = None) -> None:
        if len(self._stack) >= self._maxsize:
            raise queue.Full
        self._stack.append(connection)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self._stack.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._stack)

    def clear(self) -> None:
        self._stack.clear()


class _PlainPool(HTTPConnectionPool):
    QueueCls: Any = IdleConnections
    ConnectionCls = Connection


class _TLSPool(HTTPSConnectionPool):
    QueueCls: Any = IdleConnections
    ConnectionCls = TLSConnection


class Transport:
    """Posts over kept-alive connections of its own, which no other process shares."""

    def __init__(
        self,
        home: Origin,
        ssl_context: Callable[[], ssl.SSLContext],
        permits: int = 1,
        allow: Allow | None = None,
    ) -> None:
        """``permits`` is the number of exchanges that may be in flight at a time, each on a
        connection of its own."""
        self.in_flight = InFlight(permits)
        self._resolver = Resolver(allow)
        self._permits = permits
        self._ssl_context = ssl_context
        self._home = home
        self._pools: dict[Origin, HTTPConnectionPool] = {}
        self._pool(home)

    def post(self, exchange: Exchange, url: URL, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one request and read its answer.

        A kept connection is replaced once if the receiver was just closing it: if it ended
        in order and without a byte of an answer. A reset does not count (over TLS, Python
        cannot recognise one), and nor does any failure of a new connection. Raises what
        urllib3 and sockets raise.
        """
        try:
            response = self._open(exchange, url, body, headers)
        except ProtocolError as error:
            if not (
                exchange.reused
                and not exchange.answered
                and not exchange.reset
                and isinstance(error.args[-1], http.client.RemoteDisconnected)
            ):
                raise
            response = self._open(exchange, url, body, headers)
        try:
            status, headers = response.status, response.headers
            if 200 <= status < 300:
                return Answer(status, None, None)
            return Answer(status, headers.get("Location"), headers.get("Retry-After"))
        finally:
            _finish(response, exchange)

    def _open(
        self, exchange: Exchange, url: URL, body: bytes, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        exchange.restart()
        self.in_flight.count_request()
        return self._pool(url.origin).urlopen(
            "POST",
            url.path,
            body,
            headers,
            retries=NO_RETRIES,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )

    def _pool(self, origin: Origin) -> HTTPConnectionPool:
        # Threads that compete for an origin agree on one pool: single dict operations are atomic.
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools.setdefault(origin, self._new_pool(origin))
            for other in [key for key in self._pools.copy() if key != self._home][: 1 - POOLS]:
                old = self._pools.pop(other, None)
                if old is not None:
                    old.close()  # connections in use are closed when they come back
        return pool

    def _new_pool(self, origin: Origin) -> HTTPConnectionPool:
        # The deadline is the exchange's: urllib3 gets no timeout. It is not to wait for
        # a connection either (block=True), as exchanges wait for a permit.
        options: dict[str, Any] = {
            "timeout": None,
            "maxsize": self._permits,
            "in_flight": self.in_flight,
            "resolver": self._resolver,
        }
        if origin.scheme == "https":
            options["ssl_context"] = self._ssl_context()
            return _TLSPool(origin.host, origin.port, **options)
        return _PlainPool(origin.host, origin.port, **options)

    def close(self, timeout: float) -> None:
        """Interrupt what is in flight, wait until it has ended, close all connections."""
        self.in_flight.interrupt()
        self._resolver.close()
        self.in_flight.wait_idle(timeout)
        for pool in self._pools.copy().values():
            pool.close()

    def disown(self) -> None:
        """Forget, in a forked child, what belongs to its parent."""
        self.in_flight.disown()
        for pool in self._pools.copy().values():
            connections: Any = pool.pool
            if connections is not None:
                connections.clear()  # else urllib3 would close them once more


def _finish(response: BaseHTTPResponse, exchange: Exchange) -> None:
    """Read the rest if it is short, so that the connection can serve again; else close it.

    The status has decided by now: whatever goes wrong here goes wrong after the answer.
    """
    if response.closed and response.status >= 200:  # there was no body
        response.release_conn()
        return
    exchange.budget = BODY_LIMIT
    try:
        length = response.length_remaining
        # After a 101 the connection no longer speaks HTTP.
        if response.status >= 200 and (length is None or length <= BODY_LIMIT):
            while response.read(BODY_LIMIT, decode_content=False):
                pass
    except (HTTPError, OSError, ValueError):
        pass
    finally:
        if response.status < 200 or not response.closed:
            response.close()
        response.release_conn()
