"""The door to user code: each callback raises in turn, and the log handler is broken as well."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import DEADLINE, BlockRecorder, Recorder, Task, ledger
from support.processes import run_program
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
)

from fastsinks import (
    Breaker,
    Broadcaster,
    Dispatcher,
    Endpoint,
    Filter,
    HTTPSink,
    NullSink,
    Queue,
    RetryingSink,
    RetryStrategy,
)
from fastsinks._core.callbacks import takes_timeout

ERRORS = [ValueError, SystemExit, KeyboardInterrupt]


class Broken(logging.Handler):
    """A log handler whose disk is full; it counts what it could not write."""

    def __init__(self, error: type[BaseException]) -> None:
        super().__init__()
        self.error = error
        self.records = 0

    def handle(self, record: logging.LogRecord) -> bool:
        self.records += 1
        raise self.error("disk full")


@pytest.fixture(params=[None, *ERRORS], ids=["a good log", *(e.__name__ for e in ERRORS)])
def broken_log(request: pytest.FixtureRequest) -> Iterator[Broken | None]:
    """Each test runs with a log that works, and then with logs that are broken in several ways."""
    if request.param is None:
        yield None
        return
    handler = Broken(request.param)
    logger = logging.getLogger("fastsinks")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(params=ERRORS, ids=lambda error: error.__name__)
def error(request: pytest.FixtureRequest) -> Any:
    return request.param


def deliver(sink: Any, events: list[Any], *, timeout: float = DEADLINE) -> None:
    """Write and close on a thread that is not the main one, where KeyboardInterrupt is an error."""

    def work() -> None:
        for event in events:
            sink.write(event)
        assert sink.flush(timeout)
        sink.close(timeout)

    Task(work).result()


class Raises:
    """An object of the user's whose methods all raise, and count their calls."""

    def __init__(self, error: type[BaseException], *names: str) -> None:
        self.calls = 0
        for name in names:
            setattr(self, name, functools.partial(self._raise, error))

    def _raise(self, error: type[BaseException], *args: Any) -> None:
        self.calls += 1
        raise error("on purpose")


class Once(RetryStrategy):
    """Asks for another attempt after each failure, at once."""


def test_a_destination(broken_log: Broken | None, error: Any) -> None:
    """It raises at each second event: those are dropped, and buried."""

    def hook(events: list[Any]) -> None:
        if events[0] % 2:
            raise error("on purpose")

    dst, dead = Recorder(hook), Recorder()
    queue = Queue(dst, dead_letter=dead)
    deliver(queue, list(range(10)))
    assert ledger(queue) == (10, 5, 5, 0)
    assert (dst.events, dead.events) == ([0, 2, 4, 6, 8], [1, 3, 5, 7, 9])
    assert dst.closes == 1
    if broken_log is not None:
        assert broken_log.records > 0


def test_closing_a_destination(broken_log: Broken | None, error: Any) -> None:
    dst = Recorder(on_close=Raises(error, "close").close)
    queue = Queue(dst)
    with contextlib.suppress(error):
        deliver(queue, [1, 2])
    assert queue.closed
    assert dst.events == [1, 2]
    queue.close()
    assert dst.closes == 1


def test_the_listeners_of_a_queue(broken_log: Broken | None, error: Any) -> None:
    listener, dst = Raises(error, "ingress", "egress"), Recorder()
    queue = Queue(dst, listeners=[listener])
    deliver(queue, list(range(5)))
    assert ledger(queue) == (5, 5, 0, 0)
    assert dst.events == list(range(5))
    assert listener.calls == 10


def test_the_listeners_of_a_retrying_sink(broken_log: Broken | None, error: Any) -> None:
    failures = iter([OSError()])

    def hook(events: list[Any]) -> None:
        for failure in failures:
            raise failure

    listener, dst = Raises(error, "active", "retry"), Recorder(hook)
    queue = Queue(RetryingSink(dst, Once(), listeners=[listener]))
    deliver(queue, list(range(5)))
    assert ledger(queue) == (5, 5, 0, 0)
    assert dst.events == list(range(5))
    assert listener.calls == 7


