"""Strategies while the wall clock is set, by a library that is loaded for it."""

from __future__ import annotations

import ctypes
import sys
import time

from fastsinks import Breaker, ExponentialBackoff

step = int(sys.argv[1])
breaker = Breaker(1, 100.0, max_elapsed=1000.0)
short = Breaker(1, 0.1)
bounded = ExponentialBackoff(0, 0, max_elapsed=0.1)
for strategy in (breaker, short, bounded):
    assert not strategy.failure("event", OSError())
before = time.time()
ctypes.CDLL(None).step_the_wall_clock(step)
assert abs(time.time() - before - step) < 100
assert 50 < breaker.proceed("event") <= 100
assert not breaker.failure("event", OSError())
deadline = time.monotonic() + 10
while short.proceed("event") > 0:
    assert time.monotonic() < deadline
while not bounded.failure("event", OSError()):
    assert time.monotonic() < deadline
