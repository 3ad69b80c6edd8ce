"""Each callback of an HTTPSink or an Endpoint calls back into it: a matrix of both."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from support import DEADLINE, Task, eventually
from support.receiver import Receiver, accepting_receiver, answer  # noqa: F401  (a fixture)

from fastsinks import Endpoint, HTTPSink, RetryStrategy, SinkClosedError


class World(logging.Handler):
    """A sink with all that it calls; `act` is called at the first two calls from `where`."""

    def __init__(self, where: str, act: Callable[[World], object]) -> None:
        super().__init__()
        self.where, self.act = where, act
        self.armed = 2
        self.calls = 0
        self.dead: list[Any] = []
        self.sink: Any = None
        self._guard = threading.Lock()

    def hook(self, where: str) -> None:
        if where != self.where:
            return
        with self._guard:
            self.calls += 1
            if not self.armed:
                return
            self.armed -= 1
        self.act(self)

    def handle(self, record: logging.LogRecord) -> bool:
        self.hook("log")  # without the lock of a handler, which would be its own fault
        return True

    media_type = "text/plain"

    def encode(self, events: Sequence[Any]) -> bytes:
        self.hook("encoder")
        return " ".join(map(str, events)).encode()

    def sign(self, body: bytes) -> dict[str, str]:
        self.hook("signer")
        return {"X-Signature": "signed"}

    def allow(self, address: object) -> bool:
        self.hook("allow")
        return True

    def success(self, status: int, event: Any) -> None:
        self.hook("listener")

    failure = success

    def error(self, exc: Exception, event: Any) -> None:
        self.hook("listener")

    def write(self, event: Any) -> None:
        self.dead.append(event)
        self.hook("dead letter")

    def close(self) -> None:
        pass

    class Strategy(RetryStrategy):
        """Gives up on an event at its second failure."""

        def __init__(self, world: World) -> None:
            self.world = world
            self.failures = 0

        def proceed(self, event: Any) -> float:
            self.world.hook("strategy")
            return 0.0

        def failure(self, event: Any, error: BaseException) -> bool:
            self.failures += 1
            return self.failures % 2 == 0


def look(world: World) -> object:
    sink = world.sink
    more = (sink.metrics, sink.latencies, sink.oldest) if isinstance(sink, Endpoint) else ()
    return repr(sink), sink.closed, sink.requests, sink.in_flight, more


def raises(error: type[BaseException]) -> Callable[[World], object]:
    def act(world: World) -> object:
        raise error("on purpose")

    return act


ACTS: dict[str, Callable[[World], object]] = {
    "write": lambda world: world.sink.write("extra"),
    "write_many": lambda world: world.sink.write_many(["extra", "extra"]),
    "close": lambda world: world.sink.close(),
    "close(0)": lambda world: world.sink.close(timeout=0),
    "look": look,
    "OSError": raises(OSError),
    "SinkClosedError": raises(SinkClosedError),
    "SystemExit": raises(SystemExit),
    "KeyboardInterrupt": raises(KeyboardInterrupt),
}
FLUSHES: dict[str, Callable[[World], object]] = {
    "flush": lambda world: world.sink.flush(),
    "flush(0)": lambda world: world.sink.flush(0),
}
CALLED = ["encoder", "signer", "allow", "log"]


@pytest.fixture
def make_world() -> Iterator[Callable[[str, Callable[[World], object]], World]]:
    with contextlib.ExitStack() as stack:

        def make(where: str, act: Callable[[World], object]) -> World:
            world = World(where, act)
            logger = logging.getLogger("fastsinks")
            logger.addHandler(world)
            stack.callback(logger.removeHandler, world)
            return world

        yield make


@pytest.mark.parametrize("where", [*CALLED, "listener"])
@pytest.mark.parametrize("what", ACTS)
def test_an_http_sink(make_world: Any, receiver: Receiver, what: str, where: str) -> None:
    world = make_world(where, ACTS[what])
    world.sink = sink = HTTPSink(
        receiver.url(),
        timeout=DEADLINE,
        encoder=world,
        signer=world.sign,
        allow=world.allow,
        listeners=[world],
    )

    def write() -> None:
        for number in range(4):
            with contextlib.suppress(BaseException):
                sink.write(number)

    Task(write).result()
    assert world.calls > 0 or where == "log"
    if not sink.closed:
        world.armed = 0
        before = len(receiver.requests)
        Task(sink.write, "after").result()
        assert len(receiver.requests) == before + 1
    Task(sink.close, DEADLINE).result()
    arrived = sum(len(request.body.split()) for request in receiver.requests)
    assert sink.counters.successes <= arrived


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("where", [*CALLED, "dead letter", "strategy"])
@pytest.mark.parametrize("what", ACTS | FLUSHES)
def test_an_endpoint(
    make_world: Any, receiver: Receiver, what: str, where: str, concurrency: int
) -> None:
    world = make_world(where, (ACTS | FLUSHES)[what])
    receiver.then(answer(), answer(500), answer(500), answer())
    world.sink = endpoint = Endpoint(
        "calls back",
        receiver.url(),
        timeout=DEADLINE,
        encoder=world,
        signer=world.sign,
        allow=world.allow,
        strategy=World.Strategy(world),
        dead_letter=world,
        batch_size=1,
        concurrency=concurrency,
        close_timeout=DEADLINE,
    )

    def write() -> None:
        for number in range(5):
            with contextlib.suppress(SinkClosedError):
                endpoint.write(number)
        endpoint.flush(DEADLINE)

    Task(write).result(2 * DEADLINE)
    assert world.calls > 0
    world.armed = 0
    if not endpoint.closed:
        Task(endpoint.write, "after").result()
        assert Task(endpoint.flush, DEADLINE).result(2 * DEADLINE)
    with contextlib.suppress(TimeoutError):
        Task(endpoint.close, DEADLINE).result(2 * DEADLINE)

    def adds_up() -> bool:
        metrics = endpoint.metrics
        finished = metrics.successes + metrics.dropped
        return metrics.events == finished and len(world.dead) == metrics.dropped

    eventually(adds_up)  # a close from inside a delivery goes on after it has returned
    assert endpoint.metrics.pending == 0
