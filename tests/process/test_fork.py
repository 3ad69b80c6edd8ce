"""Fork: the child delivers none of its parent's events and has queues that work at once."""

import subprocess
import sys
import textwrap

import pytest
from support import python_environment, run_clean

COMMON = """
    import contextlib, multiprocessing, os, sys, threading, time, traceback, warnings
    import fastsinks
    from fastsinks import *
    from support import Fails, Gate, Recorder, Task, Waits, ledger, os_threads

    # CPython 3.12 and later warn of any fork beside threads, which is what is tested here.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")

    def in_child(function):
        "Run the function in a forked child, which must end well within ten seconds."
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
"""


def fork_test(code):
    return run_clean(textwrap.dedent(COMMON) + textwrap.dedent(code), timeout=25)


def test_pending_events_stay_with_the_parent():
    out = fork_test(
        """
        gate = Gate()
        dst = Recorder(lambda events: [gate(), print(os.getpid() == parent, *events, flush=True)])
        parent = os.getpid()
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
        """
    )
    assert out == "True 0\nTrue 1\nTrue 2\n"


def test_the_child_can_use_the_queue_at_once():
    out = fork_test(
        """
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
        """
    )
    assert out == "child\nparent\n"


def test_the_child_can_close_at_once():
    out = fork_test(
        """
        gate = Gate()
        dst = Recorder(gate)
        queue = Queue(dst)
        queue.write("one")
        gate.wait_entered()
        in_child(lambda: queue.close(5))
        gate.open()
        queue.close()
        print(dst.events, dst.closes)
        """
    )
    assert out == "['one'] 1\n"


def test_a_fork_of_an_idle_process():
    out = fork_test(
        """
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
        """
    )
    assert out == "['before', 'in the child']\n['before', 'after']\n"


def test_what_waits_in_the_parent_does_not_wait_in_the_child():
    """Locks, turns and waiting calls of other threads stay behind."""
    out = fork_test(
        """
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
        """
    )
    assert out == "child\nparent\n"


def test_forks_while_writers_write():
    """A lock may be held at the moment of the fork, by a thread that the child does not have."""
    out = fork_test(
        """
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
        """
    )
    assert out == "done\n"


def test_a_child_that_ends_in_the_usual_way_delivers_what_is_its_own():
    out = fork_test(
        """
        def out(events):
            where = "parent" if os.getpid() == parent else "child"
            os.write(1, f"{events[0]} in the {where}\\n".encode())

        parent = os.getpid()
        gate = Gate()
        queue = Queue(Recorder(lambda events: [gate(), out(events)]))
        queue.write("first")
        gate.wait_entered()
        pid = os.fork()
        gate.open()
        if not pid:
            queue.write("second")
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """
    )
    assert sorted(out.splitlines()) == ["first in the parent", "second in the child"]


def test_a_grandchild():
    out = fork_test(
        """
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
        """
    )
    assert out == "['parent']\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method, tmp_path):
    """A worker process makes use of the library, as its parent does."""
    file = tmp_path / "program.py"
    file.write_text(
        textwrap.dedent(
            """
            import multiprocessing, sys, warnings
            from fastsinks import NullSink, Queue

            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            dst = NullSink()
            queue = Queue(dst)

            def work(count):
                before = dst.count
                queue.write_many(range(count))
                assert queue.flush(5)
                return dst.count - before

            if __name__ == "__main__":
                queue.write_many(range(10))
                with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
                    counts = pool.map(work, [1, 2, 3, 4])
                queue.close()
                print(counts, dst.count)
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(file), method],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.stderr, done.stdout) == ("", "[1, 2, 3, 4] 10\n")


def test_the_childs_queues_need_their_own_threads_only():
    out = fork_test(
        """
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
        """
    )
    assert out == "done\n"


def test_what_threads_of_the_parent_were_counting():
    """They are not in the child, and what they held at the fork is nobody's there."""
    out = fork_test(
        """
        from fastsinks._core import log
        from fastsinks._core.backend import Counters

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
        """
    )
    assert out == "parent\n"


def test_what_is_being_accounted_for_is_not_waited_for():
    """Another thread tells a listener of an event that is delivered, and is not in the child."""
    out = fork_test(
        """
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
        """
    )
    assert out == "child\nparent\n"


def test_what_a_channel_holds_stays_with_the_parent():
    out = fork_test(
        """
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
        """
    )
    assert out == "one two\n"


def test_a_thread_of_the_childs_is_not_taken_for_one_of_the_parents():
    """Which was in the middle of a write, and may have had the same identity."""
    out = fork_test(
        """
        for make in (
            lambda dst: Broadcaster(dst),
            lambda dst: RetryingSink(dst, Breaker(0, 0.0)),
        ):
            gate = Gate()
            dst = Recorder(gate)
            sink = make(dst)
            task = Task(sink.write, "parent")
            gate.wait_entered()

            def child():
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
        """
    )
    assert out == "child\nchild\n"


@pytest.mark.once
def test_a_module_that_is_loaded_after_the_fork():
    """It has not seen the fork, and yet takes no lock of the child's for one of the parent's."""
    python = 'import os; os.environ["FASTSINKS_BACKEND"] = "python"'  # which loads none of them
    code = """
        from fastsinks._core.wrapper import Wrapper

        def child():
            from fastsinks._core.retrying import RetryingSink

            gate, entered = Gate(), []
            dst = Recorder(lambda events: (entered.extend(events), gate()))
            sink = RetryingSink(dst, RetryStrategy())  # a wrapper's lock, which it looks at
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

        assert "fastsinks._core.retrying" not in sys.modules
        in_child(child)
        """
    out = run_clean("\n".join([python, textwrap.dedent(COMMON), textwrap.dedent(code)]))
    assert out == "child\n"


def test_a_closed_dispatcher_is_closed_in_the_child():
    out = fork_test(
        """
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
        """
    )
    assert out == "refused\n"


def test_a_fork_that_runs_none_of_pythons_hooks():
    """C code that makes worker processes forks with the GIL and calls back in the child."""
    out = fork_test(
        """
        import ctypes

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
        """
    )
    assert out == "child\n" * 20 + "parent\n"


@pytest.mark.parametrize(
    "where",
    ["write", "close", "ingress", "egress", "match", "strategy", "dead letter", "log", "del"],
)
def test_code_that_a_sink_calls_may_fork(where):
    """On whatever thread it is called: the child has queues that work, the parent goes on."""
    out = fork_test(
        f"""
        import logging
        where = {where!r}
        forked = []

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
        """
        """
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
        dst = Destination()
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
        """
    )
    lost = where in ("dead letter", "log")
    assert out == str(["parent"] * (1 if lost else 2)) + "\n"
