# cython: freethreading_compatible=True
"""Selection by event. Compare filter.go of docker/go-events."""

from collections.abc import Mapping

from fastsinks._core import arguments

from .callbacks cimport match, write, write_many
from .sink cimport register_native
from .wrapper cimport Wrapper


cdef class Filter(Wrapper):
    """Hands on the events that ``matcher`` accepts; a refused event counts as written.

    ``matcher`` is a callable or has ``match(event)``. It is called by the writer's
    thread; what it raises, the writer gets, and nothing of that write was handed on.
    """

    def __init__(self, dst, matcher):
        super().__init__(dst)
        self._match = arguments.matcher(matcher)

    def write(self, event, /):
        self.write_c(event)

    def write_many(self, events):
        self.write_many_c(events)

    cdef int write_c(self, object event) except -1:
        if self._closed:
            self.refuse()
        if match(self._match, event):
            write(self._dst, event)
        return 0

    cdef int write_many_c(self, object events) except -1:
        if self._closed:
            self.refuse()
        accepted = [event for event in events if match(self._match, event)]
        if accepted:
            write_many(self._dst, accepted)
        return 0


cdef class ignore:
    """The matcher that refuses registry events by ``target.mediaType`` and by ``action``.

    Works on ``fastsinks.events.Event`` and on plain dicts; an event without these
    fields is accepted.
    """

    cdef readonly frozenset media_types  # set once, like the next
    cdef readonly frozenset actions

    def __init__(self, media_types=(), actions=()):
        self.media_types = frozenset(arguments.strings("media_types", media_types))
        self.actions = frozenset(arguments.strings("actions", actions))

    def match(self, event):
        """Whether the event is to be handed on."""
        if self.actions and _text(event, "action", "action") in self.actions:
            return False
        if not self.media_types:
            return True
        target = _field(event, "target", "target")
        return _text(target, "media_type", "mediaType") not in self.media_types

    def __call__(self, event):
        return self.match(event)


cdef object _field(object thing, str attribute, str key):
    return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, attribute, None)


cdef object _text(object thing, str attribute, str key):
    value = _field(thing, attribute, key)
    return value if isinstance(value, str) else None


register_native(Filter)
