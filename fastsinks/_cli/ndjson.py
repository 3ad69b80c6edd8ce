"""Newline-delimited JSON: bytes in, events out, a line at a time."""

from __future__ import annotations

import io
import select
from collections.abc import Iterator
from typing import Any

import msgspec

MAX_LINE = 16 * 1024 * 1024
"""Bytes of the longest line that is read. A longer one counts as malformed: memory is bounded."""

_CHUNK = 64 * 1024

_decode = msgspec.json.Decoder().decode


class Record(dict[str, Any]):
    """A JSON object that knows the number of its line."""

    __slots__ = ("line",)

    line: int


def split(file: io.RawIOBase) -> Iterator[list[bytes | None]]:
    """The lines of ``file``, in groups as they arrive; ``None`` is a line that is too long.

    A group is handed on as soon as it can be read, so that events from a pipe
    are sent when they arrive and not when a buffer is full.
    """
    parts: list[bytes] = []  # of a line that has not ended yet
    size = 0
    while (chunk := file.read(_CHUNK)) != b"":
        if chunk is None:  # the pipe is non-blocking, and empty
            select.select([file], [], [])
            continue
        head, newline, rest = chunk.partition(b"\n")
        size += len(head)
        if size <= MAX_LINE:
            parts.append(head)
        else:
            parts.clear()
        if not newline:
            continue
        lines: list[bytes | None] = [b"".join(parts) if size <= MAX_LINE else None]
        *whole, tail = rest.split(b"\n")
        lines += whole
        yield lines
        parts, size = [tail], len(tail)
    if size:
        yield [b"".join(parts) if size <= MAX_LINE else None]


def parse(line: bytes | None, number: int) -> list[Any]:
    """The events of one line: one event, those of an envelope, or none if the line is blank.

    An envelope is ``{"events": [...]}``, or a recorded request whose ``body``
    is the text of one: ``{"headers": {...}, "body": "..."}``. Raises ValueError.
    """
    if line is None:
        raise ValueError(f"longer than {MAX_LINE:,} bytes")
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return []
    value = _json(line)
    events = _enveloped(value)
    if events is None and isinstance(value, dict) and isinstance(value.get("headers"), dict):
        body = value.get("body")
        if isinstance(body, str):
            events = _enveloped(_json(body))
            if events is None:
                raise ValueError("the recorded body is not an envelope of events")
    if events is None:
        events = [value]
    return [_numbered(event, number) for event in events]


def _json(text: bytes | str) -> Any:
    try:
        return _decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError("JSON is nested too deeply") from error


def _enveloped(value: Any) -> list[Any] | None:
    if not isinstance(value, dict) or value.keys() != {"events"}:
        return None
    events = value["events"]
    if events is None:  # an empty list, as Go writes it
        return []
    return events if isinstance(events, list) else None


def _numbered(event: Any, number: int) -> Any:
    if isinstance(event, dict):
        event = Record(event)
        event.line = number
    return event
