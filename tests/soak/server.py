"""A receiver as a program of its own, which does everything wrong in its time.

    python -m soak.server --journal FILE --port N --seed N --faults SHARE

It prints ``ready PORT`` and ends with its standard input. The journal has a line for each request
that it took, ``line.term id id ...``, written before it is answered: a receiver that is killed
has lost nothing of what it acknowledged. A line that begins with ``!`` says what was wrong with
a request, which no fault of the receiver's explains.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import threading
from typing import Any

from standardwebhooks import Webhook
from support.receiver import (
    Behaviour,
    Connection,
    Receiver,
    Request,
    answer,
    drip,
    hang_up,
    head,
    raw,
    redirect,
    reset,
    stall,
)

from fastsinks._cli.demo_receiver import Faults, Journal, die_with_parent

from .specs import SECRET

CONNECTIONS = 0.02  # the share of the connections that are reset before anything is read

# Before the request is in the journal, and after. A sender takes a 2xx whose body breaks off for
# what it is, so those come after.
BEFORE: dict[str, Behaviour] = {
    "500": answer(500),
    "429": answer(429, "Retry-After: 1"),
    "404": answer(404, body=b"not here"),
    "301": lambda connection, request: redirect(f"{request.path}/on", 301)(connection, request),
    "garbage": raw(b"SSH-2.0-OpenSSH_9.2p1\r\n\0\xff\r\n"),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "silence": stall(),
    "reset": reset,
    "hang up": hang_up,
    "a byte a second": drip(head(200, "Content-Length: 0"), interval=1.0),
}
AFTER: dict[str, Behaviour] = {
    "500, too late": answer(500),
    "silence, too late": stall(),
    "reset, too late": reset,
    "hang up, too late": hang_up,
    "half a head, too late": raw(b"HTTP/1.1 2"),
    "half a body": raw(head(200, "Content-Length: 1000") + b"half"),
}


class Wrong(Faults):
    KINDS = (*BEFORE, *AFTER)


def read_ids(request: Request) -> list[str]:
    """The ids of the events in a body of any of the encoders."""
    kind = (request.header("Content-Type") or "").split(";")[0]
    value: Any
    if kind == "application/x-ndjson":
        value = [json.loads(line) for line in request.body.splitlines()]
    else:
        value = json.loads(request.body)
        if kind == "application/json":
            value = [value]
        elif kind != "application/cloudevents-batch+json":
            value = value["events"]
    return [event["id"] for event in value]


def check_signature(request: Request) -> None:
    """By another implementation; its own verify() takes nothing but JSON."""
    ident, timestamp = request.header("Webhook-Id"), request.header("Webhook-Timestamp")
    moment = datetime.datetime.fromtimestamp(int(timestamp), datetime.UTC)
    wanted = Webhook(SECRET).sign(ident, moment, request.body.decode())
    if request.header("Webhook-Signature") != wanted:
        raise ValueError("it is not signed by us")


def record(request: Request, *, signed: bool) -> str:
    """The journal's line for a request."""
    name = request.header("X-Line") or "?"
    try:
        if signed:
            check_signature(request)
        return " ".join([name, *read_ids(request)])
    except Exception as error:
        return f"! {name}: {type(error).__name__}"


class Server:
    def __init__(self, journal: Journal, faults: Faults, rng: random.Random, calm: bool) -> None:
        self._journal = journal
        self._faults = faults
        self._random = rng
        self._calm = calm

    def greet(self, connection: Connection) -> bool:
        return self._calm or self._random.random() >= CONNECTIONS or connection.reset()

    def serve(self, connection: Connection, request: Request) -> bool:
        connection.receiver.requests.clear()
        fault = self._faults.next() or ""
        if fault in BEFORE:
            return BEFORE[fault](connection, request)
        signed = any(name.lower() == "webhook-id" for name, _ in request.headers)
        self._journal.append([record(request, signed=signed)])
        return AFTER.get(fault, answer())(connection, request)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--journal", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--faults", type=float, required=True)
    options = parser.parse_args()
    server = Server(
        Journal(options.journal),
        Wrong(options.faults, options.seed),
        random.Random(f"{options.seed} connections"),
        calm=not options.faults,
    )
    receiver = Receiver(
        default=server.serve, greet=server.greet, port=options.port, reuse_port=True
    )
    threading.Thread(target=die_with_parent, daemon=True).start()
    print("ready", receiver.port, flush=True)
    receiver.closing.wait()


if __name__ == "__main__":
    main()
