"""What the tests share: destinations that record, doors that block, calls with deadlines.

Nothing here sleeps to let something happen: threads meet at events and
barriers, each wait has a deadline, and `eventually` polls where all that
can be seen is a number.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fastsinks

DEADLINE = 10.0
"""Seconds after which a wait has failed; far beyond what any of them takes."""

MOMENT = 0.03
"""Seconds for which to watch that something does not happen."""

LONG = 3600.0
"""Seconds of a wait that a test never sits out: something has to cut it short."""

BAD_SECONDS = [
    (-1, ValueError),
    (-0.001, ValueError),
    (float("-inf"), ValueError),
    (float("nan"), ValueError),
    (True, TypeError),
    ("1", TypeError),
    ([1], TypeError),
]
"""Values that are not valid as a timeout or another duration, each with its error."""

BAD_SIZES = [
    (-1, ValueError),
    (10**30, ValueError),
    (True, TypeError),
    (1.5, TypeError),
    ("1", TypeError),
]
"""Values that are not valid as a number of events."""

DROPPING = ["drop_newest", "drop_oldest"]
"""The policies of a full queue by which an event is accepted and dropped."""

POLICIES = ["block", "raise", *DROPPING]
"""What a queue may do when it is full."""

Length = TypeVar("Length", int, float)

Hook = Callable[[list[Any]], object]


def at_length(quick: Length, full: Length) -> Length:
    """How often or how long: `quick` in the tier of a contributor, `full` with `--full`."""
    return full if os.environ.get("FASTSINKS_FULL") == "1" else quick


def eventually(predicate: Callable[[], object], timeout: float = DEADLINE) -> None:
    """Poll until `predicate` holds; for what nothing announces."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not predicate():
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {timeout} s: {predicate}")
        pause.wait(0.002)


def identical(left: Iterable[Any], right: Iterable[Any]) -> bool:
    """The very same objects in the same order; runs no ``__eq__`` of theirs."""
    return [id(item) for item in left] == [id(item) for item in right]


def os_threads() -> int:
    """Threads of this process as the system counts them, whatever code started them."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _asleep(task: str) -> bool:
    try:
        stat = Path(f"/proc/{task}/stat").read_text()
    except OSError:
        return True  # no /proc here: the pauses of the caller must do
    return stat.rpartition(")")[2].split()[0] == "S"


def _rest(task: str, over: Callable[[], object]) -> None:
    """Wait until a thread sleeps in the kernel and stays there, or is over.

    Several samples, with the GIL free in between, tell a blocked thread from
    one that only waits for its turn to run Python.
    """
    pause = threading.Event()
    deadline = time.monotonic() + DEADLINE
    seen = 0
    while seen < 4:
        pause.wait(0.003)
        if over():
            return
        seen = seen + 1 if _asleep(task) else 0
        if time.monotonic() > deadline:
            raise AssertionError(f"{task} never comes to rest")


def parked(thread: threading.Thread) -> None:
    """Wait until `thread` is blocked, as far as the system can tell, or has ended."""
    _rest(f"self/task/{thread.native_id}", lambda: not thread.is_alive())


def parked_process(process: subprocess.Popen[Any]) -> None:
    """Wait until the main thread of another process is blocked, or the process has ended."""
    _rest(f"{process.pid}/task/{process.pid}", lambda: process.poll() is not None)


class Task(threading.Thread):
    """A call on a thread of its own; `result` fetches its outcome, with a deadline."""

    def __init__(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(name=f"task {getattr(function, '__name__', function)}", daemon=True)
        self._call: tuple[Any, ...] | None = (function, args, options)
        self._value: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        assert self._call is not None
        function, args, options = self._call
        try:
            self._value = function(*args, **options)
        except BaseException as error:
            self._error = error
        finally:
            self._call = None  # keep nothing alive but the outcome

    @property
    def done(self) -> bool:
        return not self.is_alive()

    def blocked(self) -> Task:
        """Wait until the call sleeps, and make sure that it has not returned."""
        parked(self)
        assert not self.done, f"{self.name} did not block: {self._error or self._value!r}"
        return self

    def result(self, timeout: float = DEADLINE) -> Any:
        self.join(timeout)
        assert self.done, f"{self.name} still runs after {timeout} s"
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # the frame would be part of a cycle with the traceback
        return self._value


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, for its first call; nothing for those that follow."""
    calls = itertools.count()
    return lambda *args: None if next(calls) else function(*args)


def together(*functions: Callable[[], Any]) -> list[Any]:
    """Call all functions at the same moment, each on its own thread; their results."""
    barrier = threading.Barrier(len(functions))

    def at_once(function: Callable[[], Any]) -> Any:
        barrier.wait(DEADLINE)
        return function()

    tasks = [Task(at_once, function) for function in functions]
    return [task.result() for task in tasks]


