"""What a program that uses everything looks like to a type checker.

Checked by ``mypy --strict``, never run. ``assert_type`` pins down what users
see; a wrong call carries an ignore, which is an error where it is not needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, assert_type

import fastsinks
from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    CloseTimeoutError,
    DeliveryError,
    Dispatcher,
    Endpoint,
    EndpointMetrics,
    ExponentialBackoff,
    Filter,
    HTTPSink,
    NullSink,
    Queue,
    QueueFullError,
    RetryingSink,
    RetryStrategy,
    Sink,
    SinkClosedError,
    SinkError,
    ignore,
)
from fastsinks.events import EVENTS_MEDIA_TYPE, Envelope, Event, Target, decode, encode, new_event


class Console(Sink):
    """A sink of the user's own."""

    def write(self, event: Any) -> None:
        self.last = event


class Duck:
    """A destination that is no Sink."""

    def write(self, event: Any) -> None: ...

    def close(self) -> None: ...


class QueueListener:
    def ingress(self, event: Any) -> None: ...

    def egress(self, event: Any) -> None: ...


class RetryListener:
    def active(self, event: Any) -> None: ...

    def retry(self, event: Any, error: BaseException) -> None: ...


class HTTPListener:
    def success(self, status: int, event: Any) -> None: ...

    def failure(self, status: int, event: Any) -> None: ...

    def error(self, exc: Exception, event: Any) -> None: ...


class Patient(RetryStrategy):
    def proceed(self, event: Any) -> float:
        return 0.5

    def failure(self, event: Any, error: BaseException) -> bool:
        return isinstance(error, DeliveryError) and error.status == 410

    def success(self, event: Any) -> None: ...


class Even:
    def match(self, event: Any) -> bool:
        return int(event) % 2 == 0


class Lines:
    media_type = "text/plain"

    def encode(self, events: Iterable[Any]) -> bytes:
        return b"\n".join(str(event).encode() for event in events)


def sign(body: bytes) -> Mapping[str, str]:
    return {"X-Length": str(len(body))}


def plumbing() -> None:
    assert_type(fastsinks.backend, str)
    assert_type(fastsinks.__version__, str)

    null = NullSink()
    null.write(None)
    null.write_many([1, "two"])
    assert_type(null.count, int)
    assert_type(null.closed, bool)

    dispatcher = Dispatcher(max_workers=2, idle_timeout=1.0, name="mine")
    with Queue(
        Duck(),
        maxsize=10,
        when_full="drop_oldest",
        batch_size=5,
        linger=0.1,
        listeners=[QueueListener()],
        dead_letter=null,
        dispatcher=dispatcher,
        name="mine",
    ) as queue:
        assert_type(queue.write(object()), None)
        assert_type(len(queue), int)
        assert_type(queue.flush(timeout=1.0), bool)
        accepted, delivered, dropped, pending = queue.stats()
        assert_type(accepted + delivered + dropped + pending, int)
        assert_type(queue.stats().pending, int)
        queue.close(timeout=1)
    dispatcher.close(timeout=None)

    Queue(null, when_full="sometimes")  # type: ignore[arg-type]
    Queue(null, 10)  # type: ignore[call-arg]
    Queue(object())  # type: ignore[arg-type]
    Queue(null, maxsize="many")  # type: ignore[arg-type]

    broadcaster = Broadcaster(null, Duck(), Console())
    broadcaster.add(Duck())
    broadcaster.remove(null)
    assert_type(broadcaster.dropped, int)
    for sink in broadcaster.sinks:
        sink.write("event")
    broadcaster.add(None)  # type: ignore[arg-type]

    Filter(null, Even())
    Filter(null, lambda event: event is not None)
    Filter(null, ignore(media_types=["text/plain"], actions=("pull",)))


def reading(channel: Channel) -> None:
    channel = Channel(buffer=3)
    channel.get(timeout=0.5)
    for event in channel:
        print(event)
    assert_type(channel.done(timeout=1), bool)


async def reading_asynchronously() -> None:
    async for event in Channel():
        print(event)


def retrying() -> None:
    for strategy in (
        Breaker(3, 1.0, max_attempts=5, max_elapsed=60.0),
        ExponentialBackoff(base=0.1, factor=0.1, max=5, max_attempts=3),
        Patient(),
    ):
        sink = RetryingSink(
            HTTPSink("http://localhost/"), strategy, listeners=[RetryListener()], dead_letter=Duck()
        )
        assert_type(strategy.proceed("event"), float)
        assert_type(strategy.failure("event", ValueError()), bool)
        assert_type(sink.retries, int)
        assert_type(sink.dropped, int)


def delivering() -> None:
    HTTPSink(
        "https://localhost/",
        timeout=2,
        headers={"Authorization": "Bearer", "Accept": ["text/plain", "text/html"]},
        encoder=Lines(),
        signer=sign,
        ssl_context=None,
        listeners=[HTTPListener()],
    )
    with Endpoint(
        "registry",
        "https://localhost/",
        timeout=1.0,
        threshold=10,
        backoff=1.0,
        headers={"Authorization": "Bearer"},
        ignore_media_types=["application/octet-stream"],
        ignore_actions=["pull"],
        batch_size=100,
        linger=0.01,
        maxsize=10_000,
        when_full="block",
        strategy=Patient(),
        encoder=Lines(),
        signer=sign,
        dead_letter=NullSink(),
        close_timeout=5.0,
    ) as endpoint:
        assert_type(endpoint.name, str)
        assert_type(endpoint.url, str)
        metrics: EndpointMetrics = endpoint.metrics
        assert_type(metrics.pending + metrics.retries, int)
        assert_type(metrics.statuses, dict[str, int])


def events() -> None:
    event = new_event("push", Target(media_type="text/plain", size=3))
    assert_type(event, Event)
    body: bytes = encode([event])
    envelope: Envelope = decode(body)
    assert_type(envelope.events[0].target.digest, str)
    assert_type(EVENTS_MEDIA_TYPE, str)


def failing(sink: Sink) -> None:
    try:
        sink.write("event")
        sink.close(timeout=1.0)
    except SinkClosedError as error:
        assert_type(error, SinkClosedError)
    except QueueFullError:
        pass
    except CloseTimeoutError as error:
        assert_type(error.undelivered, list[Any])
    except DeliveryError as error:
        assert_type(error.status, int | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.permanent, bool)
    except SinkError:
        pass
