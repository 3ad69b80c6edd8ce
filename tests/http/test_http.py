"""HTTPSink: what goes over the wire, and what each answer means."""

from __future__ import annotations

import dataclasses
import email.utils
import logging
import re
import socket
import time
from typing import Any

import pytest
from support import BAD_SECONDS, together
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    hang_up,
    raw,
    redirect,
    refused,
    reset,
)

from fastsinks import DeliveryError, SinkClosedError
from fastsinks.events import EVENTS_MEDIA_TYPE, new_event
from fastsinks.http import HTTPSink


class Witness:
    """A listener that notes everything."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def success(self, status: int, event: Any) -> None:
        self.calls.append(("success", status, event))

    def failure(self, status: int, event: Any) -> None:
        self.calls.append(("failure", status, event))

    def error(self, exc: Exception, event: Any) -> None:
        self.calls.append(("error", exc, event))


class TestRequest:
    def test_one_event_is_one_post(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url("/a%20b/c?d=e&f")) as sink:
            sink.write({"id": 1})
        (request,) = receiver.requests
        assert request.line == "POST /a%20b/c?d=e&f HTTP/1.1"
        assert request.body == b'{"events":[{"id":1}]}'
        assert request.header("Host") == f"127.0.0.1:{receiver.port}"
        assert request.header("Content-Type") == EVENTS_MEDIA_TYPE
        assert request.header("Content-Length") == str(len(request.body))
        assert re.fullmatch(r"fastsinks/\d[\w.+]*", request.header("User-Agent") or "")
        assert request.header("Accept-Encoding") == "identity"
        assert request.header("Authorization") is None
        assert request.header("Transfer-Encoding") is None

    def test_a_block_is_one_post(self, receiver: Receiver) -> None:
        event = new_event("push", repository="library/app")
        with HTTPSink(receiver.url()) as sink:
            sink.write_many([event, {"a": 1}, "text"])
            sink.write_many(iter(["from", "an iterator"]))
        assert len(receiver.requests) == 2
        assert [
            e if isinstance(e, str) else e.get("id", e) for e in receiver.requests[0].events
        ] == [
            event.id,
            {"a": 1},
            "text",
        ]
        assert receiver.requests[1].events == ["from", "an iterator"]

    def test_an_empty_block_is_nothing(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url()) as sink:
            sink.write_many([])
            assert sink.requests == 0
        assert receiver.connections == 0

    def test_a_url_without_a_path(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.origin + "?q#fragment") as sink:
            sink.write("event")
            assert sink.url == receiver.origin + "?q"
        assert receiver.requests[0].path == "/?q"

    def test_ipv6(self) -> None:
        if not socket.has_ipv6:
            return
        with Receiver(host="::1") as receiver, HTTPSink(receiver.url()) as sink:
            sink.write("event")
            assert receiver.requests[0].header("Host") == f"[::1]:{receiver.port}"

    def test_a_name_with_several_addresses(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next address is tried when no receiver listens at the first."""
        genuine = socket.getaddrinfo
        with socket.create_server(("127.0.0.1", 0)) as listener:
            dead = listener.getsockname()[1]

        def lookup(host: str, port: int, *args: Any) -> Any:
            if host == "both.test" and socket.AI_NUMERICHOST not in args:
                return [a for p in (dead, port) for a in genuine("127.0.0.1", p, *args)]
            return genuine(host, port, *args)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        with HTTPSink(f"http://both.test:{receiver.port}/") as sink:
            sink.write("event")
        assert receiver.requests[0].header("Host") == f"both.test:{receiver.port}"

    def test_proxies_of_the_environment_are_not_used(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1/")
        with HTTPSink(receiver.url()) as sink:
            sink.write("event")
        assert receiver.requests[0].line == "POST /events HTTP/1.1"


class TestKeepAlive:
    def test_twenty_writes_need_one_connection(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url()) as sink:
            for i in range(20):
                sink.write(i)
            assert sink.requests == 20
        assert [request.events for request in receiver.requests] == [[i] for i in range(20)]
        assert receiver.connections == 1

    @pytest.mark.parametrize(
        "status_line", ["200 OK", "500 Oops", "404", "204 No Content", "304 Not Modified"]
    )
    def test_after_any_answer(self, status_line: str) -> None:
        with Receiver(answer(status_line)) as receiver, HTTPSink(receiver.url()) as sink:
            try:
                sink.write("first")
            except DeliveryError:
                pass
            sink.write("second")
            assert receiver.connections == 1

    def test_after_a_body_however_framed(self) -> None:
        chunked = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
        )
        with (
            Receiver(answer(body=b"x" * 65536), raw(chunked, keep=True)) as receiver,
            HTTPSink(receiver.url()) as sink,
        ):
            for i in range(3):
                sink.write(i)
            assert receiver.connections == 1

    def test_an_answer_that_ends_with_the_connection(self) -> None:
        closing = raw(b"HTTP/1.0 200 OK\r\n\r\nbye")
        asked = answer(200, "Connection: close", body=b"bye")
        with Receiver(closing, asked) as receiver, HTTPSink(receiver.url()) as sink:
            for i in range(3):
                sink.write(i)
            assert receiver.connections == 3

    def test_connections_closed_while_idle_go_unnoticed(self) -> None:
        silently = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        witness = Witness()
        with (
            Receiver(default=silently) as receiver,
            HTTPSink(receiver.url(), listeners=[witness]) as sink,
        ):
            for i in range(20):
                sink.write(i)
                receiver.wait_no_connection()
            assert [request.events[0] for request in receiver.requests] == list(range(20))
        assert {call[0] for call in witness.calls} == {"success"}

    def test_a_connection_that_ends_when_it_is_used_again_is_replaced_once(self) -> None:
        with Receiver(answer(), hang_up) as receiver, HTTPSink(receiver.url()) as sink:
            sink.write("first")
            sink.write("second")
            assert [request.events for request in receiver.requests][1:] == [["second"]] * 2
            assert receiver.connections == 2
            receiver.then(hang_up, hang_up)
            assert refused(sink).status is None
            assert len(receiver.requests) == 5

    def test_a_reset_is_never_hidden(self) -> None:
        with Receiver(answer(), reset) as receiver, HTTPSink(receiver.url()) as sink:
            sink.write("first")
            assert refused(sink).status is None
            sink.write("third")
            assert len(receiver.requests) == 3

    def test_interim_answers_are_read_past(self) -> None:
        interim = (
            b"HTTP/1.1 100 Continue\r\n\r\n"
            b"HTTP/1.1 102 Processing\r\n\r\n"
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        )
        witness = Witness()
        with (
            Receiver(raw(interim, keep=True)) as receiver,
            HTTPSink(receiver.url(), listeners=[witness]) as sink,
        ):
            sink.write("first")
            sink.write("second")
            assert receiver.connections == 1
        assert [call[1] for call in witness.calls] == [202, 200]