class Gate:
    """A hook for a sink: its callers wait until the gate is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, events: object = None) -> None:
        self.entered.set()
        assert self._opened.wait(DEADLINE), "nobody opened the gate"

    def wait_entered(self) -> None:
        assert self.entered.wait(DEADLINE), "nobody came to the gate"

    def open(self) -> None:
        self._opened.set()


class Fails:
    """A hook that raises: at the first `times` calls, or always; or where `only` holds."""

    def __init__(
        self,
        error: Callable[[], BaseException] | type[BaseException] = OSError,
        *,
        times: float = float("inf"),
        only: Callable[[Any], bool] | None = None,
    ) -> None:
        self._error = error
        self._times = times
        self._only = only
        self.raised = 0

    def __call__(self, events: list[Any]) -> None:
        if self.raised >= self._times:
            return
        if self._only is not None and not any(self._only(event) for event in events):
            return
        self.raised += 1
        raise self._error()


class Odd(str):
    """A string that makes no other."""

    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Mute(fastsinks.DeliveryError):
    """One of our exceptions, with no text."""

    def __init__(self) -> None:
        super().__init__("")

    def __str__(self) -> str:
        raise ZeroDivisionError


#: Events whose ids cannot be shown: an int of too many digits for str(), and a string.
UNNAMEABLE: list[Any] = [{"id": 10**5000}, types.SimpleNamespace(id=Odd("one"))]


class Recorder:
    """A destination with nothing but `write` and `close`: keeps what it gets, in order.

    `hook` is called with the events of each attempt before they are kept and may
    block or raise; `on_close` likewise with nothing. `attempts` lists the events of
    every call, `blocks` those of the calls which succeeded.
    """

    def __init__(
        self, hook: Hook | None = None, *, on_close: Callable[[], object] | None = None
    ) -> None:
        self._hook = hook
        self._on_close = on_close
        self._changed = threading.Condition()
        self._inside = 0
        self.crowd = 0  # the most calls that were in here at the same time
        self.attempts: list[list[Any]] = []
        self.blocks: list[list[Any]] = []
        self.events: list[Any] = []
        self.closes = 0

    def _take(self, events: list[Any]) -> None:
        with self._changed:
            self.attempts.append(events)
            self._inside += 1
            self.crowd = max(self.crowd, self._inside)
        try:
            if self._hook is not None:
                self._hook(events)
            with self._changed:
                self.blocks.append(events)
                self.events.extend(events)
                self._changed.notify_all()
        finally:
            with self._changed:
                self._inside -= 1

    def write(self, event: Any) -> None:
        self._take([event])

    def close(self) -> None:
        with self._changed:
            self.closes += 1
        if self._on_close is not None:
            self._on_close()

    def wait(self, count: int) -> list[Any]:
        """Wait until `count` events have come; all that are there then."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self.events) >= count, DEADLINE)
            assert there, f"{len(self.events)} events of {count}"
            return list(self.events)


class BlockRecorder(Recorder):
    """A recorder that takes blocks too; `many` counts the calls of its `write_many`."""

    many = 0

    def write_many(self, events: Sequence[Any]) -> None:
        self.many += 1
        self._take(list(events))


class Mutilator(BlockRecorder):
    """Keeps a block, and then does to the list that it got what `how` says."""

    def __init__(self, how: Callable[[list[Any]], object], hook: Hook | None = None) -> None:
        super().__init__(hook)
        self._how = how

    def write_many(self, events: Sequence[Any]) -> None:
        try:
            super().write_many(events)
        finally:
            self._how(events)  # type: ignore[arg-type]


MUTILATIONS = [list.clear, list.pop, list.reverse, lambda block: block.append("more")]


class TimedRecorder(Recorder):
    """A recorder whose `close` takes a timeout; `timeouts` lists what it was given."""

    def __init__(self, hook: Hook | None = None) -> None:
        super().__init__(hook)
        self.timeouts: list[float | None] = []

    def close(self, timeout: float | None = None) -> None:
        self.timeouts.append(timeout)
        super().close()


class Refuser(Recorder):
    """A sink that is closed already: every write raises SinkClosedError."""

    def write(self, event: Any) -> None:
        self.attempts.append([event])
        raise fastsinks.SinkClosedError()


class Waits:
    """A strategy: no wait before the first attempt, `seconds` once something has failed."""

    def __init__(self, seconds: float = LONG) -> None:
        self.seconds = seconds
        self.failed = threading.Event()
        self.failures = 0
        self._lock = threading.Lock()

    def proceed(self, event: Any) -> float:
        return self.seconds if self.failures else 0.0

    def failure(self, event: Any, error: BaseException) -> bool:
        with self._lock:
            self.failures += 1
        self.failed.set()
        return False

    def success(self, event: Any) -> None:
        with self._lock:
            self.failures = 0


