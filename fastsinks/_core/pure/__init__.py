"""The core in pure Python: oracle of the tests, fallback, baseline of the benchmarks.

It tells the story of the compiled core (``src_c/fastsinks``) with ``threading``
alone. Each object has one lock, named ``_lock``, which guards those of its fields
that change. It is re-entrant because a finaliser, run by a garbage collection under
it, or a signal's handler may call back. User code (sinks,
listeners, matchers, strategies, log handlers) is called with no lock held.

On the main thread the handler of a signal may raise, as Ctrl-C's does: after each
call into C, where a function of Python's begins, and where a loop begins anew, but
nowhere else. So a lock is held by ``with``, in which C takes it and gives it back;
who waits does so without it (see _change); what has to happen together is written
as assignments, ``+=`` and ``del`` with no call between them; and what a ``finally``
has to give back, its first statement does.
"""

from __future__ import annotations

import _thread
import heapq
import os
import random
import sys
import threading
import weakref
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat, starmap
from threading import get_ident
from time import monotonic
from typing import Any, NamedTuple

from .. import arguments, callbacks, log, thread_state
from ..arguments import FOREVER
from ..atexit import at_exit, close_dispatchers
from ..channel_events import ChannelEvents
from ..condition import NEVER, Change
from ..errors import CloseTimeoutError, QueueFullError, SinkClosedError
from ..log import Burst, Drops, describe_error, describe_sink
from ..per_process import PerProcess
from ..stats import LATENCY_BOUNDS, QueueStats

GRACE = 0.03  #: seconds for a destination that was closed at a deadline to let go of its events
CLOSE_GRACE = 0.06  #: ... and for its close() to end: an inner queue has a grace of its own
LATE = 0.5  #: ... where it is one of ours, which ends within its own
TICK = 0.001  #: seconds without progress after which running workers count as blocked
NEXT_TICK = 0.004  #: ... and those that took over from them
HELP = 0.02  #: seconds that who waits for a queue goes without a look whether to help
TURN = 0.0005  #: seconds that one queue may keep a worker while others are ready

_forkable: weakref.WeakSet[Any] = weakref.WeakSet()
_dispatchers: weakref.WeakSet[Any] = weakref.WeakSet()

_forked = PerProcess(threading.RLock)
_process = _made_anew = os.getpid()


def _look_for_fork() -> None:
    """In a child, make locks and workers anew; what was accepted before is the parent's.

    Also called where Python's hooks may not have been: C code may fork and run none of them.
    """
    global _process, _made_anew
    process = os.getpid()
    if process == _process:
        return
    with _forked.get():
        if process != _made_anew:  # else by now, or further up: a finaliser got us here
            _made_anew = process
            for thing in list(_forkable):
                thing._after_fork()
            _process = process


os.register_at_fork(after_in_child=_look_for_fork)


class _Locked:
    """What has a lock, which in a child is free whoever held it in the parent."""

    def __init__(self) -> None:
        """To be called when all that ``_after_fork`` looks at is there."""
        self._make_lock()
        _forkable.add(self)

    def _make_lock(self) -> None:
        lock = threading.RLock()
        self._own = lock, Change(lock)

    def _after_fork(self) -> None:
        self._make_lock()

    def __getattr__(self, name: str) -> Any:
        """What is not there: for want of an ``__init__``, if it is ours."""
        if name.startswith("_") and not name.startswith("__") and "_own" not in vars(self):
            kind = type(self).__name__
            raise RuntimeError(f"{kind}: __init__() of the base class was not called")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def _lock(self) -> Any:
        _look_for_fork()
        return self._own[0]

    @property
    def _change(self) -> Change:
        _look_for_fork()
        return self._own[1]


class _SetOnce:
    """An attribute that others may read alone: a field of ours has the value."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, thing: Any, owner: type | None = None) -> Any:
        return self if thing is None else getattr(thing, f"_{self._name}")

    def __set__(self, thing: Any, value: object) -> None:
        raise AttributeError(f"{self._name} is set once, by the constructor")


def _starter(target: Callable[..., None], *args: Any, name: str | None = None) -> tuple[Any, Any]:
    """A function that starts a thread, and its arguments.

    On the main thread it is one of C's: either the thread starts, or there is a RuntimeError;
    with any other exception, a signal's, it has started. Threading's start() waits for the
    new thread, and may be struck meanwhile, or before: a bare thread calls it.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    if threading.current_thread() is threading.main_thread():
        return _thread.start_new_thread, (_start_or_run, (thread,))
    return thread.start, ()


