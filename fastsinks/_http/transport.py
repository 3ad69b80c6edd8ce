"""The connection pools of one sink in one process: a body goes out, an answer comes back."""

from __future__ import annotations

import http.client
import queue
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from .addresses import Allow
from .connection import Connection, TLSConnection
from .exchange import Exchange, Exchanges
from .url import Address, Origin

BODY_LIMIT = 64 * 1024
"""Bytes of an answer's body that are read so that its connection can serve again."""

POOLS = 4
"""Origins to keep connections to: the sink's own, and the latest that it was redirected to."""


NO_RETRIES = Retry(False, redirect=False)
"""What urllib3 makes of ``retries=False``, made once: errors are raised as they are."""


class Answer(NamedTuple):
    status: int
    location: str | None
    retry_after: str | None


class Kept:
    """The idle connections of a urllib3 pool, the one used last first.

    For want of a lock, none stays behind locked: in a child, or where a signal struck who
    took it (queue.LifoQueue's does). Operations of a deque are atomic. Two threads may
    overfill it by a connection; it never waits, as exchanges wait for their turn.
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
    QueueCls: Any = Kept
    ConnectionCls = Connection


class _TLSPool(HTTPSConnectionPool):
    QueueCls: Any = Kept
    ConnectionCls = TLSConnection


class Transport:
    """Posts over kept-alive connections of its own, which no other process shares."""

    def __init__(
        self,
        home: Origin,
        ssl_context: Callable[[], ssl.SSLContext],
        limit: int = 1,
        allow: Allow | None = None,
    ) -> None:
        """``limit`` is the number of requests that may be under way at a time, each on a
        connection of its own."""
        self.exchanges = Exchanges(limit, allow)
        self._limit = limit
        self._ssl_context = ssl_context
        self._home = home
        self._pools: dict[Origin, HTTPConnectionPool] = {}
        self._pool(home)

    def post(
        self, exchange: Exchange, address: Address, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        """Send one request and read its answer.

        A kept connection that the receiver was closing just then is replaced once:
        it ended in order and without a byte of an answer. A reset is no such case (over
        TLS Python cannot tell it), nor anything on a new connection. Raises whatever
        urllib3 and sockets raise.
        """
        try:
            response = self._open(exchange, address, body, headers)
        except ProtocolError as error:
            if not (
                exchange.reused
                and not exchange.answered
                and not exchange.reset
                and isinstance(error.args[-1], http.client.RemoteDisconnected)
            ):
                raise
            response = self._open(exchange, address, body, headers)
        try:
            status, headers = response.status, response.headers
            if 200 <= status < 300:
                return Answer(status, None, None)
            return Answer(status, headers.get("Location"), headers.get("Retry-After"))
        finally:
            _finish(response, exchange)

    def _open(
        self, exchange: Exchange, address: Address, body: bytes, headers: Mapping[str, str]
    ) -> BaseHTTPResponse:
        exchange.restart()
        self.exchanges.count()
        return self._pool(address.origin).urlopen(
            "POST",
            address.path,
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
        # a connection either (block=True), as exchanges wait for their turn.
        options: dict[str, Any] = {
            "timeout": None,
            "maxsize": self._limit,
            "exchanges": self.exchanges,
        }
        if origin.scheme == "https":
            options["ssl_context"] = self._ssl_context()
            return _TLSPool(origin.host, origin.port, **options)
        return _PlainPool(origin.host, origin.port, **options)

    def close(self, timeout: float) -> None:
        """Interrupt what is in progress, wait until it has ended, close all connections."""
        self.exchanges.interrupt()
        self.exchanges.wait_idle(timeout)
        for pool in self._pools.copy().values():
            pool.close()

    def disown(self) -> None:
        """Forget, in a forked child, what belongs to its parent."""
        self.exchanges.disown()
        for pool in self._pools.copy().values():
            connections: Any = pool.pool
            if connections is not None:
                connections.clear()  # else urllib3 would close them once more


def _finish(response: BaseHTTPResponse, exchange: Exchange) -> None:
    """Read what little is left, for the connection to serve again; else close it.

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
