"""Endpoint against receivers that are broken or hostile for a while: every event arrives."""

from __future__ import annotations

import email.utils
import gzip
import time

import pytest
from support import DEADLINE
from support.receiver import (
    Behaviour,
    Connection,
    Receiver,
    Request,
    answer,
    flood,
    hang_up,
    head,
    raw,
    redirect,
    reset,
    stall,
)

from fastsinks import Endpoint

TIMEOUT = 0.2
LOOP = redirect("/events")
BOMB = gzip.compress(b"\0" * 20_000_000)


def half_a_body_of_a_hundred_megabytes(connection: Connection, request: Request) -> bool:
    connection.send(head(500, "Content-Length: 100000000") + b"x" * 50_000)
    return False


REFUSALS: dict[str, Behaviour] = {
    "resets before the answer": reset,
    "hangs up before the answer": hang_up,
    "half a status line": raw(b"HTTP/1.1 2"),
    "garbage": raw(b"\x00\xff garbage\r\n\r\n"),
    "hangs": stall(),
    "hangs in the headers": stall(b"HTTP/1.1 200 OK\r\nX: "),
    "100s without end": flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "103s without end": flood(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 1000),
    "headers without end": flood(b"X: y\r\n" * 1000, first=b"HTTP/1.1 200 OK\r\n"),
    "a huge refusal": flood(b"x" * 65536, first=head(500, "Content-Length: 100000000")),
    "half of a huge refusal": half_a_body_of_a_hundred_megabytes,
    "a bomb": answer(503, "Content-Encoding: gzip", body=BOMB),
    "a redirect loop": LOOP,
    "too many requests": answer(429, "Retry-After: 0"),
    "too many requests, by date": answer(
        429, f"Retry-After: {email.utils.formatdate(time.time() - 10, usegmt=True)}"
    ),
}


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("behaviour", REFUSALS.values(), ids=REFUSALS.keys())
def test_every_event_arrives(behaviour: Behaviour, concurrency: int) -> None:
    times = 18 if behaviour is LOOP else 2  # six requests make one attempt, of up to three
    accept = answer()
    with (
        Receiver(accept, *[behaviour] * times, accept, behaviour) as receiver,
        Endpoint(
            "e",
            receiver.url(),
            timeout=TIMEOUT,
            threshold=1000,
            batch_size=10,
            concurrency=concurrency,
        ) as endpoint,
    ):
        for i in range(60):
            endpoint.write(i)
        assert endpoint.flush(DEADLINE)
        metrics = endpoint.metrics
        assert endpoint.in_flight == 0
    first_sight = list(dict.fromkeys(receiver.events))
    assert sorted(first_sight) == list(range(60))
    if concurrency == 1:
        assert first_sight == list(range(60))
    assert (metrics.events, metrics.successes) == (60, 60)
    assert (metrics.pending, metrics.dropped) == (0, 0)
    assert metrics.retries == metrics.failures + metrics.errors > 0


ACCEPTED: dict[str, Behaviour] = {
    "a huge body": flood(b"x" * 65536, first=head(200, "Content-Length: 100000000")),
    "a bomb": answer(200, "Content-Encoding: gzip", body=BOMB),
    "a body that ends early": raw(head(200, "Content-Length: 100") + b"x"),
    "a reset in the body": lambda connection, request: (
        connection.send(head(200, "Content-Length: 100") + b"x"),
        connection.reset(),
    )[1],
}


@pytest.mark.parametrize("behaviour", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_follows_an_acceptance_does_not_take_it_back(behaviour: Behaviour) -> None:
    with (
        Receiver(default=behaviour) as receiver,
        Endpoint("e", receiver.url(), timeout=TIMEOUT, batch_size=10) as endpoint,
    ):
        endpoint.write_many(range(30))
        assert endpoint.flush(DEADLINE)
        assert receiver.events == list(range(30))
        assert endpoint.metrics.successes == 30
        assert endpoint.metrics.errors == 0


def test_nobody_listens_for_a_while() -> None:
    with Receiver() as gone:
        pass
    with Endpoint("e", gone.url(), timeout=TIMEOUT, threshold=2, backoff=0.01) as endpoint:
        endpoint.write_many(range(20))
        assert not endpoint.flush(0.1)
        with Receiver(port=gone.port) as receiver:
            assert endpoint.flush(DEADLINE)
            assert receiver.events == list(range(20))


def test_redirects_across_origins() -> None:
    with (
        Receiver() as last,
        Receiver(default=redirect(last.url())) as second,
        Receiver(default=redirect(second.url())) as first,
        Endpoint("e", first.url(), headers={"Authorization": "s3cret"}) as endpoint,
    ):
        endpoint.write_many(range(50))
        assert endpoint.flush(DEADLINE)
        assert last.events == list(range(50))
        assert endpoint.metrics.statuses == {"200 OK": 50}
        assert last.requests[0].header("Authorization") is None
        assert last.connections == second.connections == first.connections == 1
