"""HTTPSink with several requests in flight at a time."""

from __future__ import annotations

from typing import Any

import pytest
from support import DEADLINE, Task, together
from support.receiver import (
    Connection,
    Receiver,
    Request,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    meet,
    redirect,
    stall,
)

from fastsinks import DeliveryError, SinkClosedError
from fastsinks.encoders import JSONEncoder
from fastsinks.http import HTTPSink


def test_so_many_requests_are_under_way() -> None:
    with (
        Receiver(default=meet(3, answer())) as receiver,
        HTTPSink(receiver.url(), timeout=20, concurrency=3) as sink,
    ):
        together(*[lambda i=i: [sink.write([i, j]) for j in range(10)] for i in range(6)])
        assert receiver.crowd == 3  # the barrier waits for three, and the sink allows no more
        assert receiver.connections == 3
        got = [request.events[0] for request in receiver.requests]
        assert sorted(got) == [[i, j] for i in range(6) for j in range(10)]
        assert sink.counters.successes == 60
        assert sink.in_flight == 0
        assert sink.concurrency == 3


def test_in_flight_says_how_many() -> None:
    counts: list[int] = []

    def count(connection: Connection, request: Request) -> bool:
        counts.append(sink.in_flight)
        return answer()(connection, request)

    with (
        Receiver(default=meet(2, count)) as receiver,
        HTTPSink(receiver.url(), timeout=20, concurrency=2) as sink,
    ):
        together(lambda: sink.write("a"), lambda: sink.write("b"))
    assert max(counts) == 2


def test_connections_are_kept() -> None:
    with Receiver() as receiver, HTTPSink(receiver.url(), timeout=20, concurrency=4) as sink:
        for _ in range(5):
            together(*[lambda: sink.write("event")] * 4)
        assert receiver.connections <= 4


def test_redirects_share_the_pools() -> None:
    with (
        Receiver(default=meet(3, answer())) as target,
        Receiver(default=meet(3, redirect(target.url()))) as receiver,
        HTTPSink(receiver.url(), timeout=20, concurrency=3) as sink,
    ):
        for _ in range(3):
            together(*[lambda: sink.write("event")] * 3)
        assert len(target.requests) == 9
        assert target.connections == receiver.connections == 3


def test_each_repetition_sends_its_own_bytes_again() -> None:
    ids: dict[Any, set[str]] = {}

    def sign(body: bytes, block_id: str) -> dict[str, str]:
        ids.setdefault(body, set()).add(block_id)
        return {}

    encoded: list[Any] = []

    class Counting(JSONEncoder):
        def encode(self, events: Any) -> bytes:
            encoded.extend(events)
            return super().encode(events)

    with (
        Receiver() as receiver,
        HTTPSink(
            receiver.url(), timeout=20, concurrency=3, signer=sign, encoder=Counting()
        ) as sink,
    ):
        failing = meet(3, answer(500))
        receiver.then(*[failing] * 6)

        def until_accepted(event: Any) -> None:
            while True:
                try:
                    return sink.write(event)
                except DeliveryError:
                    pass

        together(*[lambda i=i: until_accepted({"n": i}) for i in range(3)])
        assert len(receiver.requests) == 9
    assert len(encoded) == 3
    assert [len(of_one) for of_one in ids.values()] == [1, 1, 1]


def test_close_interrupts_all_of_them() -> None:
    with Receiver(default=stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=DEADLINE, concurrency=3)
        tasks = [Task(sink.write, i) for i in range(5)]  # two of them wait for a permit
        receiver.wait(3)
        sink.close()
        for task in tasks:
            with pytest.raises(SinkClosedError):
                task.result()
        receiver.wait_no_connection()
        assert receiver.connections == 3


def test_one_that_hangs_holds_up_no_other() -> None:
    with (
        Receiver(stall()) as receiver,
        HTTPSink(receiver.url(), timeout=DEADLINE, concurrency=2) as sink,
    ):
        hanging = Task(sink.write, "hangs")
        receiver.wait(1)
        for i in range(10):
            sink.write(i)
        assert sink.in_flight == 1
        sink.close()
        with pytest.raises(SinkClosedError):
            hanging.result()


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), (None, TypeError)],
)
def test_bad_values(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="concurrency"):
        HTTPSink("http://127.0.0.1/", concurrency=value)


def test_one_is_the_default(receiver: Receiver) -> None:
    with HTTPSink(receiver.url()) as sink:
        assert sink.concurrency == 1