class TestStatus:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 226, 299])
    def test_2xx_is_accepted(self, status: int) -> None:
        with Receiver(answer(status)) as receiver, HTTPSink(receiver.url()) as sink:
            sink.write("event")

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 306, 307, 308, 399])
    def test_3xx_without_a_location_is_accepted(self, status: int) -> None:
        with Receiver(answer(status)) as receiver, HTTPSink(receiver.url()) as sink:
            sink.write("event")
            assert len(receiver.requests) == 1

    @pytest.mark.parametrize("status", [300, 303, 304, 305, 306])
    def test_303_and_other_3xx_are_accepted_as_they_stand(self, status: int) -> None:
        with (
            Receiver(redirect("/other", status)) as receiver,
            HTTPSink(receiver.url()) as sink,
        ):
            sink.write("event")
            assert len(receiver.requests) == 1

    @pytest.mark.parametrize(
        "status", [101, 400, 401, 403, 404, 408, 413, 422, 429, 500, 501, 502, 503, 504, 599, 999]
    )
    def test_anything_else_is_refused_and_may_be_retried(self, status: int) -> None:
        with Receiver(answer(status)) as receiver, HTTPSink(receiver.url()) as sink:
            error = refused(sink)
            assert (error.status, error.retry_after, error.permanent) == (status, None, False)
            assert str(status) in str(error)
            assert receiver.origin in str(error)
            sink.write("again")

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with HTTPSink(f"http://127.0.0.1:{port}/") as sink:
            error = refused(sink)
            assert (error.status, error.retry_after, error.permanent) == (None, None, False)
            assert "ConnectionRefusedError" in str(error)

    def test_a_name_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lookup(host: str, *args: Any) -> Any:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        with HTTPSink("http://nowhere.test/") as sink:
            error = refused(sink)
            assert error.status is None
            assert "nowhere.test" in str(error)

    def test_a_name_that_cannot_be_looked_up(self) -> None:
        with HTTPSink(f"http://{'x' * 64}.test/") as sink:
            assert refused(sink).status is None


