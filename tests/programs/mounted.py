"""An application for a server with several worker processes: two endpoints, and monitoring."""

from __future__ import annotations

import os
from typing import Any

from fastsinks import Endpoint, monitoring

ENDPOINTS = {
    "up": Endpoint("up", os.environ["RECEIVER"], close_timeout=0.1),
    "down": Endpoint("down", "http://127.0.0.1:9/events", threshold=1, close_timeout=0.1),
}


def app(environ: dict[str, Any], start_response: Any) -> Any:
    """``/write/NAME`` writes one event and answers with the process that did."""
    _, first, *rest = environ["PATH_INFO"].split("/")
    if first != "write":
        return monitoring.wsgi_app(environ, start_response)
    endpoint = ENDPOINTS[rest[0]]
    endpoint.write({"event": "of a worker"})
    if rest[0] == "up":
        endpoint.flush(5)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
