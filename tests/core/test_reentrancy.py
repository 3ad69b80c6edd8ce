"""Each callback of the core calls back into it, or raises: a matrix of callbacks and calls.

Behind a broadcaster there is a channel and a queue, behind that a filter and a retrying sink,
with listeners, dead letters, a strategy and a matcher. Each test makes one of these callbacks act.
Whatever it does, calls end and the ledger adds up.
"""

import _thread
import contextlib
import gc
import logging
import threading
import weakref

import pytest
from support import DEADLINE, Task, ledger

from fastsinks import (
    Broadcaster,
    Channel,
    Dispatcher,
    Filter,
    NullSink,
    Queue,
    RetryingSink,
    SinkClosedError,
)

# A finaliser, a callback of a weak reference or of the collector that raises is told so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Event:
    """Says what is to become of it; calls back when it goes."""

    def __init__(self, kind, world):
        self.kind, self.world = kind, world
        weakref.finalize(self, world.hook, "weakref").atexit = False

    def __del__(self):
        self.world.hook("del")

    def __eq__(self, other):
        self.world.hook("eq")
        return self is other

    def __hash__(self):
        self.world.hook("eq")
        return 0


class Extra:
    """What hooks write. Nothing special happens to it."""

    kind = "good"


class PermanentError(Exception):
    permanent = True


class World(logging.Handler):
    """The pipeline, and all that it calls."""

    def __init__(self, where, act, filtered):
        super().__init__()
        self.where, self.act = where, act
        self.armed = 2  # how many calls get a reaction
        self._guard = threading.Lock()
        self.calls = 0
        self.seen = []  # kinds, as they get to the end
        self.kept = []  # ... by way of the channel
        self.dispatcher = Dispatcher()
        self.channel = Channel(buffer=1000)
        self.retrying = RetryingSink(
            self.Last(self), self.Strategy(self), listeners=[self], dead_letter=self.Dead(self)
        )
        self.sieve = Filter(self.retrying, self.match) if filtered else self.retrying
        self.queue = Queue(
            self.sieve,
            listeners=[self],
            dead_letter=self.Dead(self, "queue dead"),
            dispatcher=self.dispatcher,
        )
        self.broadcaster = Broadcaster(self.queue, self.channel)

    def hook(self, where):
        if where != self.where:
            return
        with self._guard:
            self.calls += 1
            if not self.armed:
                return
            self.armed -= 1
        self.act(self)

    def handle(self, record):
        self.hook("log")  # without the lock of a handler, which would be its own fault

    def collected(self, phase, info):
        self.hook("gc")

    def ingress(self, event):
        self.hook("ingress")

    def egress(self, event):
        self.hook("egress")

    def active(self, event):
        self.hook("active")

    def retry(self, event, error):
        self.hook("retry")

    def match(self, event):
        self.hook("match")
        if event.kind == "unmatched":
            raise OSError
        return True

    class Strategy:
        def __init__(self, world):
            self.world = world

        def proceed(self, event):
            self.world.hook("proceed")
            return 0.0

        def failure(self, event, error):
            self.world.hook("failure")
            return False

        def success(self, event):
            self.world.hook("success")

    class Dead:
        def __init__(self, world, name="dead"):
            self.world, self.name = world, name

        def write(self, event):
            self.world.hook(self.name)

        def close(self):
            raise AssertionError("a dead letter is not closed")

    class Last:
        def __init__(self, world):
            self.world = world
            self.failed = False

        def write(self, event):
            self.world.hook("dst")
            if event.kind == "bad":
                raise PermanentError
            if event.kind == "again" and not self.failed:
                self.failed = True
                raise OSError
            if event.kind == "unmatched":  # there is no filter
                raise SinkClosedError
            self.world.seen.append(event.kind)

        def close(self):
            self.world.hook("dst close")


def look(world):
    for thing in (world.queue, world.channel, world.broadcaster, world.retrying, world.sieve):
        repr(thing), thing.closed
    ledger(world.queue)
    return (
        len(world.queue),
        len(world.channel),
        world.broadcaster.sinks,
        world.broadcaster.dropped,
        world.retrying.retries,
        world.retrying.dropped,
        world.queue.latencies(),
        world.queue.oldest(),
        world.channel.done(0),
    )


