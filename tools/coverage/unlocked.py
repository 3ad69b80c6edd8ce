"""A plugin of coverage.py that takes a lock away from its tracer.

The tracer locks at each call of a Python function, by functions of Python's. Within them a
signal's handler may run, another thread may fork, and a strike may leave the lock held. All that
happens in tests, and then every thread waits for ever. The tracer needs the lock for a dictionary
and its sets, which it uses with the GIL held.
"""

from __future__ import annotations

from coverage.collector import Collector


def coverage_init(registry: object, options: object) -> None:
    assert callable(Collector.lock_data)
    assert callable(Collector.unlock_data)
    # What takes no argument and does nothing, in C: no handler runs in there.
    Collector.lock_data = Collector.unlock_data = staticmethod(bool)  # type: ignore[method-assign,assignment]
