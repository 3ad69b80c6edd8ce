"""A process and the workers of its pool each write to a queue, inherited or their own."""

from __future__ import annotations

import multiprocessing
import sys
import warnings

from fastsinks import NullSink, Queue

warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
dst = NullSink()
queue = Queue(dst)


def work(count: int) -> int:
    before = dst.count
    queue.write_many(range(count))
    assert queue.flush(5)
    return dst.count - before


if __name__ == "__main__":
    queue.write_many(range(10))
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        counts = pool.map(work, [1, 2, 3, 4])
    queue.close()
    print(counts, dst.count)
