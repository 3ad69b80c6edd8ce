"""Endpoint: how many events go into a request, by what the receiver can take and by bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import BAD_SIZES, DEADLINE, Gate, Recorder
from support.receiver import (
    Connection,
    Receiver,
    Request,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    hang_up,
    when,
)

from fastsinks import Breaker, Endpoint
from fastsinks._endpoint.window import FIRST, Window
from fastsinks.encoders import CloudEventsEncoder, JSONEncoder, NDJSONEncoder


def sizes(receiver: Receiver) -> list[int]:
    return [len(request.events) for request in receiver.requests]


class TestWindow:
    """As TCP's congestion window: doubling, then step by step; halved by failures."""

    def attempt(self, window: Window, can: int, times: int) -> list[int]:
        """Send full blocks to a receiver that can take `can` events; returns the sizes tried."""
        tried = []
        for _ in range(times):
            tried.append(window.limit)
            if window.limit <= can:
                window.succeeded(window.limit)
            else:
                window.failed(window.limit)
        return tried

    def test_it_starts_small_and_doubles(self) -> None:
        assert self.attempt(Window(100), 1000, 6) == [FIRST, 16, 32, 64, 100, 100]

    def test_the_most_is_the_most(self) -> None:
        assert self.attempt(Window(1), 1000, 3) == [1, 1, 1]
        assert self.attempt(Window(5), 1000, 3) == [5, 5, 5]

    def test_it_settles_where_blocks_succeed(self) -> None:
        tried = self.attempt(Window(100), 50, 500)
        assert tried[:6] == [8, 16, 32, 64, 32, 33]
        failures = sum(size > 50 for size in tried)
        assert failures < len(tried) * 0.05
        assert sum(tried[100:]) / len(tried[100:]) > 0.7 * 50

    def test_blocks_that_are_not_full_say_nothing(self) -> None:
        window = Window(100)
        for _ in range(10):
            window.succeeded(7)
        assert window.limit == FIRST

    def test_an_outage_is_forgotten(self) -> None:
        """It fails single events as well, so that size was not to blame."""
        window = Window(100)
        self.attempt(window, 1000, 6)
        assert self.attempt(window, 0, 9) == [100, 50, 25, 12, 6, 3, 1, 1, 1]
        assert self.attempt(window, 1000, 9) == [1, 2, 4, 8, 16, 32, 64, 100, 100]


@pytest.mark.long
def test_a_receiver_that_is_slow_with_each_event() -> None:
    """It is not sent the same hundred events for ever: the endpoint finds out what it can take."""
    seen: list[int] = []

    def slow(connection: Connection, request: Request) -> bool:
        connection.receiver.closing.wait(0.005 * len(request.events))
        seen.append(len(request.events))
        return answer()(connection, request)

    with (
        Receiver(default=slow) as receiver,
        Endpoint("e", receiver.url(), timeout=0.15, threshold=10_000) as endpoint,
    ):
        endpoint.write_many(range(600))
        assert endpoint.flush(DEADLINE)
        metrics = endpoint.metrics
    assert (metrics.successes, metrics.dropped) == (600, 0)
    assert set(receiver.events) == set(range(600))
    # Of 30 or so requests that are answered, few are tried in vain, and none again and again.
    assert len(receiver.requests) < 60
    late = [size for size in sizes(receiver) if size > 30]
    assert len(late) <= len(receiver.requests) / 4
    assert sizes(receiver).count(100) == 0


def test_a_failure_halves_a_block(gate: Gate) -> None:
    with (
        Receiver(when(gate, answer()), answer(), answer(500)) as receiver,
        Endpoint("e", receiver.url(), backoff=0) as endpoint,
    ):
        endpoint.write("first")
        gate.wait_entered()
        endpoint.write_many(range(60))
        gate.open()
        assert endpoint.flush(DEADLINE)
        assert sizes(receiver) == [1, 8, 16, 8, 9, 10, 11, 12, 2]
        assert receiver.events == ["first", *range(8), *range(8, 24), *range(8, 60)]


def test_after_an_outage_blocks_grow_as_fast_as_ever(gate: Gate) -> None:
    with (
        Receiver(when(gate, hang_up), *[hang_up] * 9) as receiver,
        Endpoint("e", receiver.url(), backoff=0) as endpoint,
    ):
        endpoint.write_many(range(63))
        gate.open()
        assert endpoint.flush(DEADLINE)
        assert sizes(receiver)[10:] == [1, 2, 4, 8, 16, 32]


