"""HTTPSink: what it is made of, and what it refuses to be made of. No secret is ever shown."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Sequence
from typing import Any

import pytest
from support import BAD_SECONDS
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    refused,
    reset,
)

import fastsinks
from fastsinks import DeliveryError, Queue
from fastsinks.encoders import JSONEncoder
from fastsinks.events import EVENTS_MEDIA_TYPE
from fastsinks.http import HTTPSink


class TestHeaders:
    def test_strings_and_lists(self, receiver: Receiver) -> None:
        headers = {"X-One": "1", "X-Many": ["a", "b, c", "a"], "X-Tuple": ("t",), "X-Empty": ""}
        with HTTPSink(receiver.url(), headers=headers) as sink:
            sink.write("event")
        (request,) = receiver.requests
        assert request.header("X-One") == "1"
        assert request.all("X-Many") == ["a", "b, c", "a"]
        assert request.all("X-Tuple") == ["t"]
        assert request.all("X-Empty") == [""]

    @pytest.mark.parametrize(
        "headers",
        [
            {"content-type": "a/b", "USER-AGENT": "me", "host": "other", "accept-encoding": "x"},
            {
                "CONTENT-Type": ["a/b"],
                "user-Agent": ["me"],
                "Host": ["other"],
                "Accept-Encoding": "x",
                "X-Two": ["1", "2"],
            },
        ],
    )
    def test_defaults_are_overridden_in_any_case(
        self, receiver: Receiver, headers: dict[str, Any]
    ) -> None:
        with HTTPSink(receiver.url(), headers=headers) as sink:
            sink.write("event")
        (request,) = receiver.requests
        for name, value in [
            ("Content-Type", "a/b"),
            ("User-Agent", "me"),
            ("Host", "other"),
            ("Accept-Encoding", "x"),
        ]:
            assert request.header(name) == value

    def test_names_that_differ_in_case_are_one_header(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), headers={"X-A": "1", "x-a": "2"}) as sink:
            sink.write("event")
        assert receiver.requests[0].all("X-A") == ["1", "2"]

    def test_they_are_copied(self, receiver: Receiver) -> None:
        headers = {"X-A": ["1"]}
        with HTTPSink(receiver.url(), headers=headers) as sink:
            headers["X-A"].append("2")
            headers["X-B"] = ["3"]
            sink.write("event")
        assert receiver.requests[0].all("X-A") == ["1"]
        assert receiver.requests[0].all("X-B") == []

    @pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nX-Evil: 1", "\r\n", "a\r\n b", "a\0b"])
    def test_line_ends_are_refused(self, text: str) -> None:
        for headers in (
            {"X-Token": f"s3cret{text}"},
            {"X-Token": ["fine", f"s3cret{text}"]},
        ):
            with pytest.raises(ValueError, match="X-Token") as caught:
                HTTPSink("http://127.0.0.1/", headers=headers)  # type: ignore[arg-type]
            assert "s3cret" not in str(caught.value)
        with pytest.raises(ValueError):
            HTTPSink("http://127.0.0.1/", headers={text: "value"})

    @pytest.mark.parametrize("name", ["", "a b", "a:", ":a", "\u00e4", "a\t"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ValueError, match="header name"):
            HTTPSink("http://127.0.0.1/", headers={name: "value"})

    @pytest.mark.parametrize("name", ["Content-Length", "TRANSFER-ENCODING"])
    def test_framing_is_not_configurable(self, name: str) -> None:
        with pytest.raises(ValueError, match=name):
            HTTPSink("http://127.0.0.1/", headers={name: "1"})

    @pytest.mark.parametrize(
        "headers",
        [
            {"X": 1},
            {"X": None},
            {"X": b"s3cret"},
            {"X": ["a", b"s3cret"]},
            {1: "a"},
            {b"X": "a"},
            [("X", "a")],
            "X: a",
        ],
    )
    def test_wrong_types(self, headers: Any) -> None:
        with pytest.raises(TypeError) as caught:
            HTTPSink("http://127.0.0.1/", headers=headers)
        assert "s3cret" not in str(caught.value)

    def test_a_list_without_values(self) -> None:
        with pytest.raises(ValueError, match="X"):
            HTTPSink("http://127.0.0.1/", headers={"X": []})

    def test_values_that_http_cannot_carry(self) -> None:
        with pytest.raises(ValueError, match="X") as caught:
            HTTPSink("http://127.0.0.1/", headers={"X": "s3cret\u20ac"})
        assert "s3cret" not in str(caught.value)


class TestConstruction:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "127.0.0.1:80",
            "localhost:80/events",
            "//127.0.0.1/",
            "/events",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "ws://127.0.0.1/",
            "javascript://alert",
            "http:",
            "http://",
            "http:///events",
            "https://:443/",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:65536/",
            "http://127.0.0.1:x/",
            "http://[::1/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/\r\nX-Evil: 1",
            "http://127.0.0.1\n/",
            " http://127.0.0.1/",
            "http://127.0.0.1/\x7f",
        ],
    )
    def test_urls_that_are_none_of_ours(self, url: str) -> None:
        with pytest.raises(ValueError, match="URL"):
            HTTPSink(url)

    @pytest.mark.parametrize("url", [None, b"http://127.0.0.1/", 3])
    def test_urls_of_the_wrong_type(self, url: Any) -> None:
        with pytest.raises(TypeError):
            HTTPSink(url)

    @pytest.mark.parametrize(
        "url",
        [
            "http://user:s3cret@127.0.0.1:x/",
            "http://user:s3cret@/",
            "http://user:s3/cret@127.0.0.1:x/",
            "ftp://user:s3cret@127.0.0.1/",
            "http://user:s3cret@127.0.0.1/a b",
            "http://user:s3cret@127.0.0.1:0/",
        ],
    )
    def test_complaints_about_urls_show_no_password(self, url: str) -> None:
        with pytest.raises(ValueError) as caught:
            HTTPSink(url)
        text = "".join(traceback.format_exception(caught.value))
        text = text.replace(f'HTTPSink("{url}")', "")
        assert "s3cret" not in text
        assert "s3/cret" not in text

    @pytest.mark.parametrize(
        ("timeout", "error"), [*BAD_SECONDS, (0, ValueError), (0.0, ValueError)]
    )
    def test_timeouts(self, timeout: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="timeout"):
            HTTPSink("http://127.0.0.1/", timeout=timeout)

    @pytest.mark.parametrize("timeout", [None, float("inf")])
    def test_there_is_always_a_deadline(self, timeout: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="timeout"):
            HTTPSink("http://127.0.0.1/", timeout=timeout)

    def test_very_long_timeouts(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), timeout=1e300) as sink:
            sink.write("event")

    @pytest.mark.parametrize(
        "options",
        [
            {"encoder": object()},
            {"encoder": EVENTS_MEDIA_TYPE},
            {"signer": "secret"},
            {"ssl_context": True},
            {"listeners": [object()]},
            {"listeners": 3},
        ],
    )
    def test_collaborators_of_the_wrong_type(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            HTTPSink("http://127.0.0.1/", **options)

    def test_options_are_keyword_only(self) -> None:
        with pytest.raises(TypeError):
            HTTPSink("http://127.0.0.1/", 1.0)  # type: ignore[misc]

    def test_it_is_a_sink(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), timeout=7) as sink:
            assert isinstance(sink, fastsinks.Sink)
            assert sink.timeout == 7
            assert not sink.closed
        assert sink.closed


class TestCredentials:
    def test_of_the_url_become_a_header_and_are_shown_nowhere(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with (
            Receiver(answer(), answer(401), reset) as receiver,
            HTTPSink(receiver.url(userinfo="us%65r:s3%3Acret")) as sink,
        ):
            sink.write("event")
            authorization = receiver.requests[0].header("Authorization")
            assert authorization == "Basic " + base64.b64encode(b"user:s3:cret").decode()
            assert sink.url == receiver.url()
            shown = [repr(sink), str(sink), sink.url]
            shown += ["".join(traceback.format_exception(refused(sink))) for _ in range(2)]
            shown.append(caplog.text)
            for text in shown:
                assert "cret" not in text
                assert authorization.split()[1] not in text

    def test_a_name_alone(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(userinfo="t\u00f6ken")) as sink:
            sink.write("event")
        expected = base64.b64encode("t\u00f6ken:".encode()).decode()
        assert receiver.requests[0].header("Authorization") == f"Basic {expected}"

    def test_a_configured_header_takes_their_place(self, receiver: Receiver) -> None:
        with HTTPSink(
            receiver.url(userinfo="user:pass"), headers={"authorization": "Bearer t"}
        ) as sink:
            sink.write("event")
        assert receiver.requests[0].all("Authorization") == ["Bearer t"]

    def test_header_values_are_shown_nowhere(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        with (
            Receiver(answer(403), reset) as receiver,
            HTTPSink(receiver.url(), headers={"Authorization": "Bearer s3cret"}) as sink,
        ):
            assert "s3cret" not in repr(sink)
            for _ in range(2):
                assert "s3cret" not in "".join(traceback.format_exception(refused(sink)))
        assert "s3cret" not in caplog.text


class TestEncoding:
    @pytest.mark.parametrize("event", [object(), "\ud800", {"a": 1j}, {("a",): 1}])
    def test_what_cannot_be_encoded_is_refused_for_good(
        self, receiver: Receiver, event: Any
    ) -> None:
        with HTTPSink(receiver.url()) as sink:
            error = refused(sink, event)
            assert (error.status, error.permanent) == (None, True)
            assert type(event).__name__ in str(error)
            with pytest.raises(DeliveryError) as caught:
                sink.write_many(["good", event, "good"])
            assert caught.value.permanent
            sink.write("fine")
        assert [request.events for request in receiver.requests] == [["fine"]]

    def test_custom_encoders(self, receiver: Receiver) -> None:
        class Lines:
            media_type = "application/x-ndjson"

            def encode(self, events: Sequence[Any]) -> bytes:
                return b"".join(json.dumps(event).encode() + b"\n" for event in events)

        with HTTPSink(receiver.url(), encoder=Lines()) as sink:
            sink.write_many([1, "two"])
            with pytest.raises(DeliveryError, match="Lines cannot encode int, object") as caught:
                sink.write_many([1, object()])
            assert caught.value.permanent
        assert receiver.requests[0].body == b'1\n"two"\n'
        assert receiver.requests[0].header("Content-Type") == "application/x-ndjson"

    def test_an_encoder_of_something_else(self, receiver: Receiver) -> None:
        class Text:
            media_type = "text/plain"

            def encode(self, events: Sequence[Any]) -> Any:
                return "text"

        with HTTPSink(receiver.url(), encoder=Text()) as sink:
            assert refused(sink).permanent
        assert receiver.connections == 0

    def test_one_that_takes_no_blocks(self, receiver: Receiver) -> None:
        """A request for each event, up to the first that fails."""
        with HTTPSink(receiver.url(), encoder=JSONEncoder()) as sink:
            assert not sink.takes_blocks
            sink.write_many([1, 2])
            sink.write_many(iter([]))
            receiver.then(answer(), answer(500))
            with pytest.raises(DeliveryError):
                sink.write_many([3, 4, 5])
        assert [request.body for request in receiver.requests] == [b"1", b"2", b"3", b"4"]
        assert receiver.requests[0].header("Content-Type") == "application/json"

    def test_a_queue_gives_it_one_event_at_a_time(self, receiver: Receiver) -> None:
        with Queue(HTTPSink(receiver.url(), encoder=JSONEncoder()), batch_size=10) as queue:
            queue.write_many(range(5))
        assert [request.body for request in receiver.requests] == [b"0", b"1", b"2", b"3", b"4"]

    def test_one_that_does_not_say_takes_blocks(self) -> None:
        with HTTPSink("http://127.0.0.1/", encoder=CountingEncoder()) as sink:
            assert sink.takes_blocks

    def test_a_media_type_with_a_line_end(self) -> None:
        class Evil:
            media_type = "a/b\r\nX-Evil: 1"

            def encode(self, events: Sequence[Any]) -> bytes:
                return b""

        with pytest.raises(ValueError, match="media_type"):
            HTTPSink("http://127.0.0.1/", encoder=Evil())

    def test_the_contents_of_events_are_in_no_error(
        self, receiver: Receiver, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Telltale:
            media_type = "a/b"

            def encode(self, events: Sequence[Any]) -> bytes:
                raise ValueError(f"cannot encode {events}")

        caplog.set_level(logging.DEBUG)
        with HTTPSink(receiver.url(), encoder=Telltale()) as sink:
            error = refused(sink, "s3cret")
        text = "".join(traceback.format_exception(error)) + caplog.text
        assert "s3cret" not in text.replace('"s3cret"', "")


class CountingEncoder:
    media_type = "application/json"

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, events: Sequence[Any]) -> bytes:
        self.calls += 1
        return json.dumps([self.calls, list(events)]).encode()


class TestRepetition:
    def test_a_repeated_write_sends_the_same_bytes(self) -> None:
        encoder = CountingEncoder()
        block = [{"id": 1}, {"id": 2}]
        with (
            Receiver(answer(500), reset, answer(503)) as receiver,
            HTTPSink(receiver.url(), encoder=encoder) as sink,
        ):
            for _ in range(3):
                with pytest.raises(DeliveryError):
                    sink.write_many(list(block))
            sink.write_many(block)
            assert encoder.calls == 1
            assert {request.body for request in receiver.requests} == {
                b'[1, [{"id": 1}, {"id": 2}]]'
            }
            assert len(receiver.requests) == 4

    def test_after_a_success_nothing_is_remembered(self) -> None:
        encoder = CountingEncoder()
        event = {"id": 1}
        with Receiver() as receiver, HTTPSink(receiver.url(), encoder=encoder) as sink:
            sink.write(event)
            event["id"] = 2
            sink.write(event)
            assert receiver.requests[1].body == b'[2, [{"id": 2}]]'

    def test_equal_is_not_the_same(self) -> None:
        encoder = CountingEncoder()
        with Receiver(answer(500)) as receiver, HTTPSink(receiver.url(), encoder=encoder) as sink:
            with pytest.raises(DeliveryError):
                sink.write_many([True, {"id": 1}])
            sink.write_many([1, {"id": 1}])
            assert encoder.calls == 2

    def test_a_piece_of_a_block_is_not_the_block(self) -> None:
        block = [{"id": 1}, {"id": 2}]
        with Receiver(answer(500)) as receiver, HTTPSink(receiver.url()) as sink:
            with pytest.raises(DeliveryError):
                sink.write_many(block)
            sink.write_many(block[:1])
            sink.write_many(block[1:])
            assert [request.events for request in receiver.requests] == [
                block,
                block[:1],
                block[1:],
            ]


class TestSigner:
    def test_it_signs_the_bytes_that_are_sent(self) -> None:
        seen: list[bytes] = []

        def sign(body: bytes) -> dict[str, str | list[str]]:
            seen.append(body)
            return {"X-Signature": f"v{len(seen)}", "content-type": "a/b", "X-Two": ["1", "2"]}

        with (
            Receiver(answer(500)) as receiver,
            HTTPSink(receiver.url(), headers={"X-Own": "own"}, signer=sign) as sink,
        ):
            refused(sink)
            sink.write("event")
            first, second = receiver.requests
        assert seen == [first.body, second.body]
        assert first.header("X-Signature") == "v1"
        assert second.header("X-Signature") == "v2"
        assert second.header("Content-Type") == "a/b"
        assert second.all("X-Two") == ["1", "2"]
        assert second.header("X-Own") == "own"

    @pytest.mark.parametrize(
        "made", [{"X": "s3cret\r\nX-Evil: 1"}, {"X": 3}, None, "s3cret", ValueError("s3cret")]
    )
    def test_one_that_goes_wrong(self, receiver: Receiver, made: Any) -> None:
        def sign(body: bytes) -> Any:
            if isinstance(made, Exception):
                raise made
            return made

        with HTTPSink(receiver.url(), signer=sign) as sink:
            error = refused(sink)
            assert (error.status, error.permanent) == (None, False)
            assert "signer" in str(error)
            text = "".join(traceback.format_exception(error))
            assert "s3cret" not in text
        assert receiver.connections == 0
