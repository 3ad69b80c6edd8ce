"""When to try again and when to give up: the arithmetic of both backends' strategies."""

from __future__ import annotations

import random


def breaker(failures: int, threshold: int, since_last: float, backoff: float) -> float:
    """Seconds to wait after so many failures in a row, the last ``since_last`` seconds ago."""
    if not failures or failures < threshold:
        return 0.0
    return max(0.0, backoff - since_last)


def exponential(failures: int, base: float, factor: float, most: float) -> float:
    """A draw from ``[0, min(most, base + factor * 2**(failures-1)))``; 0 after no failure."""
    if not failures:
        return 0.0
    # 2.0**1000 is still a float, and beyond any maximum.
    return random.random() * min(most, base + factor * 2.0 ** min(failures - 1, 1000))


def gives_up(
    max_attempts: int | None, max_elapsed: float | None, attempts: int, elapsed: float
) -> bool:
    """Whether an event has used up its attempts, or the seconds since its first failure."""
    return (max_attempts is not None and attempts >= max_attempts) or (
        max_elapsed is not None and elapsed >= max_elapsed
    )
