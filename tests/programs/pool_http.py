"""A process and the workers of its pool have endpoints."""

from __future__ import annotations

import multiprocessing
import os
import sys
import warnings

from fastsinks import Endpoint

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
method, idle, busy = sys.argv[1:]
endpoints = [
    Endpoint(
        "e", url, timeout=60, close_timeout=20, signer=lambda body: {"X-Process": str(os.getpid())}
    )
    for url in (idle, busy)
]


def work(number: int) -> None:
    for endpoint in endpoints:
        endpoint.write(f"worker {number}")
        assert endpoint.flush(10)


if __name__ == "__main__":
    for endpoint in endpoints:
        endpoint.write("parent")
    with multiprocessing.get_context(method).Pool(2) as pool:
        pool.map(work, range(4), chunksize=1)
        pool.close()
        pool.join()
    print("forked", flush=True)
    sys.stdin.readline()
