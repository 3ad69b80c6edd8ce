"""The end of the program: what is pending is delivered, and nothing hangs or is printed."""

import textwrap
import time

import pytest
from support import at_length, run_clean, run_python

SINK = """
    import os, sys, threading, time
    import fastsinks
    from fastsinks import *

    class Out:
        "Writes each event as a line, without a buffer between here and the test."

        def __init__(self, pause=0.0):
            self.pause = threading.Event() if pause else None
            self.seconds = pause

        def write(self, event):
            if self.pause:
                self.pause.wait(self.seconds)
            os.write(1, f"{event}\\n".encode())

        def close(self):
            pass

    class Bad:
        def write(self, event):
            raise OSError

        def close(self):
            pass
"""
LINES = [str(number) for number in range(200)]


def program(code):
    return textwrap.dedent(SINK) + textwrap.dedent(code)


class TestPending:
    @pytest.mark.parametrize("pause", [0.0, 0.002])
    def test_at_the_end_of_the_program(self, pause):
        out = run_clean(program(f"queue = Queue(Out({pause}))\nqueue.write_many(range(200))\n"))
        assert out.split() == LINES

    def test_in_a_function_that_forgot_its_queue(self):
        out = run_clean(
            program(
                """
                def main():
                    Queue(Out(0.001)).write_many(range(200))

                main()
                """
            )
        )
        assert out.split() == LINES

    @pytest.mark.parametrize(
        ("end", "status"),
        [("sys.exit()", 0), ("sys.exit(3)", 3), ("raise ZeroDivisionError", 1)],
    )
    def test_whatever_the_end(self, end, status):
        done = run_python(program(f"queue = Queue(Out())\nqueue.write_many(range(200))\n{end}\n"))
        assert done.returncode == status
        assert done.stdout.split() == LINES
        assert ("ZeroDivisionError" in done.stderr) == (status == 1)
        assert "Fatal" not in done.stderr
        assert "fastsinks" not in done.stderr

    def test_in_many_queues(self):
        out = run_clean(
            program(
                """
                queues = [Queue(Out(0.001)) for _ in range(100)]
                for queue in queues:
                    queue.write_many([1, 2])
                """
            )
        )
        assert sorted(out.split()) == ["1"] * 100 + ["2"] * 100

    def test_behind_one_another(self):
        out = run_clean(
            program(
                """
                inner = Queue(Out(0.001))
                outer = Queue(Broadcaster(Filter(inner, lambda event: True)), batch_size=10)
                outer.write_many(range(200))
                """
            )
        )
        assert out.split() == LINES

    def test_in_a_block_that_is_waited_for(self):
        out = run_clean(
            program(
                """
                class Block(Out):
                    def write_many(self, events):
                        os.write(1, f"{list(events)}\\n".encode())

                queue = Queue(Block(), batch_size=10, linger=3600.0)
                queue.write_many(range(3))
                """
            )
        )
        assert out == "[0, 1, 2]\n"

    def test_on_a_dispatcher_of_its_own(self):
        out = run_clean(
            program(
                """
                dispatcher = Dispatcher(max_workers=1)
                queue = Queue(Out(0.001), dispatcher=dispatcher)
                queue.write_many(range(200))
                """
            )
        )
        assert out.split() == LINES

    def test_when_no_worker_was_ever_needed_before(self):
        """Written by an atexit handler, after the last moment at which a thread can start."""
        out = run_clean(
            program(
                """
                import atexit

                queue = Queue(Out())
                atexit.register(queue.write_many, range(200))
                """
            )
        )
        assert out.split() == LINES

    def test_after_a_retry(self):
        out = run_clean(
            program(
                """
                class Flaky(Out):
                    failures = 3

                    def write(self, event):
                        if self.failures:
                            self.failures -= 1
                            raise OSError
                        super().write(event)

                queue = Queue(RetryingSink(Flaky(), Breaker(0, 0.05)))
                queue.write_many(range(200))
                """
            )
        )
        assert out.split() == LINES


class TestHopeless:
    """What cannot be delivered does not keep the program, and is reported."""

    @pytest.fixture(autouse=True)
    def _at_length(self, monkeypatch):
        monkeypatch.setenv("FASTSINKS_EXIT_TIMEOUT", str(at_length(0.5, 5)))

    def test_a_receiver_that_never_recovers(self):
        began = time.monotonic()
        done = run_python(
            program(
                """
                import logging

                logging.basicConfig(format="%(message)s")
                queue = Queue(RetryingSink(Bad(), Breaker(1, 3600.0)))
                queue.write_many(["secret"] * 3)
                """
            )
        )
        assert time.monotonic() - began < 12
        assert done.returncode == 0
        assert done.stdout == ""
        assert "queue" in done.stderr
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr
        assert "Fatal" not in done.stderr

    def test_a_destination_that_never_returns(self):
        done = run_python(
            program(
                """
                queue = Queue(Out(3600.0))
                queue.write_many(["secret"] * 3)
                """
            )
        )
        assert done.returncode == 0
        assert "Fatal" not in done.stderr
        assert "secret" not in done.stderr


class TestNothingIsLeftBehind:
    def test_an_import_starts_nothing(self):
        out = run_clean(
            """
            import threading
            from support import os_threads

            before = os_threads()
            import fastsinks
            fastsinks.Queue(fastsinks.NullSink())
            print(os_threads() - before, threading.active_count())
            """
        )
        assert out == "0 1\n"

    def test_threads_that_wait_for_ever(self):
        assert (
            run_clean(
                program(
                    """
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
                    """
                )
            )
            == ""
        )

    def test_writers_that_go_on(self):
        """Daemon threads write while the interpreter goes down; again and again, no crash."""
        for _ in range(at_length(1, 5)):
            done = run_python(
                program(
                    """
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
                    """
                )
            )
            assert (done.returncode, done.stderr) == (0, "")

    def test_objects_that_outlive_the_package(self):
        assert (
            run_clean(
                program(
                    """
                    import builtins

                    queue = Queue(NullSink())
                    queue.write("one")
                    builtins.kept = [queue, Broadcaster(queue), Channel(1), Dispatcher()]
                    sys.kept = queue
                    """
                )
            )
            == ""
        )

    def test_a_sink_that_writes_as_it_is_finalised(self):
        assert (
            run_clean(
                program(
                    """
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
                    """
                )
            )
            == ""
        )
