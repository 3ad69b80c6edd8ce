"""A sink that one listens to."""

from collections import deque
from collections.abc import Callable, Iterator
from operator import attrgetter
from time import monotonic
from typing import Any

from .. import arguments, wording
from ..channel_events import ChannelEvents
from ..errors import SinkClosedError
from ..locked import Locked
from .sink import Sink


class Offer:
    """An event on its way through a channel."""

    taken = False  # the channel's lock

    def __init__(self, event: Any) -> None:
        self.event = event


class Channel(Sink, Locked):
    """A sink that one listens to: with ``get``, or by iterating, also asynchronously.

    ``write`` blocks while ``buffer`` events wait to be taken; with ``buffer=0`` it returns when a
    reader took the event. Ctrl-C withdraws a write that waits. After ``close``, writes raise
    SinkClosedError, and readers drain what is buffered.
    """

    buffer = property(attrgetter("_buffer"))

    def __init__(self, buffer: int = 0) -> None:
        self._buffer = arguments.size("buffer", buffer)
        self._offers: deque[Offer] = deque()
        self._watchers: tuple[Callable[[], None], ...] = ()
        super().__init__()

    def __len__(self) -> int:
        with self._lock:
            return len(self._offers) if self._buffer else 0

    def write(self, event: Any, /) -> None:
        """Offer an event; blocks until there is room for it, or a reader took it."""
        offer = Offer(event)
        self._changed.until(lambda: self._put(offer))
        try:
            self._notify_watchers()
            if not self._buffer:
                self._changed.until(lambda: offer.taken or self._closed)
        except BaseException:  # interrupted before a reader came: it was never committed
            with self._lock:
                if offer in self._offers:
                    self._offers.remove(offer)
                self._changed.notify_all()
            raise
        if not (self._buffer or offer.taken):
            raise SinkClosedError

    def _put(self, offer: Offer) -> bool:
        if self._closed:
            raise SinkClosedError
        if self._buffer and len(self._offers) >= self._buffer:
            return False
        self._offers.append(offer)
        self._changed.notify_all()
        return True

    def get(self, timeout: float | None = None) -> Any:
        """The next event. Blocks; TimeoutError after ``timeout`` seconds.

        SinkClosedError once the channel is closed and drained.
        """
        deadline = monotonic() + arguments.timeout(timeout)
        taken: list[Offer] = []
        if not self._changed.until(lambda: self._take(taken), deadline):
            raise wording.no_event(timeout)
        return taken[0].event

    def _take(self, taken: list[Offer]) -> bool:
        if self._offers:
            taken.append(self._offers.popleft())
            taken[0].taken = True
            self._changed.notify_all()
        elif self._closed:
            raise SinkClosedError
        return bool(taken)

    def close(self, timeout: float | None = None) -> None:
        """Refuse further events; never blocks. Readers drain what is buffered."""
        arguments.timeout(timeout)
        with self._lock:
            self._closed = True
            if self._buffer == 0:
                self._offers.clear()  # their writers have the events
            self._changed.notify_all()
        self._notify_watchers()

    def done(self, timeout: float | None = None) -> bool:
        """Wait until the channel is closed; false if it was not within ``timeout`` seconds."""
        deadline = monotonic() + arguments.timeout(timeout)
        return self._changed.until(lambda: self._closed, deadline)

    def _notify_watchers(self) -> None:
        for watcher in self._watchers:
            watcher()

    def _watch(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher()`` called, by any thread, when an event arrives or the channel closes."""
        with self._lock:
            self._watchers = (*self._watchers, watcher)

    def _unwatch(self, watcher: Callable[[], None]) -> None:
        with self._lock:
            self._watchers = tuple(one for one in self._watchers if one is not watcher)

    def __iter__(self) -> Iterator[Any]:
        """Events until the channel is closed and drained."""
        while True:
            try:
                event = self.get()
            except SinkClosedError:
                return
            yield event

    def __aiter__(self) -> ChannelEvents:
        """The same for ``async for``; a cancelled step loses no event."""
        return ChannelEvents(self)

    def _after_fork(self) -> None:
        """What was written before is for readers in the parent, where watchers are."""
        super()._after_fork()
        self._offers, self._watchers = deque(), ()
