"""Registry events: structs with Python names, and the registry's JSON on the wire.

The structs follow notifications/event.go of distribution. Registries 2.x and 3.x
differ in which empty fields they send; both can be decoded, and unknown fields are
ignored. Empty fields are left out on the wire where Go's ``omitempty`` leaves them out.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from ._http import json

__all__ = [
    "EVENTS_MEDIA_TYPE",
    "Actor",
    "Descriptor",
    "Envelope",
    "Event",
    "Platform",
    "Request",
    "Source",
    "Target",
    "decode",
    "encode",
    "new_event",
]

EVENTS_MEDIA_TYPE = "application/vnd.docker.distribution.events.v2+json"

ZERO_TIME = "0001-01-01T00:00:00Z"

# RFC 3339, as Go's time.Time decodes it: two-digit fields in their ranges, any fraction.
Timestamp = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
        r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
        r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
    ),
]


def _zero_time() -> str:
    return ZERO_TIME


class Platform(msgspec.Struct, omit_defaults=True):
    """The platform that an image is meant to run on."""

    # A factory instead of "" keeps a field on the wire when it is empty: omit_defaults
    # leaves out plain defaults only, and Go has no omitempty on these.
    architecture: str = msgspec.field(default_factory=str)
    os: str = msgspec.field(default_factory=str)
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: list[str] = msgspec.field(default=[], name="os.features")
    variant: str = ""


class Descriptor(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What identifies a piece of content: media type, size in bytes, digest."""

    media_type: str = ""
    size: int = 0
    digest: str = ""
    urls: list[str] = []
    annotations: dict[str, str] = {}
    data: bytes = b""
    platform: Platform | None = None
    artifact_type: str = ""


class Target(Descriptor, omit_defaults=True, rename={"from_repository": "fromRepository"}):
    """What an event is about: a descriptor, and where it was found."""

    length: int = 0
    repository: str = ""
    from_repository: str = ""
    url: str = ""
    tag: str = ""
    references: list[Descriptor] = []


class Request(msgspec.Struct, omit_defaults=True, rename={"user_agent": "useragent"}):
    """The request to the registry that caused an event."""

    id: str = msgspec.field(default_factory=str)
    addr: str = ""
    host: str = ""
    method: str = msgspec.field(default_factory=str)
    user_agent: str = msgspec.field(default_factory=str)


class Actor(msgspec.Struct, omit_defaults=True):
    """What caused an event, such as a user."""

    name: str = ""


class Source(msgspec.Struct, omit_defaults=True, rename={"instance_id": "instanceID"}):
    """The registry node that made an event."""

    addr: str = ""
    instance_id: str = ""


class Event(msgspec.Struct, omit_defaults=True):
    """One registry event.

    ``timestamp`` is the RFC 3339 text itself, because registries send nanoseconds
    and ``datetime`` has microseconds: what was read is written back unchanged.
    ``time`` gives it as a ``datetime``.
    """

    id: str = ""
    timestamp: Timestamp = msgspec.field(default_factory=_zero_time)
    action: str = ""
    target: Target = msgspec.field(default_factory=Target)
    request: Request = msgspec.field(default_factory=Request)
    actor: Actor = msgspec.field(default_factory=Actor)
    source: Source = msgspec.field(default_factory=Source)

    @property
    def time(self) -> datetime:
        """The timestamp as an aware ``datetime``, cut to microseconds.

        Raises ValueError if the timestamp is not an RFC 3339 time.
        """
        return datetime.fromisoformat(self.timestamp)


class Envelope(msgspec.Struct, omit_defaults=True):
    """The content of one request: any number of events, not necessarily related."""

    events: list[Event] = []


def new_event(
    action: str,
    target: Target | None = None,
    *,
    request: Request | None = None,
    actor: Actor | None = None,
    source: Source | None = None,
    id: str | None = None,
    timestamp: str | datetime | None = None,
    **target_fields: Any,
) -> Event:
    """Make an event with a fresh id (a random UUID), stamped with the current time in UTC.

    ``target_fields`` are fields of Target, as a shorthand:
    ``new_event("push", repository="library/app", tag="v1")``. They override those
    of ``target``, which itself is not changed. ``length`` follows ``size`` unless given. A naive
    ``datetime`` is taken as UTC.
    """
    if target is None:
        target = Target(**target_fields)
    elif target_fields:
        target = msgspec.structs.replace(target, **target_fields)
    if target.size and not target.length:
        target = msgspec.structs.replace(target, length=target.size)
    return Event(
        id=str(uuid.uuid4()) if id is None else id,
        timestamp=_timestamp(timestamp),
        action=action,
        target=target,
        request=Request() if request is None else request,
        actor=Actor() if actor is None else actor,
        source=Source() if source is None else source,
    )


def encode(events: Iterable[Any]) -> bytes:
    """Write an envelope ``{"events": [...]}`` of any JSON-able events, in their order.

    Structs, dataclasses, mappings, sequences, strings and numbers may be mixed. A
    float that is not finite becomes ``null``, as in JavaScript. Raises TypeError
    for what JSON cannot express, ValueError for text that UTF-8 cannot (lone
    surrogates), RecursionError for an event that contains itself.
    """
    if isinstance(events, (str, bytes, Mapping)):
        raise TypeError(f"events must be an iterable of events, not one {type(events).__name__}")
    block = events if isinstance(events, (list, tuple)) else list(events)
    return json.write({"events": block})


def decode(body: bytes | str) -> Envelope:
    """Read an envelope as registries 2.x and 3.x send it.

    Raises ValueError saying what is wrong and where (``$.events[2].timestamp``).
    """
    try:
        return _decoder.decode(body)
    except RecursionError:
        raise ValueError("not an envelope of registry events: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not an envelope of registry events: {error}") from error


def _timestamp(moment: str | datetime | None) -> str:
    if isinstance(moment, str):
        return moment
    if moment is None:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        moment = datetime.fromtimestamp(seconds, UTC)
    else:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        moment = moment.astimezone(UTC)
        nanoseconds = moment.microsecond * 1000
    # isoformat, because strftime does not pad the year everywhere. Go trims the zeros too.
    whole = moment.replace(microsecond=0, tzinfo=None).isoformat()
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    return f"{whole}{fraction}Z"


_decoder = msgspec.json.Decoder(Envelope)