def _start_or_run(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        thread.run()


# ------------------------------------------------------------------------------ sinks


class Sink:
    """A destination of events, and the base class of fastsinks' own. Subclassing it is optional."""

    _closed = False

    def write(self, event: Any, /) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not implement write()")

    def write_many(self, events: Iterable[Any]) -> None:
        for event in events:
            self.write(event)

    def close(self, timeout: float | None = None) -> None:
        arguments.timeout(timeout)
        self._closed = True

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class NullSink(_Locked, Sink):
    """Accepts everything and keeps nothing but ``count``."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    @property
    def count(self) -> int:
        return self._count

    def write(self, event: Any, /) -> None:
        self.write_many((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        n = len(events) if isinstance(events, (list, tuple)) else sum(1 for _ in events)
        with self._lock:
            self._count += n


class _Wrapper(Sink, _Locked):
    """Closes its inner sink exactly once, and lets every other closer wait for that."""

    def __init__(self, dst: Any) -> None:
        self._dst = arguments.destination(dst)
        self._closing: object = None  # the call of close() that closes dst
        self._closer: int | None = None  # ident of its thread
        self._finished = False  # dst is closed
        super().__init__()

    def _after_fork(self) -> None:
        super()._after_fork()
        if not self._finished:
            self._closing = self._closer = None

    def close(self, timeout: float | None = None) -> None:
        deadline = monotonic() + arguments.timeout(timeout)
        me, call = get_ident(), object()

        def settled() -> bool:
            """Whether there is nothing to wait for; the first to ask is to close dst."""
            if self._closing is None and not self._finished:
                self._closer = me
                self._closing = call
            return self._finished or self._closer == me  # or dst's close() calls back

        with self._lock:
            self._closed = True
            self._change.notify_all()
            if self._closing is not None and thread_state.here.runs_queues:
                return  # the queue that has called may be what the other thread waits for
        try:
            if not self._change.until(settled, deadline):
                raise CloseTimeoutError(f"{type(self).__name__} is still being closed")
            if self._closing is not call:
                return
            self._interrupt()
            callbacks.close(self._dst, deadline - monotonic() if timeout is not None else FOREVER)
            self._finished = True
        except Exception:
            self._finished = self._finished or self._closing is call
            raise
        finally:
            if self._closing is call:
                self._closing = self._closer = None  # interrupted: it may be called again
                with self._lock:
                    self._change.notify_all()

    def _interrupt(self) -> None:
        """For subclasses: the sink has just been closed."""


class Filter(_Wrapper):
    """Hands on the events that ``matcher``, a callable or with ``match(event)``, accepts."""

    def __init__(self, dst: Any, matcher: Any) -> None:
        super().__init__(dst)
        match = getattr(matcher, "match", matcher)
        if not callable(match):
            raise TypeError(f"a matcher is callable or has match(event), unlike {matcher!r}")
        self._match = match

    def write(self, event: Any, /) -> None:
        if self._closed:
            raise SinkClosedError
        if self._match(event):
            self._dst.write(event)

    def write_many(self, events: Iterable[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        accepted = [event for event in events if self._match(event)]
        if not accepted:
            return
        write_many = getattr(self._dst, "write_many", None)
        if write_many is not None:
            write_many(accepted)
        else:
            for event in accepted:
                self._dst.write(event)


class ignore:
    """The matcher that refuses registry events by ``target.mediaType`` and by ``action``.

    Works on :class:`fastsinks.events.Event` and on plain dicts; an event without
    these fields is accepted.
    """

    media_types = _SetOnce()
    actions = _SetOnce()

    def __init__(self, media_types: Iterable[str] = (), actions: Iterable[str] = ()) -> None:
        self._media_types = frozenset(arguments.strings("media_types", media_types))
        self._actions = frozenset(arguments.strings("actions", actions))

    def match(self, event: Any) -> bool:
        if self._actions and _field(event, "action", "action") in self._actions:
            return False
        if not self._media_types:
            return True
        target = _field(event, "target", "target")
        return _field(target, "media_type", "mediaType") not in self._media_types

    __call__ = match


def _field(thing: Any, attribute: str, key: str) -> Any:
    value = thing.get(key) if isinstance(thing, Mapping) else getattr(thing, attribute, None)
    return value if isinstance(value, str) or attribute == "target" else None


class _Target(NamedTuple):
    """A broadcaster's sink, and how to call it, found out once."""

    sink: Any
    write: Callable[[Any], object]
    write_many: Callable[[Sequence[Any]], object] | None


class _Turn:
    """What one writer hands to the sinks, and how far it has got."""

    __slots__ = ("at", "fatal", "targets", "todo")

    def __init__(self, events: tuple[Any, ...] | None) -> None:
        # Its own events, then those that sinks write meanwhile; None: close.
        self.todo: deque[tuple[Any, ...] | None] = deque((events,))
        self.targets: tuple[_Target, ...] | None = None  # those that get the first of these
        self.at = 0  # the next of them
        self.fatal: BaseException | None = None  # to be raised at the end


class Broadcaster(Sink, _Locked):
    """Hands every event to every sink; all sinks see the same events in the same order.

    ``write`` may be called by any thread. Writers take turns: one that finds another
    writing waits for it, unless it is called from inside that very write, by one of
    the sinks; such an event follows the current one. The list of sinks is an
    immutable snapshot, so ``add`` and ``remove`` never wait.
    """

    def __init__(self, *sinks: Any) -> None:
        self._targets: tuple[_Target, ...] = ()
        self._turn: _Turn | None = None
        self._owner: int | None = None  # ident of the thread whose turn it is
        self._closing: _Turn | None = None  # the call that closes the sinks
        self._closer: int | None = None  # ident of its thread
        self._finished = False  # all sinks are closed
        self._unclosed: list[Any] | None = None  # the closer's: whose close() has not ended
        self._dropped = 0
        self._trouble: dict[int, Burst] = {}
        super().__init__()
        for sink in sinks:
            self.add(sink)

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._owner != get_ident():
            self._turn = self._owner = None
        if self._closer != get_ident():
            self._closing = self._closer = None

    @property
    def sinks(self) -> tuple[Any, ...]:
        return tuple(target.sink for target in self._targets)

    @property
    def dropped(self) -> int:
        """How many events a sink has refused, over all sinks."""
        return self._dropped

    def add(self, sink: Any) -> None:
        arguments.destination(sink)
        target = _Target(sink, sink.write, arguments.own_write_many(sink, Sink))
        with self._lock:
            if self._closed:
                raise SinkClosedError
            if not any(known.sink is sink for known in self._targets):
                self._targets = (*self._targets, target)

    def remove(self, sink: Any) -> None:
        with self._lock:
            self._targets = tuple(known for known in self._targets if known.sink is not sink)
            self._trouble.pop(id(sink), None)

    def write(self, event: Any, /) -> None:
        self._send((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        events = tuple(events)
        if events:
            self._send(events)

    def close(self, timeout: float | None = None) -> None:
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            others = self._closed and not (self._turn is None and self._closing is None)
            self._closed = True
            if self._turn is not None and self._owner == get_ident():
                if self._closer != self._owner:
                    self._turn.todo.append(None)
                return
            self._change.notify_all()
            if others and thread_state.here.runs_queues:
                return  # the queue that has called may be what the other thread waits for
        turn = _Turn(None)
        try:
            if not self._change.until(lambda: self._settled(turn), deadline):
                # A sink is stuck in a write, which closing it may end; or in close().
                self._start_to_close(turn)
                if self._closing is not turn and not self._finished:
                    raise CloseTimeoutError("the broadcaster is still being closed")
            if self._closing is turn:
                self._close_all(deadline if timeout is not None else FOREVER)
        finally:
            if self._closing is turn:
                self._closing = self._closer = None
            if self._turn is turn:
                self._turn = self._owner = None
            with self._lock:
                self._change.notify_all()

    def _settled(self, turn: _Turn) -> bool:
        """Under the lock: whether close() has nothing to wait for, which may be its turn."""
        me = get_ident()
        if self._finished or self._closer == me:  # a sink's close() calls back
            return True
        if self._owner is not None or self._closing is not None:
            return False
        self._owner = self._closer = me
        self._turn = self._closing = turn
        return True

    def _start_to_close(self, turn: _Turn) -> None:
        """Unless another thread has done so."""
        me = get_ident()
        with self._lock:
            if self._closing is None and not self._finished:
                self._closer = me
                self._closing = turn

    def _take(self, turn: _Turn) -> bool:
        """Under the lock: take the turn if it is free."""
        me = get_ident()
        if self._closed:
            raise SinkClosedError
        if self._owner is not None:
            return False
        self._owner = me
        self._turn = turn
        return True

    def _send(self, events: tuple[Any, ...]) -> None:
        with self._lock:
            if self._closed:
                raise SinkClosedError
            if self._turn is not None and self._owner == get_ident():
                self._turn.todo.append(events)
                return
        turn = _Turn(events)
        try:
            self._change.until(lambda: self._take(turn))
            while True:
                try:
                    self._serve(turn)
                    break
                except BaseException as error:  # Ctrl-C, between two sinks: they are all served
                    turn.fatal = error
        finally:
            if self._closing is turn:
                self._closing = self._closer = None
            if self._turn is turn:
                self._turn = self._owner = None
            with self._lock:
                self._change.notify_all()
        if turn.fatal is not None:
            raise turn.fatal

    def _serve(self, turn: _Turn) -> None:
        """Hand what is to do to every sink of the snapshot, whatever one raises."""
        while turn.todo:
            events = turn.todo[0]
            if events is None:
                del turn.todo[0]
                self._start_to_close(turn)
                if self._closing is turn:
                    self._close_all(FOREVER)
                continue
            if turn.targets is None:
                turn.at = 0
                turn.targets = self._targets
            count, several = len(turn.targets), len(events) > 1
            while turn.at < count:
                sink, write, write_many = turn.targets[turn.at]
                try:
                    if several and write_many is not None:
                        write_many(events)
                    else:
                        for event in events:
                            write(event)
                except SinkClosedError:
                    turn.at += 1
                    self.remove(sink)
                except BaseException as error:
                    turn.at += 1
                    if not isinstance(error, Exception):
                        turn.fatal = error
                    self._refused(sink, events, error)
                else:
                    turn.at += 1
                    trouble = self._trouble.get(id(sink)) if self._trouble else None
                    if trouble is not None:  # else none, or removed meanwhile
                        trouble.over()
            turn.targets = None
            del turn.todo[0]

    def _refused(self, sink: Any, events: tuple[Any, ...], error: BaseException) -> None:
        with self._lock:
            self._dropped += len(events)
        try:
            trouble = self._trouble.get(id(sink))
            if trouble is None:
                trouble = Drops(f"broadcaster: {describe_sink(sink)} refused an event")
                with self._lock:
                    if any(known.sink is sink for known in self._targets):  # else removed by now
                        self._trouble[id(sink)] = trouble
            trouble.happened(events[0], describe_error(error), len(events))
        except Exception:
            pass  # no memory or no stack left to say so

    def _close_all(self, deadline: float) -> None:
        """Close every sink. The caller has made itself the closer."""
        late: list[CloseTimeoutError] = []
        fatal: BaseException | None = None
        if self._unclosed is None:
            self._unclosed = list(self.sinks)
        at = 0
        try:
            while at < len(self._unclosed):
                sink = self._unclosed[at]
                ended = False
                try:
                    try:
                        left = FOREVER if deadline == FOREVER else max(0.0, deadline - monotonic())
                        callbacks.close(sink, left)
                    except CloseTimeoutError as error:
                        late.append(error)
                    except Exception as error:
                        ended = True
                        kind = type(sink).__name__
                        log.error("%s.close() raised %s", kind, describe_error(error))
                    ended = True
                except BaseException as error:  # Ctrl-C: the others come first
                    fatal = error
                if ended:
                    del self._unclosed[at]
                else:
                    at += 1  # close() may be called again
        finally:
            self._finished = not self._unclosed
        if fatal is not None:
            raise fatal
        if late:
            raise CloseTimeoutError(
                f"{len(late)} of {len(self._targets)} sinks did not close in time",
                [event for error in late for event in error.undelivered],
            )


class Channel(Sink, _Locked):
    """A sink that one listens to, with ``get`` or by iterating, also asynchronously.

    ``write`` blocks while ``buffer`` events wait; with ``buffer=0`` it is a rendezvous
    and returns when a reader took the event. Any number of writers and readers.
    """

    buffer = _SetOnce()

    def __init__(self, buffer: int = 0) -> None:
        self._buffer = arguments.size("buffer", buffer)
        self._items: deque[list[Any]] = deque()  # [event, taken]
        self._watchers: list[Callable[[], None]] = []
        super().__init__()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._watchers = []
        self._items = deque()  # what there was is for readers in the parent

    def __len__(self) -> int:
        _look_for_fork()
        return len(self._items) if self._buffer else 0

    def write(self, event: Any, /) -> None:
        item = [event, False]

        def offer() -> bool:
            if self._closed:
                raise SinkClosedError
            if self._buffer and len(self._items) >= self._buffer:
                return False
            self._items.append(item)
            self._changed()
            return True

        done = False
        try:
            self._change.until(offer)
            if not self._buffer:
                self._change.until(lambda: item[1] or self._closed)
            done = self._buffer > 0 or item[1]
        finally:
            if not done:  # closed or interrupted: the event was never committed
                with self._lock:
                    self._items = deque(kept for kept in self._items if kept is not item)
                    self._change.notify_all()  # there is room for another
        if not (self._buffer or item[1]):
            raise SinkClosedError

    def get(self, timeout: float | None = None) -> Any:
        """The next event. Raises TimeoutError, or SinkClosedError once closed and drained."""
        deadline = monotonic() + arguments.timeout(timeout)
        item: list[Any] | None = None

        def take() -> bool:
            nonlocal item
            if not self._items:
                if self._closed:
                    raise SinkClosedError
                return False
            item = self._items[0]
            item[1] = True
            del self._items[0]
            self._change.notify_all()
            return True

        try:
            if not self._change.until(take, deadline):
                raise TimeoutError(f"no event within {timeout} seconds")
            assert item is not None
            return item[0]
        except BaseException:
            if item is not None:  # interrupted: the next one gets it
                with self._lock:
                    self._items.appendleft(item)
                    self._changed()
            raise

    def close(self, timeout: float | None = None) -> None:
        arguments.timeout(timeout)
        with self._lock:
            self._closed = True
            if self._buffer == 0:
                self._items = deque(item for item in self._items if item[1])
            self._changed()

    def done(self, timeout: float | None = None) -> bool:
        """Wait until the channel is closed; false if it was not within ``timeout`` seconds."""
        deadline = monotonic() + arguments.timeout(timeout)
        return self._change.until(lambda: self._closed, deadline)

    def _changed(self) -> None:
        self._change.notify_all()
        for watcher in self._watchers:  # of _aio alone: they only ring a loop's bell
            watcher()

    def _watch(self, watcher: Callable[[], None]) -> None:
        with self._lock:
            self._watchers.append(watcher)

    def _unwatch(self, watcher: Callable[[], None]) -> None:
        with self._lock:
            self._watchers.remove(watcher)

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                event = self.get()
            except SinkClosedError:
                return
            yield event

    def __aiter__(self) -> ChannelEvents:
        return ChannelEvents(self)


# ------------------------------------------------------------------------- dispatcher


class Dispatcher(_Locked):
    """Runs queues, many on few threads.

    A queue is idle, ready, running or on a timer. At most ``_limit`` workers run at
    once, normally one, since they share the GIL; another stands by. If queues are
    ready and nothing was delivered for a tick, the running workers are blocked in
    user code: they lose their turn and others take over, twice as many at each tick.
    Workers that find nothing to do for ``idle_timeout`` seconds go away.
    """

    def __init__(
        self, *, max_workers: int = 1024, idle_timeout: float = 30.0, name: str = "fastsinks"
    ) -> None:
        self.max_workers = arguments.size("max_workers", max_workers, least=1, most=arguments.MANY)
        self.idle_timeout = arguments.seconds("idle_timeout", idle_timeout)
        self.name = str(name)
        self._open = 0  # queues that are not closed
        self._closing = False  # close() has been called
        self._stopped = False  # ... and is over: workers leave
        self._reset()
        _forkable.add(self)
        _dispatchers.add(self)

    def _reset(self) -> None:
        """No worker is here, and nothing is to be done."""
        self._make_lock()  # closers wait for changes
        self._cond = Change(self._own[0])  # standing workers wait here
        self._watch = Change(self._own[0])  # the one that keeps the time waits here
        self._ready: deque[Any] = deque()
        self._timers: list[tuple[float, int, Any]] = []  # (when, ticket, strand)
        self._tickets = 0
        self._workers = 0  # alive or being started
        self._coming = 0  # ... of which so many have not yet begun to work
        self._standing = 0  # parked, waiting for a call
        self._watching = False  # one more is parked: it keeps the time
        self._ticking = False  # ... and is looking for blocked workers
        self._called = False  # a worker has been called and has not yet come
        self._running = 0  # workers that have a turn
        self._inside = 0  # ... of which so many call a destination, since the epoch began
        self._limit = 1
        self._epoch = 0  # counts the times that running workers lost their turn
        self._progress = 0
        self._busy = 0  # queues ready, running or on a timer

    _after_fork = _reset

    # -- for queues; each is called with that queue's lock held, or none

    def _schedule(self, strand: Any) -> None:
        """Make an idle queue ready."""
        with self._lock:
            self._busy += 1
            strand._scheduled = True
            self._ready += (strand,)
            self._call()

    def _schedule_at(self, when: float, strand: Any, *, lingers: bool = False) -> None:
        """Put the running queue on a timer."""
        with self._lock:
            if lingers and self._closing:  # since the queue looked
                self._ready.append(strand)
                return
            self._tickets += 1
            strand._ticket = self._tickets
            heapq.heappush(self._timers, (when, strand._ticket, strand))
            if self._timers[0][2] is strand:
                self._watch.notify()

    def _expedite(self, strand: Any) -> None:
        """Make a queue that is on a timer ready at once; else do nothing."""
        with self._lock:
            if strand._ticket:
                strand._ticket = 0
                self._ready += (strand,)
                self._call()

    def _closed_one(self) -> None:
        """A queue refuses further events; without any open one, workers do not linger."""
        with self._lock:
            self._open -= 1
            if not self._open:
                self._cond.notify_all()
                self._watch.notify_all()

    # -- workers

    def _call(self) -> None:
        """A queue has become ready: see to it that some worker will notice.

        ``_called`` is set last: until then who is struck leaves it to the next call.
        """
        if self._called:
            return
        if self._running < self._limit:
            if self._standing:
                self._cond.notify()
            elif self._watching:
                self._watch.notify()
            else:
                if not self._start():
                    return
                # With the first worker comes its stand-by: should the program end now, then
                # from 3.12 on the worker could start none. Not where the two and the two bare
                # threads would for a moment be more threads than allowed.
                if self._workers == 1 and self.max_workers >= 4:
                    self._start()
            self._called = True
        elif self._watching and not self._ticking:
            self._watch.notify()

    def _start(self) -> bool:
        if self._workers >= self.max_workers:
            return False
        start, args = _starter(self._work, name=f"{self.name}-worker")
        self._workers += 1
        self._coming += 1
        try:
            start(*args)
        except RuntimeError:  # no more threads, or the interpreter is shutting down
            self._workers -= 1
            self._coming -= 1
            return False
        return True

    def _work(self) -> None:
        thread_state.here.runs_queues = True
        with self._lock:
            self._coming -= 1
            try:
                while self._take_turn():
                    blocked = False
                    while not blocked and self._running <= self._limit and self._ready:
                        strand = self._ready.popleft()
                        epoch = self._epoch
                        self._inside += 1
                        if not (self._coming or self._watching or self._standing):
                            self._start()  # somebody has to stand by
                        elif self._ready and not self._ticking:
                            self._watch.notify()
                        self._lock.release()
                        try:
                            outcome = strand._run()
                        finally:
                            self._lock.acquire()
                        self._settle(strand, outcome, [])
                        del strand
                        blocked = epoch != self._epoch  # another has had this one's turn since
                        if not blocked:
                            self._inside -= 1
                    if not blocked:
                        self._running -= 1
            finally:
                self._workers -= 1
                self._cond.notify_all()
                self._change.notify_all()

    def _settle(self, strand: Any, outcome: str, settled: list[bool]) -> None:
        """Under the lock, after a run; once for each list, however often it is called."""
        if settled:
            return
        settled += (True,)
        self._progress += 1
        if outcome == "more":
            self._ready += (strand,)
        elif outcome == "idle":
            self._busy -= 1
            if not self._busy:
                self._limit = 1
                self._change.notify_all()
                if not self._open:
                    self._watch.notify_all()  # who stands by waits for nothing

    def _help(self) -> bool:
        """Run a queue on the calling thread, if there is no worker and none can be started.

        For threads that wait for a queue: at the interpreter's exit no thread starts; and for
        a worker that waits in a destination where nobody stands by. Any other's help could
        leave it in the next destination that blocks, beyond its own deadline.
        Whether something was run.
        """
        here = thread_state.here
        was = here.runs_queues
        interrupts: list[BaseException] = []
        strand: Any = None
        outcome = ""
        settled: list[bool] = []
        try:
            with self._lock:
                self._promote(monotonic())
                if self._ready and not self._stopped:
                    self._call()  # whoever should have may have been struck before
                    if self._is_deserted():
                        self._start()
                if not self._is_deserted():
                    return False
                strand = self._ready[0]
                del self._ready[0]
            if not was:
                here.interrupts = interrupts
            here.runs_queues = True
            outcome = strand._run()
        except BaseException:  # Ctrl-C, outside the destination
            if strand is not None:
                outcome = strand._struck()
            raise
        finally:
            here.runs_queues = was
            if not was:
                here.interrupts = None  # else they, their frames and events would outlive the call
            if strand is not None:
                try:
                    with self._lock:
                        self._settle(strand, outcome, settled)
                finally:  # it may have been struck before it began
                    with self._lock:
                        self._settle(strand, outcome, settled)
        if interrupts:
            raise interrupts[0]
        return True

    def _is_deserted(self) -> bool:
        """Something is ready, and nobody but the caller, who waits, can run it."""
        if not self._ready or not self._workers:
            return bool(self._ready)
        return thread_state.here.runs_queues and not (
            self._coming or self._watching or self._standing
        )

    def _promote(self, now: float) -> None:
        """Make the queues ready whose time has come; forget timers that were cut short.

        Ready first, and without a call: a signal that strikes on the way back from heappop()
        must not find a queue that is in neither.
        """
        while self._timers and (self._timers[0][0] <= now or not self._timers[0][2]._ticket):
            _, ticket, strand = self._timers[0]
            if strand._ticket == ticket:
                strand._ticket = 0
                self._ready += (strand,)
            heapq.heappop(self._timers)

    def _take_turn(self) -> bool:
        """Park until there is a turn to take (true) or nothing to do here (false)."""
        leave_at = monotonic() + self.idle_timeout / (1 + self._standing)  # of a crowd soon
        watching = False
        seen, tick_at = -1, NEVER
        try:
            while not self._stopped:
                now = monotonic()
                self._promote(now)
                if self._ready and self._running >= self._limit and now >= tick_at:
                    if seen != self._progress:
                        self._limit = 1
                    elif self._inside:  # a whole tick, and nothing moved: they are blocked
                        self._epoch += 1
                        self._running -= self._inside
                        self._inside = 0
                        self._limit *= 2
                if self._ready and self._running < self._limit:
                    self._running += 1
                    self._called = False
                    if watching:
                        self._watching = self._ticking = watching = False
                    if len(self._ready) > 1:
                        self._call()
                    return True
                # Whoever was called has come, and another may have been quicker: the next to
                # become ready has to call again.
                self._called = False
                if not self._open and not self._busy:
                    leave_at = now
                if not self._watching:
                    self._watching = watching = True
                if watching:
                    until = self._timers[0][0] if self._timers else leave_at
                    self._ticking = bool(self._ready)
                    if self._ticking and (tick_at <= now or tick_at == NEVER):
                        seen = self._progress
                        tick_at = now + (TICK if self._limit == 1 else NEXT_TICK)
                    elif not self._ticking:
                        tick_at = NEVER
                    until = min(until, tick_at)
                    if until == leave_at and until <= now:
                        over = not self._open and not self._busy
                        if over or (not self._running and not self._standing):
                            return False
                        leave_at = until = now + self.idle_timeout + TICK
                    self._watch.wait(max(0.0, until - now))
                else:
                    if leave_at <= now:
                        return False
                    self._standing += 1
                    try:
                        self._cond.wait(leave_at - now)
                    finally:
                        self._standing -= 1
            return False
        finally:
            if watching:
                self._watching = self._ticking = False
            if not self._watching:
                self._cond.notify()  # somebody else is to keep the time

    def close(self, timeout: float | None = None) -> None:
        """Let the queues deliver what is pending, then stop the workers; idempotent.

        Blocks for up to ``timeout`` seconds and then raises CloseTimeoutError. A queue
        whose dispatcher is closed refuses events with SinkClosedError.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            self._closing = True  # nobody lingers any more
            self._promote(NEVER)  # what lingered, and one more attempt
        while True:
            with self._lock:
                left = deadline - monotonic()
                if not self._busy or self._stopped or left <= 0:
                    break
                sleeper = self._change.sleeper()
            if not self._help():
                self._change.sleep(sleeper, min(left, HELP))
        with self._lock:
            late = self._busy
            self._stopped = True
            self._cond.notify_all()
            self._watch.notify_all()
        if late:
            raise CloseTimeoutError(f"{late} queues still had events pending")


_default = Dispatcher()  #: the process's queues share it, unless they are given another
at_exit(close_dispatchers, _dispatchers)


# ------------------------------------------------------------------------------ queue


class Queue(Sink, _Locked):
    """Makes delivery asynchronous: ``write`` appends and returns, a worker calls ``dst``.

    Any thread may call anything. Events reach ``dst`` in the order in which they were
    accepted, one call at a time.
    """

    maxsize = _SetOnce()
    name = _SetOnce()

    def __init__(
        self,
        dst: Any,
        *,
        maxsize: int = 0,
        when_full: str = "block",
        batch_size: int = 1,
        linger: float = 0.0,
        listeners: Iterable[Any] = (),
        dead_letter: Any = None,
        dispatcher: Dispatcher | None = None,
        name: str | None = None,
    ) -> None:
        self._dst = arguments.destination(dst)
        self._maxsize = arguments.size("maxsize", maxsize)
        self._when_full = arguments.policy(when_full)
        self._batch_size = arguments.size("batch_size", batch_size, least=1)
        self._linger = arguments.seconds("linger", linger)
        self._listeners = arguments.listeners(listeners, "ingress", "egress")
        if dead_letter is not None:
            arguments.destination(dead_letter, role="a dead letter")
        self._dead_letter = dead_letter
        if dispatcher is not None and not isinstance(dispatcher, Dispatcher):
            raise TypeError(f"dispatcher must be a Dispatcher, not {dispatcher!r}")
        self._dispatcher = dispatcher or _default
        self._name = f"queue to {type(dst).__name__}" if name is None else str(name)
        self._write_many = arguments.own_write_many(dst, Sink) if batch_size > 1 else None
        self._retrying = (
            dst if type(dst) is RetryingSink else None
        )  # waits on a timer, not a worker
        self._trouble = Drops(f"{self._name}: dropped an event")
        self._accepted = self._delivered = self._dropped = 0
        self._waiting: deque[Any] = deque()
        self._appended = 0  # events that ever entered _waiting
        # When each pending event was accepted, where that is measured: as in the compiled one.
        self._since: deque[float] = deque()
        self._latencies = [0] * (len(LATENCY_BOUNDS) + 1)
        self._latency_total = 0.0
        self._block: list[Any] = []  # being delivered, or between two attempts
        self._attempt: _Attempt | None = None  # how far the retrying sink got with _block
        self._settling = 0  # counted, but not yet reported to listeners and dead letter
        self._linger_until = 0.0  # zero: does not linger
        self._hurry = 0  # _appended at the last flush: no lingering below
        self._scheduled = False  # ready, running or on a timer
        self._ticket = 0  # the dispatcher's: not zero while on a timer
        self._runner: int | None = None  # ident of the thread that delivers
        self._announcers: list[int] = []  # idents of those that tell listeners of an event to come
        self._given_up = False  # a closer's deadline has passed
        self._abandoned = False  # ... and it has taken what was waiting
        self._left: list[Any] = []  # what the abandoned delivery gave back
        self._dst_closing = False
        self._finished = False
        self._close_error: BaseException | None = None
        self._close_by = NEVER  # the earliest deadline of all closers
        self._dispatcher._open += 1
        super().__init__()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._accepted = self._delivered + self._dropped
        self._waiting, self._since = deque(), deque()
        self._block, self._attempt, self._left, self._settling = [], None, [], 0
        self._scheduled, self._ticket, self._runner = False, 0, None
        self._announcers = []
        self._linger_until = 0.0
        if not self._finished:
            self._dst_closing = False

    def __del__(self) -> None:
        # At exit the lock may be held by a worker that is frozen already.
        if not self._closed and "_close_by" in vars(self) and not sys.is_finalizing():
            self._dispatcher._closed_one()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r} pending={len(self)}>"

    def __len__(self) -> int:
        _look_for_fork()
        return self._accepted - self._delivered - self._dropped

    def stats(self) -> QueueStats:
        with self._lock:
            return QueueStats(self._accepted, self._delivered, self._dropped, len(self))

    def latencies(self) -> tuple[tuple[int, ...], float]:
        with self._lock:
            return tuple(self._latencies), self._latency_total

    def oldest(self) -> float:
        with self._lock:
            return monotonic() - self._since[0] if self._since else 0.0

    def _measure(self, count: int) -> None:
        """The oldest ``count`` events are done with."""
        now = monotonic()
        for _ in range(min(count, len(self._since))):
            age = now - self._since.popleft()
            self._latencies[bisect_left(LATENCY_BOUNDS, age)] += 1
            self._latency_total += age

    # -- accepting

    def write(self, event: Any, /) -> None:
        self._accept((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        events = tuple(events)
        if self._maxsize and len(events) > self._maxsize:
            raise ValueError(f"a block of {len(events)} events exceeds maxsize={self._maxsize}")
        if events:
            self._accept(events)

    def _accept(self, events: tuple[Any, ...]) -> None:
        n = len(events)
        lost: list[Any] = []  # what is discarded to make room, or `events`
        discarded = 0  # so many of them
        over = 0
        announced = False
        me = get_ident()

        def admit() -> bool:
            nonlocal discarded, announced, over
            if self._closed or self._dispatcher._stopped:
                raise SinkClosedError(f"{self._name} or its dispatcher is closed")
            over = len(self) + n - self._maxsize if self._maxsize else 0
            if over <= 0:
                pass
            elif self._when_full == "block":
                if self._runner == get_ident():
                    raise QueueFullError(f"{self._name} is full, and only its own delivery waits")
                if self._linger_until:  # what does not fit cannot fill the block
                    self._dispatcher._expedite(self)
                return False
            elif self._when_full == "raise":
                raise QueueFullError(f"{self._name} holds {len(self)} of {self._maxsize} events")
            elif self._when_full == "drop_oldest" and len(self._waiting) >= over:
                first = len(self._block)
                while over > 0:
                    lost.append(self._waiting[0])
                    if self._since:
                        del self._since[first]
                    del self._waiting[0]
                    self._dropped += 1
                    discarded += 1
                    over -= 1
            else:
                lost.extend(events)
                self._accepted += n
                self._dropped += n
                discarded = n
                return True
            if self._listeners:
                self._accepted += n  # holds the place while ingress runs, without the lock
                announced = True
            else:
                self._append(events, n)
            return True

        try:
            self._change.until(admit)
            if self._listeners:
                self._announcers.append(me)
                for event in events:
                    callbacks.tell(self._listeners, "ingress", event)
            if announced:
                with self._lock:
                    if self._abandoned:
                        raise SinkClosedError(f"{self._name} was closed meanwhile")
                    announced = self._append(events, 0)
        finally:
            if self._listeners and me in self._announcers:
                self._announcers.remove(me)
            if announced:  # and never appended
                with self._lock:
                    self._accepted -= n
                    self._change.notify_all()
                    if self._closed and not self._scheduled:
                        self._dispatcher._schedule(self)  # close() waits for just this
            if discarded:
                self._report(lost[:discarded], "the queue is full")

    def _append(self, events: tuple[Any, ...], accepted: int) -> bool:
        """Append, and count so many of the events as accepted. Always false."""
        n = len(events)
        now = (
            [monotonic()] * n if self._retrying is not None or self._write_many is not None else ()
        )
        if not self._scheduled:
            self._dispatcher._schedule(self)  # first: who comes too early waits for the lock
        elif self._linger_until and (
            len(self._waiting) + n >= self._batch_size
            or (self._maxsize and len(self) + accepted >= self._maxsize)
        ):
            self._dispatcher._expedite(self)  # it lingers for just this
        self._since += now
        self._waiting += events
        self._appended += n
        self._accepted += accepted
        return False

    def _is_full(self) -> bool:
        return bool(self._maxsize) and len(self) >= self._maxsize

    def _report(self, lost: list[Any], reason: str) -> None:
        """What a drop owes beside the count: a log line, the dead letter, the listeners."""
        try:
            self._trouble.happened(lost[0], reason, len(lost))
        finally:
            callbacks.bury(self._dead_letter, lost)
            self._tell_egress(lost)

    def _tell_egress(self, events: list[Any]) -> None:
        for event in events if self._listeners else ():
            callbacks.tell(self._listeners, "egress", event)

    # -- delivering; only the worker that runs this queue gets here, one at a time

    def _run(self) -> str:
        """One turn: "more" to do, "timer" when the queue waits for one, or "idle"."""
        self._runner = get_ident()
        end = monotonic() + TURN
        while True:
            with self._lock:
                outcome = self._take()
                if outcome:
                    self._runner = None
                    return outcome
                block, attempt = self._block, self._attempt
            if not block:  # closing, and nothing is pending
                self._close_dst()
                continue
            wait = self._deliver(block, attempt)
            self._dispatcher._progress += 1
            with self._lock:
                if wait and not self._abandoned:
                    self._dispatcher._schedule_at(monotonic() + wait, self)
                    if self._retrying is not None and self._retrying.closed:
                        self._dispatcher._expedite(self)  # it looked before we were on the timer
                    self._runner = None
                    return "timer"
                if self._waiting and monotonic() >= end:
                    self._runner = None
                    return "more"

    def _struck(self) -> str:
        """Outside the destination, on the thread of who helps: what becomes of the turn."""
        self._runner = None
        if not (self._finished or self._abandoned):
            self._dst_closing = False  # not yet begun
        return "timer" if self._ticket else "more" if self._scheduled else "idle"

    def _take(self) -> str:
        """Put the next events into ``_block``; or say why there are none to deliver."""
        if self._block:
            return ""
        if not self._waiting:
            if self._closed and not len(self) and not self._dst_closing:
                self._dst_closing = True
                return ""
            self._scheduled = False
            return "idle"
        n = 1
        if self._write_many is not None:
            n = min(self._batch_size, len(self._waiting))
            first = self._appended - len(self._waiting)
            cut = self._closed or self._is_full() or self._dispatcher._closing
            wants_more = n < self._batch_size and not cut and first >= self._hurry
            # Where _linger_until is set, it has lingered, or was told not to.
            if self._linger and wants_more and not self._linger_until:
                self._linger_until = monotonic() + self._linger
                self._dispatcher._schedule_at(self._linger_until, self, lingers=True)
                return "timer"
        self._linger_until = 0.0
        batch = starmap(self._waiting.popleft, repeat((), n))
        self._block = []
        self._block += batch  # taken in one step: no signal strikes who helps in between
        if self._retrying is not None:
            self._attempt = _Attempt(self._block, self)
        return ""

    def _deliver(self, block: list[Any], attempt: _Attempt | None) -> float:
        """Call ``dst`` once and account for the outcome; seconds to wait if not yet finished."""
        try:
            if attempt is not None:
                wait = self._retrying._step(attempt)  # type: ignore[union-attr]
                if wait is not None:
                    return wait
            elif self._write_many is not None:
                self._write_many(block[:])  # a copy: the destination may change it
            else:
                self._dst.write(block[0])
        except BaseException as error:
            if not isinstance(error, Exception) and thread_state.here.interrupts is not None:
                thread_state.here.interrupts.append(error)  # Ctrl-C, on the thread of who helps
            self._finish(block, attempt.done if attempt else 0, error)
        else:
            self._finish(block, len(block), None)
        return 0.0

    def _finish(self, block: list[Any], delivered: int, error: BaseException | None) -> None:
        lost, n = block[delivered:], len(block)
        try:
            with self._lock:
                if self._block is not block:
                    return  # a closer gave up on this block and has accounted for it
                self._measure(n)
                # No call from here to the last count, in which a signal could strike who helps.
                self._settling = n  # it has finished when all who are to know it do
                self._block, self._attempt = [], None
                self._delivered += delivered
                if self._abandoned:
                    self._left, lost = lost, []
                else:
                    self._dropped += n - delivered
                self._change.notify_all()
            try:
                if lost:
                    self._report(lost, describe_error(error) if error else "")
                else:
                    self._trouble.over()
                self._tell_egress(block[:delivered])
            except BaseException as trouble:  # a log handler's: this thread is a worker
                log.error("%s: %s", self._name, describe_error(trouble))
        finally:
            self._settling = 0
            with self._lock:
                self._change.notify_all()

    # -- waiting and closing

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was accepted before the call has finished; false if it has not.

        Returns false at once when called from inside this queue's own delivery.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            goal = self._hurry = self._appended
            if self._linger_until:
                self._dispatcher._expedite(self)
        return self._wait(lambda: self._finished_up_to() >= goal, deadline)

    def _delivers_here(self) -> bool:
        """Whether the calling thread is inside this queue's delivery, and must not wait for it."""
        return self._runner == get_ident()

    def _finished_up_to(self) -> int:
        return self._appended - len(self._waiting) - len(self._block) - self._settling

    def _wait(self, predicate: Callable[[], bool], deadline: float) -> bool:
        while True:
            with self._lock:
                left = deadline - monotonic()
                if predicate():
                    return True
                if left <= 0 or self._runner == get_ident():
                    return False
                sleeper = self._change.sleeper()
            if not self._dispatcher._help():
                self._change.sleep(sleeper, min(left, HELP))

    def close(self, timeout: float | None = None) -> None:
        deadline = monotonic() + arguments.timeout(timeout)
        with self._lock:
            if not self._closed:
                self._closed = True
                self._dispatcher._closed_one()
            if timeout is not None:
                self._close_by = min(self._close_by, deadline)
            self._change.notify_all()
            if not self._scheduled and not self._dst_closing:
                self._dispatcher._schedule(self)
            elif self._linger_until:
                self._dispatcher._expedite(self)
            if self._runner == get_ident() or get_ident() in self._announcers:
                return  # called from inside the delivery, or an ingress: it goes on
        if not self._wait(lambda: self._finished, deadline):
            self._give_up()
            return
        error = self._close_error
        self._close_error = None
        if error is not None:
            raise error

    def _give_up(self) -> None:
        """The deadline has passed. Of several closers the first says what is left."""
        told: list[CloseTimeoutError | None] = []
        # On a thread that no signal interrupts, so that all is accounted for.
        start, args = _starter(self._abandon, told)
        alone = False
        with self._lock:
            if self._finished:
                return
            first = not self._given_up
            if first:
                self._given_up = True
                try:
                    start(*args)
                except RuntimeError:  # the interpreter is shutting down
                    alone = True
        if alone:
            self._abandon(told)
        if first:
            self._change.until(lambda: bool(told))
            if told[0] is not None:
                raise told[0]
            return
        self._wait(lambda: self._finished, monotonic() + 2 * CLOSE_GRACE)

    def _close_dst(self) -> None:
        """Close ``dst``: on the worker after the last event, else on a thread of its own."""
        try:
            try:
                left = min(self._close_by - monotonic(), FOREVER)
                callbacks.close(self._dst, max(0.0, left))
            except BaseException as error:
                if not self._abandoned or isinstance(error, CloseTimeoutError):
                    self._close_error = error
                else:
                    log.error("%s: close() raised %s", self._name, describe_error(error))
            self._trouble.over()
        finally:  # a signal may strike who helps
            self._finished = True
            with self._lock:
                self._change.notify_all()

    def _abandon(self, told: list[CloseTimeoutError | None]) -> None:
        """Close ``dst`` at once and give back what is left."""
        with self._lock:
            self._abandoned = True  # not before: who works on would not back off any more
            waiting = list(self._waiting)
            self._waiting.clear()
            mine = not self._dst_closing
            self._dst_closing = True
        if mine:
            start, args = _starter(self._close_dst)
            try:
                start(*args)
            except RuntimeError:  # the interpreter is shutting down
                self._close_dst()
        with self._lock:
            if self._attempt is not None:
                self._dispatcher._expedite(self)  # its next step finds the sink closed
        now = monotonic()
        if self._wait(lambda: not self._block, now + GRACE):
            # A queue keeps to its own deadline, and then says what is left: the complete list
            # is worth more than being punctual on a machine that has too much to do.
            late = LATE if isinstance(self._dst, Queue) else CLOSE_GRACE
            self._wait(lambda: self._finished, now + late)
        with self._lock:
            done = 0
            if self._attempt is not None:
                done, self._attempt.taken = self._attempt.done, True
            passed = self._block[:done]
            left = self._left + self._block[done:] + waiting
            self._delivered += done
            self._dropped += len(left)
            self._block, self._attempt, self._left = [], None, []
            self._since.clear()
            late, self._finished = not self._finished, True
            self._change.notify_all()
        try:
            if left:
                self._report(left, "closed before it was delivered")
                self._trouble.over()
            self._tell_egress(passed)
        finally:
            with self._lock:
                if isinstance(self._close_error, CloseTimeoutError):
                    # What dst had accepted came first.
                    left, late = self._close_error.undelivered + left, True
                self._close_error = None
                text = f"{self._name}: {len(left)} events were not delivered"
                # Nothing was left, and dst closed in no time: that is no news.
                told.append(CloseTimeoutError(text, left) if left or late else None)
                self._change.notify_all()


# ---------------------------------------------------------------------------- retries


class RetryStrategy:
    """Decides when to attempt a write and whether to give up. Subclass it; be thread-safe."""

    def proceed(self, event: Any) -> float:
        """Seconds to wait before the attempt; asked once, the wait is not followed by another."""
        return 0.0

    def failure(self, event: Any, error: BaseException) -> bool:
        """An attempt failed. True drops the event."""
        return False

    def success(self, event: Any) -> None:
        """An attempt succeeded."""


class _Bounded(_Locked, RetryStrategy):
    """Counts consecutive failures, of all events, and gives up on an event by its own count."""

    max_attempts = _SetOnce()
    max_elapsed = _SetOnce()

    def __init__(self, max_attempts: int | None, max_elapsed: float | None) -> None:
        if max_attempts is not None:
            arguments.size("max_attempts", max_attempts, least=1)
        if max_elapsed is not None:
            max_elapsed = arguments.seconds("max_elapsed", max_elapsed)
        self._max_attempts = max_attempts
        self._max_elapsed = max_elapsed
        super().__init__()
        self._failures = 0
        self._last = 0.0
        self._events: dict[int, list[Any]] = {}  # id -> [event, attempts, first failure]

    def failure(self, event: Any, error: BaseException) -> bool:
        self._failed()
        if self._max_attempts is None and self._max_elapsed is None:
            return False
        with self._lock:
            entry = self._events.setdefault(id(event), [event, 0, self._last])
            entry[1] += 1
            drop = self._gives_up(entry[1], entry[2])
            if drop:
                del self._events[id(event)]
        return drop

    def success(self, event: Any) -> None:
        with self._lock:
            self._failures = 0
            entry = self._events.pop(id(event), None)
        del entry  # its event may have a finaliser: outside the lock

    def _failed(self) -> None:
        now = monotonic()
        with self._lock:
            self._failures += 1
            self._last = now

    def _gives_up(self, attempts: int, since: float) -> bool:
        return (self._max_attempts is not None and attempts >= self._max_attempts) or (
            self._max_elapsed is not None and monotonic() - since >= self._max_elapsed
        )


class Breaker(_Bounded):
    """No wait below ``threshold`` consecutive failures, then ``backoff`` seconds since the last."""

    threshold = _SetOnce()
    backoff = _SetOnce()

    def __init__(
        self,
        threshold: int,
        backoff: float,
        *,
        max_attempts: int | None = None,
        max_elapsed: float | None = None,
    ) -> None:
        super().__init__(max_attempts, max_elapsed)
        self._threshold = arguments.size("threshold", threshold)
        self._backoff = arguments.seconds("backoff", backoff)

    def proceed(self, event: Any) -> float:
        with self._lock:
            if not self._failures or self._failures < self._threshold:
                return 0.0
            return max(0.0, self._last + self._backoff - monotonic())


class ExponentialBackoff(_Bounded):
    """After n failures in a row a uniform draw from ``[0, min(max, base + factor * 2**(n-1)))``."""

    base = _SetOnce()
    factor = _SetOnce()
    max = _SetOnce()

    def __init__(
        self,
        base: float = 1.0,
        factor: float = 1.0,
        max: float = 20.0,
        *,
        max_attempts: int | None = None,
        max_elapsed: float | None = None,
    ) -> None:
        super().__init__(max_attempts, max_elapsed)
        self._base = arguments.seconds("base", base)
        self._factor = arguments.seconds("factor", factor)
        self._max = arguments.seconds("max", max)

    def proceed(self, event: Any) -> float:
        n = self._failures
        if not n:
            return 0.0
        # 2**1000 is a float still, and beyond any maximum
        return random.random() * min(self._max, self._base + self._factor * 2.0 ** min(n - 1, 1000))


class _Attempt:
    """How far one block has got: guarded by its sink's turn."""

    def __init__(self, events: list[Any], driver: Queue | None = None) -> None:
        self.events = events
        self.driver = driver  # the queue that drives it; None for a thread that waits
        self.thread = None if driver else get_ident()  # ... which is this one
        self.done = 0  # events that are finished, from the front
        self.taken = False  # by a closer that could not wait, which has accounted for the rest
        self.waited = False  # the wait that the strategy asked for is over
        self.not_before = 0.0  # what a receiver's retry_after asks for
        self.failures = [0] * len(events)
        self.since = [0.0] * len(events)  # of each event's first failure


class RetryingSink(_Wrapper):
    """Writes until success, until the strategy drops the event, or until closed.

    Any thread may write; writes are serialised and block while they back off. A queue
    that delivers to it drives it a step at a time, so that a back-off holds no thread.
    """

    def __init__(
        self,
        sink: Any,
        strategy: Any,
        *,
        listeners: Iterable[Any] = (),
        dead_letter: Any = None,
    ) -> None:
        super().__init__(sink)
        for method in ("proceed", "failure", "success"):
            if not callable(getattr(strategy, method, None)):
                raise TypeError(f"a strategy needs a {method}() method, {strategy!r} has none")
        self._strategy = strategy
        # Ours count an event's attempts here, where two sinks that share a strategy differ.
        self._bounded = (
            strategy
            if isinstance(strategy, _Bounded) and type(strategy).failure is _Bounded.failure
            else None
        )
        self._listeners = arguments.listeners(listeners, "active", "retry")
        if dead_letter is not None:
            arguments.destination(dead_letter, role="a dead letter")
        self._dead_letter = dead_letter
        self._write_many = arguments.own_write_many(sink, Sink)
        self._fit = arguments.own_fit(sink, Sink)
        self._label = describe_sink(sink)
        self._retry_trouble = Burst(f"{self._label}: an attempt failed, retrying")
        self._drop_trouble = Drops(f"{self._label}: dropped an event")
        self._backing_off = False  # and has said so
        self._current: _Attempt | None = None  # whose turn it is
        self._owner: int | None = None  # ident of the thread that writes just now
        self._piece = 1 << 62  # how many events to try at once
        self._retries = self._dropped = 0  # of the turn

    def _after_fork(self) -> None:
        super()._after_fork()
        self._current = self._owner = None

    def close(self, timeout: float | None = None) -> None:
        super().close(timeout)
        self._retry_trouble.over()
        self._drop_trouble.over()

    @property
    def retries(self) -> int:
        """Events whose attempt failed and was or will be repeated, counted each time."""
        return self._retries

    @property
    def dropped(self) -> int:
        return self._dropped

    def write(self, event: Any, /) -> None:
        self._write([event])

    def write_many(self, events: Iterable[Any]) -> None:
        self._write(list(events))

    def _write(self, events: list[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        if not events:
            return
        attempt = _Attempt(events)
        try:
            while (wait := self._step(attempt)) is not None:
                self._change.until(lambda: self._closed, monotonic() + wait)
        finally:
            if self._current is attempt:
                self._current = None
                with self._lock:
                    self._change.notify_all()

    def _step(self, attempt: _Attempt) -> float | None:
        """At most one attempt: seconds until the next step, or None when all is finished."""
        # Nested, if the sink or the dead letter wrote to us: it would wait for itself.
        if self._current is not attempt and self._owner != get_ident():
            self._change.until(lambda: self._take(attempt))
        try:
            wait = self._try(attempt)
        except BaseException:
            self._release(attempt)
            raise
        if wait is None:
            self._release(attempt)
        return wait

    def _take(self, attempt: _Attempt) -> bool:
        """Under the lock: take the turn if it is free."""
        if self._closed:
            raise SinkClosedError
        if self._current is not None:
            # A signal's handler may write during the back-off of its own thread: nested, too.
            return self._current.thread == get_ident()
        self._current = attempt
        return True

    def _release(self, attempt: _Attempt) -> None:
        with self._lock:
            if self._current is attempt:
                self._current = None
                self._change.notify_all()

    def _interrupt(self) -> None:
        """Closing: end a back-off that waits on a queue's timer; threads have been notified."""
        attempt = self._current
        if attempt is not None and attempt.driver is not None:
            attempt.driver._dispatcher._expedite(attempt.driver)

    def _try(self, attempt: _Attempt) -> float | None:
        if self._closed:
            raise SinkClosedError
        owner, self._owner = self._owner, get_ident()
        try:
            first = attempt.events[attempt.done]
            if not attempt.waited:
                wait = callbacks.proceed(self._strategy, first)
                wait = max(wait, attempt.not_before - monotonic() if attempt.not_before else 0.0)
                if wait > 0:
                    attempt.waited = True
                    if self._retry_trouble and not self._backing_off:
                        self._backing_off = True
                        log.warning("%s: backing off for %.3g s", self._label, wait)
                    return min(wait, FOREVER)
            attempt.waited, attempt.not_before = False, 0.0
            n = self._piece if self._write_many is not None else 1
            piece = attempt.events[attempt.done : attempt.done + n]
            if self._fit is not None and len(piece) > 1:
                piece = piece[: callbacks.fit(self._dst, piece)]
            for event in piece if self._listeners else ():
                callbacks.tell(self._listeners, "active", event)
            try:
                if len(piece) > 1:
                    self._write_many(piece[:])  # a copy: the destination may change it
                else:
                    self._dst.write(first)
            except SinkClosedError:
                raise
            except Exception as error:
                self._failed(attempt, piece, error)
            else:
                self._succeeded(attempt, piece)
        finally:
            self._owner = owner
        return None if attempt.done == len(attempt.events) else 0.0

    def _succeeded(self, attempt: _Attempt, piece: list[Any]) -> None:
        attempt.done += len(piece)
        self._piece = max(self._piece, 2 * len(piece))
        self._backing_off = False
        self._retry_trouble.over()
        self._drop_trouble.over()
        callbacks.success(self._strategy, piece[0])

    def _failed(self, attempt: _Attempt, piece: list[Any], error: Exception) -> None:
        """Only an event that failed by itself is dropped; a block is taken apart first."""
        drop = callbacks.is_permanent(error)
        if not drop:
            after = callbacks.retry_after(error)
            attempt.not_before = monotonic() + after if after else 0.0
            if self._bounded is not None:
                self._bounded._failed()
                for i in range(attempt.done, attempt.done + len(piece)):
                    attempt.since[i] = attempt.since[i] or monotonic()
                    attempt.failures[i] += 1
                drop = self._bounded._gives_up(
                    attempt.failures[attempt.done], attempt.since[attempt.done]
                )
            else:
                drop = callbacks.failure(self._strategy, piece[0], error)
        if len(piece) > 1:
            self._piece = len(piece) // 2
        elif drop:
            if self._closed or attempt.taken:
                raise SinkClosedError  # what is left has been, or will be, accounted for
            attempt.done += 1
            self._dropped += 1
            self._drop_trouble.happened(piece[0], describe_error(error))
            callbacks.bury(self._dead_letter, piece)
            return
        self._retries += len(piece)
        self._retry_trouble.happened(piece[0], describe_error(error), len(piece))
        for event in piece if self._listeners else ():
            callbacks.tell(self._listeners, "retry", event, error)


# ---------------------------------------------------------------------------- metrics


class Counters(_Locked):
    """What became of the attempts at an endpoint, in events. Any thread may count."""

    successes = _SetOnce()
    failures = _SetOnce()
    errors = _SetOnce()

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, int] = {}
        self._successes = self._failures = self._errors = 0

    def success(self, status: str, count: int) -> None:
        with self._lock:
            self._successes += count
            self._statuses.setdefault(status, 0)
            self._statuses[status] += count

    def failure(self, status: str, count: int) -> None:
        with self._lock:
            self._failures += count
            self._statuses.setdefault(status, 0)
            self._statuses[status] += count

    def error(self, count: int) -> None:
        with self._lock:
            self._errors += count

    def statuses(self) -> dict[str, int]:
        with self._lock:
            return dict(self._statuses)