def add_and_remove(world):
    extra = NullSink()
    world.broadcaster.add(extra)
    world.broadcaster.remove(extra)
    world.broadcaster.remove(world.channel)


def raises(error):
    def act(world):
        raise error("on purpose")

    return act


WHERE = [
    *["dst", "dst close", "match", "proceed", "failure", "success", "active", "retry"],
    *["ingress", "egress", "dead", "queue dead", "log", "del", "weakref", "gc", "eq"],
]
SINKS = ["broadcaster", "channel", "queue", "sieve", "retrying"]
WRITES = {
    f"{method} {name}": lambda world, name=name, call=call: call(getattr(world, name))
    for name in SINKS
    for method, call in {
        "write": lambda sink: sink.write(Extra()),
        "write_many": lambda sink: sink.write_many([Extra(), Extra()]),
    }.items()
}
CLOSES = {
    f"{method} {name}": lambda world, name=name, call=call: call(getattr(world, name))
    for name in SINKS
    for method, call in {
        "close": lambda sink: sink.close(),
        "close(0)": lambda sink: sink.close(timeout=0),
    }.items()
}
OTHERS = {
    "flush": lambda world: world.queue.flush(),
    "flush(0)": lambda world: world.queue.flush(0),
    "look": look,
    "get": lambda world: world.channel.get(timeout=0),
    "add and remove": add_and_remove,
    "collect": lambda world: gc.collect(),
    "dispatcher.close": lambda world: world.dispatcher.close(timeout=0.05),
}
RAISES = {
    "OSError": raises(OSError),
    "SinkClosedError": raises(SinkClosedError),
    "SystemExit": raises(SystemExit),
    "KeyboardInterrupt": raises(KeyboardInterrupt),
    "exit": lambda world: _thread.exit(),
}
ENDING = {*CLOSES, "dispatcher.close"}
ACTS = WRITES | CLOSES | OTHERS | RAISES


@pytest.fixture(scope="module", autouse=True)
def quick_collections():
    """Each test collects a few times: what is there already need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def make_world():
    with contextlib.ExitStack() as stack:

        def make(where, what, filtered):
            world = World(where, ACTS[what], filtered)
            logger = logging.getLogger("fastsinks")
            logger.addHandler(world)
            stack.callback(logger.removeHandler, world)
            gc.callbacks.append(world.collected)
            stack.callback(gc.callbacks.remove, world.collected)
            return world

        yield make


KINDS = ["good", "again", "bad", "unmatched", "good"]


CASES = [
    (what, where, filtered)
    for what in ACTS
    for where in WHERE
    for filtered in (True, False)
    if filtered or where != "match"
]


@pytest.mark.parametrize(("what", "where", "filtered"), CASES)
def test_calling_back(make_world, what, where, filtered):
    world = make_world(where, what, filtered)

    def write():
        for kind in KINDS:
            with contextlib.suppress(BaseException):
                world.broadcaster.write(Event(kind, world))
        world.queue.flush(DEADLINE)
        with contextlib.suppress(BaseException):
            while True:
                world.kept.append(world.channel.get(timeout=0).kind)
        gc.collect()
        world.queue.flush(DEADLINE)

    Task(write).result()
    stats = ledger(world.queue)
    assert stats.pending == 0
    if where != "eq":
        assert world.calls > 0 or where == "dst close"
    assert world.calls == 0 or where != "eq"
    if what not in ENDING and not world.queue.closed:
        # It goes on as if nothing had been.
        world.armed = 0
        before = len(world.seen)
        Task(world.queue.write, Extra()).result()
        assert Task(world.queue.flush, DEADLINE).result()
        if not world.retrying.closed:
            assert len(world.seen) == before + 1

    def close():
        for sink in (world.broadcaster, world.queue, world.channel, world.sieve):
            with contextlib.suppress(BaseException):
                sink.close(timeout=DEADLINE)
        world.dispatcher.close(timeout=DEADLINE)

    Task(close).result()
    stats = ledger(world.queue)
    assert stats.pending == 0
    assert world.queue.closed
    assert world.seen.count("again") <= 1
    if what in OTHERS and what not in ENDING and what != "add and remove":
        assert world.seen.count("again") == 1
        assert world.seen.count("good") == 3
        assert len(world.kept) >= len(KINDS) - (2 if what == "get" else 0)
