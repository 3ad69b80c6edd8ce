"""Selection by event."""

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from .. import arguments, callbacks
from ..errors import SinkClosedError
from .wrapper import Wrapper


class Filter(Wrapper):
    """Hands on the events that ``matcher`` accepts; a refused event counts as written.

    The matcher is called by the writer's thread; what it raises, the writer gets, and nothing
    of that write was handed on.
    """

    def __init__(self, dst: Any, matcher: Any) -> None:
        super().__init__(dst)
        self._match = arguments.matcher(matcher)

    def write(self, event: Any, /) -> None:
        if self._closed:
            raise SinkClosedError
        if callbacks.match(self._match, event):
            self._dst.write(event)

    def write_many(self, events: Iterable[Any]) -> None:
        if self._closed:
            raise SinkClosedError
        accepted = [event for event in events if callbacks.match(self._match, event)]
        if accepted:
            self._dst.write_many(accepted)


class ignore:
    """The matcher that refuses registry events by ``target.mediaType`` and by ``action``."""

    media_types = property(attrgetter("_media_types"))
    actions = property(attrgetter("_actions"))

    def __init__(self, media_types: Iterable[str] = (), actions: Iterable[str] = ()) -> None:
        self._media_types = frozenset(arguments.strings("media_types", media_types))
        self._actions = frozenset(arguments.strings("actions", actions))

    def match(self, event: Any) -> bool:
        """Whether the event is to be handed on."""
        if self._actions and _text(event, "action", "action") in self._actions:
            return False
        if not self._media_types:
            return True
        target = _field(event, "target", "target")
        return _text(target, "media_type", "mediaType") not in self._media_types

    __call__ = match


def _field(thing: Any, attribute: str, key: str) -> Any:
    return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, attribute, None)


def _text(thing: Any, attribute: str, key: str) -> str | None:
    value = _field(thing, attribute, key)
    return value if isinstance(value, str) else None
