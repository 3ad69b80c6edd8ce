"""Ends with eight endpoints before a receiver that is stuck, and prints how long that took."""

from __future__ import annotations

import atexit
import logging
import sys
import time

logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s", level=logging.ERROR)
began: float
atexit.register(lambda: print("took", time.monotonic() - began))

from fastsinks.endpoint import Endpoint  # noqa: E402  # what it does at exit comes before

for i in range(8):
    endpoint = Endpoint(f"stuck {i}", sys.argv[1], timeout=60, close_timeout=0.5 + i / 100)
    endpoint.write_many(["s3cret"] * 3)
began = time.monotonic()
