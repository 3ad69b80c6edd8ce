"""Forks often while everything is in use: children and parent write to the same sinks.

Each request says which process sent it. Prints the parent's id and how many events each of its
writers has written.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import warnings
from typing import Any

from support import Task, ledger

from fastsinks import Breaker, Broadcaster, Channel, Endpoint, NullSink, Queue, RetryingSink, Sink

faulthandler.enable()  # what a child is stuck in, once it is told to abort
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
plain_url, wide_url, forks = sys.argv[1:]
sys.setswitchinterval(0.0002)  # locks are held across more switches, and so at more forks


def signer(body: bytes) -> dict[str, str]:
    return {"X-Process": str(os.getpid())}


class Flaky(Sink):
    """Fails every other time, so that troubles begin and end all the time."""

    calls = 0

    def write(self, event: Any) -> None:
        self.calls += 1
        if self.calls % 2:
            raise OSError
        taken.append(event)


taken: list[Any] = []
parent = os.getpid()
plain = Endpoint("plain", plain_url, timeout=60, signer=signer, close_timeout=30, maxsize=300)
wide = Endpoint(
    "wide",
    wide_url,
    timeout=60,
    signer=signer,
    close_timeout=30,
    maxsize=300,
    concurrency=3,
    batch_size=5,
)
flaky = Queue(RetryingSink(Flaky(), Breaker(3, 0.0001)), maxsize=100, name="flaky")
null = NullSink()
channel = Channel(buffer=10)
sink = Broadcaster(plain, wide, flaky, Queue(null, maxsize=50), channel)
over = threading.Event()


def write(name: str) -> int:
    count = 0
    while not over.is_set():
        for _ in range(10):
            sink.write(f"{name} {count}")
            count += 1
        sink.write_many([f"{name} {count}", f"{name} {count + 1}"])
        count += 2
        over.wait(0.005)  # more of them would only be more for the receiver to read
    return count


def read() -> int:
    return sum(1 for _ in channel)


def child(number: int) -> None:
    assert not len(channel)  # nobody reads it here
    sink.write(f"child {number} one")
    sink.write_many([f"child {number} many"])
    if number % 3:
        for endpoint in plain, wide:
            assert endpoint.flush(20)
    if number % 5 == 0:
        # A thread of the child's may have the identity of one of the parent's.
        thread = threading.Thread(target=sink.write, args=(f"child {number} thread",))
        thread.start()
        thread.join()
    sink.close()
    assert [event.split()[1] for event in channel] == [str(number)] * (2 + (number % 5 == 0))
    for queue in sink.sinks[2:4]:
        assert (ledger(queue).pending, ledger(queue).dropped) == (0, 0), ledger(queue)


def fork(number: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        del taken[:]
        child(number)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)


def reap(children: dict[int, tuple[int, float]], most: int) -> None:
    pause = threading.Event()
    while len(children) > most:
        for pid, (number, deadline) in list(children.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                assert status == 0, f"child {number} ended with {status}"
                del children[pid]
            elif time.monotonic() > deadline:
                os.kill(pid, signal.SIGABRT)
                children[pid] = number, deadline + 3600
        pause.wait(0.001)


tasks = [Task(write, f"parent {i}") for i in range(3)]
reader = Task(read)
children: dict[int, tuple[int, float]] = {}
for number in range(int(forks)):
    children[fork(number)] = number, time.monotonic() + 10
    reap(children, 2)
reap(children, 0)
over.set()
counts = [task.result() for task in tasks]
sink.close()
assert reader.result() == sum(counts)
assert len(taken) == sum(counts)
assert null.count == sum(counts)
for queue in plain, wide:
    metrics = queue.metrics
    assert metrics.events == metrics.successes == sum(counts), metrics
    assert (metrics.dropped, metrics.errors) == (0, 0), metrics
print(parent, *counts)