class Script:
    """A strategy that writes down what it is asked and drops when `drop` says so."""

    def __init__(
        self, wait: float = 0.0, drop: Callable[[Any], bool] = lambda event: False
    ) -> None:
        self.wait = wait
        self.drop = drop
        self.calls: list[tuple[Any, ...]] = []

    def proceed(self, event: Any) -> float:
        self.calls.append(("proceed", event))
        return self.wait

    def failure(self, event: Any, error: BaseException) -> bool:
        self.calls.append(("failure", event, type(error)))
        return self.drop(event)

    def success(self, event: Any) -> None:
        self.calls.append(("success", event))

    def asked(self, name: str) -> list[Any]:
        return [call[1] for call in self.calls if call[0] == name]


class RefusedError(OSError):
    """A refusal for good: what raises it need not be asked again."""

    permanent = True


class Counting:
    """A queue's listener that keeps what it is told; any thread may tell it."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self._lock = threading.Lock()

    def ingress(self, event: Any) -> None:
        with self._lock:
            self.entered.append(event)

    def egress(self, event: Any) -> None:
        with self._lock:
            self.left.append(event)


class Hostile:
    """An event that raises whatever is asked of it: a sink has no business asking."""

    def _refuse(self, *args: Any) -> Any:
        raise RuntimeError("an event is nobody's business")

    __eq__ = __ne__ = __lt__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = _refuse
    __hash__ = None  # type: ignore[assignment]


class Token:
    """An event that can be weakly referenced."""

    def __init__(self, label: Any = None) -> None:
        self.label = label


def ledger(queue: Any) -> Any:
    """The queue's stats, which must add up at any moment."""
    stats = queue.stats()
    assert stats.accepted == stats.delivered + stats.dropped + stats.pending, stats
    assert min(stats) >= 0, stats
    return stats


def interrupt(call: Callable[[], Any]) -> float:
    """Press Ctrl-C as soon as `call`, made here on the main thread, blocks.

    Returns the seconds from the signal to the KeyboardInterrupt.
    """
    main = threading.main_thread()
    assert threading.current_thread() is main
    over = threading.Event()
    sent: list[float] = []

    def press() -> None:
        parked(main)
        if not over.is_set():
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        presser = Task(press)
        try:
            call()
        except KeyboardInterrupt:
            took = time.monotonic() - sent[0]
        else:
            raise AssertionError("the call returned instead of blocking")
        finally:
            over.set()
        presser.result()
    finally:
        signal.signal(signal.SIGINT, before)
    return took


class Strike(KeyboardInterrupt):
    """What the handler of a signal raises in a test."""


def strike_at(number: int, call: Callable[[], object]) -> bool:
    """Strike a call on its way back from a function of C's; false if it called fewer.

    Python code may be struck there, and so the twin; the compiled core is in C all the way
    and meets a strike in the destination only.
    """
    left = number

    def strike(frame: Any, what: str, function: Any) -> None:
        nonlocal left
        if what == "c_return":
            left -= 1
            if left < 0:
                raise Strike

    try:
        sys.setprofile(strike)
        call()
    except Strike:
        pass
    finally:
        sys.setprofile(None)
    return left < 0


def interrupt_at(number: int, call: Callable[[], object], handler: Callable[[], object]) -> bool:
    """Run a handler within a call, at the so many-th moment at which Python would run one.

    That is when a function begins, or has returned. False if there are fewer.
    """
    left = number

    def look(frame: Any, what: str, function: Any) -> None:
        nonlocal left
        left -= what in ("call", "c_return")
        if left < 0:
            sys.setprofile(None)
            handler()

    try:
        sys.setprofile(look)
        call()
    finally:
        sys.setprofile(None)
    return left < 0


class LateError(AssertionError):
    """Something took longer than it may: a defect, or the machine had something else to do."""


def in_time(seconds: float, bound: float) -> None:
    if seconds >= bound:
        raise LateError(f"took {seconds:.3f} s, {bound:.3f} s at most are allowed")


def punctual(test: Callable[..., None]) -> Callable[..., None]:
    """Bounds of time hold in the best of a few runs: a busy machine keeps any thread waiting."""
    import pytest  # which the programs that share this module do without

    @functools.wraps(test)
    def run(*args: Any, **options: Any) -> None:
        for _ in range(3):
            with contextlib.suppress(LateError):
                return test(*args, **options)
        return test(*args, **options)

    marked: Callable[..., None] = pytest.mark.punctual(run)
    return marked