@pytest.mark.parametrize("method", ["proceed", "failure"])
def test_a_strategy_that_cannot_decide(broken_log: Broken | None, error: Any, method: str) -> None:
    """Its event is dropped, and no other."""

    def hook(events: list[Any]) -> None:
        if events == ["bad"]:
            raise OSError

    class Strategy(RetryStrategy):
        def proceed(self, event: Any) -> float:
            if method == "proceed" and event == "bad":
                raise error("on purpose")
            return 0.0

        def failure(self, event: Any, why: BaseException) -> bool:
            raise error("on purpose")

    dst, dead = Recorder(hook), Recorder()
    queue = Queue(RetryingSink(dst, Strategy()), dead_letter=dead)
    deliver(queue, ["a", "bad", "b"])
    assert ledger(queue) == (3, 2, 1, 0)
    assert (dst.events, dead.events) == (["a", "b"], ["bad"])


def test_a_strategy_that_hears_of_success(broken_log: Broken | None, error: Any) -> None:
    class Strategy(RetryStrategy):
        def success(self, event: Any) -> None:
            raise error("on purpose")

    dst = BlockRecorder()
    queue = Queue(RetryingSink(dst, Strategy()), batch_size=3)
    deliver(queue, list(range(7)))
    assert ledger(queue) == (7, 7, 0, 0)
    assert dst.events == list(range(7))


def test_a_matcher(broken_log: Broken | None, error: Any) -> None:
    """The writer gets what it raises, and nothing was handed on."""
    dst = Recorder()
    sink = Filter(dst, Raises(error, "match"))

    def write() -> None:
        with pytest.raises(error, match="on purpose"):
            sink.write("a")

    Task(write).result()
    assert dst.attempts == []


def test_a_dead_letter(broken_log: Broken | None, error: Any) -> None:
    def refuse(events: list[Any]) -> None:
        raise OSError

    dead = Raises(error, "write", "close")
    queue = Queue(BlockRecorder(refuse), batch_size=3, dead_letter=dead)
    deliver(queue, list(range(7)))
    assert ledger(queue) == (7, 0, 7, 0)
    assert dead.calls == 7


def test_a_sink_of_a_broadcaster(broken_log: Broken | None, error: Any) -> None:
    def fail(events: list[Any]) -> None:
        raise error("on purpose")

    bad, good = Recorder(fail), Recorder()
    broadcaster = Broadcaster(bad, good, Queue(NullSink()))

    def write() -> None:
        for event in range(5):
            with contextlib.suppress(error):  # what is no Exception is raised at the end
                broadcaster.write(event)
        broadcaster.close(DEADLINE)

    Task(write).result()
    assert good.events == list(range(5))
    assert broadcaster.dropped == 5
    assert (bad.closes, good.closes) == (1, 1)


# ------------------------------------------------------------------------------ HTTP


def post(receiver: Receiver, **options: Any) -> tuple[Queue, Recorder]:
    """Five events by way of a queue and retries; the queue, and what was buried."""
    dead = Recorder()
    sink = HTTPSink(receiver.url(), timeout=DEADLINE, **options)
    retrying = RetryingSink(sink, Breaker(3, 0.01, max_attempts=4), dead_letter=dead)
    queue = Queue(retrying, dead_letter=dead)
    deliver(queue, [{"id": str(number)} for number in range(5)])
    return queue, dead


def test_a_listener_of_an_http_sink(
    broken_log: Broken | None, error: Any, receiver: Receiver
) -> None:
    """What was accepted is delivered: it is not sent again, not dropped, not buried."""
    listener = Raises(error, "success", "failure", "error")
    queue, dead = post(receiver, listeners=[listener])
    assert len(receiver.requests) == 5
    assert ledger(queue) == (5, 5, 0, 0)
    assert dead.events == []
    assert listener.calls == 5


