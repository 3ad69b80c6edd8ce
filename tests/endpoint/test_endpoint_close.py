"""Endpoint: closing, being listed, the end of the process, forking."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest
from support import DEADLINE, LONG, Gate, Recorder, Task, Waits, eventually
from support.processes import check_program
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    stall,
    when,
)

from fastsinks import Breaker, CloseTimeoutError, SinkClosedError
from fastsinks.endpoint import Endpoint, open_endpoints


class TestClosing:
    def test_close_delivers_what_is_pending(self, receiver: Receiver) -> None:
        endpoint = Endpoint("e", receiver.url(), linger=LONG)
        endpoint.write_many(range(50))
        endpoint.close()
        endpoint.close()
        assert receiver.events == list(range(50))
        for write in (lambda: endpoint.write("event"), lambda: endpoint.write_many(["event"])):
            with pytest.raises(SinkClosedError):
                write()

    @pytest.mark.parametrize("behaviour", [stall(), answer(500)])
    def test_at_the_deadline_what_is_left_comes_back(self, behaviour: Any) -> None:
        lost = Recorder()
        with Receiver(default=behaviour) as receiver:
            endpoint = Endpoint(
                "e", receiver.url(), timeout=LONG, strategy=Waits(), dead_letter=lost
            )
            endpoint.write_many(range(10))
            receiver.wait(1)
            start = time.monotonic()
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close(timeout=0.1)
            assert time.monotonic() - start < 1
            receiver.wait_no_connection()
        assert caught.value.undelivered == lost.events == list(range(10))
        assert endpoint.metrics.dropped == 10
        assert endpoint.metrics.pending == 0

    def test_a_filter_passes_the_deadline_on(self) -> None:
        with Receiver(default=stall()) as receiver:
            endpoint = Endpoint("e", receiver.url(), timeout=LONG, ignore_actions=["pull"])
            endpoint.write_many(range(10))
            receiver.wait(1)
            with pytest.raises(CloseTimeoutError) as caught:
                endpoint.close(timeout=0.1)
            assert caught.value.undelivered == list(range(10))
            receiver.wait_no_connection()

    def test_every_closer_waits_for_the_same_end(self, gate: Gate) -> None:
        with Receiver(when(gate, answer())) as receiver:
            endpoint = Endpoint("e", receiver.url(), timeout=LONG)
            endpoint.write_many(range(3))
            gate.wait_entered()
            closers = [Task(endpoint.close, DEADLINE).blocked() for _ in range(3)]
            gate.open()
            for closer in closers:
                closer.result()
            assert receiver.events == list(range(3))

    def test_close_timeout_is_the_default(self) -> None:
        with Receiver(default=stall()) as receiver:
            endpoint = Endpoint("e", receiver.url(), timeout=LONG, close_timeout=0.1)
            assert endpoint.close_timeout == 0.1
            endpoint.write("event")
            receiver.wait(1)
            start = time.monotonic()
            with pytest.raises(CloseTimeoutError):
                endpoint.close()
            assert time.monotonic() - start < 1

    def test_leaving_the_block_closes(self, receiver: Receiver) -> None:
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("event")
            assert not endpoint.closed
        assert endpoint.closed
        receiver.wait_no_connection()

    def test_flush_says_whether_all_is_done(self, gate: Gate) -> None:
        with Receiver(when(gate, answer())) as receiver, Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("event")
            gate.wait_entered()
            assert endpoint.flush(timeout=0) is False
            gate.open()
            assert endpoint.flush() is True


class TestListing:
    def test_from_construction_until_closed(self, receiver: Receiver) -> None:
        before = open_endpoints()
        first = Endpoint("first", receiver.url())
        second = Endpoint("second", receiver.url())
        assert open_endpoints() == (*before, first, second)
        first.close()
        assert open_endpoints() == (*before, second)
        second.close()
        second.close()
        assert open_endpoints() == before

    def test_until_closed_however_it_went(self) -> None:
        with Receiver(default=stall()) as receiver:
            endpoint = Endpoint("e", receiver.url(), timeout=LONG)
            endpoint.write("event")
            receiver.wait(1)
            with pytest.raises(ValueError):
                endpoint.close(-1)
            assert endpoint in open_endpoints()
            with pytest.raises(CloseTimeoutError):
                endpoint.close(0)
            eventually(lambda: endpoint not in open_endpoints())

    def test_closed_by_its_own_worker(self, receiver: Receiver) -> None:
        class Ends(Breaker):
            def success(self, event: Any) -> None:
                super().success(event)
                endpoint.close()

        endpoint = Endpoint("e", receiver.url(), strategy=Ends(10, 1))
        endpoint.write("event")
        eventually(lambda: endpoint not in open_endpoints())

    def test_the_list_keeps_endpoints_alive(self, receiver: Receiver) -> None:
        Endpoint("forgotten", receiver.url()).write("event")
        gc.collect()
        (endpoint,) = [e for e in open_endpoints() if e.name == "forgotten"]
        endpoint.close()
        assert receiver.events == ["event"]

    def test_what_could_not_be_constructed_is_not_listed(self) -> None:
        before = open_endpoints()
        for options in ({"maxsize": -1}, {"timeout": 0}, {"strategy": object()}):
            with pytest.raises((TypeError, ValueError)):
                Endpoint("e", "http://127.0.0.1/", **options)  # type: ignore[arg-type]
        assert open_endpoints() == before


class TestExit:
    def test_what_is_pending_is_delivered(self, receiver: Receiver) -> None:
        check_program(
            "endpoint_ends", "what_is_pending", receiver.url("/first"), receiver.url("/second")
        )
        for path, events in (("/first", list(range(500))), ("/second", ["kept"])):
            assert [
                event for r in receiver.requests if r.path == path for event in r.events
            ] == events

    def test_the_first_request_may_come_then(self, receiver: Receiver) -> None:
        """The name is looked up although no thread can be started any more."""
        check_program("endpoint_ends", "the_first_request", f"http://localhost:{receiver.port}/")
        assert receiver.events == ["event"]

    def test_all_endpoints_have_their_time_at_the_same_time(self) -> None:
        """And what is left is reported."""
        with Receiver(default=stall()) as receiver:
            output = check_program("endpoint_exit", receiver.url())
        *lines, took = output.splitlines()
        assert sorted(line for line in lines if "process ended" in line) == [
            f"fastsinks endpoint 'stuck {i}': 3 events were not delivered before the process ended"
            for i in range(8)
        ]
        assert "s3cret" not in output
        assert 0.5 < float(took.split()[1]) < 2.5

    def test_nobody_lingers_while_another_is_waited_for(self, receiver: Receiver) -> None:
        with Receiver(default=stall()) as stuck:
            check_program("endpoint_ends", "nobody_lingers", stuck.url(), receiver.url())
        assert receiver.events == ["kept"]

    def test_closed_endpoints_cost_nothing_then(self) -> None:
        check_program("endpoint_ends", "closed_ones")


class TestFork:
    def test_the_child_delivers_its_own_events_alone(self) -> None:
        for close in (False, True):
            with Receiver() as receiver:
                assert check_program("endpoint_ends", "a_child", receiver.url(), close) == "done\n"
                got = receiver.events
            assert got.count("child") == 1
            assert [event for event in got if event != "child"] == [
                "parent 1",
                *["parent 2"] * 50,
                "parent 3",
            ]
