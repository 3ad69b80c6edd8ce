"""Endpoint: the whole pipeline, its metrics, the list of open endpoints, its close."""

from __future__ import annotations

import json
import ssl
import time
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
import trustme
from support import (
    BAD_SECONDS,
    BAD_SIZES,
    DEADLINE,
    LONG,
    Gate,
    Recorder,
    Task,
    eventually,
)
from support.receiver import (
    Connection,
    Receiver,
    Request,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    hang_up,
    reset,
    stall,
    when,
)

import fastsinks
from fastsinks import Breaker, Broadcaster, CloseTimeoutError, QueueFullError, SinkClosedError
from fastsinks.endpoint import Endpoint, EndpointMetrics
from fastsinks.events import Target, new_event


def settled(endpoint: Endpoint) -> EndpointMetrics:
    """The metrics once all is finished; then the ledger adds up."""
    assert endpoint.flush(DEADLINE)
    metrics = endpoint.metrics
    assert metrics.pending == 0
    assert metrics.events == metrics.successes + metrics.dropped, metrics
    return metrics


class TestDelivery:
    def test_everything_arrives_in_order(self, receiver: Receiver) -> None:
        with Endpoint("here", receiver.url()) as endpoint:
            for i in range(1000):
                endpoint.write(i)
            endpoint.write_many(range(1000, 1250))
            assert endpoint.flush(DEADLINE)
        assert receiver.events == list(range(1250))
        assert receiver.connections == 1

    def test_pending_events_share_requests(self, gate: Gate) -> None:
        """While the first is under way, the others gather. Blocks grow while they succeed."""
        with Receiver(when(gate, answer())) as receiver, Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many(range(250))
            gate.open()
            assert endpoint.flush(DEADLINE)
            assert [len(request.events) for request in receiver.requests] == [
                *[1, 8, 16, 32, 44],
                *[64, 36],
                50,
            ]
            assert endpoint.requests == 8

    def test_batch_size(self, gate: Gate) -> None:
        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), batch_size=1) as endpoint,
        ):
            endpoint.write_many(range(5))
            gate.open()
            assert endpoint.flush(DEADLINE)
            assert [request.events for request in receiver.requests] == [[i] for i in range(5)]

    def test_linger_waits_for_company(self, receiver: Receiver) -> None:
        with Endpoint("e", receiver.url(), linger=LONG, batch_size=3) as endpoint:
            for i in range(4):
                endpoint.write(i)
            assert receiver.wait(1)[0].events == [0, 1, 2]
            assert endpoint.flush(DEADLINE)
        assert receiver.requests[1].events == [3]

    def test_any_json_able_event(self, receiver: Receiver) -> None:
        event = new_event("push", repository="library/app")
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write_many([event, {"a": 1}, "text", None])
            assert endpoint.flush(DEADLINE)
        assert receiver.events[0]["id"] == event.id
        assert receiver.events[1:] == [{"a": 1}, "text", None]

    def test_publishing_never_waits_for_delivery(self) -> None:
        with (
            Receiver(default=stall()) as stuck,
            Receiver() as good,
            Endpoint("stuck", stuck.url(), timeout=LONG, close_timeout=0) as first,
            Endpoint("good", good.url()) as second,
        ):
            both = Broadcaster(first, second)
            start = time.monotonic()
            for i in range(1000):
                both.write(i)
            assert second.flush(DEADLINE)
            assert time.monotonic() - start < 5
            assert good.events == list(range(1000))
            assert first.metrics.pending == 1000
            with pytest.raises(CloseTimeoutError):
                first.close()

    def test_options_reach_the_request(self) -> None:
        authority = trustme.CA()
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)

        class Lines:
            media_type = "application/x-ndjson"

            def encode(self, events: Sequence[Any]) -> bytes:
                return b"\n".join(json.dumps(event).encode() for event in events)

        with (
            Receiver(tls=server) as receiver,
            Endpoint(
                "e",
                receiver.url(userinfo="user:pass"),
                headers={"X-A": ["1", "2"]},
                encoder=Lines(),
                signer=lambda body: {"X-Length": str(len(body))},
                ssl_context=trusting,
            ) as endpoint,
        ):
            endpoint.write("event")
            assert endpoint.flush(DEADLINE)
            (request,) = receiver.requests
        assert request.body == b'"event"'
        assert request.header("Content-Type") == "application/x-ndjson"
        assert request.all("X-A") == ["1", "2"]
        assert request.header("X-Length") == "7"
        assert (request.header("Authorization") or "").startswith("Basic ")


