"""urllib3's connections, bounded: every wait on the wire ends at the exchange's deadline.

urllib3's own timeouts start anew with each read, so a receiver that sends a byte
now and then would never run into one. Here each wait on the socket, for connecting,
the TLS handshake, sending and receiving, gets what is left of one deadline.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import sys
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .exchange import Exchange
from .in_flight import InFlight
from .resolver import Resolver

RECORD = 16 * 1024
"""Bytes that TLS puts into one record."""


class Stream:
    """Stands in for a connection's socket, plain or TLS.

    Only the thread whose exchange it serves uses it; while it is idle, it is only polled.
    """

    def __init__(self, sock: socket.socket, in_flight: InFlight, exchange: Exchange) -> None:
        self._sock = sock
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._in_flight = in_flight
        self.exchange = exchange
        self.used = False  # a request has been sent

    def arm(self) -> None:
        self._sock.settimeout(self.exchange.remaining())

    def settimeout(self, value: float | None) -> None:
        """Ignored: not urllib3's timeouts but the exchange's deadline bounds each wait."""

    def fileno(self) -> int:
        return self._sock.fileno()

    def sendall(self, *parts: bytes) -> None:
        """Send all parts, together where that is possible without copying what is large."""
        if self._tls and sum(map(len, parts)) <= RECORD:
            parts = (b"".join(parts),)
        views = [memoryview(part) for part in parts]
        while views:
            self.arm()
            try:
                sent = self._sock.send(views[0]) if self._tls else self._sock.sendmsg(views)
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
                # As a plain socket raises it; urllib3 then looks for an early answer.
                raise BrokenPipeError("the receiver closed the connection") from error
            except ConnectionResetError:
                self.exchange.reset = True
                raise
            while views and sent >= len(views[0]):
                sent -= len(views.pop(0))
            if sent:
                views[0] = views[0][sent:]

    def makefile(self, mode: str = "rb", *args: Any, **options: Any) -> io.BufferedReader:
        return io.BufferedReader(Reader(self, self._sock, self._in_flight))

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        """Close the socket, or leave that to the last reader, as ``socket.close`` does."""
        self._in_flight.release(self._sock, self._sock.close)


class Reader(io.RawIOBase):
    """What http.client reads a response from."""

    def __init__(self, stream: Stream, sock: socket.socket, in_flight: InFlight) -> None:
        self._stream = stream
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # holds the socket open until closed
        self._in_flight = in_flight
        self.ended = False  # the receiver will send no more

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        exchange = self._stream.exchange
        self._stream.arm()
        try:
            count = self._raw.readinto(buffer) or 0
        except ConnectionResetError:
            exchange.reset = True
            raise
        if count:
            exchange.answered = True
            exchange.budget -= count
            if exchange.budget < 0:
                raise OSError("the answer is too long")
        else:
            self.ended = True
        return count

    def close(self) -> None:
        if not self.closed:
            try:
                self._in_flight.release(self._sock, self._raw.close)
            finally:
                super().close()


class Response(http.client.HTTPResponse):
    """Reads past all interim responses, and refuses one that breaks off before its body.

    http.client skips 100 only, and would leave the real answer to a 103 for the
    next request; and it takes ``HTTP/1.1 200`` at the end of a connection for a success.
    """

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 102 <= status <= 199:  # begin() handles 100; 101 was not asked for
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self, *args: Any, **options: Any) -> None:
        super().begin(*args, **options)
        if self.fp.raw.ended:  # type: ignore[attr-defined]
            raise http.client.IncompleteRead(b"")
        if self.length == 0 and not self.will_close:
            self.close()  # nothing to read: the connection can serve again


class Connection(HTTPConnection):
    """One of a sink's connections; knows what is in flight, and so which exchange it serves."""

    response_class = Response

    def __init__(self, *args: Any, in_flight: InFlight, resolver: Resolver, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_flight = in_flight
        self._resolver = resolver
        self._held: list[bytes] | None = None  # the parts of a request, until it is complete

    def _new_conn(self) -> socket.socket:
        exchange = self._in_flight.current()
        try:
            addresses = self._resolver.resolve(self._dns_host, self.port, exchange)
        except TimeoutError as failure:
            raise ConnectTimeoutError(self, "timed out") from failure
        error: Exception = OSError("the name has no address")
        for i, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                self._in_flight.track(sock)
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                # A share for each address, so that a dead one leaves time for the next.
                sock.settimeout(exchange.remaining() / (len(addresses) - i))
                sys.audit("http.client.connect", self, self.host, self.port)
                sock.connect(address)
                sock.settimeout(exchange.remaining())
            except OSError as failure:
                error = failure
                self._in_flight.release(sock, sock.close)
            except BaseException:
                self._in_flight.release(sock, sock.close)
                raise
            else:
                return sock
        # urllib3's own exceptions. It connects while it sends, and then ignores some of the
        # system's, because a request that was cut off may have an answer all the same.
        if isinstance(error, TimeoutError):
            raise ConnectTimeoutError(self, "timed out") from error
        raise NewConnectionError(self, "cannot connect") from error

    def connect(self) -> None:
        super().connect()
        self._enclose()

    def _enclose(self) -> None:
        sock: Any = self.sock
        self.sock = Stream(sock, self._in_flight, self._in_flight.current())

    def request(self, *args: Any, **options: Any) -> None:
        """Send head and body in one go: one system call and one packet instead of two."""
        self._held = []
        try:
            super().request(*args, **options)
            parts = self._held
        finally:
            self._held = None
        if self.sock is None:
            self.connect()
        stream: Any = self.sock
        exchange = self._in_flight.current()
        stream.exchange = exchange
        exchange.reused = stream.used
        stream.used = True
        stream.sendall(*parts)

    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)


class TLSConnection(Connection, HTTPSConnection):
    """The same over TLS; what it verifies is up to the sink's one SSLContext."""

    _handshake: tuple[socket.socket, ...] = ()

    def _new_conn(self) -> socket.socket:
        # The handshake moves the descriptor to another socket object, which interrupt() cannot
        # reach until it is over. A duplicate of the descriptor reaches the same connection.
        sock = super()._new_conn()
        self._handshake = (sock,)
        self._handshake = (sock, sock.dup())
        self._in_flight.track(self._handshake[1])
        return sock

    def connect(self) -> None:
        try:
            HTTPSConnection.connect(self)
            sock: Any = self.sock
            self._in_flight.track(sock)
            self._enclose()
        finally:
            for spare in self._handshake:
                self._in_flight.release(spare, spare.close)
            self._handshake = ()
        # Whether to verify is up to the user, who needs no warning at each request.
        self.is_verified = True
