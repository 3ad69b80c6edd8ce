"""The options of a queue, checked once for both backends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from . import arguments

MOST_CONCURRENCY = 1 << 16  #: a process has no more ports than that


class QueueOptions(NamedTuple):
    maxsize: int
    when_full: str
    batch_size: int
    linger: float
    concurrency: int
    listeners: tuple[Any, ...]
    dead_letter: Any
    name: str | None


def queue_options(
    *,
    maxsize: int = 0,
    when_full: str = "block",
    batch_size: int = 1,
    linger: float = 0.0,
    concurrency: int = 1,
    listeners: Iterable[Any] = (),
    dead_letter: Any = None,
    name: str | None = None,
) -> QueueOptions:
    """Raises TypeError or ValueError, in the order of the options."""
    return QueueOptions(
        arguments.size("maxsize", maxsize),
        arguments.policy(when_full),
        arguments.size("batch_size", batch_size, least=1),
        arguments.seconds("linger", linger),
        arguments.size("concurrency", concurrency, least=1, most=MOST_CONCURRENCY),
        arguments.listeners(listeners, "ingress", "egress"),
        arguments.dead_letter(dead_letter),
        None if name is None else str(name),
    )