class TestBytes:
    def bodies(self, events: list[Any], gate: Gate, **options: Any) -> list[Request]:
        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), **options) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many(events)
            gate.open()
            assert endpoint.flush(DEADLINE)
            assert receiver.events == ["first", *events]
            assert endpoint.metrics.successes == len(events) + 1
            assert endpoint.metrics.errors == endpoint.metrics.failures == 0
            return receiver.requests[1:]

    def test_bodies_are_not_larger(self, gate: Gate) -> None:
        events = [{"n": n, "text": "x" * (n * 37 % 400)} for n in range(500)]
        requests = self.bodies(events, gate, batch_bytes=2000)
        lengths = [len(request.body) for request in requests]
        assert max(lengths) <= 2000
        assert sum(lengths) / len(lengths) > 1000  # nor much smaller than need be

    def test_an_event_that_is_too_large_goes_alone(self, gate: Gate) -> None:
        events = ["a", "b", "x" * 3000, "c", "d", "y" * 1001]
        requests = self.bodies(events, gate, batch_bytes=1000)
        assert ["x" * 3000] in [request.events for request in requests]
        for request in requests:
            assert len(request.body) <= 1000 or len(request.events) == 1

    def test_a_mebibyte_is_the_default(self, gate: Gate) -> None:
        events = ["x" * 300_000] * 8
        requests = self.bodies(events, gate)
        assert [len(request.events) for request in requests] == [3, 3, 2]

    def test_events_are_encoded_once_or_little_more(self, gate: Gate) -> None:
        class Counting(JSONEncoder):
            encoded = 0

            def encode(self, events: Any) -> bytes:
                self.encoded += len(events)
                return json.dumps({"events": list(events)}).encode()

        encoder = Counting(array=True)
        self.bodies(["x" * 100] * 1000, gate, batch_bytes=2000, encoder=encoder)
        assert encoder.encoded < 1100

    def test_the_body_that_was_measured_is_sent(self, gate: Gate) -> None:
        """A failing block is not encoded again for the attempt after the measuring."""

        class Counting(NDJSONEncoder):
            blocks: list[int] = []  # noqa: RUF012

            def encode(self, events: Any) -> bytes:
                self.blocks.append(len(events))
                return json.dumps({"events": list(events)}).encode()

        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), encoder=Counting()) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many(range(8))
            gate.open()
            assert endpoint.flush(DEADLINE)
        assert Counting.blocks == [1, 8]

    def test_what_cannot_be_encoded_harms_nobody_else(self, gate: Gate) -> None:
        lost, bad = Recorder(), object()
        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), batch_bytes=50, dead_letter=lost) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many([*range(20), bad, *range(20, 40)])
            gate.open()
            assert endpoint.flush(DEADLINE)
            assert receiver.events == ["first", *range(40)]
        assert lost.events == [bad]

    @pytest.mark.parametrize(("value", "error"), BAD_SIZES)
    def test_bad_limits(self, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="batch_bytes"):
            Endpoint("e", "http://127.0.0.1/", batch_bytes=value)


@pytest.mark.parametrize("encoder", [JSONEncoder(), CloudEventsEncoder()], ids=repr)
def test_an_encoder_that_takes_no_blocks(encoder: Any, receiver: Receiver) -> None:
    with Endpoint("e", receiver.url(), encoder=encoder) as endpoint:
        endpoint.write_many([{"n": n} for n in range(20)])
        assert endpoint.flush(DEADLINE)
    bodies = [json.loads(request.body) for request in receiver.requests]
    assert [body.get("data", body) for body in bodies] == [{"n": n} for n in range(20)]
    assert receiver.requests[0].header("Content-Type") == encoder.media_type
    assert receiver.connections == 1


def test_a_failure_among_single_events_repeats_that_one_alone() -> None:
    with (
        Receiver(answer(), answer(500)) as receiver,
        Endpoint("e", receiver.url(), encoder=JSONEncoder(), backoff=0) as endpoint,
    ):
        endpoint.write_many(range(4))
        assert endpoint.flush(DEADLINE)
    assert [json.loads(request.body) for request in receiver.requests] == [0, 1, 1, 2, 3]


def test_retry_after_max(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []

    class Asking(Breaker):
        def failure(self, event: Any, error: BaseException) -> bool:
            asked.append(getattr(error, "retry_after", None))
            return super().failure(event, error)

    with (
        Receiver(answer(429, "Retry-After: 1000")) as receiver,
        Endpoint("e", receiver.url(), retry_after_max=0.01, strategy=Asking(10, 0)) as endpoint,
    ):
        endpoint.write("event")
        assert endpoint.flush(DEADLINE)
    assert asked == [0.01]
    assert len(receiver.requests) == 2
