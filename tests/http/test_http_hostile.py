"""HTTPSink against receivers that are slow, broken or hostile: one deadline holds, memory too."""

from __future__ import annotations

import gzip
import resource
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support import DEADLINE, in_time, punctual
from support.receiver import (
    Behaviour,
    Connection,
    Receiver,
    Request,
    answer,
    drip,
    flood,
    hang_up,
    head,
    raw,
    redirect,
    reset,
    stall,
)

from fastsinks import DeliveryError
from fastsinks.http import HTTPSink

TIMEOUT = 0.3
BOUND = TIMEOUT * 1.2 + 0.25  # which is for a busy machine to run a thread; no wait of the sink's

LARGE = "x" * (16 * 1024 * 1024)  # more than the sockets' buffers take


def timed(call: Callable[[], Any]) -> tuple[BaseException | None, float]:
    """What the call raised, and the seconds that it took."""
    start = time.monotonic()
    try:
        call()
    except Exception as error:
        return error, time.monotonic() - start
    return None, time.monotonic() - start


def repeated(connection: Connection, request: Request) -> bool:
    connection.send(head(307, "Location: /", "Content-Length: 0"))
    return True


SLOW: dict[str, Behaviour] = {
    "never answers": stall(),
    "stalls in the status line": stall(b"HTTP/1.1 2"),
    "stalls before the headers": stall(b"HTTP/1.1 200 OK\r\n"),
    "stalls in the headers": stall(b"HTTP/1.1 200 OK\r\nX-A: b\r\nX-B"),
    "drips the status line": drip(b"HTTP/1.1 " + b" " * 10_000 + b"200 OK\r\n\r\n"),
    "drips a header": drip(b"y" * 10_000, after=b"HTTP/1.1 200 OK\r\nX: "),
    "drips headers": drip(b"A: b\r\n" * 10_000, after=b"HTTP/1.1 200 OK\r\n"),
    "drips 100s": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
    "drips 103s": drip(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000),
    "sends 100 and no more": stall(b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
@punctual
def test_one_deadline_bounds_any_answer(behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver, HTTPSink(receiver.url(), timeout=TIMEOUT) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert isinstance(error, DeliveryError)
        assert (error.status, error.permanent) == (None, False)
        assert "no answer within 0.3 s" in str(error)
        assert took > TIMEOUT * 0.9
        in_time(took, BOUND)
        sink.write("the next request works")
        assert receiver.connections == 2


BODIES: dict[str, Behaviour] = {
    "stalls": stall(head(200, "Content-Length: 100") + b"x"),
    "drips": drip(b"x" * 1000, after=head(200, "Content-Length: 1000")),
    "drips until the end": drip(b"x" * 10_000, after=head(200)),
    "drips a chunk": drip(
        b"x" * 10_000, after=head(200, "Transfer-Encoding: chunked") + b"fff\r\n"
    ),
    "drips chunks": drip(b"1\r\nx\r\n" * 1000, after=head(200, "Transfer-Encoding: chunked")),
    "drips a chunk's size": drip(
        b"1;" + b"x" * 10_000, after=head(200, "Transfer-Encoding: chunked")
    ),
    "drips trailers": drip(
        b"A: b\r\n" * 1000, after=head(200, "Transfer-Encoding: chunked") + b"0\r\n"
    ),
}


@pytest.mark.parametrize("behaviour", BODIES.values(), ids=BODIES.keys())
@punctual
def test_a_slow_body_costs_no_more_than_the_deadline(behaviour: Behaviour) -> None:
    """The status has said that the event is accepted; the rest is not worth an error."""
    with Receiver(behaviour) as receiver, HTTPSink(receiver.url(), timeout=TIMEOUT) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert error is None
        in_time(took, BOUND)
        assert sink.counters.successes == 1
        sink.write("the next request works")
        assert receiver.connections == 2


@punctual
def test_a_slow_refusal_is_a_refusal() -> None:
    slow = stall(head(503, "Content-Length: 100", "Retry-After: 7"))
    with Receiver(slow) as receiver, HTTPSink(receiver.url(), timeout=TIMEOUT) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert isinstance(error, DeliveryError)
        assert (error.status, error.retry_after) == (503, 7.0)
        in_time(took, BOUND)


@punctual
def test_a_receiver_that_never_reads() -> None:
    """The deadline bounds sending too."""
    released = threading.Event()

    def greet(connection: Connection) -> bool:
        connection.receiver.closing.wait()
        released.set()
        return False

    with Receiver(greet=greet) as receiver, HTTPSink(receiver.url(), timeout=TIMEOUT) as sink:
        error, took = timed(lambda: sink.write(LARGE))
        assert isinstance(error, DeliveryError)
        assert error.status is None
        in_time(took, BOUND)
    assert released.wait(DEADLINE)


@punctual
def test_a_receiver_that_reads_a_little_at_a_time() -> None:
    def sip(connection: Connection, request: Request) -> bool:
        while not connection.receiver.closing.wait(0.01):
            connection.sock.recv(4096)
        return False

    with (
        Receiver(sip, read_bodies=False) as receiver,
        HTTPSink(receiver.url(), timeout=TIMEOUT) as sink,
    ):
        error, took = timed(lambda: sink.write(LARGE))
        assert isinstance(error, DeliveryError)
        in_time(took, BOUND)


@punctual
def test_a_port_that_answers_no_connection() -> None:
    """With its backlog full, a listener lets further connections wait for ever."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        try:
            for _ in range(4):
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(address)
            with HTTPSink(f"http://127.0.0.1:{address[1]}/", timeout=TIMEOUT) as sink:
                error, took = timed(lambda: sink.write("event"))
            assert isinstance(error, DeliveryError)
            assert error.status is None
            assert "no answer within" in str(error)
            in_time(took, BOUND)
        finally:
            for sock in waiting:
                sock.close()


@punctual
def test_a_resolver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread waits for it, however many writes give up."""
    genuine = socket.getaddrinfo
    hanging, asked = threading.Event(), []

    def lookup(host: str, port: int, *args: Any) -> Any:
        if host == "slow.test" and socket.AI_NUMERICHOST not in args:
            asked.append(host)
            assert hanging.wait(DEADLINE)
            host = "127.0.0.1"
        return genuine(host, port, *args)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with (
        Receiver() as receiver,
        HTTPSink(f"http://slow.test:{receiver.port}/", timeout=TIMEOUT) as sink,
    ):
        for _ in range(3):
            error, took = timed(lambda: sink.write("event"))
            assert isinstance(error, DeliveryError)
            assert error.status is None
            in_time(took, BOUND)
        assert asked == ["slow.test"]
        hanging.set()
        for thread in threading.enumerate():
            if thread.name == "resolve slow.test":
                thread.join(DEADLINE)
        sink.write("the next request works")
        assert len(receiver.requests) == 1


@punctual
def test_redirects_share_the_deadline() -> None:
    def late(connection: Connection, request: Request) -> bool:
        connection.receiver.closing.wait(TIMEOUT / 2.5)
        return repeated(connection, request)

    with Receiver(default=late) as receiver, HTTPSink(receiver.url(), timeout=TIMEOUT) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert isinstance(error, DeliveryError)
        assert error.status is None
        in_time(took, BOUND)


def test_the_clock_starts_when_the_request_does() -> None:
    """Waiting for a permit is not the receiver's fault."""
    both = threading.Barrier(2)

    def late(connection: Connection, request: Request) -> bool:
        connection.receiver.closing.wait(0.6)
        return answer()(connection, request)

    with Receiver(default=late) as receiver, HTTPSink(receiver.url(), timeout=1.0) as sink:
        outcomes: list[Any] = []

        def write() -> None:
            both.wait(DEADLINE)
            outcomes.append(timed(lambda: sink.write("event"))[0])

        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert outcomes == [None, None]


BROKEN: dict[str, Behaviour] = {
    "resets": reset,
    "hangs up": hang_up,
    "half a status line": raw(b"HTTP/1.1 2"),
    "a status and no line end": raw(b"HTTP/1.1 200"),
    "a reason and no line end": raw(b"HTTP/1.1 200 OK"),
    "a status line and no more": raw(b"HTTP/1.1 200 OK\r\n"),
    "half a header": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "headers without an end": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
    "an interim answer and no more": raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "garbage": raw(b"\x00\xff\xfe garbage\r\n\r\n"),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "an empty line": raw(b"\r\n\r\n", keep=True),
    "a status of two digits": raw(b"HTTP/1.1 20 OK\r\n\r\n", keep=True),
    "a status of four digits": raw(b"HTTP/1.1 2000 OK\r\n\r\n", keep=True),
    "a status that is no number": raw(b"HTTP/1.1 OK 200\r\n\r\n", keep=True),
    "a huge status": raw(b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n", keep=True),
    "HTTP/2": raw(b"HTTP/2 200\r\n\r\n", keep=True),
    "a long status line": raw(b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n"),
    "a long header": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"),
    "a thousand headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n"),
    "two lengths": raw(head(200, "Content-Length: 1", "Content-Length: 2") + b"xx", keep=True),
}


@pytest.mark.parametrize("behaviour", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_answer_is_an_error(behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver, HTTPSink(receiver.url(), timeout=5) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert isinstance(error, DeliveryError)
        assert (error.status, error.retry_after, error.permanent) == (None, None, False)
        assert took < 2.5
        assert sink.counters.errors == 1
        sink.write("the next request works")
        assert sink.counters.successes == 1
        assert len(receiver.requests) == 2


def test_a_reset_in_the_middle_of_the_request() -> None:
    def cut(connection: Connection, request: Request) -> bool:
        return connection.reset()

    with Receiver(cut, read_bodies=False) as receiver, HTTPSink(receiver.url(), timeout=5) as sink:
        error, took = timed(lambda: sink.write(LARGE))
        assert isinstance(error, DeliveryError)
        assert error.status is None
        assert took < 2.5


def test_a_reset_in_the_middle_of_a_later_request() -> None:
    """Nor does that count as a connection that was closed while it was idle."""

    def accept(connection: Connection, request: Request) -> bool:
        connection.read_body(request)
        return answer()(connection, request)

    with (
        Receiver(accept, reset, default=accept, read_bodies=False) as receiver,
        HTTPSink(receiver.url(), timeout=5) as sink,
    ):
        sink.write("first")
        error, _ = timed(lambda: sink.write(LARGE))
        assert isinstance(error, DeliveryError)
        assert error.status is None
        assert len(receiver.requests) == 2
        sink.write("the next request works")


def test_an_answer_that_does_not_wait_for_the_body() -> None:
    """It counts, unless the reset that follows it was quicker."""

    def early(connection: Connection, request: Request) -> bool:
        connection.send(head(413, "Content-Length: 0", "Connection: close"))
        return False

    with (
        Receiver(early, read_bodies=False) as receiver,
        HTTPSink(receiver.url(), timeout=5) as sink,
    ):
        error, took = timed(lambda: sink.write(LARGE))
        assert isinstance(error, DeliveryError)
        assert error.status in (413, None)
        assert took < 2.5


TORN: dict[str, Behaviour] = {
    "resets in the body": lambda connection, request: (
        connection.send(head(200, "Content-Length: 100") + b"x"),
        connection.reset(),
    )[1],
    "a body that is too short": raw(head(200, "Content-Length: 100") + b"x"),
    "half a chunk": raw(head(200, "Transfer-Encoding: chunked") + b"5\r\nab"),
    "a chunk that is none": raw(head(200, "Transfer-Encoding: chunked") + b"zz\r\n", keep=True),
    "a negative length": raw(head(200, "Content-Length: -5")),
    "a length that is no number": raw(head(200, "Content-Length: many")),
    "an encoding that is none": raw(
        head(200, "Content-Encoding: gzip", "Content-Length: 3") + b"abc"
    ),
}


@pytest.mark.parametrize("behaviour", TORN.values(), ids=TORN.keys())
def test_a_torn_body_does_not_take_the_answer_back(behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver, HTTPSink(receiver.url(), timeout=5) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert error is None
        assert took < 2.5
        receiver.wait_no_connection()
        sink.write("the next request works")
        assert len(receiver.requests) == 2


HUGE: dict[str, tuple[Behaviour, int | None]] = {
    "a body of a known length": (
        flood(b"x" * 65536, first=head(200, "Content-Length: 1000000000")),
        200,
    ),
    "a body without end": (flood(b"x" * 65536, first=head(200)), 200),
    "chunks without end": (
        flood(b"10000\r\n" + b"x" * 65536 + b"\r\n", first=head(200, "Transfer-Encoding: chunked")),
        200,
    ),
    "tiny chunks without end": (
        flood(b"1\r\nx\r\n" * 1000, first=head(200, "Transfer-Encoding: chunked")),
        200,
    ),
    "a huge chunk": (
        flood(b"x" * 65536, first=head(200, "Transfer-Encoding: chunked") + b"ffffffffff\r\n"),
        200,
    ),
    "chunk extensions without end": (
        flood(b"1;" + b"x" * 60_000 + b"\r\nx\r\n", first=head(200, "Transfer-Encoding: chunked")),
        200,
    ),
    "trailers without end": (
        flood(b"A: b\r\n" * 1000, first=head(200, "Transfer-Encoding: chunked") + b"0\r\n"),
        200,
    ),
    "a status line without end": (flood(b"H" * 65536), None),
    "a header without end": (flood(b"x" * 65536, first=b"HTTP/1.1 200 OK\r\nX: "), None),
    "headers without end": (flood(b"X: y\r\n" * 1000, first=b"HTTP/1.1 200 OK\r\n"), None),
    "100s without end": (flood(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000), None),
    "103s without end": (flood(b"HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n" * 1000), None),
    "large 103s without end": (
        flood(b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 60_000 + b"\r\n\r\n"),
        None,
    ),
}


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.long] if name == "103s without end" else [])
        for name, case in HUGE.items()
    ],
)
def test_answers_without_end_are_cut_off(behaviour: Behaviour, status: int | None) -> None:
    """Long before the deadline, and without keeping what comes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Receiver(behaviour) as receiver, HTTPSink(receiver.url(), timeout=20) as sink:
        error, took = timed(lambda: sink.write("event"))
        if status == 200:
            assert error is None
        else:
            assert isinstance(error, DeliveryError)
            assert error.status is None
        assert took < 10
        receiver.wait_no_connection()
        sink.write("the next request works")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 40_000  # KiB


def test_bodies_are_not_decompressed() -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    assert len(bomb) < 65536
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with (
        Receiver(answer(200, "Content-Encoding: gzip", body=bomb)) as receiver,
        HTTPSink(receiver.url()) as sink,
    ):
        sink.write("event")
        sink.write("event")
        assert receiver.connections == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_a_redirect_loop_ends() -> None:
    with Receiver(default=redirect("/")) as receiver, HTTPSink(receiver.url(), timeout=5) as sink:
        error, took = timed(lambda: sink.write("event"))
        assert isinstance(error, DeliveryError)
        assert error.status == 307
        assert took < 2.5
        assert len(receiver.requests) == 6
