"""Ends in the way and at about the moment that its options say, which are JSON."""

from __future__ import annotations

import faulthandler
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from fastsinks import Endpoint, Queue, Sink, SinkClosedError

faulthandler.dump_traceback_later(30, exit=True)  # what it hangs in
options = json.loads(sys.argv[1])
logging.basicConfig(level=logging.ERROR, format="%(message)s")


class Out(Sink):
    def write(self, event: Any) -> None:
        time.sleep(options["pause"])
        os.write(1, f"out {event}\n".encode())


queue = Queue(Out(), name="out")
endpoint = Endpoint(
    "hook",
    options["url"],
    timeout=60,
    threshold=1,
    backoff=options["backoff"],
    linger=options["linger"],
    concurrency=options["concurrency"],
    batch_size=options["batch"],
    maxsize=options["maxsize"],
    close_timeout=options["close_timeout"],
)


def write(name: str, n: int) -> None:
    endpoint.write(f"{name} {n}")
    os.write(1, f"accepted {name} {n}\n".encode())


def write_on(name: str) -> None:
    try:
        for n in itertools.count():
            write(name, n)
            time.sleep(0.001)
    except SinkClosedError:
        pass


def leave(signum: int, frame: object) -> None:
    sys.exit(7)


if options["way"] == "handled signal":
    signal.signal(signal.SIGTERM, leave)
for n in range(options["writers"]):
    threading.Thread(target=write_on, args=(f"writer{n}",), daemon=True).start()
os.write(1, b"ready\n")
if not options["maxsize"]:
    for n in range(options["events"]):
        write("main", n)
for n in range(options["events"] // 10):
    queue.write(n)
    os.write(1, f"queued {n}\n".encode())
if "signal" in options["way"]:
    while True:
        time.sleep(0.05)  # a signal that comes just before it does not cut it short
time.sleep(options["delay"])
if options["way"] == "sys.exit":
    sys.exit(3)
if options["way"] == "exception":
    raise ZeroDivisionError("on purpose")