class TestIgnoring:
    def test_media_types_and_actions(self, receiver: Receiver) -> None:
        with Endpoint(
            "e",
            receiver.url(),
            ignore_media_types=["application/octet-stream"],
            ignore_actions=["pull", "mount"],
        ) as endpoint:
            kept = new_event("push", Target(media_type="a/b"))
            for event in (
                new_event("push", Target(media_type="application/octet-stream")),
                new_event("pull", Target(media_type="a/b")),
                {"action": "mount"},
                {"action": "push", "target": {"mediaType": "application/octet-stream"}},
                kept,
            ):
                endpoint.write(event)
            endpoint.write_many([{"action": "pull"}, {"action": "push"}])
            metrics = settled(endpoint)
            assert endpoint.ignore_media_types == ("application/octet-stream",)
            assert endpoint.ignore_actions == ("pull", "mount")
        assert [event.get("id") for event in receiver.events] == [kept.id, None]
        assert metrics.events == metrics.successes == 2

    def test_the_filter_closes_what_is_behind_it(self, receiver: Receiver) -> None:
        endpoint = Endpoint("e", receiver.url(), ignore_actions=["pull"])
        endpoint.write({"action": "push"})
        endpoint.close()
        assert receiver.events == [{"action": "push"}]
        receiver.wait_no_connection()
        assert endpoint.closed
        with pytest.raises(SinkClosedError):
            endpoint.write({"action": "push"})

    @pytest.mark.parametrize("option", ["ignore_media_types", "ignore_actions"])
    @pytest.mark.parametrize("value", ["pull", b"pull", [1], 3])
    def test_what_is_no_list_of_strings(self, option: str, value: Any) -> None:
        with pytest.raises(TypeError):
            Endpoint("e", "http://127.0.0.1/", **{option: value})


