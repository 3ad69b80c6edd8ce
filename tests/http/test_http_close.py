"""HTTPSink: closing, interrupting, forking, being forgotten."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
import time
import weakref
from typing import Any

import pytest
from support import BAD_SECONDS, DEADLINE, LONG, Task, interrupt, parked
from support.processes import check_program
from support.receiver import Receiver, answer, drip, head, raw, stall

from fastsinks import DeliveryError, SinkClosedError
from fastsinks.http import HTTPSink


def closes_at_once(sink: HTTPSink) -> None:
    start = time.monotonic()
    sink.close()
    assert time.monotonic() - start < 1.0


def test_close_interrupts_a_request() -> None:
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "event")
        receiver.wait(1)
        task.blocked()
        closes_at_once(sink)
        with pytest.raises(SinkClosedError):
            task.result()
        assert sink.counters.errors == 1
        receiver.wait_no_connection()


def test_close_interrupts_sending() -> None:
    with Receiver(stall(), read_bodies=False) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "x" * 16 * 1024 * 1024)
        receiver.wait(1)
        task.blocked()
        closes_at_once(sink)
        with pytest.raises(SinkClosedError):
            task.result()


def test_close_interrupts_connecting() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(listener.getsockname())
            sink = HTTPSink(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout=LONG)
            task = Task(sink.write, "event").blocked()
            closes_at_once(sink)
            with pytest.raises(SinkClosedError):
                task.result()
        finally:
            for sock in waiting:
                sock.close()


def test_close_interrupts_a_name_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = socket.getaddrinfo
    asked, hanging = threading.Event(), threading.Event()

    def lookup(host: str, *args: Any) -> Any:
        if host == "slow.test" and socket.AI_NUMERICHOST not in args:
            asked.set()
            assert hanging.wait(DEADLINE)
            host = "127.0.0.1"
        return genuine(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    sink = HTTPSink("http://slow.test/", timeout=LONG)
    task = Task(sink.write, "event")
    assert asked.wait(DEADLINE)
    closes_at_once(sink)
    with pytest.raises(SinkClosedError):
        task.result()
    hanging.set()


def test_an_answer_that_has_come_is_not_taken_back() -> None:
    slow_body = drip(b"x" * 10_000, after=head(200, "Content-Length: 10000"))
    with Receiver(slow_body) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "event")
        receiver.wait(1)
        task.blocked()
        closes_at_once(sink)
        try:
            task.result()
        except SinkClosedError:  # close was quicker than the head of the answer
            assert sink.counters.successes == 0
        else:
            assert sink.counters.successes == 1


def test_writers_that_wait_for_their_turn_are_let_go() -> None:
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        first = Task(sink.write, "first")
        receiver.wait(1)
        others = [Task(sink.write, "other").blocked() for _ in range(3)]
        closes_at_once(sink)
        for task in [first, *others]:
            with pytest.raises(SinkClosedError):
                task.result()
        assert sink.counters.errors == 1  # nothing was attempted for the others
        assert len(receiver.requests) == 1


def test_close_on_several_threads() -> None:
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "event")
        receiver.wait(1)
        closers = [Task(sink.close) for _ in range(4)]
        for closer in closers:
            closer.result()
            assert not sink._transport().in_flight._exchanges
        with pytest.raises(SinkClosedError):
            task.result()


def test_close_lets_idle_connections_go() -> None:
    with Receiver() as receiver:
        sink = HTTPSink(receiver.url())
        sink.write("event")
        sink.close()
        receiver.wait_no_connection()


@pytest.mark.parametrize("timeout", [0, 0.5, 5, None])
def test_close_takes_a_timeout(timeout: float | None) -> None:
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "event")
        receiver.wait(1)
        sink.close(timeout)
        with pytest.raises(SinkClosedError):
            task.result()


@pytest.mark.parametrize(("timeout", "error"), BAD_SECONDS)
def test_bad_timeouts_close_nothing(timeout: Any, error: type[Exception]) -> None:
    with Receiver() as receiver, HTTPSink(receiver.url()) as sink:
        with pytest.raises(error):
            sink.close(timeout)
        assert not sink.closed
        sink.write("event")


def test_ctrl_c_interrupts_a_request() -> None:
    with Receiver(stall()) as receiver, HTTPSink(receiver.url(), timeout=LONG) as sink:
        assert interrupt(lambda: sink.write("event")) < 1.0
        receiver.wait_no_connection()
        sink.write("the next request works")
        assert len(receiver.requests) == 2


def test_ctrl_c_interrupts_the_wait_for_a_turn() -> None:
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)
        task = Task(sink.write, "event")
        receiver.wait(1)
        assert interrupt(lambda: sink.write("event")) < 1.0
        sink.close()
        with pytest.raises(SinkClosedError):
            task.result()


def test_a_signal_handler_may_close() -> None:
    """Even one that interrupts the request itself, on the same thread."""
    with Receiver(stall()) as receiver:
        sink = HTTPSink(receiver.url(), timeout=LONG)

        def press() -> None:
            receiver.wait(1)
            parked(threading.main_thread())
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, lambda *_: sink.close())
        try:
            task = Task(press)
            with pytest.raises(SinkClosedError):
                sink.write("event")
            task.result()
        finally:
            signal.signal(signal.SIGUSR1, before)
        receiver.wait_no_connection()


def test_a_forgotten_sink_closes_its_connection() -> None:
    with Receiver() as receiver:
        sink = HTTPSink(receiver.url())
        sink.write("event")
        gone = weakref.ref(sink._transport())
        del sink
        gc.collect()
        assert gone() is None
        receiver.wait_no_connection()


def test_failures_leave_no_sockets_behind() -> None:
    broken = [raw(b"garbage\r\n"), stall(b"HTTP/1.1 200 OK\r\n"), answer(500), raw(b"HTTP/1.1 2")]
    with Receiver(*broken) as receiver, HTTPSink(receiver.url(), timeout=0.2) as sink:
        for _ in broken:
            with pytest.raises(DeliveryError):
                sink.write("event")
        receiver.wait_no_connection()
        assert not set(sink._transport().in_flight._sockets)


@pytest.mark.parametrize("close", [False, True])
def test_a_fork_has_connections_of_its_own(close: bool) -> None:
    """Neither using nor closing the sink there disturbs the parent's connection."""
    with Receiver() as receiver:
        assert (
            check_program("http_forks", "connections_of_its_own", receiver.url(), close) == "done\n"
        )
        seen = [(request.connection, request.events[0]) for request in receiver.requests]
        assert seen == [(1, "parent 1"), (2, "child 1"), (2, "child 2"), (1, "parent 2")]


def test_a_fork_while_another_thread_is_posting() -> None:
    """Locks that the other thread held are not waited for in the child."""
    with Receiver() as receiver:
        assert (
            check_program("http_forks", "while_another_thread_is_posting", receiver.url())
            == "done\n"
        )
        events = [request.events[0] for request in receiver.requests]
        assert events.count("child") == 20
        assert len({r.connection for r in receiver.requests if r.events == ["parent"]}) == 1


def test_closed_stays_closed_in_a_fork() -> None:
    with Receiver() as receiver:
        check_program("http_forks", "closed_stays_closed", receiver.url())
        assert receiver.requests == []
