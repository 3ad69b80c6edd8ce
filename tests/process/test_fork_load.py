"""Hundreds of forks while everything is in use: each event once, by the process that wrote it."""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from typing import Any

import pytest
from support import run_clean
from support.receiver import Receiver, answer

# Children and parent write to the same sinks. Each request says which process sent it.
PROGRAM = """
    import faulthandler, os, random, signal, sys, threading, time, warnings
    from fastsinks import *
    from support import Task, ledger

    faulthandler.enable()  # what a child is stuck in, once it is told to abort
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    sys.setswitchinterval(0.0002)  # locks are held across more switches, and so at more forks

    def signer(body):
        return {{"X-Process": str(os.getpid())}}

    class Flaky(Sink):
        "Fails every other time, so that troubles begin and end all the time."
        calls = 0

        def write(self, event):
            self.calls += 1
            if self.calls % 2:
                raise OSError
            taken.append(event)

    taken = []
    parent = os.getpid()
    plain = Endpoint("plain", {plain!r}, timeout=60, signer=signer, close_timeout=30, maxsize=300)
    wide = Endpoint("wide", {wide!r}, timeout=60, signer=signer, close_timeout=30, maxsize=300,
                    concurrency=3, batch_size=5)
    flaky = Queue(RetryingSink(Flaky(), Breaker(3, 0.0001)), maxsize=100, name="flaky")
    null = NullSink()
    channel = Channel(buffer=10)
    sink = Broadcaster(plain, wide, flaky, Queue(null, maxsize=50), channel)
    over = threading.Event()

    def write(name):
        count = 0
        while not over.is_set():
            for _ in range(10):
                sink.write(f"{{name}} {{count}}")
                count += 1
            sink.write_many([f"{{name}} {{count}}", f"{{name}} {{count + 1}}"])
            count += 2
            over.wait(0.005)  # more of them would only be more for the receiver to read
        return count

    def read():
        return sum(1 for _ in channel)

    def child(number):
        assert not len(channel)  # nobody reads it here
        sink.write(f"child {{number}} one")
        sink.write_many([f"child {{number}} many"])
        if number % 3:
            for endpoint in plain, wide:
                assert endpoint.flush(20)
        if number % 5 == 0:
            # A thread of the child's may have the identity of one of the parent's.
            thread = threading.Thread(target=sink.write, args=(f"child {{number}} thread",))
            thread.start()
            thread.join()
        sink.close()
        assert [event.split()[1] for event in channel] == [str(number)] * (2 + (number % 5 == 0))
        for queue in sink.sinks[2:4]:
            assert not ledger(queue).pending and not ledger(queue).dropped, ledger(queue)

    def fork(number):
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

    def reap(children, most):
        pause = threading.Event()
        while len(children) > most:
            for pid, (number, deadline) in list(children.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    assert status == 0, f"child {{number}} ended with {{status}}"
                    del children[pid]
                elif time.monotonic() > deadline:
                    os.kill(pid, signal.SIGABRT)
                    children[pid] = number, deadline + 3600
            pause.wait(0.001)

    tasks = [Task(write, f"parent {{i}}") for i in range(3)]
    reader = Task(read)
    children = {{}}
    for number in range({forks}):
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
        assert not metrics.dropped and not metrics.errors, metrics
    print(parent, *counts)
"""


def expected(counts: list[int], forks: int) -> tuple[Counter[str], Counter[str]]:
    """The events of the parent, and those of the children."""
    parents = Counter(f"parent {i} {n}" for i, count in enumerate(counts) for n in range(count))
    children = Counter(f"child {number} one" for number in range(forks))
    children.update(f"child {number} many" for number in range(forks))
    children.update(f"child {number} thread" for number in range(0, forks, 5))
    return parents, children


@pytest.mark.timeout(180)
def test_forks_under_load(request: pytest.FixtureRequest) -> None:
    forks = request.config.getoption("--forks")
    with Receiver() as plain, Receiver(default=answer(202)) as wide:
        program = textwrap.dedent(PROGRAM).format(plain=plain.url(), wide=wide.url(), forks=forks)
        pid, *numbers = run_clean(program, timeout=170).split()
        parents, children = expected([int(number) for number in numbers], forks)
        for receiver in plain, wide:
            by_parent: Counter[str] = Counter()
            by_children: Counter[str] = Counter()
            processes: dict[int, set[str | None]] = defaultdict(set)
            for request in receiver.requests:
                process: Any = request.header("X-Process")
                (by_parent if process == pid else by_children).update(request.events)
                processes[request.connection].add(process)
            assert by_parent == parents
            assert by_children == children
            assert all(len(users) == 1 for users in processes.values())  # nobody shares one
