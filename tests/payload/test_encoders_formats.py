"""The other encoders: plain JSON, lines of JSON, and CloudEvents as the official SDK reads them."""

from __future__ import annotations

import collections
import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event
from cloudevents.core.v1.event import CloudEvent

from fastsinks import DeliveryError
from fastsinks.encoders import CloudEventsEncoder, EnvelopeEncoder, JSONEncoder, NDJSONEncoder
from fastsinks.events import Event, Target, new_event


@dataclasses.dataclass
class Sale:
    item: str


class Secretive:
    def __repr__(self) -> str:
        return "s3cret"


@pytest.mark.parametrize(
    ("encoder", "media_type", "takes_blocks"),
    [
        (EnvelopeEncoder(), "application/vnd.docker.distribution.events.v2+json", True),
        (JSONEncoder(), "application/json", False),
        (JSONEncoder(array=True), "application/json", True),
        (NDJSONEncoder(), "application/x-ndjson", True),
        (CloudEventsEncoder(), "application/cloudevents+json", False),
        (CloudEventsEncoder(batched=True), "application/cloudevents-batch+json", True),
    ],
    ids=repr,
)
def test_what_they_say_of_themselves(encoder: Any, media_type: str, takes_blocks: bool) -> None:
    assert encoder.media_type == media_type
    assert encoder.takes_blocks is takes_blocks
    assert eval(repr(encoder)).media_type == media_type


