"""Endpoint with several requests in flight at a time: every event once, and the sums add up."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any

import pytest
from support import DEADLINE, LONG, Gate, Recorder, Task, eventually
from support.receiver import (
    Behaviour,
    Connection,
    Receiver,
    Request,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    hang_up,
    meet,
    stall,
    when,
)

from fastsinks import Breaker, CloseTimeoutError, Endpoint, ExponentialBackoff, SinkClosedError
from fastsinks.encoders import JSONEncoder


def test_so_many_requests_are_under_way() -> None:
    with (
        Receiver(default=meet(3, answer())) as receiver,
        Endpoint("e", receiver.url(), timeout=20, concurrency=3, batch_size=2) as endpoint,
    ):
        endpoint.write_many(range(6))
        assert endpoint.flush(DEADLINE)
        assert receiver.crowd == 3
        assert receiver.connections == 3
        assert sorted(receiver.events) == list(range(6))
        assert endpoint.metrics._replace(statuses={}) == (0, 6, 6, 0, 0, 0, 0, {})


def test_everything_arrives_and_each_request_is_in_order(receiver: Receiver) -> None:
    with Endpoint("e", receiver.url(), timeout=20, concurrency=4) as endpoint:
        for i in range(3000):
            endpoint.write(i)
        assert endpoint.flush(DEADLINE)
        metrics = endpoint.metrics
    assert sorted(receiver.events) == list(range(3000))
    for request in receiver.requests:
        assert request.events == sorted(request.events)
    assert (metrics.events, metrics.successes, metrics.pending) == (3000, 3000, 0)
    assert receiver.connections <= 4


def test_one_that_hangs_holds_up_no_other() -> None:
    with Receiver(stall()) as receiver:
        endpoint = Endpoint("e", receiver.url(), timeout=LONG, concurrency=2, batch_size=1)
        endpoint.write("hangs")
        receiver.wait(1)
        endpoint.write_many(range(10))
        receiver.wait(11)
        assert not endpoint.flush(0.01)
        with pytest.raises(CloseTimeoutError) as caught:
            endpoint.close(0.2)
        assert caught.value.undelivered == ["hangs"]
        assert receiver.requests[-1].events == [9]


def test_failures_are_retried_by_themselves(gate: Gate) -> None:
    def flaky(connection: Connection, request: Request) -> bool:
        n = request.events[0]
        with lock:
            seen[n] = seen.get(n, 0) + 1
            good = seen[n] > n % 3
        return answer(200 if good else 500)(connection, request)

    lock, seen = threading.Lock(), dict[int, int]()
    with (
        Receiver(default=flaky) as receiver,
        Endpoint(
            "e", receiver.url(), timeout=20, backoff=0, concurrency=3, batch_size=1
        ) as endpoint,
    ):
        endpoint.write_many(range(60))
        assert endpoint.flush(DEADLINE)
        metrics = endpoint.metrics
    assert seen == {n: n % 3 + 1 for n in range(60)}
    assert (metrics.successes, metrics.failures, metrics.retries) == (60, 60, 60)
    assert metrics.statuses == {"200 OK": 60, "500 Internal Server Error": 60}


def test_what_is_given_up_is_counted_and_buried() -> None:
    lost = Recorder()
    with (
        Receiver(default=answer(500)) as receiver,
        Endpoint(
            "e",
            receiver.url(),
            timeout=20,
            strategy=Breaker(1000, 0, max_attempts=2),
            concurrency=3,
            batch_size=4,
            dead_letter=lost,
        ) as endpoint,
    ):
        endpoint.write_many(range(40))
        assert endpoint.flush(DEADLINE)
        metrics = endpoint.metrics
    assert sorted(lost.events) == list(range(40))
    assert (metrics.events, metrics.dropped, metrics.pending) == (40, 40, 0)


class TestClose:
    def test_delivers_what_is_pending(self, receiver: Receiver) -> None:
        endpoint = Endpoint("e", receiver.url(), timeout=20, concurrency=3, batch_size=5)
        endpoint.write_many(range(200))
        endpoint.close()
        assert sorted(receiver.events) == list(range(200))
        assert endpoint.closed
        with pytest.raises(SinkClosedError):
            endpoint.write("late")
        receiver.wait_no_connection()

    @pytest.mark.parametrize(
        ("behaviour", "requests"), [(stall(), 4), (hang_up, 1)], ids=["hangs", "in back-off"]
    )
    def test_at_the_deadline_what_is_left_comes_back(
        self, behaviour: Behaviour, requests: int
    ) -> None:
        lost = Recorder()
        with Receiver(default=behaviour) as receiver:
            endpoint = Endpoint(
                "e",
                receiver.url(),
                timeout=LONG,
                threshold=1,
                backoff=LONG,
                concurrency=4,
                batch_size=2,
                dead_letter=lost,
            )
            endpoint.write_many(range(20))
            receiver.wait(requests)
            start = time.monotonic()
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close(0.2)
            assert time.monotonic() - start < 1.0
            receiver.wait_no_connection()
        assert caught.value.undelivered == lost.events == list(range(20))
        metrics = endpoint.metrics
        assert (metrics.events, metrics.dropped, metrics.pending) == (20, 20, 0)

    def test_what_is_stuck_in_user_code_comes_back_too(self, receiver: Receiver) -> None:
        """Closing connections does not help there: each request has to be abandoned by itself."""
        stuck, opened = threading.Semaphore(0), threading.Event()

        def sign(body: bytes) -> dict[str, str]:
            stuck.release()
            assert opened.wait(DEADLINE)
            return {}

        lost = Recorder()
        endpoint = Endpoint(
            "e", receiver.url(), signer=sign, concurrency=6, batch_size=2, dead_letter=lost
        )
        endpoint.write_many(range(20))
        for _ in range(6):
            assert stuck.acquire(timeout=DEADLINE)
        try:
            with pytest.raises(CloseTimeoutError, match="20 events") as caught:
                endpoint.close(0.05)
            assert caught.value.undelivered == lost.events == list(range(20))
            endpoint.close()
        finally:
            opened.set()

    def test_again_and_on_other_threads(self, receiver: Receiver) -> None:
        endpoint = Endpoint("e", receiver.url(), timeout=20, concurrency=2)
        endpoint.write_many(range(50))
        for task in [Task(endpoint.close) for _ in range(4)]:
            task.result()
        endpoint.close()
        assert sorted(receiver.events) == list(range(50))

    def test_from_inside_a_delivery_it_returns_and_the_rest_is_delivered(self, gate: Gate) -> None:
        class Closes(Recorder):
            def write(self, event: Any) -> None:
                start = time.monotonic()
                endpoint.close()
                super().write(time.monotonic() - start)
                with pytest.raises(SinkClosedError):
                    endpoint.write("late")
                gate.open()

        closer = Closes()
        with Receiver(answer(404), default=when(gate, answer())) as receiver:
            endpoint = Endpoint(
                "e",
                receiver.url(),
                timeout=20,
                concurrency=2,
                batch_size=1,
                strategy=ExponentialBackoff(0, 0, max_attempts=1),
                dead_letter=closer,
                close_timeout=5,
            )
            endpoint.write_many(range(10))
            endpoint.close()
            assert sorted(receiver.events) == list(range(10))
        assert closer.events[0] < 2.5
        metrics = endpoint.metrics
        assert (metrics.events, metrics.dropped, metrics.pending) == (10, 1, 0)


def test_flush_waits_for_what_is_under_way(gate: Gate) -> None:
    with (
        Receiver(when(gate, answer())) as receiver,
        Endpoint("e", receiver.url(), timeout=20, concurrency=2, batch_size=1) as endpoint,
    ):
        endpoint.write("first")
        gate.wait_entered()
        endpoint.write("second")
        receiver.wait(2)
        assert not endpoint.flush(0.05)
        assert endpoint.metrics.pending == 1
        assert "pending=1" in repr(endpoint)
        assert endpoint.in_flight == 1
        gate.open()
        assert endpoint.flush(DEADLINE)
        assert endpoint.metrics.pending == 0


def test_the_ledger_adds_up_at_any_time(receiver: Receiver) -> None:
    with Endpoint("e", receiver.url(), timeout=20, concurrency=3, batch_size=3) as endpoint:
        writer = Task(lambda: [endpoint.write(i) for i in range(1000)])
        while writer.is_alive():
            metrics = endpoint.metrics
            assert 0 <= metrics.pending <= metrics.events
            assert metrics.successes <= metrics.events
        writer.result()


def test_bounds(gate: Gate) -> None:
    with (
        Receiver(default=when(gate, answer())) as receiver,
        Endpoint(
            "e",
            receiver.url(),
            timeout=20,
            concurrency=2,
            batch_size=1,
            maxsize=3,
            when_full="drop_newest",
        ) as endpoint,
    ):
        for event in ("a", "b"):
            endpoint.write(event)
        receiver.wait(2)
        for i in range(10):
            endpoint.write(i)
        gate.open()
        assert endpoint.flush(DEADLINE)
        assert sorted(map(str, receiver.events)) == ["0", "a", "b"]
        assert endpoint.metrics.dropped == 9


def test_an_encoder_that_takes_no_blocks(receiver: Receiver) -> None:
    with Endpoint("e", receiver.url(), encoder=JSONEncoder(), concurrency=3) as endpoint:
        endpoint.write_many(range(30))
        assert endpoint.flush(DEADLINE)
    assert sorted(json.loads(request.body) for request in receiver.requests) == list(range(30))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_has_requests_of_its_own(gate: Gate) -> None:
    """Also where all of its parent's were busy."""
    with (
        Receiver(*[when(gate, answer())] * 2) as receiver,
        Endpoint("e", receiver.url(), timeout=20, concurrency=2, batch_size=1) as endpoint,
    ):
        endpoint.write_many(["a", "b"])
        receiver.wait(2)
        child = os.fork()
        if not child:
            try:
                assert endpoint.metrics.pending == 0
                endpoint.write_many(["c", "d", "e"])
                assert endpoint.flush(DEADLINE)
                assert endpoint.metrics.pending == 0
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert endpoint.metrics.pending == 2
        gate.open()
        assert endpoint.flush(DEADLINE)
        assert sorted(receiver.events) == ["a", "b", "c", "d", "e"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_can_close_whatever_its_parent_was_doing() -> None:
    """Here: one that tries again, later, and others that wait for it."""
    down = Receiver(default=answer(500))
    endpoint = Endpoint(
        "e", down.url(), concurrency=4, batch_size=1, strategy=Breaker(1, LONG), close_timeout=0
    )
    endpoint.write_many(range(8))
    eventually(lambda: endpoint.metrics.retries >= 1 and not endpoint.in_flight)
    child = os.fork()
    if not child:
        try:
            endpoint.close(DEADLINE)
            os._exit(0)
        finally:
            os._exit(1)
    child_ended = Task(os.waitpid, child, 0)
    try:
        assert os.waitstatus_to_exitcode(child_ended.result()[1]) == 0
    finally:
        if not child_ended.done:
            os.kill(child, signal.SIGKILL)
        with pytest.raises(CloseTimeoutError) as caught:
            endpoint.close()
        down.close()
    assert caught.value.undelivered == list(range(8))


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (True, TypeError), ("2", TypeError)])
def test_bad_values(value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="concurrency"):
        Endpoint("e", "http://127.0.0.1/", concurrency=value)


def test_a_dead_letter_that_flushes_does_not_wait_for_itself() -> None:
    class Flushes(Recorder):
        def write(self, event: Any) -> None:
            super().write(event)
            answers.append(endpoint.flush())

    answers: list[bool] = []
    lost = Flushes()
    with Receiver(default=answer(500)) as receiver:
        endpoint = Endpoint(
            "e",
            receiver.url(),
            timeout=20,
            strategy=Breaker(100, 0.0, max_attempts=1),
            dead_letter=lost,
            concurrency=2,
            batch_size=1,
        )
        endpoint.write_many(range(6))
        assert endpoint.flush(DEADLINE)
        assert answers == [False] * 6
        assert sorted(lost.events) == list(range(6))
        endpoint.close(DEADLINE)
