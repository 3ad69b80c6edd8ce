"""A plugin of coverage.py that takes a lock away from its tracer.

The tracer takes a lock at each call of a Python function, in Python code. There a signal's handler
may run, another thread may fork, and an exception of the handler may leave the lock held. All of
that happens in tests, and then every thread waits for ever. The lock guards a dictionary and its
sets, for which the GIL is enough.
"""

from __future__ import annotations

from coverage.collector import Collector


def coverage_init(registry: object, options: object) -> None:
    assert callable(Collector.lock_data)
    assert callable(Collector.unlock_data)
    # A C function that does nothing: no signal's handler runs inside it.
    Collector.lock_data = Collector.unlock_data = staticmethod(bool)  # type: ignore[method-assign,assignment]
