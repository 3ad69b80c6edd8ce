"""Ends a worker process with events pending, which has imported the package first or last."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from typing import Any

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
method, imported, url = sys.argv[1:]
if imported == "before":
    import fastsinks  # noqa: F401


def work(kept: Any) -> None:
    from fastsinks import Endpoint, Queue

    class Slow:
        def write(self, event: Any) -> None:
            kept.put(event)

        def close(self) -> None:
            pass

    Endpoint("e", url, timeout=10, linger=3600).write_many(range(100))
    queue = Queue(Slow())
    queue.write_many(range(3))


if __name__ == "__main__":
    context: Any = multiprocessing.get_context(method)
    kept = context.SimpleQueue()
    worker = context.Process(target=work, args=(kept,))
    worker.start()
    worker.join(15)
    print(worker.exitcode, [kept.get() for _ in range(3)])