@pytest.mark.parametrize("option", ["encoder", "signer", "allow"])
def test_what_makes_a_request(
    broken_log: Broken | None, error: Any, option: str, receiver: Receiver
) -> None:
    """An event that cannot be sent is dropped, after its attempts, and nothing reaches the wire.

    A body that cannot be made is not asked for again, whatever the encoder raised.
    """
    made = Raises(error, "encode", "__call__")
    made.media_type = "text/plain"  # type: ignore[attr-defined]
    chosen = made if option == "encoder" else made.__call__  # type: ignore[operator]
    queue, dead = post(receiver, **{option: chosen})
    assert receiver.requests == []
    assert ledger(queue).pending == 0
    assert len(dead.events) == 5
    assert made.calls == (5 if option == "encoder" else 20)


def test_an_endpoint_goes_on(broken_log: Broken | None, error: Any, receiver: Receiver) -> None:
    dead = Raises(error, "write", "close")
    encoder_calls: list[Any] = []

    class Encoder:
        media_type = "text/plain"

        def encode(self, events: Any) -> bytes:
            encoder_calls.append(events)
            if any(event == "bad" for event in events):
                raise ValueError
            return b"fine"

    endpoint = Endpoint(
        "goes on", receiver.url(), encoder=Encoder(), dead_letter=dead, timeout=DEADLINE
    )
    deliver(endpoint, ["a", "bad", "b"])
    metrics = endpoint.metrics
    assert (metrics.events, metrics.successes, metrics.dropped) == (3, 2, 1)
    assert dead.calls == 1


# ----------------------------------------------------------------- a thread that helps


def test_a_delivered_event_counts_as_delivered_on_a_thread_that_helps(
    broken_log: Broken | None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread delivers where no worker can start, as at the end of the interpreter."""

    start = threading.Thread.start

    def refuse(*args: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            raise RuntimeError("can't start new thread")
        if isinstance(args[0], threading.Thread):  # the receiver's
            start(args[0])

    class Exits:
        def success(self, status: int, event: Any) -> None:
            raise SystemExit(7)

        failure = error = success

    sink = HTTPSink(receiver.url(), timeout=DEADLINE, listeners=[Exits()])
    dispatcher = Dispatcher()
    queue = Queue(sink, dispatcher=dispatcher)
    monkeypatch.setattr("_thread.start_new_thread", refuse)
    monkeypatch.setattr("threading.Thread.start", refuse)
    queue.write({"id": "1"})
    with pytest.raises((SystemExit, KeyboardInterrupt)):  # the listener's, or the log's
        queue.flush(DEADLINE)
    monkeypatch.undo()
    assert ledger(queue) == (1, 1, 0, 0)
    queue.close(DEADLINE)
    dispatcher.close(DEADLINE)
    assert len(receiver.requests) == 1


def test_a_broken_log_at_exit_ends_the_closing_of_no_other_endpoint(error: Any) -> None:
    done = run_program("unconfigured", "a_handler_raises_at_exit", error.__name__)
    assert sorted(done.stdout.split()) == ["a", "a", "b", "b", "c", "c"]
    assert done.returncode == 0


# ----------------------------------------------------------------------- close(timeout)


def plain(timeout: Any = None) -> None: ...
def without(*args: Any, **options: Any) -> None: ...
def keyword_only(*, timeout: float) -> None: ...


class Bound:
    def close(self, timeout: float | None = None) -> None: ...
    def shut(self) -> None:
        timeout = 1  # a local of that name is no parameter
        del timeout


@pytest.mark.parametrize(
    ("close", "takes"),
    [
        (plain, True),
        (without, False),
        (keyword_only, True),
        (Bound().close, True),
        (Bound().shut, False),
        (functools.wraps(plain)(lambda *args: None), True),
        (functools.partial(plain), True),
        (functools.partial(without, 1), False),
        (NullSink().close, True),
        (Queue(NullSink()).close, True),
        ([].append, False),
        (dict, False),
    ],
)
def test_whether_close_takes_a_timeout(close: Callable[..., object], takes: bool) -> None:
    assert takes_timeout(close) is takes
