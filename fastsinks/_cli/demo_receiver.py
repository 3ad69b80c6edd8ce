"""An HTTP receiver of event envelopes that can be told to misbehave; the demo runs three.

A program of its own that needs only the standard library::

    python demo_receiver.py --journal FILE [--port N] [--delay SECONDS] [--faults SHARE] [--seed N]

It prints ``ready PORT``, then answers POSTs until its standard input ends, so that
it cannot outlive the process that started it. The id of each event is written to the
journal before the request is answered. So after a crash, too, the journal holds what
the receiver got, and every event that was answered.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, Any


class Journal:
    """A file of event ids, one a line, in order of arrival. Any thread may append."""

    def __init__(self, path: str) -> None:
        self._file: IO[bytes] = open(path, "ab+", buffering=0)  # noqa: SIM115  (kept open)
        self._lock = threading.Lock()
        # A process killed while it wrote may leave half a line, of a request never answered.
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)

    def append(self, ids: list[str]) -> None:
        data = "".join(f"{ident}\n" for ident in ids).encode()
        with self._lock:
            self._file.write(data)


class Faults:
    """Decides, reproducibly for a seed, which requests go wrong and how."""

    KINDS = ("error", "drop-before", "drop-after", "cut")

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def next(self) -> str | None:
        with self._lock:
            if self._random.random() >= self._share:
                return None
            return self._random.choice(self.KINDS)


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.delay:
            time.sleep(self.server.delay)
        fault = self.server.faults.next()
        if fault == "drop-before":
            return self.hang_up()
        if fault == "error":
            return self.answer(500)
        try:
            ids = [event["id"] for event in json.loads(body)["events"]]
        except (ValueError, LookupError, TypeError):
            return self.answer(400)
        self.server.journal.append(ids)
        if fault == "drop-after":
            return self.hang_up()
        if fault == "cut":
            self.wfile.write(b"HTTP/1.1 2")
            return self.hang_up()
        return self.answer(200)

    def answer(self, status: int) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def hang_up(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:  # the sender was quicker
            pass


class Receiver(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, port: int, journal: Journal, faults: Faults, delay: float) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.journal = journal
        self.faults = faults
        self.delay = delay

    def server_bind(self) -> None:
        # The process that restarts this receiver keeps the port reserved with the same option.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: senders may close their connections."""


def die_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--faults", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faults = Faults(options.faults, options.seed)
    with Receiver(options.port, Journal(options.journal), faults, options.delay) as receiver:
        threading.Thread(target=die_with_parent, daemon=True).start()
        sys.stdout.write(f"ready {receiver.server_address[1]}\n")
        sys.stdout.flush()
        receiver.serve_forever()


if __name__ == "__main__":
    main()
