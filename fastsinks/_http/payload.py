"""Payload: the body of a request, the events in it and its id; and payloads kept for retries."""

from __future__ import annotations

from typing import Any, NamedTuple


class Payload(NamedTuple):
    """What one request carries."""

    events: tuple[Any, ...]
    body: bytes
    id: str  #: the same for every attempt at these events; empty where no signer asks for it


class Unaccepted:
    """The latest payloads that were not accepted: a repeated write sends the same bytes.

    It keeps as many as there may be in flight, by the first event and the number of events;
    ``find`` compares the rest. Operations of a dict are atomic: where threads compete, the
    worst is that a block is encoded twice.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._payloads: dict[tuple[int, int], Payload] = {}

    def find(self, events: tuple[Any, ...]) -> Payload | None:
        payload = self._payloads.get(_key(events))
        return payload if payload is not None and _same(payload.events, events) else None

    def keep(self, payload: Payload) -> None:
        key = _key(payload.events)
        self._payloads.pop(key, None)  # so that it becomes the latest
        self._payloads[key] = payload
        if len(self._payloads) > self._most:
            for old in list(self._payloads)[: -self._most]:
                self._payloads.pop(old, None)

    def forget(self, events: tuple[Any, ...]) -> None:
        self._payloads.pop(_key(events), None)

    def clear(self) -> None:
        self._payloads.clear()


def _key(events: tuple[Any, ...]) -> tuple[int, int]:
    return id(events[0]), len(events)


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether these are the very same objects; their own ``__eq__`` is not asked."""
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))
