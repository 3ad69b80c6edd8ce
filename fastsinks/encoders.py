"""Encoders: what makes the body of one request out of a block of events.

An encoder is any object with ``media_type`` and ``encode(events) -> bytes``. One
whose ``takes_blocks`` is false is given one event at a time, and each event gets a
request of its own; without that attribute an encoder takes blocks.

The encoders here keep no state between calls: one may serve any number of sinks and
threads. They refuse an event with a permanent DeliveryError, which names its type and
nothing of its contents.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ._core.errors import DeliveryError
from ._http import json
from .events import EVENTS_MEDIA_TYPE, ZERO_TIME, Event, encode
from .typing import Encoder

__all__ = [
    "CloudEventsEncoder",
    "Encoder",
    "EnvelopeEncoder",
    "JSONEncoder",
    "NDJSONEncoder",
]


class EnvelopeEncoder:
    """Writes the registry's envelope ``{"events": [...]}``, from any JSON-able events."""

    media_type = EVENTS_MEDIA_TYPE
    takes_blocks = True

    def encode(self, events: Sequence[Any]) -> bytes:
        """Return the envelope; DeliveryError (permanent) if an event cannot be written."""
        try:
            return encode(events)
        except Exception as error:
            _refuse(json.write, events, error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class JSONEncoder:
    """Writes an event as the JSON value that it is, one per request.

    With ``array=True`` a request carries an array of events instead, even for a
    single one.
    """

    media_type = "application/json"

    def __init__(self, *, array: bool = False) -> None:
        self.takes_blocks = bool(array)

    def encode(self, events: Sequence[Any]) -> bytes:
        """Return the JSON text; DeliveryError (permanent) if an event cannot be written,
        ValueError for a block without ``array=True``."""
        value = list(events) if self.takes_blocks else _only(self, events)
        try:
            return json.write(value)
        except Exception as error:
            _refuse(json.write, events, error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'array=True' if self.takes_blocks else ''})"


class NDJSONEncoder:
    """Writes events as JSON values, one per line; every line ends with a line feed."""

    media_type = "application/x-ndjson"
    takes_blocks = True

    def encode(self, events: Sequence[Any]) -> bytes:
        """Return the lines; DeliveryError (permanent) if an event cannot be written."""
        try:
            return json.write_lines(list(events))
        except Exception as error:
            _refuse(json.write, events, error)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class CloudEventsEncoder:
    """Writes CloudEvents 1.0 as JSON: structured mode, one event per request.

    ``batched=True`` writes a batch for each request instead; the specification allows that
    only where the receiver has asked for it.

    An event becomes the ``data`` of a CloudEvent with the given ``source`` and ``type``,
    the latter a string or a function of the event. A registry event brings its own ``id``,
    ``time`` and a ``subject`` (its repository, with the tag or else the digest). Its type is
    ``registry.`` and its action unless ``type`` says otherwise. Any other event gets a random
    ``id`` when it is encoded; sinks keep a body for retries, so a retry of the same
    request keeps the id. ``bytes`` are sent as ``data_base64``. ``attributes``, a function of
    the event, returns further attributes, extensions included, or other values for these.
    A mapping with a ``specversion`` is a CloudEvent already and is sent as it is.
    """

    def __init__(
        self,
        source: str = "urn:fastsinks",
        *,
        type: str | Callable[[Any], str] | None = None,
        attributes: Callable[[Any], Mapping[str, Any]] | None = None,
        batched: bool = False,
    ) -> None:
        _nonempty("source", source)
        if type is not None and not callable(type):
            _nonempty("type", type)
        if attributes is not None and not callable(attributes):
            raise TypeError(f"attributes must be callable with an event, unlike {attributes!r}")
        self._source = source
        self._type = type
        self._attributes = attributes
        self.takes_blocks = bool(batched)
        kind = "cloudevents-batch" if batched else "cloudevents"
        self.media_type = f"application/{kind}+json"

    def encode(self, events: Sequence[Any]) -> bytes:
        """Return the event, or the batch. DeliveryError (permanent) if one cannot be written or
        has attributes that CloudEvents does not allow; ValueError for a block without
        ``batched=True``."""
        if not self.takes_blocks:
            _only(self, events)
        try:
            made = [self._cloud_event(event) for event in events]
            return json.write(made if self.takes_blocks else made[0])
        except Exception as error:
            _refuse(lambda event: json.write(self._cloud_event(event)), events, error)

    def _cloud_event(self, event: Any) -> Mapping[str, Any]:
        if isinstance(event, Mapping) and "specversion" in event:
            made = dict(event)
        else:
            made = self._wrap(event)
        for name, value in made.items():
            if name not in _PAYLOAD:
                _check_attribute(name, value)
        for name in ("id", "source", "specversion", "type"):
            if not made.get(name):
                raise ValueError(f"no {name}")
        return made

    def _wrap(self, event: Any) -> dict[str, Any]:
        made: dict[str, Any] = {"specversion": "1.0", "source": self._source}
        if isinstance(event, Event):
            made["id"] = event.id or str(uuid.uuid4())
            made["type"] = f"registry.{event.action}"
            if event.timestamp != ZERO_TIME:
                made["time"] = event.timestamp
            subject = _subject(event)
            if subject:
                made["subject"] = subject
        else:
            made["id"] = str(uuid.uuid4())
            made["type"] = "fastsinks.event"
        if self._type is not None:
            made["type"] = self._type(event) if callable(self._type) else self._type
        if isinstance(event, (bytes, bytearray, memoryview)):
            made["datacontenttype"] = "application/octet-stream"
            made["data_base64"] = bytes(event)  # JSON has no bytes: they are written as base64
        else:
            made["datacontenttype"] = "application/json"
            made["data"] = event
        if self._attributes is not None:
            made.update(self._attributes(event))
        return made

    def __repr__(self) -> str:
        batched = ", batched=True" if self.takes_blocks else ""
        return f"{type(self).__name__}({self._source!r}{batched})"


