"""Programs that end with something pending: the first argument says how.

What a scenario returns lives until the interpreter goes down, as a module's globals do.
"""

from __future__ import annotations

import atexit
import builtins
import logging
import os
import sys
import threading
from typing import Any

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    Dispatcher,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    Sink,
    SinkClosedError,
)


class Out:
    """Writes each event as a line, without a buffer between here and the test."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = threading.Event() if pause else None
        self.seconds = pause

    def write(self, event: Any) -> None:
        if self.pause:
            self.pause.wait(self.seconds)
        os.write(1, f"{event}\n".encode())

    def close(self) -> None:
        pass


class Bad:
    def write(self, event: Any) -> None:
        raise OSError

    def close(self) -> None:
        pass


def at_the_end_of_the_program(pause: str) -> object:
    queue = Queue(Out(float(pause)))
    queue.write_many(range(200))
    return queue


def whatever_the_end(end: str) -> object:
    queue = Queue(Out())
    queue.write_many(range(200))
    atexit.register(lambda: queue)  # SystemExit lets go of what is here
    if end == "exception":
        raise ZeroDivisionError
    sys.exit(int(end) if end else None)


def in_a_function_that_forgot_its_queue() -> None:
    def main():
        Queue(Out(0.001)).write_many(range(200))

    main()


def in_many_queues() -> object:
    queues = [Queue(Out(0.001)) for _ in range(100)]
    for queue in queues:
        queue.write_many([1, 2])
    return queues


def behind_one_another() -> object:
    inner = Queue(Out(0.001))
    outer = Queue(Broadcaster(Filter(inner, lambda event: True)), batch_size=10)
    outer.write_many(range(200))
    return outer


def in_a_block_that_is_waited_for() -> object:
    class Block(Out):
        def write_many(self, events):
            os.write(1, f"{list(events)}\n".encode())

    queue = Queue(Block(), batch_size=10, linger=3600.0)
    queue.write_many(range(3))
    return queue


def on_a_dispatcher_of_its_own() -> object:
    dispatcher = Dispatcher(max_workers=1)
    queue = Queue(Out(0.001), dispatcher=dispatcher)
    queue.write_many(range(200))
    return queue


def when_no_worker_was_ever_needed_before() -> None:
    queue = Queue(Out())
    atexit.register(queue.write_many, range(200))


def after_a_retry() -> object:
    class Flaky(Out):
        failures = 3

        def write(self, event):
            if self.failures:
                self.failures -= 1
                raise OSError
            super().write(event)

    queue = Queue(RetryingSink(Flaky(), Breaker(0, 0.05)))
    queue.write_many(range(200))
    return queue


def a_receiver_that_never_recovers() -> object:
    logging.basicConfig(format="%(message)s")
    queue = Queue(RetryingSink(Bad(), Breaker(1, 3600.0)))
    queue.write_many(["secret"] * 3)
    return queue


def a_destination_that_never_returns() -> object:
    queue = Queue(Out(3600.0))
    queue.write_many(["secret"] * 3)
    return queue


def threads_that_wait_for_ever() -> object:
    channel = Channel()
    full = Queue(Channel(), maxsize=1, dispatcher=Dispatcher())
    retrying = RetryingSink(Bad(), Breaker(0, 3600.0))
    started = threading.Barrier(5)

    def wait(call):
        started.wait(10)
        try:
            call()
        except Exception:
            pass

    for call in (
        channel.get,
        channel.done,
        lambda: list(channel),
        lambda: retrying.write("one"),
    ):
        threading.Thread(target=wait, args=(call,), daemon=True).start()
    started.wait(10)
    return channel, full, retrying


def writers_that_go_on() -> object:
    queues = [Queue(NullSink()) for _ in range(4)]
    sink = Broadcaster(*queues)
    started = threading.Barrier(4)

    def write():
        started.wait(10)
        try:
            while True:
                sink.write("one")
        except Exception:
            pass  # closed by the end of the program

    for _ in range(3):
        threading.Thread(target=write, daemon=True).start()
    started.wait(10)
    return sink


def objects_that_outlive_the_package() -> None:
    queue = Queue(NullSink())
    queue.write("one")
    vars(builtins)["kept"] = [queue, Broadcaster(queue), Channel(1), Dispatcher()]
    vars(sys)["kept"] = queue


def a_sink_that_writes_as_it_is_finalised() -> object:
    class Parting(Sink):
        def __init__(self, queue):
            self.queue = queue

        def write(self, event):
            pass

        def __del__(self):
            try:
                self.queue.write("late")
            except SinkClosedError:
                pass

    queue = Queue(NullSink())
    parting = Parting(queue)
    return queue, parting


def so_does_the_end_of_the_program() -> None:
    class Slow:
        def write(self, event):
            threading.Event().wait(0.005)
            os.write(1, f"{event} ".encode())

        def close(self):
            pass

    Queue(Slow()).write_many(range(20))


if __name__ == "__main__":
    kept = globals()[sys.argv[1]](*sys.argv[2:])
