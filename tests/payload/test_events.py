"""Registry events: what registries send is understood, and written back unchanged."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from fastsinks import events
from fastsinks.events import (
    Actor,
    Descriptor,
    Envelope,
    Event,
    Platform,
    Request,
    Source,
    Target,
    decode,
    encode,
    new_event,
)

RECORDED = files("fastsinks").joinpath("_cli/data/registry-events.ndjson").read_bytes().splitlines()


def test_recorded_events_are_there() -> None:
    assert len(RECORDED) == 111


def test_recorded_events_round_trip_byte_for_byte() -> None:
    for line in RECORDED:
        envelope = b'{"events":[' + line + b"]}"
        assert encode(decode(envelope).events) == envelope


def test_many_events_in_one_envelope_keep_their_order() -> None:
    envelope = b'{"events":[' + b",".join(RECORDED) + b"]}"
    decoded = decode(envelope)
    assert [event.id for event in decoded.events] == [json.loads(line)["id"] for line in RECORDED]
    assert encode(decoded.events) == envelope


def test_fields_have_python_names() -> None:
    event = decode(b'{"events":[' + RECORDED[0] + b"]}").events[0]
    wire = json.loads(RECORDED[0])
    assert (event.id, event.action) == (wire["id"], "push")
    assert event.target.media_type == wire["target"]["mediaType"]
    assert event.target.size == event.target.length == wire["target"]["size"]
    assert event.target.repository == "library/app0"
    assert event.request.user_agent == wire["request"]["useragent"]
    assert event.source.instance_id == wire["source"]["instanceID"]
    assert event.actor == Actor()


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-22T05:53:06.46017243Z",
        "2026-11-22T05:53:06.460172439Z",
        "2026-11-22T05:53:06Z",
        "2026-11-22T05:53:06.100000000Z",
        "2006-01-02T15:04:05.999999999+07:00",
        "0001-01-01T00:00:00Z",
    ],
)
def test_timestamps_lose_nothing(timestamp: str) -> None:
    body = json.dumps({"events": [{"timestamp": timestamp}]}).encode()
    event = decode(body).events[0]
    assert event.timestamp == timestamp
    assert json.loads(encode([event]))["events"][0]["timestamp"] == timestamp


def test_time_is_an_aware_datetime() -> None:
    event = Event(timestamp="2026-11-22T05:53:06.460172439Z")
    assert event.time == datetime(2026, 11, 22, 5, 53, 6, 460172, UTC)


def test_a_2x_delete_without_media_type() -> None:
    body = (
        b'{"events":[{"id":"1","timestamp":"2026-11-22T05:53:06Z","action":"delete",'
        b'"target":{"digest":"sha256:00","repository":"library/app"},'
        b'"request":{"id":"2","addr":"127.0.0.1:1","host":"h","method":"DELETE","useragent":"curl"},'
        b'"actor":{},"source":{"addr":"vm:5000","instanceID":"3"}}]}'
    )
    assert decode(body).events[0].target == Target(digest="sha256:00", repository="library/app")
    assert encode(decode(body).events) == body


def test_a_3x_event_with_empty_fields_spelled_out() -> None:
    body = json.dumps(
        {
            "events": [
                {
                    "id": "1",
                    "timestamp": "2026-11-22T05:53:06.000000001Z",
                    "action": "push",
                    "target": {
                        "mediaType": "",
                        "digest": "sha256:00",
                        "size": 0,
                        "urls": ["http://mirror/blob"],
                        "annotations": {"a": "b"},
                        "data": "e30=",
                        "platform": {
                            "architecture": "amd64",
                            "os": "windows",
                            "os.version": "10",
                            "os.features": ["win32k"],
                        },
                        "artifactType": "application/x",
                        "references": [{"mediaType": "a/b", "digest": "sha256:11", "size": 7}],
                    },
                    "request": {"id": "", "method": "", "useragent": ""},
                    "actor": {"name": "me"},
                    "source": {},
                }
            ]
        }
    )
    target = decode(body).events[0].target
    assert target.platform == Platform("amd64", "windows", "10", ["win32k"])
    assert target.data == b"{}"
    assert target.references == [Descriptor("a/b", 7, "sha256:11")]
    again = json.loads(encode(decode(body).events))["events"][0]
    wire = json.loads(body)["events"][0]
    for empty in ("mediaType", "size"):  # Go reads their absence as the same
        del wire["target"][empty]
    assert again == wire


def test_unknown_fields_are_passed_over() -> None:
    body = b'{"version":9,"events":[{"id":"1","new":{},"target":{"tag":"t","x":[1]}}]}'
    event = decode(body).events[0]
    assert (event.id, event.target.tag) == ("1", "t")


@pytest.mark.parametrize("body", [b"{}", b'{"events":[]}', "{}"])
def test_an_empty_envelope(body: bytes | str) -> None:
    assert decode(body) == Envelope()


def test_text_and_bytes_decode_alike() -> None:
    body = b'{"events":[' + RECORDED[0] + b"]}"
    assert decode(body.decode()) == decode(body)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b"[]", "array"),
        (b"null", "null"),
        (b'{"events":3}', r"\$\.events"),
        (b'{"events":[{"id":3}]}', r"\$\.events\[0\]\.id"),
        (b'{"events":[{},{"target":{"size":"big"}}]}', r"\$\.events\[1\]\.target\.size"),
        (b'{"events":[{"timestamp":"yesterday"}]}', r"\$\.events\[0\]\.timestamp"),
        (b'{"events":[{"timestamp":"2026-13-01T00:00:00Z"}]}', r"\$\.events\[0\]\.timestamp"),
        (b'{"events":[{"timestamp":"2026-12-01T00:00:00"}]}', r"\$\.events\[0\]\.timestamp"),
        (b'{"events":[{"timestamp":1}]}', r"\$\.events\[0\]\.timestamp"),
        (b'{"events":[]} {}', "malformed"),
        (b'{"events":[{"id":"\xff"}]}', "utf-8"),
        (b'{"events":[' + b"[" * 100_000, r"array"),
        (b'{"x":' + b"[" * 100_000, "nested"),
    ],
)
def test_what_is_no_envelope_is_named(body: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        decode(body)


def test_decoding_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        decode(3)  # type: ignore[arg-type]


class TestNewEvent:
    def test_ids_are_unique_and_the_time_is_now(self) -> None:
        before = datetime.now(UTC) - timedelta(milliseconds=1)
        first, second = new_event("push"), new_event("push")
        assert first.action == "push"
        assert first.id != second.id
        assert before <= first.time <= second.time <= datetime.now(UTC)
        assert first.timestamp.endswith("Z")

    def test_it_decodes_as_what_it_was(self) -> None:
        event = new_event(
            "pull",
            Target(media_type="a/b", repository="library/app"),
            request=Request(id="r", method="GET", user_agent="curl"),
            actor=Actor("me"),
            source=Source("host:1", "i"),
        )
        assert decode(encode([event])).events == [event]

    def test_target_fields_for_short(self) -> None:
        event = new_event("push", repository="library/app", tag="v1", size=7)
        assert event.target == Target(repository="library/app", tag="v1", size=7, length=7)

    def test_target_fields_override_a_target_that_stays_as_it_is(self) -> None:
        target = Target(repository="library/app", tag="v1")
        event = new_event("push", target, tag="v2")
        assert event.target == Target(repository="library/app", tag="v2")
        assert target.tag == "v1"

    def test_unknown_target_fields_are_refused(self) -> None:
        with pytest.raises(TypeError, match="mediaType"):
            new_event("push", mediaType="a/b")

    @pytest.mark.parametrize(
        ("moment", "timestamp"),
        [
            ("2026-11-22T05:53:06.46017243Z", "2026-11-22T05:53:06.46017243Z"),
            (datetime(2026, 1, 2, 3, 4, 5, 600000, UTC), "2026-01-02T03:04:05.6Z"),
            (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05Z"),
            (
                datetime(26, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1))),
                "0026-01-02T02:04:05Z",
            ),
        ],
    )
    def test_given_times(self, moment: Any, timestamp: str) -> None:
        event = new_event("push", id="given", timestamp=moment)
        assert (event.id, event.timestamp) == ("given", timestamp)
        assert decode(encode([event])).events == [event]


class TestEncode:
    def test_whatever_json_can_express(self) -> None:
        mixed = ["text", 1, None, True, [1, 2], {"a": {"b": 1}}]
        assert json.loads(encode(mixed)) == {"events": mixed}

    def test_any_iterable(self) -> None:
        assert encode(str(i) for i in range(2)) == b'{"events":["0","1"]}'

    @pytest.mark.parametrize("one", ["text", b"bytes", {"a": 1}])
    def test_one_event_is_no_iterable_of_events(self, one: Any) -> None:
        with pytest.raises(TypeError, match="iterable of events"):
            encode(one)

    def test_media_type(self) -> None:
        assert events.EVENTS_MEDIA_TYPE == "application/vnd.docker.distribution.events.v2+json"

    def test_structs_are_msgspec_structs(self) -> None:
        for struct in (Event, Target, Descriptor, Request, Actor, Source, Envelope, Platform):
            assert issubclass(struct, msgspec.Struct)
