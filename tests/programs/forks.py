"""Programs that fork in the middle of something: the first argument says of what."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from support import Fails, Gate, Recorder, Task, Waits, ledger, os_threads

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    Dispatcher,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    RetryStrategy,
    Sink,
    SinkClosedError,
)
from fastsinks._core import log
from fastsinks._core.backend import Counters

# CPython 3.12 and later warn of any fork beside threads, which is what is tested here.
warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")


def in_child(function: Callable[[], object]) -> None:
    """Run the function in a forked child, which must end well within ten seconds."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    deadline = time.monotonic() + 10
    pause = threading.Event()
    while not (done := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        pause.wait(0.005)
    assert done[1] == 0, done


def pending_events_stay_with_the_parent() -> None:
    gate = Gate()
    parent = os.getpid()

    def out(events: list[Any]) -> None:
        gate()
        print(os.getpid() == parent, *events, flush=True)

    dst = Recorder(out)
    queue = Queue(dst)
    queue.write_many(range(3))
    gate.wait_entered()

    def child():
        gate.open()
        assert len(queue) == 0, len(queue)
        assert queue.flush(5)
        ledger(queue)

    in_child(child)
    assert len(queue) == 3
    gate.open()
    queue.close()


def the_child_can_use_the_queue_at_once() -> None:
    gate = Gate()
    dst = Recorder(lambda events: gate() if events == ["stuck"] else None)
    queue = Queue(dst, maxsize=2)
    queue.write_many(["stuck", "full"])
    gate.wait_entered()

    def child():
        for number in range(100):
            queue.write(number)
        assert queue.flush(5)
        assert dst.events == list(range(100)), dst.events
        queue.close(5)
        assert dst.closes == 1
        print("child")

    in_child(child)
    assert dst.events == []
    gate.open()
    queue.close()
    assert dst.events == ["stuck", "full"]
    print("parent")


def the_child_can_close_at_once() -> None:
    gate = Gate()
    dst = Recorder(gate)
    queue = Queue(dst)
    queue.write("one")
    gate.wait_entered()
    in_child(lambda: queue.close(5))
    gate.open()
    queue.close()
    print(dst.events, dst.closes)


def a_fork_of_an_idle_process() -> None:
    dst = Recorder()
    queue = Queue(dst)
    queue.write("before")
    assert queue.flush(5)

    def child():
        queue.write("in the child")
        queue.close(5)
        print(dst.events)

    in_child(child)
    queue.write("after")
    queue.close(5)
    print(dst.events)


def what_waits_in_the_parent_does_not_wait_in_the_child() -> None:
    stuck = Gate()
    full = Queue(Recorder(stuck), maxsize=1)
    full.write("one")
    channel = Channel()
    strategy = Waits()
    retrying = RetryingSink(Recorder(Fails(times=1)), strategy)
    busy = Broadcaster(Recorder(stuck))
    tasks = [
        Task(full.write, "two"),
        Task(full.flush),
        Task(channel.get),
        Task(retrying.write, "one"),
        Task(busy.write, "one"),
    ]
    for task in tasks:
        task.blocked()

    def child():
        stuck.open()
        full.write("child")
        assert full.flush(5)
        strategy.failures = 0
        retrying.write("child")
        busy.write("child")
        reader = threading.Thread(target=lambda: channel.write("child"), daemon=True)
        reader.start()
        assert channel.get(5) == "child"
        reader.join(5)
        for sink in (full, channel, retrying, busy):
            sink.close(5)
        print("child")

    in_child(child)
    stuck.open()
    channel.write("parent")
    retrying.close()
    try:
        tasks[3].result()
    except SinkClosedError:
        pass
    assert tasks[2].result() == "parent"
    for task in (tasks[0], tasks[1], tasks[4]):
        task.result()
    full.close()
    busy.close()
    print("parent")


def forks_while_writers_write() -> None:
    parent = os.getpid()
    astray = []

    class Checking(Sink):
        def write(self, event):
            if event[0] != os.getpid():
                astray.append(event)

    queues = [Queue(Checking(), maxsize=50, batch_size=5) for _ in range(3)]
    sink = Broadcaster(*queues)
    stop = threading.Event()

    def write():
        count = 0
        while not stop.is_set():
            sink.write((parent, count))
            sink.write_many([(parent, count)] * 3)
            count += 1
        return count

    writers = [Task(write) for _ in range(3)]

    def child():
        for number in range(50):
            sink.write((os.getpid(), number))
        for queue in queues:
            assert queue.flush(5)
            assert ledger(queue).dropped == 0
        sink.close(5)
        assert not astray, astray[:3]

    for _ in range(20):
        in_child(child)
    stop.set()
    counts = [writer.result() for writer in writers]
    sink.close()
    assert not astray
    for queue in queues:
        assert ledger(queue) == (4 * sum(counts), 4 * sum(counts), 0, 0), ledger(queue)
    print("done")


def a_child_that_ends_in_the_usual_way_delivers_what_is_its_own() -> None:
    def out(events):
        gate()
        where = "parent" if os.getpid() == parent else "child"
        gate()
        os.write(1, f"{events[0]} in the {where}\n".encode())

    parent = os.getpid()
    gate = Gate()
    queue = Queue(Recorder(out))
    queue.write("first")
    gate.wait_entered()
    pid = os.fork()
    gate.open()
    if not pid:
        queue.write("second")
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def a_grandchild() -> None:
    dst = Recorder()
    queue = Queue(dst)

    def child():
        queue.write("child")
        assert queue.flush(5)

        def grandchild():
            queue.write("grandchild")
            queue.close(5)
            assert dst.events == ["child", "grandchild"], dst.events

        in_child(grandchild)
        queue.close(5)
        assert dst.events == ["child"], dst.events

    in_child(child)
    queue.write("parent")
    queue.close(5)
    print(dst.events)


def the_childs_queues_need_their_own_threads_only() -> None:
    gate = Gate()
    stuck = [Queue(Recorder(gate)) for _ in range(20)]
    for queue in stuck:
        queue.write("stuck")
    gate.wait_entered()

    def child():
        assert os_threads() == 1
        dst = Recorder()
        with Queue(dst) as queue:
            queue.write("one")
            dst.wait(1)
        assert os_threads() < 10, os_threads()

    in_child(child)
    gate.open()
    for queue in stuck:
        queue.close()
    print("done")


def what_threads_of_the_parent_were_counting() -> None:
    breaker, counters, null, burst = Breaker(1, 0.0), Counters(), NullSink(), log.Burst("b")
    gate = Gate()

    def hold():
        # The compiled ones have locks of another kind, which no test can take.
        with contextlib.ExitStack() as stack:
            stack.enter_context(log._lock.get())
            for thing in (breaker, counters, null):
                if hasattr(thing, "_lock"):
                    stack.enter_context(thing._lock)
            gate()

    task = Task(hold)
    gate.wait_entered()

    def child():
        assert not breaker.failure("event", OSError())
        counters.error(1)
        null.write("event")
        burst.happened("event", "a reason", 2)
        burst.over()
        assert (counters.errors, null.count) == (1, 1)

    in_child(child)
    gate.open()
    task.result()
    print("parent")


def what_is_being_accounted_for_is_not_waited_for() -> None:
    class Listener:
        def ingress(self, event):
            pass

        def egress(self, event):
            told()

    told = Gate()
    dst = Recorder()
    queue = Queue(dst, listeners=[Listener()])
    queue.write("parent")
    told.wait_entered()

    def child():
        told.open()
        assert queue.flush(5)
        release = Gate()
        dst.events.clear()
        dst._hook = release
        queue.write("child")
        release.wait_entered()
        assert not queue.flush(0)  # it is not delivered yet
        release.open()
        assert queue.flush(5)
        assert dst.events == ["child"], dst.events
        queue.close(5)
        print("child")

    in_child(child)
    told.open()
    queue.close()
    print(*dst.events)


def what_a_channel_holds_stays_with_the_parent() -> None:
    channel = Channel(buffer=2)
    channel.write("one")
    channel.write("two")

    def child():
        assert len(channel) == 0
        channel.write("child")  # there is room
        assert channel.get(5) == "child"
        channel.close()
        assert list(channel) == []

    in_child(child)
    channel.close()
    print(*channel)


def a_thread_of_the_childs_is_not_taken_for_one_of_the_parents() -> None:
    for make in (
        lambda dst: Broadcaster(dst),
        lambda dst: RetryingSink(dst, Breaker(0, 0.0)),
    ):
        gate = Gate()
        dst = Recorder(gate)
        sink = make(dst)
        task = Task(sink.write, "parent")
        gate.wait_entered()

        def child(dst=dst, sink=sink):
            # The system gives the first thread the place of the one that is missing.
            first, second = Gate(), Gate()
            dst._hook = lambda events: (first if events == ["first"] else second)()
            dst.crowd = dst._inside = 0
            one = Task(sink.write, "first")
            first.wait_entered()
            two = Task(sink.write, "second").blocked()
            assert not second.entered.is_set()  # it is not its turn
            first.open()
            second.open()
            one.result()
            two.result()
            assert dst.events == ["first", "second"], dst.events
            assert dst.crowd == 1
            sink.close(5)
            print("child")

        in_child(child)
        gate.open()
        task.result()
        assert dst.events == ["parent"]
        sink.close()


def a_module_that_is_loaded_after_the_fork() -> None:
    def child() -> None:
        from fastsinks._core.retrying import RetryingSink

        gate, entered = Gate(), []

        def enter(events: list[Any]) -> None:
            entered.extend(events)
            gate()

        sink = RetryingSink(Recorder(enter), RetryStrategy())  # a wrapper's lock, which it looks at
        assert isinstance(sink, Wrapper)
        tasks = [Task(sink.write, "first")]
        gate.wait_entered()
        tasks.append(Task(sink.write, "second").blocked())
        assert entered == ["first"], entered
        gate.open()
        for task in tasks:
            task.result()
        assert entered == ["first", "second"], entered
        print("child")

    from fastsinks._core.wrapper import Wrapper

    assert "fastsinks._core.retrying" not in sys.modules
    in_child(child)


def a_closed_dispatcher_is_closed_in_the_child() -> None:
    dispatcher = Dispatcher()
    queue = Queue(NullSink(), dispatcher=dispatcher)
    queue.write("parent")
    dispatcher.close()

    def child():
        try:
            queue.write("child")
        except SinkClosedError:
            print("refused")

    in_child(child)


def a_fork_that_runs_none_of_pythons_hooks() -> None:
    os.fork = ctypes.PyDLL(None).fork
    hooks = []
    os.register_at_fork(before=lambda: hooks.append("before"))
    gate = Gate()
    stuck = Queue(Recorder(gate), maxsize=1)
    stuck.write("parent")
    gate.wait_entered()
    null = NullSink()
    channel = Channel(buffer=1)
    channel.write("parent")
    strategy = Waits()
    failing = Recorder(Fails(times=1))
    retrying = RetryingSink(failing, strategy)
    broken = Queue(RetryingSink(Recorder(Fails()), Breaker(0, 3600.0)))
    broken.write("parent")
    wide = Broadcaster(Recorder(gate))
    tasks = [
        Task(stuck.write, "parent"),
        Task(wide.write, "parent"),
        Task(retrying.write, "parent"),
    ]
    for task in tasks:
        task.blocked()

    def child():
        gate.open()
        assert (len(stuck), len(channel), len(broken)) == (0, 0, 0)
        stuck.write("child")
        assert stuck.flush(5)
        wide.add(null)
        wide.write("child")
        strategy.failures = 0
        retrying.write("child")
        channel.write("child")
        assert channel.get(5) == "child"
        for sink in (stuck, wide, retrying, channel, broken):
            sink.close(5)
        assert null.count == 1
        print("child")

    for _ in range(20):
        in_child(child)
    assert not hooks
    gate.open()
    assert channel.get(5) == "parent"
    tasks[0].result()
    tasks[1].result()
    retrying.close()
    print("parent")
    os._exit(0)  # the last of them backs off still


def code_that_a_sink_calls_may_fork(where: str) -> None:
    forked: list[str] = []

    def fork(here):
        if here != where or forked:
            return
        forked.append(here)
        before = list(kept)

        def child():
            if where != "close":
                queue.write("child")
                assert queue.flush(5)
                assert kept == [*before, "child"], kept
                queue.close(5)
            other = Recorder()
            with Broadcaster(Queue(other)) as broadcaster:
                broadcaster.write("another")
            assert other.events == ["another"]

        in_child(child)

    kept = []
    fails = where in ("strategy", "dead letter", "log")

    class Destination:
        def write(self, event):
            fork("write")
            if fails and not forked:
                raise OSError
            kept.append(str(event))

        def close(self):
            fork("close")

    class Listener:
        def ingress(self, event):
            fork("ingress")

        def egress(self, event):
            fork("egress")

    class Letters:
        def write(self, event):
            fork("dead letter")

        def close(self): ...

    class Strategy(RetryStrategy):
        def proceed(self, event):
            return 0.0

        def failure(self, event, error):
            fork("strategy")
            return False

        def success(self, event): ...

    class Handler(logging.Handler):
        def emit(self, record):
            fork("log")

    class Event:
        def __str__(self):
            return "parent"

        def __del__(self):
            fork("del")

    logging.getLogger("fastsinks").addHandler(Handler())
    dst: Any = Destination()
    if where == "strategy":
        dst = RetryingSink(dst, Strategy())
    queue = Queue(dst, listeners=[Listener()], dead_letter=Letters())
    sink = Filter(queue, lambda event: fork("match") or True)
    sink.write(Event())
    assert queue.flush(15)
    sink.write(Event())
    sink.close(15)
    assert forked == [where], forked
    print(kept)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
