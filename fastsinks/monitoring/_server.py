"""A small HTTP server for the monitoring pages, on a thread of its own."""

from __future__ import annotations

import os
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any, Self
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from .._core import log
from .._core.locked import Locked
from .._core.log import describe_error
from ._app import wsgi_app

IDLE = 10.0
"""Seconds that a client may keep a thread waiting for its request, or for taking the answer."""

GRACE = 1.0
"""Seconds that requests in progress have to end when the server is closed."""

_LONGEST_LINE = 65536


class _Answer(ServerHandler):
    server_software = "fastsinks"
    request_handler: WSGIRequestHandler

    def log_exception(self, exc_info: Any) -> None:
        _log(exc_info[1])


class _Handler(WSGIRequestHandler):
    timeout = IDLE

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(_LONGEST_LINE + 1)
        if len(self.raw_requestline) > _LONGEST_LINE:
            self.requestline = self.request_version = self.command = ""
            self.send_error(414)
        elif self.parse_request():
            answer = _Answer(
                self.rfile,
                self.wfile,  # type: ignore[arg-type]
                self.get_stderr(),
                self.get_environ(),
                multithread=True,
            )
            answer.request_handler = self
            answer.run(wsgi_app)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape is not worth a line."""


class _HTTPServer(ThreadingMixIn, WSGIServer):
    """A thread for each connection, which serves one request."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()  # _changed
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own would look up the name of this host.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._connections.add(request)
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def _forget(self, request: Any) -> None:
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # the client went away, or was too slow
            _log(error)

    def finish(self, timeout: float) -> None:
        """Wait for the connections to end, and end those that do not."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._connections, timeout):
                for connection in self._connections:
                    try:
                        connection.shutdown(socket.SHUT_RDWR)
                    except OSError:  # has ended by itself
                        pass
                self._changed.wait_for(lambda: not self._connections, timeout)


class Server(Locked):
    """Serves ``wsgi_app`` until ``close``, or until the process ends; see ``serve``."""

    def __init__(self, host: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._server = _HTTPServer((host, port), family)
        self._owner = os.getpid()
        self._closed = False  # _lock
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.2},
            name=f"fastsinks monitoring {self.url}",
            daemon=True,
        )
        self._thread.start()
        super().__init__()

    @property
    def url(self) -> str:
        """Where it listens, such as ``http://127.0.0.1:5001``, without a slash at the end."""
        host, port = self._server.server_address[:2]
        host = str(host)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Stop listening, and wait for requests in progress, for a second or two at most.

        Idempotent; every caller waits. The port is free when it returns.
        """
        with self._lock:
            if not self._closed:
                if os.getpid() == self._owner:
                    self._server.shutdown()
                    self._server.server_close()
                    self._server.finish(GRACE)
                    self._thread.join(GRACE)
                self._closed = True

    def _after_fork(self) -> None:
        """A child process has the sockets and not the threads."""
        super()._after_fork()
        self._server.socket.close()
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}{' closed' if self._closed else ''}>"


def serve(host: str = "127.0.0.1", port: int = 5001) -> Server:
    """Serve ``wsgi_app`` on a daemon thread; only this machine can reach it by default.

    ``port`` 0 takes any free one; the server's ``url`` tells which. Raises OSError if it
    cannot listen there. Returns at once; ``close`` the server, or use it in ``with``.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a string, not {type(host).__name__}")
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"port must be an integer, not {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"port must be between 0 and 65535, got {port}")
    return Server(host, port)


def _log(error: BaseException | None) -> None:
    if error is not None:
        log.error("monitoring: serving a page raised %s", describe_error(error))
