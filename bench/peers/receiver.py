"""Receivers of HTTP requests that use as little of the machine as they can.

    python -m bench.peers.receiver COUNT

prints COUNT URLs, and answers every POST with 200 until its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Receiver(asyncio.Protocol):
    """A connection: it reads a head and a body, answers, and starts again."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()
        self._needed = 0  # bytes of the request at hand, once its head is here

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            if not self._needed:
                end = self._received.find(b"\r\n\r\n")
                if end < 0:
                    return
                length = LENGTH.search(self._received, 0, end)
                self._needed = end + 4 + (int(length[1]) if length else 0)
            if len(self._received) < self._needed:
                return
            del self._received[: self._needed]
            self._needed = 0
            self._transport.write(ANSWER)


async def serve(count: int) -> None:
    loop = asyncio.get_running_loop()
    urls = []
    servers = []
    for _ in range(count):
        server = await loop.create_server(Receiver, "127.0.0.1", 0)
        servers.append(server)
        urls.append(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    print(*urls, flush=True)
    # Standard input ends with the process that has started this one.
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
