"""A line while it runs: the endpoint of the moment, its writers, its children, its dead."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import weakref
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import Task

from fastsinks import CloseTimeoutError, Endpoint, EndpointMetrics, QueueFullError, SinkClosedError

from .specs import PATIENCE, Spec, identify

CHILD_EVENTS = 30


class Morgue:
    """A dead letter that keeps the ids on disk, so that the memory of the process does not grow.

    Without a lock, for a child may write to it, too: a line is written in one piece.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def write(self, event: Any) -> None:
        os.write(self._file, f"{identify(event)}\n".encode())

    def close(self) -> None:
        os.close(self._file)


@dataclass
class Term:
    """What is left of an endpoint that has been closed."""

    number: int
    metrics: EndpointMetrics
    late: float  #: seconds by which close() missed its deadline; below zero if it was early
    undelivered: list[str]
    endpoint: weakref.ref[Endpoint]


@dataclass
class Writing:
    """What one writer wrote: all numbers below `count` but those refused."""

    count: int = 0
    refused: array[int] = field(default_factory=lambda: array("q"))  #: small: it is kept


@dataclass
class Child:
    """What a forked child says of itself."""

    writer: str
    pid: int = 0  #: while it lives
    count: int = 0
    undelivered: list[str] = field(default_factory=list)
    trouble: str = "it ended without a word"


class Line:
    def __init__(self, spec: Spec, url: str, folder: Path) -> None:
        self.spec = spec
        self.buried = folder / f"{spec.name}.dead"
        self.morgue = Morgue(self.buried)
        self.terms: list[Term] = []
        self.writings: dict[str, Writing] = {}
        self.children: list[Child] = []
        self._url = f"{url}/{spec.name}"
        self._count = 0
        self._closers: list[Task] = []
        self.endpoint = self._make()

    def _make(self) -> Endpoint:
        self._count += 1
        spec = self.spec
        return Endpoint(
            f"{spec.name}.{self._count}",
            self._url,
            headers={"X-Line": f"{spec.name}.{self._count}"},
            timeout=0.5,
            retry_after_max=0.2,
            concurrency=spec.concurrency,
            batch_size=spec.batch_size,
            dead_letter=self.morgue,
            **spec.options(),
        )

    # -- the conductor's deeds

    def remake(self, timeout: float, swap: Callable[[Endpoint, Endpoint], object]) -> None:
        """Writers turn to a new endpoint at once; the old one takes its time to close."""
        old, self.endpoint = self.endpoint, self._make()
        swap(old, self.endpoint)
        self._closers.append(Task(self._close, old, self._count - 1, timeout))

    def _close(self, endpoint: Endpoint, number: int, timeout: float) -> None:
        undelivered: list[str] = []
        began = time.monotonic()
        try:
            endpoint.close(timeout)
        except CloseTimeoutError as error:
            undelivered = [identify(event) for event in error.undelivered]
        late = time.monotonic() - began - timeout
        self.terms.append(Term(number, endpoint.metrics, late, undelivered, weakref.ref(endpoint)))

    def fork(self) -> Task:
        """A child of this process writes to the same endpoint; the task ends with it."""
        child = Child(f"child{len(self.children)}")
        self.children.append(child)
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.write(writer, json.dumps(self._live_as(child)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        child.pid = pid
        return Task(self._hear, child, reader)

    def _live_as(self, child: Child) -> dict[str, Any]:
        """In the child, which has no thread but this."""
        endpoint, trouble = self.endpoint, ""
        before = endpoint.metrics
        if before.pending:
            trouble = f"it was born with {before.pending} events"
        for number in range(CHILD_EVENTS):
            endpoint.write(self._event(child.writer, number))
        undelivered = []
        try:
            endpoint.close(PATIENCE)
        except CloseTimeoutError as error:
            undelivered = [identify(event) for event in error.undelivered]
        accepted = endpoint.metrics.events - before.events
        if accepted != CHILD_EVENTS:
            trouble = f"its endpoint accepted {accepted} events of {CHILD_EVENTS}"
        return {"count": CHILD_EVENTS, "undelivered": undelivered, "trouble": trouble}

    def _hear(self, child: Child, reader: int) -> None:
        with open(reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child.pid, 0)
        child.pid = 0
        if said:
            vars(child).update(json.loads(said))

    def bereave(self) -> None:
        """Kill the children that have had their time: what they have not said is missing."""
        for child in self.children:
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)

    def end(self, timeout: float) -> None:
        """Begin to close the last endpoint."""
        self._closers.append(Task(self._close, self.endpoint, self._count, timeout))
        del self.endpoint

    def ended(self, timeout: float) -> bool:
        """Wait for all that were closed; whether they are."""
        deadline = time.monotonic() + timeout
        for closer in self._closers:
            closer.join(max(0.0, deadline - time.monotonic()))
        late = [closer for closer in self._closers if not closer.done]
        for closer in self._closers:
            if closer not in late:
                closer.result()
        self._closers.clear()
        self.morgue.close()
        return not late

    # -- its writers

    def _event(self, writer: str, number: int) -> Any:
        return self.spec.event(f"{writer}:{number}")

    def write_until(self, stop: threading.Event, name: str, seed: str) -> None:
        """A writer: bursts of single events and of blocks, to whichever endpoint there is."""
        rng = random.Random(seed)
        writing = self.writings[name] = Writing()
        while True:
            size = rng.randint(1, 20)
            if stop.wait(size / self.spec.rate * rng.uniform(0.5, 1.5)):
                return
            first = writing.count
            events = [self._event(name, first + i) for i in range(size)]
            if rng.random() < 0.5:
                self._write(writing, events)
            else:
                for event in events:
                    self._write(writing, [event])

    def _write(self, writing: Writing, events: list[Any]) -> None:
        while True:
            endpoint = self.endpoint
            try:
                if len(events) == 1:
                    endpoint.write(events[0])
                else:
                    endpoint.write_many(events)
            except SinkClosedError:
                # Its successor is there already, or else the wrong endpoint was closed.
                assert self.endpoint is not endpoint, f"{endpoint} is closed"
                continue
            except QueueFullError:
                writing.refused.extend(range(writing.count, writing.count + len(events)))
            writing.count += len(events)
            return
