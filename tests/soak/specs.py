"""The lines of a run: endpoints of different kinds, each before one of the receivers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastsinks import Breaker, ExponentialBackoff
from fastsinks.encoders import CloudEventsEncoder, JSONEncoder, NDJSONEncoder
from fastsinks.events import new_event
from fastsinks.signing import StandardWebhooksSigner

SECRET = "whsec_c29hayBzb2FrIHNvYWsgc29hayBzb2Fr"

PATIENCE = 60.0
"""Seconds after which what is still not delivered never will be."""

IMPATIENT = (0.0, 0.05, 0.3, 2.0)


def plain(ident: str) -> Any:
    return {"id": ident, "action": "push"}


def registry(ident: str) -> Any:
    return new_event("push", id=ident, repository="library/app", tag="v1")


def identify(event: Any) -> str:
    """The id of an event of either kind."""
    return str(event["id"] if isinstance(event, dict) else event.id)


@dataclass(frozen=True)
class Spec:
    """One line. `options` makes those of an endpoint, anew for each: strategies are not shared."""

    name: str
    receiver: str
    rate: int  #: events a second by each of the writers
    options: Callable[[], dict[str, Any]]
    writers: int = 2
    concurrency: int = 1
    batch_size: int = 100
    may_lose: bool = False  #: by its options, or by a close that does not wait
    broadcast: bool = False  #: written to by way of the broadcaster
    forks: bool = False
    event: Callable[[str], Any] = plain
    close_timeouts: tuple[float, ...] = field(default=(PATIENCE,))


def _lossy(spec: str, receiver: str, rate: int, options: Callable[[], Any], **more: Any) -> Spec:
    more.setdefault("close_timeouts", IMPATIENT)
    return Spec(spec, receiver, rate, options, may_lose=True, **more)


SPECS = (
    Spec("plain", "a", 400, lambda: {"threshold": 3, "backoff": 0.1}, forks=True),
    Spec(
        "wide",
        "a",
        200,
        lambda: {
            "encoder": NDJSONEncoder(),
            "linger": 0.02,
            "signer": StandardWebhooksSigner(SECRET),
            "backoff": 0.1,
        },
        concurrency=4,
        batch_size=20,
        forks=True,
    ),
    Spec(
        "single",
        "b",
        30,
        lambda: {"encoder": JSONEncoder(), "maxsize": 500, "backoff": 0.05},
        concurrency=3,
    ),
    Spec(
        "block",
        "b",
        200,
        lambda: {
            "maxsize": 100,
            "linger": 0.01,
            "signer": StandardWebhooksSigner(SECRET),
            "strategy": ExponentialBackoff(0.01, 0.02, 0.5),
        },
        writers=4,
        batch_size=10,
    ),
    _lossy(
        "raise",
        "c",
        200,
        lambda: {
            "maxsize": 100,
            "when_full": "raise",
            "encoder": CloudEventsEncoder(batched=True),
            "strategy": ExponentialBackoff(0.02, 0.02, 0.5),
        },
        event=registry,
    ),
    _lossy(
        "newest",
        "c",
        300,
        lambda: {"maxsize": 100, "when_full": "drop_newest", "threshold": 2, "backoff": 0.2},
        batch_size=7,
    ),
    _lossy(
        "oldest",
        "d",
        300,
        lambda: {
            "maxsize": 100,
            "when_full": "drop_oldest",
            "strategy": Breaker(2, 0.1, max_attempts=4),
        },
        batch_size=50,
    ),
    _lossy(
        "giving_up",
        "d",
        100,
        lambda: {"strategy": Breaker(2, 0.05, max_attempts=3, max_elapsed=1.0)},
        concurrency=2,
        batch_size=10,
    ),
    Spec(
        "left",
        "a",
        300,
        lambda: {"ignore_actions": ["pull"], "backoff": 0.1},
        broadcast=True,
        event=registry,
    ),
    _lossy(
        "right",
        "c",
        300,
        lambda: {
            "ignore_actions": ["pull"],
            "maxsize": 1000,
            "when_full": "drop_oldest",
            "backoff": 0.1,
        },
        broadcast=True,
        event=registry,
        batch_size=500,
        close_timeouts=(0.5, 2.0),
    ),
)