def takes_blocks(encoder: Encoder) -> bool:
    """Whether a request may carry several events."""
    return bool(getattr(encoder, "takes_blocks", True))


_PAYLOAD = frozenset({"data", "data_base64"})
_ATTRIBUTE = re.compile(r"[a-z0-9]+")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _check_attribute(name: Any, value: Any) -> None:
    """Raises an error, which the caller turns into a DeliveryError that quotes neither of them."""
    if not isinstance(name, str) or not _ATTRIBUTE.fullmatch(name):
        raise ValueError("a CloudEvent's attributes are named by lower-case letters and digits")
    if name == "specversion":
        if value != "1.0":
            raise ValueError("a CloudEvent of another version")
    elif name in ("id", "source", "type", "subject", "datacontenttype", "dataschema"):
        _nonempty(name, value)
    elif name == "time":
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            raise ValueError("a CloudEvent's time is a string as in RFC 3339")
    elif not isinstance(value, (str, int)):  # bool is an int
        raise TypeError("a CloudEvent's extension is a string, an integer or a boolean")


def _subject(event: Event) -> str:
    target = event.target
    if target.repository and target.tag:
        return f"{target.repository}:{target.tag}"
    if target.repository and target.digest:
        return f"{target.repository}@{target.digest}"
    return target.repository


def _nonempty(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty")


def _only(encoder: Any, events: Sequence[Any]) -> Any:
    if len(events) != 1:
        raise ValueError(f"{encoder!r} encodes one event at a time, not {len(events)}")
    return events[0]


def _refuse(write: Callable[[Any], object], events: Sequence[Any], error: Exception) -> NoReturn:
    """Find out which event of the block is to blame, by writing each by itself.

    An error's text may quote the event, so neither the text nor the traceback is passed on.
    """
    for event in events:
        try:
            write(event)
        except Exception as own:
            kind, reason = type(event).__name__, type(own).__name__
            raise DeliveryError(
                f"event of type {kind} cannot be encoded: {reason}", permanent=True
            ) from None
    raise DeliveryError(
        f"events cannot be encoded: {type(error).__name__}", permanent=True
    ) from None