def http_date(delta: float) -> str:
    return email.utils.formatdate(time.time() + delta, usegmt=True)


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503])
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0.0),
            ("7", 7.0),
            (" 120 ", 120.0),
            ("1.5", 1.5),
            ("301", 300.0),
            ("9" * 5000, 300.0),
            ("soon", None),
            ("-5", None),
            ("\xb2", None),
            ("", None),
            ("Fri, 99 Nov 2026 05:53:06 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
            ("Sun Nov  6 08:49:37 1994", 0.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ],
    )
    def test_values(self, status: int, value: str, seconds: float | None) -> None:
        with (
            Receiver(answer(status, f"Retry-After: {value}")) as receiver,
            HTTPSink(receiver.url()) as sink,
        ):
            assert refused(sink).retry_after == seconds

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_date_to_come(self, status: int) -> None:
        with Receiver() as receiver, HTTPSink(receiver.url()) as sink:
            receiver.then(answer(status, f"Retry-After: {http_date(100)}"))
            after = refused(sink).retry_after
            assert after is not None
            assert 80 < after <= 100

    @pytest.mark.parametrize("value", ["7", "Fri, 31 Dec 9999 23:59:59 GMT"])
    def test_the_cap_is_a_setting(self, value: str) -> None:
        with (
            Receiver(answer(429, f"Retry-After: {value}")) as receiver,
            HTTPSink(receiver.url(), retry_after_max=2.5) as sink,
        ):
            assert refused(sink).retry_after == 2.5

    @pytest.mark.parametrize(("value", "error"), BAD_SECONDS)
    def test_caps_that_are_none(self, value: Any, error: type[Exception]) -> None:
        with pytest.raises(error, match="retry_after_max"):
            HTTPSink("http://127.0.0.1/", retry_after_max=value)

    def test_other_statuses_have_none(self) -> None:
        with (
            Receiver(answer(500, "Retry-After: 7")) as receiver,
            HTTPSink(receiver.url()) as sink,
        ):
            assert refused(sink).retry_after is None


