"""What an operator reads in the log about an endpoint, and what handlers may do meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    DEADLINE,
    DROPPING,
    LONG,
    POLICIES,
    BlockRecorder,
    Fails,
    Gate,
    Recorder,
    Task,
    eventually,
    ledger,
)
from support.monitored import NOWHERE, stopped
from support.processes import check_program
from support.receiver import Receiver, answer

from fastsinks import (
    Breaker,
    Dispatcher,
    Endpoint,
    ExponentialBackoff,
    NullSink,
    Queue,
    RetryingSink,
)

SECRET = "s3cr3t"
EVENT = {"id": "order-7", "card": SECRET}


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "fastsinks")


def lines(caplog: pytest.LogCaptureFixture, level: int = 0) -> list[str]:
    """The library's lines, of one level or of all; none of them shows a secret."""
    assert SECRET not in caplog.text
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.partition(".")[0] == "fastsinks" and level in (0, record.levelno)
    ]


def told(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """Wait until there are `count` lines of the library's."""
    eventually(lambda: len(lines(caplog)) == count)


@pytest.fixture
def install() -> Iterator[Callable[[Callable[[logging.LogRecord], object]], None]]:
    """Installs a handler that calls a function with each record."""
    log = logging.getLogger("fastsinks")
    installed: list[logging.Handler] = []

    def add(emit: Callable[[logging.LogRecord], object]) -> None:
        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                emit(record)

        installed.append(Handler())
        log.addHandler(installed[-1])

    yield add
    for handler in installed:
        log.removeHandler(handler)


class TestEndpoints:
    def test_all_is_well(self, caplog: pytest.LogCaptureFixture) -> None:
        with Receiver() as receiver, Endpoint("hook", receiver.url()) as endpoint:
            endpoint.write_many([EVENT] * 100)
        assert lines(caplog) == []

    def test_an_outage_is_told_once_and_when_it_is_over(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        refusals = [answer("503 Service Unavailable")] * 20
        with (
            Receiver(*refusals) as receiver,
            Endpoint("hook", receiver.url(), threshold=100) as endpoint,
        ):
            endpoint.write(EVENT)
            assert endpoint.flush(DEADLINE)
            endpoint.write_many([EVENT] * 50)
            assert endpoint.flush(DEADLINE)
        told = [line for line in lines(caplog) if "attempt failed" in line]
        assert len(told) == 2
        first, last = told
        assert first.startswith("endpoint 'hook': an attempt failed, retrying")
        assert receiver.url() in first
        assert "503 Service Unavailable" in first
        assert "'order-7'" in first
        assert "20 attempts in all" in last
        (record,) = [record for record in caplog.records if record.getMessage() == first]
        assert record.levelno == logging.WARNING

    def test_what_is_dropped(self, caplog: pytest.LogCaptureFixture) -> None:
        strategy = ExponentialBackoff(0, 0, max_attempts=2)
        with Endpoint("hook", NOWHERE, strategy=strategy, batch_size=1) as endpoint:
            endpoint.write_many([EVENT] * 5)
            assert endpoint.flush(DEADLINE)
        told = [line for line in lines(caplog) if "dropped" in line and "order-7" in line]
        assert len(told) == 1
        assert NOWHERE in told[0]
        assert told[0].startswith("endpoint 'hook': dropped an event")
        assert told[0] in lines(caplog, logging.ERROR)

    def test_backing_off(self, caplog: pytest.LogCaptureFixture) -> None:
        endpoint = Endpoint("hook", NOWHERE, threshold=3, backoff=LONG)
        endpoint.write(EVENT)
        eventually(lambda: len(lines(caplog)) >= 2)
        stopped(endpoint)
        told = lines(caplog)
        assert "an attempt failed" in told[0]
        assert told[1].startswith("endpoint 'hook': backing off for 3.6e+03 s")
        assert "3 attempts in all" in told[2]

    def test_no_secrets(self, caplog: pytest.LogCaptureFixture) -> None:
        endpoint = Endpoint(
            "hook",
            f"http://user:{SECRET}@127.0.0.1:9/",
            headers={"Authorization": f"Bearer {SECRET}"},
            threshold=1,
            backoff=LONG,
        )
        endpoint.write(EVENT)
        eventually(lambda: lines(caplog))
        stopped(endpoint)
        assert lines(caplog)

    def test_a_name_on_several_lines(self, caplog: pytest.LogCaptureFixture) -> None:
        endpoint = Endpoint("hook\nERROR forged", NOWHERE, threshold=1, backoff=LONG)
        endpoint.write(EVENT)
        eventually(lambda: endpoint.breaker_open)
        stopped(endpoint)
        assert lines(caplog)
        for line in lines(caplog):
            assert "\n" not in line


class TestQueues:
    @pytest.mark.parametrize("when_full", DROPPING)
    @pytest.mark.parametrize(
        "make", [Recorder, BlockRecorder, NullSink, lambda: RetryingSink(Recorder(), Breaker(1, 0))]
    )
    def test_each_burst_of_drops_is_told_once(
        self,
        caplog: pytest.LogCaptureFixture,
        make_gate: Callable[[], Gate],
        make: Callable[[], object],
        when_full: Any,
    ) -> None:
        dispatcher = Dispatcher(max_workers=1)
        with Queue(
            make(),
            maxsize=2,
            when_full=when_full,
            batch_size=2,
            dispatcher=dispatcher,
            name="orders",
        ) as queue:
            for burst in range(3):
                gate = make_gate()
                with Queue(Recorder(gate), dispatcher=dispatcher) as other:
                    other.write("keeps the only worker")
                    gate.wait_entered()
                    for _ in range(7):
                        queue.write(EVENT)
                    assert lines(caplog)[2 * burst :] == [
                        "orders: dropped an event: dict 'order-7' (the queue is full)"
                    ]
                    gate.open()
                    told(caplog, 2 * burst + 2)
                assert lines(caplog)[-1] == "orders: dropped an event: 5 events in all"
                assert queue.flush(DEADLINE)
            assert ledger(queue).dropped == 15
        assert len(lines(caplog)) == 6
        dispatcher.close(DEADLINE)


class TestHandlers:
    """They may write to queues and endpoints, which have something to log, too."""

    def test_one_that_writes_to_a_queue_that_fails(
        self, install: Callable[[Callable[[logging.LogRecord], object]], None]
    ) -> None:
        shipped = Queue(Recorder(Fails()), name="shipping")
        records: list[str] = []

        def ship(record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            shipped.write(record)

        install(ship)
        with Queue(Recorder(Fails()), name="orders") as orders:
            orders.write_many([EVENT] * 100)
            assert orders.flush(DEADLINE)
            assert shipped.flush(DEADLINE)
            # A line about the orders, a line about the shipping of that: and no more.
            assert len(records) == 2
            assert ledger(shipped).dropped == 2
            Task(shipped.close).result()
        assert len(records) < 10

    @pytest.mark.parametrize("when_full", POLICIES)
    def test_one_that_writes_to_a_full_queue(
        self,
        install: Callable[[Callable[[logging.LogRecord], object]], None],
        when_full: str,
    ) -> None:
        queue = Queue(Recorder(Fails()), maxsize=1, when_full=when_full)  # type: ignore[arg-type]
        records: list[str] = []

        def ship(record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            queue.write(record)

        install(ship)
        queue.write(EVENT)
        assert Task(queue.flush, DEADLINE).result(2 * DEADLINE)
        Task(queue.close).result()
        stats = ledger(queue)
        assert stats.pending == 0
        assert len(records) < 10

    def test_one_that_writes_to_an_endpoint_that_is_down(
        self, install: Callable[[Callable[[logging.LogRecord], object]], None]
    ) -> None:
        endpoint = Endpoint("logs", NOWHERE, threshold=3, backoff=LONG)
        records: list[str] = []

        def ship(record: logging.LogRecord) -> None:
            records.append(record.getMessage())
            endpoint.write({"line": record.getMessage()})

        install(ship)
        endpoint.write(EVENT)
        eventually(lambda: endpoint.breaker_open)
        assert 1 <= len(records) < 10
        assert endpoint.metrics.pending == 1 + len(records)
        Task(stopped, endpoint).result()
        assert len(records) < 10


class TestConfiguration:
    def test_none_is_done(self) -> None:
        out = check_program("imports", "logging_is_not_configured")
        assert out == "['NullHandler'] 0 True\n"

    def test_one_logger_silences_everything(self) -> None:
        out = check_program("unconfigured", "one_logger_silences_everything")
        assert out == ""

    def test_what_was_left_at_exit_is_told(self) -> None:
        out = check_program("unconfigured", "what_was_left_at_exit_is_told")
        assert "ERROR endpoint 'hook': 10 events were not delivered before the process ended" in out
