# cython: freethreading_compatible=True
"""A sink that one listens to. Compare channel.go of docker/go-events."""

from collections import deque

from fastsinks._core import arguments, wording
from fastsinks._core.channel_events import ChannelEvents
from fastsinks._core.errors import SinkClosedError

from .sink cimport register_native
from .sync cimport (
    fs_acquire,
    fs_condition_init,
    fs_init,
    fs_is_inherited,
    fs_lock_init,
    fs_notify,
    fs_now,
    fs_release,
    fs_wait,
)
from .times cimport FS_FOREVER

fs_init()


cdef inline void acquire(Channel self) noexcept:
    if fs_is_inherited(&self._lock):
        self.after_fork()
    fs_acquire(&self._lock)


cdef int notify_watchers(tuple watchers) except -1:
    for watcher in watchers:
        watcher()
    return 0


cdef class Offer:
    """An event on its way through a channel."""


cdef class Channel(Sink):
    """A sink that one listens to: with ``get``, or by iterating, also asynchronously.

    Any number of threads may write and read; each event goes to one reader, in the order of
    the writes. ``write`` blocks while ``buffer`` events wait to be taken; with ``buffer=0`` it
    is a rendezvous, and returns when a reader took the event. After ``close``, writes raise
    SinkClosedError (also those that wait, and then nothing was handed over), and readers
    drain what is buffered.
    """

    def __cinit__(self, *args, **kwargs):
        fs_lock_init(&self._lock)
        fs_condition_init(&self._arrived)
        fs_condition_init(&self._taken)
        self._offers = deque()
        self._watchers = ()

    def __init__(self, buffer=0):
        self.buffer = arguments.size("buffer", buffer)

    def __len__(self):
        """How many events are buffered."""
        cdef Py_ssize_t count
        acquire(self)
        count = self._count
        fs_release(&self._lock)
        return count if self.buffer else 0

    def write(self, event, /):
        """Offer an event; blocks until there is room for it, or a reader took it."""
        self.write_c(event)

    cdef int write_c(self, object event) except -1:
        cdef Offer offer = Offer()
        cdef bint notified = False
        cdef tuple watchers
        cdef unsigned int seen
        offer.event = event
        acquire(self)
        while self.buffer and self._count >= self.buffer and not self._closed:
            seen = self._taken.count
            fs_release(&self._lock)
            fs_wait(&self._lock, &self._taken, seen, fs_now() + FS_FOREVER)
            acquire(self)
        if self._closed:
            fs_release(&self._lock)
            raise SinkClosedError
        self._offers.append(offer)
        self._count += 1
        fs_notify(&self._lock, &self._arrived)
        watchers = self._watchers
        fs_release(&self._lock)
        if self.buffer and not watchers:
            return 0
        try:
            notify_watchers(watchers)
            notified = True
            while not self.buffer:
                acquire(self)
                if offer.taken or self._closed:
                    fs_release(&self._lock)
                    break
                seen = self._taken.count
                fs_release(&self._lock)
                fs_wait(&self._lock, &self._taken, seen, fs_now() + FS_FOREVER)
        finally:
            if not (notified and self.buffer):
                self.withdraw(offer)
        if not (offer.taken or self.buffer):
            raise SinkClosedError
        return 0

    cdef int withdraw(self, Offer offer) except -1:
        """Closed or interrupted before a reader came: the event was never committed."""
        acquire(self)
        if not offer.taken:
            offer.withdrawn = True  # a reader will throw it away
            offer.event = None  # the caller has it
            if self.buffer or not self._closed:
                self._count -= 1
                fs_notify(&self._lock, &self._taken)  # there is room for another
        fs_release(&self._lock)
        return 0

    def get(self, timeout=None):
        """The next event. Blocks; TimeoutError after ``timeout`` seconds.

        SinkClosedError once the channel is closed and drained.
        """
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef Offer offer
        cdef unsigned int seen
        cdef bint closed
        while True:
            acquire(self)
            if self._count:
                offer = self._offers.popleft()
                if not offer.withdrawn:
                    offer.taken = True
                    self._count -= 1
                    fs_notify(&self._lock, &self._taken)
                    fs_release(&self._lock)
                    return offer.event
                fs_release(&self._lock)
                offer = None
                continue
            seen = self._arrived.count
            closed = self._closed  # later, there may also be an event that was written before
            fs_release(&self._lock)
            if closed:
                raise SinkClosedError
            if fs_now() >= deadline:
                raise wording.no_event(timeout)
            fs_wait(&self._lock, &self._arrived, seen, deadline)

    def close(self, timeout=None):
        """Refuse further events; never blocks. Readers drain what is buffered."""
        arguments.timeout(timeout)
        cdef tuple watchers
        offers = deque()  # made, and the others dropped, without the lock
        acquire(self)
        self._closed = True
        if self.buffer == 0:
            offers, self._offers = self._offers, offers  # writers withdraw theirs
            self._count = 0
        fs_notify(&self._lock, &self._arrived)
        fs_notify(&self._lock, &self._taken)
        watchers = self._watchers
        fs_release(&self._lock)
        notify_watchers(watchers)

    def done(self, timeout=None):
        """Wait until the channel is closed; false if it was not within ``timeout`` seconds."""
        cdef double deadline = fs_now() + arguments.timeout(timeout)
        cdef unsigned int seen
        while True:
            acquire(self)
            seen = self._arrived.count
            fs_release(&self._lock)
            if self._closed:
                return True
            if fs_now() >= deadline:
                return False
            fs_wait(&self._lock, &self._arrived, seen, deadline)

    def _watch(self, watcher):
        """Have ``watcher()`` called, by any thread, when an event arrives or the channel closes."""
        cdef tuple known = self.present()
        while not self.replace(known, known + (watcher,)):
            known = self.present()

    def _unwatch(self, watcher):
        cdef tuple known = self.present()
        while not self.replace(known, tuple([one for one in known if one is not watcher])):
            known = self.present()

    cdef tuple present(self):
        """The watchers, with a reference of the caller's: another may replace them at once."""
        cdef tuple watchers
        acquire(self)
        watchers = self._watchers
        fs_release(&self._lock)
        return watchers

    cdef bint replace(self, tuple known, tuple watchers) except -1:
        """False if another came first."""
        cdef bint done
        acquire(self)
        done = self._watchers is known
        if done:
            self._watchers = watchers  # `known` lives on in the caller: nothing is dropped here
        fs_release(&self._lock)
        return done

    def __iter__(self):
        """Events until the channel is closed and drained."""
        while True:
            try:
                event = self.get()
            except SinkClosedError:
                return
            yield event

    def __aiter__(self):
        """The same for ``async for``; a cancelled step loses no event."""
        return ChannelEvents(self)

    cdef int after_fork(self) except -1:
        """In a child: what was written before is for readers in the parent, where watchers are."""
        fs_lock_init(&self._lock)
        fs_condition_init(&self._arrived)
        fs_condition_init(&self._taken)
        self._watchers = ()
        self._offers = deque()
        self._count = 0
        return 0


register_native(Channel)