class TestAccounting:
    def test_listeners_hear_of_each_event_once(self) -> None:
        witness = Witness()
        with (
            Receiver(answer(201), answer(500), reset) as receiver,
            HTTPSink(receiver.url(), listeners=[witness]) as sink,
        ):
            sink.write_many(["a", "b"])
            with pytest.raises(DeliveryError):
                sink.write_many(["c", "d"])
            error = refused(sink, "e")
        assert witness.calls == [
            ("success", 201, "a"),
            ("success", 201, "b"),
            ("failure", 500, "c"),
            ("failure", 500, "d"),
            ("error", error, "e"),
        ]
        assert all(type(status) is int for _, status, _ in witness.calls[:4])

    def test_events_that_cannot_be_encoded_are_errors(self, receiver: Receiver) -> None:
        witness = Witness()
        bad = object()
        with HTTPSink(receiver.url(), listeners=[witness]) as sink:
            error = refused(sink, bad)
            assert sink.counters.errors == 1
        assert witness.calls == [("error", error, bad)]

    def test_listeners_that_raise_are_logged_and_harm_nobody(
        self, receiver: Receiver, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Witness):
            def success(self, status: int, event: Any) -> None:
                raise ValueError("s3cret")

        broken, witness = Broken(), Witness()
        with HTTPSink(receiver.url(), listeners=[broken, witness]) as sink:
            sink.write_many(["a", "b"])
        assert [call[2] for call in witness.calls] == ["a", "b"]
        assert "success() raised ValueError" in caplog.text
        assert "s3cret" not in caplog.text

    def test_a_listener_may_write_and_close(self, receiver: Receiver) -> None:
        class Meddler(Witness):
            def success(self, status: int, event: Any) -> None:
                super().success(status, event)
                if event == "first":
                    sink.write("second")
                    sink.close()

        meddler = Meddler()
        with HTTPSink(receiver.url(), listeners=[meddler]) as sink:
            sink.write("first")
            assert sink.closed
        assert [call[2] for call in meddler.calls] == ["first", "second"]

    def test_counters_count_events_by_status(self) -> None:
        odd = answer("299 Receivers say what they like")
        with (
            Receiver(answer("200 Fine"), odd, answer(413), answer(555), reset) as receiver,
            HTTPSink(receiver.url()) as sink,
        ):
            sink.write_many(["a", "b"])
            sink.write("c")
            for _ in range(3):
                refused(sink)
            assert (sink.counters.successes, sink.counters.failures, sink.counters.errors) == (
                3,
                2,
                1,
            )
            assert sink.counters.statuses() == {
                "200 OK": 2,
                "299": 1,
                "413 Request Entity Too Large": 1,
                "555": 1,
            }
            assert sink.requests == 5


class TestThreads:
    def test_requests_go_out_one_at_a_time(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), timeout=20) as sink:
            together(*[lambda i=i: [sink.write([i, j]) for j in range(10)] for i in range(8)])
            assert receiver.crowd == 1
            assert receiver.connections == 1
        got = [request.events[0] for request in receiver.requests]
        assert sorted(got) == [[i, j] for i in range(8) for j in range(10)]
        for i in range(8):
            assert [event for event in got if event[0] == i] == [[i, j] for j in range(10)]

    def test_a_write_from_within_a_request_is_refused(self, receiver: Receiver) -> None:
        """urllib3 logs requests: a handler that posts its records must not wait for itself."""
        outcomes: list[Exception] = []

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                try:
                    sink.write("from the handler")
                except Exception as error:
                    outcomes.append(error)

        log = logging.getLogger("urllib3")
        handler, level = Handler(), log.level
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        try:
            with HTTPSink(receiver.url()) as sink:
                sink.write("event")
        finally:
            log.removeHandler(handler)
            log.setLevel(level)
        assert [request.events for request in receiver.requests] == [["event"]]
        assert outcomes
        assert all(type(error) is RuntimeError for error in outcomes)


def test_after_close(receiver: Receiver) -> None:
    witness = Witness()
    sink = HTTPSink(receiver.url(), listeners=[witness])
    sink.close()
    sink.close()
    for write in (lambda: sink.write("event"), lambda: sink.write_many([])):
        with pytest.raises(SinkClosedError):
            write()
    assert witness.calls == []
    assert receiver.connections == 0


def test_dataclass_events(receiver: Receiver) -> None:
    @dataclasses.dataclass
    class Sale:
        item: str

    with HTTPSink(receiver.url()) as sink:
        sink.write(Sale("tea"))
    assert receiver.requests[0].events == [{"item": "tea"}]