class TestRetries:
    def test_until_it_is_accepted(self) -> None:
        with (
            Receiver(answer(500), reset, answer(503), hang_up) as receiver,
            Endpoint("e", receiver.url(), backoff=0.01) as endpoint,
        ):
            endpoint.write({"id": 1})
            metrics = settled(endpoint)
            assert len({request.body for request in receiver.requests}) == 1
        assert metrics.successes == 1
        assert metrics.failures == 2
        # One of the two that got no answer may have ended a connection that was used before.
        assert metrics.errors + metrics.failures == metrics.retries
        assert metrics.statuses == {
            "500 Internal Server Error": 1,
            "503 Service Unavailable": 1,
            "200 OK": 1,
        }

    def test_the_body_is_encoded_once(self) -> None:
        class Counting:
            media_type = "application/json"
            calls = 0

            def encode(self, events: Sequence[Any]) -> bytes:
                self.calls += 1
                return json.dumps(list(events)).encode()

        encoder = Counting()
        with (
            Receiver(answer(500), answer(500), answer(500)) as receiver,
            Endpoint("e", receiver.url(), backoff=0, encoder=encoder, batch_size=1) as endpoint,
        ):
            endpoint.write("event")
            settled(endpoint)
            assert len(receiver.requests) == 4
        assert encoder.calls == 1

    def test_the_breaker_is_the_default(self) -> None:
        """Two failures without a wait, then one that is not sat out."""
        with Receiver(default=answer(500)) as receiver:
            endpoint = Endpoint("e", receiver.url(), threshold=2, backoff=LONG, close_timeout=0)
            endpoint.write("event")
            receiver.wait(2)
            eventually(lambda: endpoint.metrics.retries == 2)
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close()
            assert caught.value.undelivered == ["event"]
            assert len(receiver.requests) == 2

    def test_a_strategy_of_ones_own(self) -> None:
        lost = Recorder()
        with (
            Receiver(default=answer(500)) as receiver,
            Endpoint(
                "e",
                receiver.url(),
                strategy=Breaker(10, 0, max_attempts=3),
                dead_letter=lost,
                batch_size=1,
            ) as endpoint,
        ):
            endpoint.write("event")
            metrics = settled(endpoint)
            assert len(receiver.requests) == 3
        assert (metrics.dropped, metrics.failures, metrics.retries) == (1, 3, 2)
        assert lost.events == ["event"]
        assert lost.closes == 0

    def test_retry_after_is_waited_for(self) -> None:
        with (
            Receiver(answer(503, "Retry-After: 0.2")) as receiver,
            Endpoint("e", receiver.url(), backoff=0) as endpoint,
        ):
            start = time.monotonic()
            endpoint.write("event")
            settled(endpoint)
            assert time.monotonic() - start >= 0.2

    def test_one_bad_event_does_not_harm_its_neighbours(self, gate: Gate) -> None:
        lost = Recorder()
        bad = object()
        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), dead_letter=lost) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            events = [*range(20), bad, *range(20, 40)]
            endpoint.write_many(events)
            gate.open()
            metrics = settled(endpoint)
            assert receiver.events == ["first", *range(40)]
        assert lost.events == [bad]
        assert metrics.dropped == 1
        assert metrics.failures == 0
        assert metrics.errors > 0

    def test_an_event_that_the_receiver_refuses(self, gate: Gate) -> None:
        def picky(connection: Connection, request: Request) -> bool:
            return answer(400 if "poison" in request.events else 200)(connection, request)

        lost = Recorder()
        with (
            Receiver(when(gate, answer()), default=picky) as receiver,
            Endpoint(
                "e",
                receiver.url(),
                strategy=Breaker(1000, 0, max_attempts=5),
                dead_letter=lost,
            ) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many([*range(10), "poison", *range(10, 20)])
            gate.open()
            metrics = settled(endpoint)
            accepted = [
                event
                for request in receiver.requests
                if "poison" not in request.events
                for event in request.events
            ]
        assert accepted == ["first", *range(20)]
        assert lost.events == ["poison"]
        assert metrics.statuses["200 OK"] == 21


class TestBounds:
    def full(self, receiver: Receiver, gate: Gate, **options: Any) -> Endpoint:
        endpoint = Endpoint("e", receiver.url(), maxsize=2, batch_size=1, **options)
        endpoint.write("first")
        gate.wait_entered()
        endpoint.write("second")
        return endpoint

    def test_raise(self, gate: Gate) -> None:
        with (
            Receiver(when(gate, answer())) as receiver,
            self.full(receiver, gate, when_full="raise") as endpoint,
        ):
            with pytest.raises(QueueFullError):
                endpoint.write("third")
            gate.open()
            assert settled(endpoint).events == 2

    def test_block(self, gate: Gate) -> None:
        with (
            Receiver(when(gate, answer())) as receiver,
            self.full(receiver, gate) as endpoint,
        ):
            task = Task(endpoint.write, "third").blocked()
            gate.open()
            task.result()
            assert settled(endpoint).events == 3

    @pytest.mark.parametrize(
        ("when_full", "lost"), [("drop_newest", "third"), ("drop_oldest", "second")]
    )
    def test_what_is_discarded_is_counted(self, gate: Gate, when_full: str, lost: str) -> None:
        dead_letter = Recorder()
        with (
            Receiver(when(gate, answer())) as receiver,
            self.full(receiver, gate, when_full=when_full, dead_letter=dead_letter) as endpoint,
        ):
            endpoint.write("third")
            gate.open()
            metrics = settled(endpoint)
            assert (metrics.events, metrics.successes, metrics.dropped) == (3, 2, 1)
            assert dead_letter.events == [lost]


class TestMetrics:
    def test_a_new_endpoint(self, receiver: Receiver) -> None:
        with Endpoint("e", receiver.url()) as endpoint:
            metrics = endpoint.metrics
            assert metrics == EndpointMetrics(0, 0, 0, 0, 0, 0, 0, {})
            assert metrics._fields == (
                "pending",
                "events",
                "successes",
                "failures",
                "errors",
                "dropped",
                "retries",
                "statuses",
            )

    def test_they_count_events(self, gate: Gate) -> None:
        with (
            Receiver(when(gate, answer()), answer(500), reset) as receiver,
            Endpoint("e", receiver.url(), strategy=Breaker(1000, 0)) as endpoint,
        ):
            endpoint.write("first")
            gate.wait_entered()
            endpoint.write_many(range(8))
            assert endpoint.metrics[:3] == (9, 9, 0)
            gate.open()
            metrics = settled(endpoint)
        # Refused as a block of eight; then one of four got no answer.
        assert metrics.statuses == {"200 OK": 9, "500 Internal Server Error": 8}
        assert (metrics.successes, metrics.failures, metrics.errors) == (9, 8, 4)
        assert metrics.retries == 12

    def test_a_snapshot_stays_as_it_is(self, receiver: Receiver) -> None:
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("event")
            before = settled(endpoint)
            before.statuses["made up"] = 1
            endpoint.write("event")
            settled(endpoint)
            assert before.successes == 1
            assert endpoint.metrics.statuses == {"200 OK": 2}

    def test_they_outlive_the_endpoint(self, receiver: Receiver) -> None:
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("event")
        assert endpoint.metrics == EndpointMetrics(0, 1, 1, 0, 0, 0, 0, {"200 OK": 1})


class TestShowing:
    def test_names_and_numbers(self, receiver: Receiver) -> None:
        with Endpoint(
            "here", receiver.url(), timeout=7, threshold=3, backoff=0.5, close_timeout=2
        ) as endpoint:
            assert isinstance(endpoint, fastsinks.Sink)
            assert (endpoint.name, endpoint.url) == ("here", receiver.url())
            assert (endpoint.timeout, endpoint.threshold, endpoint.backoff) == (7, 3, 0.5)
            assert endpoint.close_timeout == 2
            assert (endpoint.ignore_media_types, endpoint.ignore_actions) == ((), ())
            assert endpoint.headers == {}
            assert "here" in repr(endpoint)

    def test_no_secrets(self, caplog: pytest.LogCaptureFixture) -> None:
        with Receiver(default=answer(401)) as receiver:
            endpoint = Endpoint(
                "e",
                receiver.url(userinfo="user:s3cret"),
                headers={"Authorization": "Bearer s3cret", "X-Keys": ["s3cret", "s3cret"]},
                backoff=0,
                close_timeout=0,
            )
            endpoint.write("s3cret")
            receiver.wait(3)
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close()
            assert endpoint.url == receiver.url()
            assert endpoint.headers == {
                "Authorization": ["[redacted]"],
                "X-Keys": ["[redacted]", "[redacted]"],
            }
            shown = [repr(endpoint), str(endpoint.metrics), caplog.text]
            shown.append("".join(traceback.format_exception(caught.value)))
            for text in shown:
                assert "s3cret" not in text


class TestConstruction:
    @pytest.mark.parametrize("name", [None, 3, b"e"])
    def test_names(self, name: Any) -> None:
        with pytest.raises(TypeError, match="name"):
            Endpoint(name, "http://127.0.0.1/")

    @pytest.mark.parametrize("option", ["timeout", "backoff", "linger", "close_timeout"])
    @pytest.mark.parametrize(("value", "error"), BAD_SECONDS)
    def test_durations(self, option: str, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=option):
            Endpoint("e", "http://127.0.0.1/", **{option: value})

    @pytest.mark.parametrize("option", ["threshold", "batch_size", "maxsize"])
    @pytest.mark.parametrize(("value", "error"), BAD_SIZES)
    def test_sizes(self, option: str, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match=option):
            Endpoint("e", "http://127.0.0.1/", **{option: value})

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({"url": "ftp://127.0.0.1/"}, ValueError),
            ({"headers": {"X": "a\r\nb"}}, ValueError),
            ({"headers": "X: a"}, TypeError),
            ({"when_full": "panic"}, ValueError),
            ({"batch_size": 0}, ValueError),
            ({"strategy": object()}, TypeError),
            ({"dead_letter": object()}, TypeError),
            ({"encoder": object()}, TypeError),
            ({"signer": 3}, TypeError),
            ({"ssl_context": "tls"}, TypeError),
        ],
    )
    def test_everything_else(self, options: dict[str, Any], error: type[Exception]) -> None:
        with pytest.raises(error):
            Endpoint("e", **{"url": "http://127.0.0.1/", **options})

    def test_options_are_keyword_only(self) -> None:
        with pytest.raises(TypeError):
            Endpoint("e", "http://127.0.0.1/", 1.0)  # type: ignore[misc]


class TestSubclasses:
    def test_a_write_of_its_own_is_used(self, receiver: Receiver) -> None:
        class Tagging(Endpoint):
            def write(self, event: Any) -> None:
                super().write([self.name, event])

        with Tagging("tag", receiver.url()) as endpoint:
            endpoint.write("one")
            endpoint.write_many(["two"])
            assert endpoint.flush(DEADLINE)
        assert receiver.events == [["tag", "one"], "two"]

    def test_a_write_many_of_its_own_is_used(self, receiver: Receiver) -> None:
        class Doubling(Endpoint):
            def write_many(self, events: Any) -> None:
                super().write_many([*events, *events])

        with Doubling("e", receiver.url()) as endpoint:
            endpoint.write("one")
            endpoint.write_many(["two"])
            Broadcaster(endpoint).write_many(["three", "four"])
            assert endpoint.flush(DEADLINE)
        assert receiver.events == ["one", "two", "two", *["three", "four"] * 2]
