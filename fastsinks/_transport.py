"""The connection pools of one sink in one process: a body goes out, an answer comes back."""

from __future__ import annotations

import http.client
import queue
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple

from urllib3 import BaseHTTPResponse, HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Retry

from ._connection import Connection, TLSConnection
from ._exchange import Exchange, Exchanges
from ._guard import Allow
from ._url import Address, Origin

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
        pool: HTTPConnectionPool
        if origin.scheme == "https":
            pool = HTTPSConnectionPool(
                origin.host,
                origin.port,
                timeout=None,
                maxsize=self._limit,
                ssl_context=self._ssl_context(),
                exchanges=self.exchanges,
            )
            pool.ConnectionCls = TLSConnection
        else:
            pool = HTTPConnectionPool(
                origin.host,
                origin.port,
                timeout=None,
                maxsize=self._limit,
                exchanges=self.exchanges,
            )
            pool.ConnectionCls = Connection
        return pool

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
            connections = pool.pool
            if connections is not None:
                # urllib3 is going to empty this queue; its lock may have been held by
                # another thread when the process forked, and nobody here would release it.
                queue.LifoQueue.__init__(connections, connections.maxsize)


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
