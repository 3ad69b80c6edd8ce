"""Programs that fork with an HTTPSink: the first argument says how, the second is a URL."""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings

from fastsinks import SinkClosedError
from fastsinks.http import HTTPSink

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking with threads


def connections_of_its_own(url: str, close: str) -> None:
    signal.alarm(15)

    sink = HTTPSink(url, timeout=10)
    sink.write("parent 1")
    child = os.fork()
    if not child:
        sink.write("child 1")
        sink.write("child 2")
        if close == "True":
            sink.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    sink.write("parent 2")
    sink.close()
    print("done")


def while_another_thread_is_posting(url: str) -> None:
    signal.alarm(15)

    sink = HTTPSink(url, timeout=10)
    over = threading.Event()

    def post() -> None:
        while not over.is_set():
            sink.write("parent")

    thread = threading.Thread(target=post)
    thread.start()
    for _ in range(20):
        child = os.fork()
        if not child:
            signal.alarm(10)
            sink.write("child")
            sink.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    over.set()
    thread.join()
    sink.close()
    print("done")


def closed_stays_closed(url: str) -> None:
    sink = HTTPSink(url)
    sink.close()
    child = os.fork()
    if not child:
        try:
            sink.write("event")
        except SinkClosedError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
