"""HTTPSink and Endpoint keep what every sink promises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from support import DEADLINE
from support.contract import SinkContract
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
)

from fastsinks import Endpoint, HTTPSink
from fastsinks.endpoint import registry


class Takes:
    """An encoder that takes any object, and keeps what it was given."""

    media_type = "application/octet-stream"

    def __init__(self) -> None:
        self.events: list[Any] = []

    def encode(self, events: Sequence[Any]) -> bytes:
        self.events += events
        return b"events"


class HTTPContract(SinkContract):
    @pytest.fixture(autouse=True)
    def receive(self, receiver: Receiver) -> None:
        self.url = receiver.url()
        self.encoder = Takes()

    def arrived(self, sink: Any) -> list[Any]:
        return self.encoder.events

    def forget(self) -> None:
        self.encoder = Takes()


class TestHTTPSinkContract(HTTPContract):
    def make(self) -> HTTPSink:
        return HTTPSink(self.url, timeout=DEADLINE, encoder=self.encoder)


class TestEndpointContract(HTTPContract):
    options: ClassVar[dict[str, Any]] = {}

    @pytest.fixture(autouse=True)
    def unwatched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Monitoring, if a test has loaded it, keeps a closed endpoint until the next scrape."""
        monkeypatch.setattr(registry, "when_closed", None)

    def make(self) -> Endpoint:
        options = {"timeout": DEADLINE, "close_timeout": DEADLINE, **self.options}
        return Endpoint("contract", self.url, encoder=self.encoder, **options)

    def arrived(self, sink: Endpoint) -> list[Any]:
        assert sink.flush(DEADLINE)
        return self.encoder.events


class TestFilteringEndpointContract(TestEndpointContract):
    options: ClassVar[dict[str, Any]] = {"ignore_actions": ["pull"]}
