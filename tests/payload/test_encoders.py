"""The envelope encoder: any JSON-able event goes in, errors name types and nothing else."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import types
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from fastsinks import DeliveryError
from fastsinks.encoders import EnvelopeEncoder
from fastsinks.events import EVENTS_MEDIA_TYPE, Target, new_event


@dataclasses.dataclass
class Sale:
    item: str
    price: Decimal


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    pass


class Number(int):
    pass


class Ratio(float):
    pass


class Secretive:
    @property
    def secret(self) -> str:
        raise AssertionError("nobody asked")

    def __repr__(self) -> str:
        return "s3cret"


def encoded(*events: Any) -> list[Any]:
    envelope: dict[str, list[Any]] = json.loads(EnvelopeEncoder().encode(events))
    assert envelope.keys() == {"events"}
    return envelope["events"]


def test_the_media_type_is_the_registrys() -> None:
    assert EnvelopeEncoder.media_type == EVENTS_MEDIA_TYPE


def test_all_kinds_of_events_in_one_envelope() -> None:
    event = new_event("push", Target(repository="library/app"))
    sent = encoded(event, Sale("tea", Decimal("1.50")), {"a": [1]}, "text", 3, None)
    assert sent[0]["id"] == event.id
    assert sent[0]["target"] == {"repository": "library/app"}
    assert sent[1:] == [{"item": "tea", "price": "1.50"}, {"a": [1]}, "text", 3, None]


@pytest.mark.parametrize(
    ("event", "wire"),
    [
        (Name("n"), "n"),
        (Number(7), 7),
        (Ratio(0.5), 0.5),
        (2**70, 2**70),
        (Colour.RED, "red"),
        (b"ab", "YWI="),
        ((1, 2), [1, 2]),
        (collections.deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.UserDict(a=Name("n")), {"a": "n"}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        ({1: "one"}, {"1": "one"}),
        ("\u00fc\U0001f600\x00", "\u00fc\U0001f600\x00"),
    ],
)
def test_what_counts_as_json_able(event: Any, wire: Any) -> None:
    assert encoded(event) == [wire]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_become_null(number: float) -> None:
    assert encoded({"ratio": number}) == [{"ratio": None}]


def recursive_list() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def recursive_mapping() -> collections.UserDict[str, Any]:
    loop: collections.UserDict[str, Any] = collections.UserDict()
    loop["s3cret"] = loop
    return loop


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Secretive(), "Secretive"),
        ({"s3cret": Secretive()}, "dict"),
        ({("s3cret",): 1}, "dict"),
        ("s3cret\ud800", "str"),
        ({"s3cret\ud800": 1}, "dict"),
        ([1, {"s3cret": "\udfff"}], "list"),
        (1j, "complex"),
        (recursive_list(), "list"),
        (recursive_mapping(), "UserDict"),
        (lambda: "s3cret", "function"),
        (iter("s3cret"), "str_ascii_iterator|str_iterator"),
    ],
)
def test_errors_are_permanent_and_name_the_type_alone(event: Any, kind: str) -> None:
    with pytest.raises(DeliveryError, match=rf"event of type ({kind}) cannot be encoded") as caught:
        EnvelopeEncoder().encode(["good", event, "good"])
    error: BaseException | None = caught.value
    assert caught.value.permanent
    assert caught.value.status is None
    while error is not None:  # nor does anything in the chain that a traceback would print
        assert "s3cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_the_first_culprit_is_named() -> None:
    with pytest.raises(DeliveryError, match="of type complex"):
        EnvelopeEncoder().encode(["good", 1j, object()])


def test_an_event_that_changes_its_mind() -> None:
    """Encoding the block failed, and encoding each event by itself does not."""

    class Once(collections.UserDict[str, int]):
        asked = 0

        def __iter__(self) -> Any:
            Once.asked += 1
            if Once.asked == 1:
                raise RuntimeError("s3cret")
            return super().__iter__()

    with pytest.raises(DeliveryError, match="events cannot be encoded: RuntimeError") as caught:
        EnvelopeEncoder().encode([Once(a=1)])
    assert caught.value.permanent


def test_repr() -> None:
    assert repr(EnvelopeEncoder()) == "EnvelopeEncoder()"