@pytest.mark.parametrize(
    "encoder",
    [
        EnvelopeEncoder(),
        JSONEncoder(),
        JSONEncoder(array=True),
        NDJSONEncoder(),
        CloudEventsEncoder(),
        CloudEventsEncoder(batched=True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("event", [Secretive(), {"s3cret": 1j}, "s3cret\ud800"])
def test_what_cannot_be_encoded_is_a_permanent_error(encoder: Any, event: Any) -> None:
    block = ["good", event, "good"] if encoder.takes_blocks else [event]
    with pytest.raises(DeliveryError, match=f"of type {type(event).__name__}") as caught:
        encoder.encode(block)
    error: BaseException | None = caught.value
    assert caught.value.permanent
    while error is not None:
        assert "s3cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("encoder", [JSONEncoder(), CloudEventsEncoder()], ids=repr)
def test_one_event_is_one_event(encoder: Any) -> None:
    with pytest.raises(ValueError, match="one event at a time, not 2"):
        encoder.encode([1, 2])


EVENTS: list[Any] = [{"a": [1]}, Sale("tea"), "text\nof two lines", 3, None, new_event("push")]


def plain(event: Any) -> Any:
    if isinstance(event, Sale):
        return dataclasses.asdict(event)
    if isinstance(event, Event):
        return json.loads(EnvelopeEncoder().encode([event]))["events"][0]
    return event


class TestJSON:
    @pytest.mark.parametrize("event", EVENTS)
    def test_an_event_is_the_body(self, event: Any) -> None:
        assert json.loads(JSONEncoder().encode([event])) == plain(event)

    def test_an_array_of_events(self) -> None:
        assert json.loads(JSONEncoder(array=True).encode(EVENTS)) == [plain(e) for e in EVENTS]
        assert JSONEncoder(array=True).encode((1,)) == b"[1]"


class TestNDJSON:
    def test_every_event_is_a_line(self) -> None:
        body = NDJSONEncoder().encode(EVENTS)
        assert body.endswith(b"\n")
        lines = body.decode().split("\n")[:-1]
        assert [json.loads(line) for line in lines] == [plain(event) for event in EVENTS]

    def test_any_sequence(self) -> None:
        assert NDJSONEncoder().encode(collections.deque([1, 2])) == b"1\n2\n"  # type: ignore[arg-type]


def read(body: bytes, media_type: str = CloudEventsEncoder().media_type) -> CloudEvent:
    """As the official SDK does."""
    event = from_structured_event(HTTPMessage({"content-type": media_type}, body))
    assert isinstance(event, CloudEvent)  # of version 1.0
    return event


def wrapped(event: Any, encoder: CloudEventsEncoder | None = None) -> CloudEvent:
    return read((encoder or CloudEventsEncoder()).encode([event]))


class TestCloudEvents:
    @pytest.mark.parametrize("event", EVENTS)
    def test_an_event_is_the_data(self, event: Any) -> None:
        made = wrapped(event, CloudEventsEncoder("/shop", type="org.example.sale"))
        assert made.get_data() == plain(event)
        assert made.get_source() == "/shop"
        assert made.get_type() == "org.example.sale"
        assert made.get_specversion() == "1.0"
        assert made.get_datacontenttype() == "application/json"

    def test_a_registry_event_brings_its_own_attributes(self) -> None:
        event = new_event(
            "push",
            Target(repository="library/app", digest="sha256:ab", tag="v1"),
            timestamp="2026-01-02T03:04:05.123456789Z",
        )
        made = wrapped(event)
        assert made.get_id() == event.id
        assert made.get_type() == "registry.push"
        assert made.get_subject() == "library/app:v1"
        assert made.get_time() == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
        assert b'"time":"2026-01-02T03:04:05.123456789Z"' in CloudEventsEncoder().encode([event])

    @pytest.mark.parametrize(
        ("target", "subject"),
        [
            (Target(repository="a", digest="sha256:ab"), "a@sha256:ab"),
            (Target(repository="a"), "a"),
            (Target(digest="sha256:ab"), None),
        ],
    )
    def test_the_subject_of_a_registry_event(self, target: Target, subject: str | None) -> None:
        assert wrapped(new_event("pull", target)).get_subject() == subject

    def test_an_empty_registry_event(self) -> None:
        made = json.loads(CloudEventsEncoder().encode([Event(action="x")]))
        assert made["id"]
        assert "time" not in made

    def test_other_events_get_ids(self) -> None:
        assert wrapped("same").get_id() != wrapped("same").get_id()

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_bytes(self, kind: Any) -> None:
        made = wrapped(kind(b"\x00\xff"))
        assert made.get_data() == b"\x00\xff"
        assert made.get_datacontenttype() == "application/octet-stream"

    def test_a_type_by_event(self) -> None:
        encoder = CloudEventsEncoder(type=lambda event: f"org.example.{event['kind']}")
        assert wrapped({"kind": "sale"}, encoder).get_type() == "org.example.sale"

    def test_attributes_by_event(self) -> None:
        encoder = CloudEventsEncoder(
            attributes=lambda event: {"id": event["n"], "subject": "s", "partitionkey": "k", "x": 1}
        )
        made = wrapped({"n": "17"}, encoder)
        assert (made.get_id(), made.get_subject()) == ("17", "s")
        assert made.get_extension("partitionkey") == "k"
        assert made.get_extension("x") == 1

    def test_a_cloud_event_is_sent_as_it_is(self) -> None:
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "/elsewhere",
            "type": "t",
            "datacontenttype": "text/plain",
            "data": "text",
            "extension": True,
        }
        assert json.loads(CloudEventsEncoder().encode([event])) == event
        assert wrapped(event).get_source() == "/elsewhere"

    def test_a_batch_only_when_asked_for(self) -> None:
        body = CloudEventsEncoder(batched=True).encode(EVENTS)
        made = [read(json.dumps(event).encode()) for event in json.loads(body)]
        assert [event.get_data() for event in made] == [plain(event) for event in EVENTS]
        assert len({event.get_id() for event in made}) == len(EVENTS)
        assert isinstance(json.loads(CloudEventsEncoder(batched=True).encode([1])), list)
        assert isinstance(json.loads(CloudEventsEncoder().encode([1])), dict)

    @pytest.mark.parametrize(
        "attributes",
        [
            {"id": ""},
            {"id": 7},
            {"source": None},
            {"subject": ""},
            {"time": "yesterday"},
            {"time": 1.5},
            {"specversion": "0.3"},
            {"camelCase": "x"},
            {"with-dash": "x"},
            {"extension": [1]},
            {"extension": None},
            {1: "x"},
        ],
        ids=repr,
    )
    def test_attributes_that_the_specification_forbids(self, attributes: Any) -> None:
        encoder = CloudEventsEncoder(attributes=lambda event: attributes)
        with pytest.raises(DeliveryError, match="event of type str cannot be encoded") as caught:
            encoder.encode(["event"])
        assert caught.value.permanent

    @pytest.mark.parametrize("missing", ["id", "source", "type"])
    def test_a_cloud_event_lacking_what_is_required(self, missing: str) -> None:
        event = {"specversion": "1.0", "id": "1", "source": "/", "type": "t"}
        CloudEventsEncoder().encode([event])
        del event[missing]
        with pytest.raises(DeliveryError):
            CloudEventsEncoder().encode([event])

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"source": ""}, ValueError),
            ({"source": None}, TypeError),
            ({"type": ""}, ValueError),
            ({"type": 1}, TypeError),
            ({"attributes": {"a": 1}}, TypeError),
        ],
    )
    def test_options_that_are_none(self, options: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            CloudEventsEncoder(**options)
