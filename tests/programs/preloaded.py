"""An application that its server loads before it forks, when it has written events already."""

from __future__ import annotations

import os
from typing import Any

from fastsinks import Endpoint


def process(body: bytes) -> dict[str, str]:
    return {"X-Process": str(os.getpid())}


# One with an open connection, and one with a request under way that is answered later.
idle = Endpoint("idle", os.environ["RECEIVER"], timeout=60, signer=process)
idle.write("master")
idle.flush(10)
busy = Endpoint("busy", os.environ["BUSY_RECEIVER"], timeout=60, signer=process)
busy.write("master")


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """Writes an event to each and answers with the process that did."""
    for endpoint in (idle, busy):
        endpoint.write("worker")
        assert endpoint.flush(10)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
