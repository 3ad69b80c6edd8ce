"""HTTPSink and redirects: the same POST again, and nothing configured leaves its origin."""

from __future__ import annotations

import base64

import pytest
from support.receiver import Receiver, answer, redirect, reset

from fastsinks import DeliveryError
from fastsinks.events import EVENTS_MEDIA_TYPE
from fastsinks.http import HTTPSink

FOLLOWED = pytest.mark.parametrize("status", [301, 302, 307, 308])


@FOLLOWED
def test_the_same_post_goes_to_the_location(status: int) -> None:
    with (
        Receiver(redirect("/other?x=y#fragment", status), answer(201)) as receiver,
        HTTPSink(receiver.url(), headers={"X-Own": "own"}) as sink,
    ):
        sink.write_many([{"id": 1}, {"id": 2}])
        first, second = receiver.requests
        assert second.line == "POST /other?x=y HTTP/1.1"
        assert second.body == first.body == b'{"events":[{"id":1},{"id":2}]}'
        assert second.headers == first.headers
        assert receiver.connections == 1
        assert sink.counters.statuses() == {"201 Created": 2}
        assert sink.requests == 2


@FOLLOWED
def test_an_empty_200_elsewhere_is_not_the_delivery(status: int) -> None:
    """What comes back in the end decides."""
    with (
        Receiver(redirect("/other", status), answer(503, "Retry-After: 3")) as receiver,
        HTTPSink(receiver.url()) as sink,
    ):
        with pytest.raises(DeliveryError) as caught:
            sink.write("event")
        assert (caught.value.status, caught.value.retry_after) == (503, 3.0)


@FOLLOWED
def test_what_is_configured_stays_on_its_origin(status: int) -> None:
    """Another port is another origin already."""
    with (
        Receiver() as other,
        Receiver(redirect(other.url("/there"), status)) as receiver,
        HTTPSink(
            receiver.url(userinfo="user:pass"),
            headers={
                "X-Token": "s3cret",
                "Cookie": ["a=b", "c=d"],
                "Content-Type": "application/secret",
                "User-Agent": "s3cret agent",
            },
            signer=lambda body: {"X-Signature": "s3cret"},
        ) as sink,
    ):
        sink.write("event")
        (first,) = receiver.requests
        (second,) = other.requests
        assert first.header("X-Token") == first.header("X-Signature") == "s3cret"
        assert first.header("Authorization") is not None
        assert second.body == first.body
        assert second.method == "POST"
        assert second.header("Host") == f"127.0.0.1:{other.port}"
        assert second.header("Content-Type") == EVENTS_MEDIA_TYPE
        assert (second.header("User-Agent") or "").startswith("fastsinks/")
        sent = {name.lower() for name, _ in second.headers}
        assert sent == {"host", "accept-encoding", "content-length", "content-type", "user-agent"}


def test_back_at_home_they_are_sent_again() -> None:
    with Receiver() as other, Receiver() as receiver:
        receiver.then(redirect(other.url()))
        other.then(redirect(receiver.url("/home")))
        with HTTPSink(receiver.url(), headers={"Authorization": "Bearer t"}) as sink:
            sink.write("event")
        assert [r.header("Authorization") for r in receiver.requests] == ["Bearer t"] * 2
        assert other.requests[0].header("Authorization") is None


def test_another_name_for_the_same_host_is_another_origin() -> None:
    with Receiver() as receiver:
        receiver.then(redirect(f"http://localhost:{receiver.port}/"))
        with HTTPSink(receiver.url(), headers={"Authorization": "Bearer t"}) as sink:
            sink.write("event")
        first, second = receiver.requests
        assert first.header("Authorization") == "Bearer t"
        assert second.header("Authorization") is None


def test_credentials_in_a_location_are_for_that_location() -> None:
    with Receiver() as other, Receiver() as receiver:
        location = other.url(userinfo="guest:word")
        receiver.then(redirect(location))
        with HTTPSink(receiver.url(userinfo="user:pass")) as sink:
            sink.write("event")
        expected = base64.b64encode(b"guest:word").decode()
        assert other.requests[0].header("Authorization") == f"Basic {expected}"


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/absolute", "/absolute"),
        ("sibling", "/a/sibling"),
        ("../up?q", "/up?q"),
        ("?q=1", "/a/b?q=1"),
        ("//127.0.0.1:{port}/scheme", "/scheme"),
        ("HTTP://127.0.0.1:{port}/case", "/case"),
        ("http://127.0.0.1:{port}", "/"),
        ("/caf\u00c3\u00a9", "/caf%C3%A9"),
    ],
)
def test_relative_locations(location: str, path: str) -> None:
    with Receiver() as receiver, HTTPSink(receiver.url("/a/b?old")) as sink:
        receiver.then(redirect(location.format(port=receiver.port)))
        sink.write("event")
        assert receiver.requests[1].path == path
        assert receiver.connections == 1


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "mailto:someone",
        "http://[::1/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:0/",
        "/a b",
        "/a\tb",
    ],
)
def test_locations_that_cannot_be_followed_are_refusals(location: str) -> None:
    with Receiver(redirect(location, 302)) as receiver, HTTPSink(receiver.url()) as sink:
        with pytest.raises(DeliveryError) as caught:
            sink.write("event")
        assert (caught.value.status, caught.value.permanent) == (302, False)
        assert sink.counters.failures == 1
        sink.write("the next request works")


def test_five_hops_are_followed() -> None:
    steps = [redirect(f"/{i}", 307) for i in range(5)]
    with Receiver(*steps) as receiver, HTTPSink(receiver.url()) as sink:
        sink.write("event")
        assert [request.path for request in receiver.requests] == [
            "/events",
            *(f"/{i}" for i in range(5)),
        ]


def test_six_are_not() -> None:
    steps = [redirect(f"/{i}", 302) for i in range(6)]
    with Receiver(*steps) as receiver, HTTPSink(receiver.url()) as sink:
        with pytest.raises(DeliveryError) as caught:
            sink.write("event")
        assert caught.value.status == 302
        assert len(receiver.requests) == 6
        assert sink.counters.statuses() == {"302 Found": 1}


def test_an_accepted_3xx_may_end_a_chain() -> None:
    with (
        Receiver(redirect("/a", 307), redirect("/b", 303)) as receiver,
        HTTPSink(receiver.url()) as sink,
    ):
        sink.write("event")
        assert len(receiver.requests) == 2


def test_a_location_where_nobody_answers() -> None:
    with (
        Receiver(reset) as other,
        Receiver(redirect(other.url())) as receiver,
        HTTPSink(receiver.url()) as sink,
    ):
        with pytest.raises(DeliveryError) as caught:
            sink.write("event")
        assert caught.value.status is None
        assert sink.counters.errors == 1


def test_other_origins_keep_their_connections_too() -> None:
    with Receiver() as other, Receiver(default=redirect(other.url())) as receiver:
        with HTTPSink(receiver.url()) as sink:
            for i in range(5):
                sink.write(i)
        assert (receiver.connections, other.connections) == (1, 1)


def test_ever_new_origins_do_not_pile_up() -> None:
    others = [Receiver() for _ in range(8)]
    try:
        with Receiver(*(redirect(o.url()) for o in others)) as receiver:
            with HTTPSink(receiver.url()) as sink:
                for i in range(8):
                    sink.write(i)
                for other in others[:4]:
                    other.wait_no_connection()
            assert [other.connections for other in others] == [1] * 8
            assert receiver.connections == 1
    finally:
        for other in others:
            other.close()
