"""An HTTP receiver on raw sockets that does to its senders whatever a test scripts.

Each request takes the next behaviour of the script; when the script is over, the
default. A behaviour is a function of the connection and the request; it returns
true to keep the connection, false to close it. Closing the receiver ends all of
them, so no test has to sit one out.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import pytest

from fastsinks import DeliveryError
from support import DEADLINE


@dataclass
class Request:
    """One request as it came over the wire; `connection` counts from one."""

    connection: int
    line: str
    headers: list[tuple[str, str]]
    raw_head: bytes
    body: bytes = b""

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    @property
    def events(self) -> list[Any]:
        events: list[Any] = json.loads(self.body)["events"]
        return events


class Connection:
    """A sender's connection, seen from the receiver."""

    def __init__(self, receiver: Receiver, sock: socket.socket, number: int) -> None:
        self.receiver = receiver
        self.sock = sock
        self.number = number
        self._buffer = b""

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self._buffer += data

    def read_head(self) -> Request:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        pairs = [text.partition(":") for text in lines]
        headers = [(name, value.strip()) for name, _, value in pairs]
        return Request(self.number, line, headers, head)

    def read_body(self, request: Request) -> None:
        length = int(request.header("Content-Length") or 0)
        while len(self._buffer) < length:
            self._more()
        request.body, self._buffer = self._buffer[:length], self._buffer[length:]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def drip(self, data: Iterable[int] | bytes, interval: float) -> None:
        """Send a byte every `interval` seconds until the receiver is closed."""
        for byte in data:
            self.send(bytes([byte]))
            if self.receiver.closing.wait(interval):
                return

    def reset(self) -> bool:
        """Break the connection off: the sender gets a reset instead of an end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


Behaviour = Callable[[Connection, Request], bool]


class Receiver:
    """Listens on a port of its own from the start. Use it in a `with` block."""

    def __init__(
        self,
        *steps: Behaviour,
        default: Behaviour | None = None,
        tls: ssl.SSLContext | None = None,
        greet: Callable[[Connection], bool] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        reuse_port: bool = False,
        read_bodies: bool = True,
    ) -> None:
        """`greet` is called for each new connection, before TLS and before anything is
        read; false ends it. Without `read_bodies` a behaviour gets the head alone."""
        self._script = list(steps)
        self._default = default or answer()
        self._tls = tls
        self._greet = greet
        self._read_bodies = read_bodies
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self._inside = 0
        self.crowd = 0  # the most requests that were being served at the same time
        self.requests: list[Request] = []
        self.connections = 0
        self.closing = threading.Event()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, reuse_port=reuse_port)
        self.port: int = self._listener.getsockname()[1]
        scheme = "https" if tls else "http"
        self.origin = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._threads = [threading.Thread(target=self._accept, name="receiver", daemon=True)]
        self._threads[0].start()

    def url(self, path: str = "/events", *, userinfo: str = "") -> str:
        return self.origin.replace("://", f"://{userinfo}@" if userinfo else "://") + path

    def wait(self, count: int) -> list[Request]:
        """Wait until `count` requests have come; all that are there then."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.requests) >= count, DEADLINE)
            assert there, f"{len(self.requests)} requests of {count}"
            return list(self.requests)

    @property
    def events(self) -> list[Any]:
        """The events of all requests, in the order in which they came."""
        return [event for request in self.requests for event in request.events]

    def wait_connections(self, count: int) -> None:
        with self._changed:
            there = self._changed.wait_for(lambda: self.connections >= count, DEADLINE)
            assert there, f"{self.connections} connections of {count}"

    def wait_no_connection(self) -> None:
        """Wait until every connection has been closed by its sender, or here."""
        with self._changed:
            gone = self._changed.wait_for(lambda: not self._connections, DEADLINE)
            assert gone, f"{len(self._connections)} connections are still open"

    def then(self, *steps: Behaviour) -> None:
        """Append to the script."""
        with self._changed:
            self._script += steps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self.closing.set()
        with self._changed:
            connections = list(self._connections)
        for sock in [self._listener, *connections]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:  # not connected any more
                pass
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), "a receiver's thread does not end"
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                if self.closing.is_set():
                    sock.close()
                    return
                self.connections += 1
                number = self.connections
                self._connections.add(sock)
                self._changed.notify_all()
            thread = threading.Thread(
                target=self._serve, args=(sock, number), name="receiver", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        connection = Connection(self, sock, number)
        try:
            if self._greet is not None and not self._greet(connection):
                return
            if self._tls is not None:
                self._secure(connection)
            while self._exchange(connection):
                pass
        except (OSError, EOFError):  # the sender went away, or the receiver is closed
            pass
        finally:
            connection.sock.close()
            with self._changed:
                self._connections.discard(connection.sock)
                self._connections.discard(sock)
                self._changed.notify_all()

    def _secure(self, connection: Connection) -> None:
        assert self._tls is not None
        plain = connection.sock
        secured = self._tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        connection.sock = secured
        with self._changed:
            self._connections.discard(plain)
            self._connections.add(secured)
        if self.closing.is_set():
            raise EOFError
        secured.do_handshake()

    def _exchange(self, connection: Connection) -> bool:
        request = connection.read_head()
        if self._read_bodies:
            connection.read_body(request)
        with self._changed:
            self.requests.append(request)
            behaviour = self._script.pop(0) if self._script else self._default
            self._inside += 1
            self.crowd = max(self.crowd, self._inside)
            self._changed.notify_all()
        try:
            return behaviour(connection, request)
        finally:
            with self._changed:
                self._inside -= 1


# ------------------------------------------------------------------------- behaviours


def head(status: int | str, *headers: str) -> bytes:
    """A status line and headers, ready to send."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode("latin-1")


def answer(status: int | str = "200 OK", *headers: str, body: bytes = b"") -> Behaviour:
    """Answer and keep the connection."""
    data = head(status, f"Content-Length: {len(body)}", *headers) + body

    def behaviour(connection: Connection, request: Request) -> bool:
        connection.send(data)
        return True

    return behaviour


def redirect(location: str, status: int = 307) -> Behaviour:
    return answer(status, f"Location: {location}")


def raw(data: bytes, *, keep: bool = False) -> Behaviour:
    """Send bytes as they are, then close the connection, or keep it."""

    def behaviour(connection: Connection, request: Request) -> bool:
        connection.send(data)
        return keep

    return behaviour


def stall(data: bytes = b"") -> Behaviour:
    """Send bytes, and then nothing more, with the connection open."""

    def behaviour(connection: Connection, request: Request) -> bool:
        connection.send(data)
        while connection.sock.recv(65536):  # until the sender gives up
            pass
        return False

    return behaviour


def drip(data: bytes, *, interval: float = 0.02, after: bytes = b"") -> Behaviour:
    """Send `after` at once, then `data` a byte at a time."""

    def behaviour(connection: Connection, request: Request) -> bool:
        connection.send(after)
        connection.drip(data, interval)
        return True

    return behaviour


def flood(data: bytes, *, first: bytes = b"") -> Behaviour:
    """Send `first` once, and then `data` for as long as it is taken."""

    def behaviour(connection: Connection, request: Request) -> bool:
        connection.send(first)
        while not connection.receiver.closing.is_set():
            connection.send(data)
        return False

    return behaviour


def reset(connection: Connection, request: Request) -> bool:
    return connection.reset()


def hang_up(connection: Connection, request: Request) -> bool:
    """Close the connection in order, without an answer."""
    return False


def when(opened: Callable[[], object], then: Behaviour) -> Behaviour:
    """Call `opened`, which may wait; then go on."""

    def behaviour(connection: Connection, request: Request) -> bool:
        opened()
        return then(connection, request)

    return behaviour


def meet(count: int, then: Behaviour) -> Behaviour:
    """Go on when `count` requests are there."""
    barrier = threading.Barrier(count)
    return when(lambda: barrier.wait(DEADLINE), then)


# ---------------------------------------------------------------- for tests to import


@pytest.fixture(name="receiver")
def accepting_receiver() -> Iterator[Receiver]:
    """A receiver that accepts everything."""
    with Receiver() as receiver:
        yield receiver


def refused(sink: Any, event: Any = "event") -> DeliveryError:
    """Write an event that is not going to be delivered; the error that says so."""
    with pytest.raises(DeliveryError) as caught:
        sink.write(event)
    return caught.value
