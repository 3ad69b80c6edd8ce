"""``async for event in channel``, for the channels of both backends."""

from __future__ import annotations

from typing import Any

from .errors import SinkClosedError


class ChannelEvents:
    """An asynchronous iterator over a channel's events.

    An event is taken from the channel by the coroutine itself, on its loop's
    thread, never by a helper thread on its behalf: a cancelled ``anext`` has
    therefore taken nothing and loses nothing. Other threads only ring a bell.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __aiter__(self) -> ChannelEvents:
        return self

    async def __anext__(self) -> Any:
        import asyncio  # here, where it is loaded already: the core does without

        loop = asyncio.get_running_loop()
        bell = asyncio.Event()

        def ring() -> None:  # called by writers and closers, on any thread
            try:
                loop.call_soon_threadsafe(bell.set)
            except RuntimeError:  # the loop is closed: nobody is waiting any more
                pass

        self._channel._watch(ring)
        try:
            while True:
                bell.clear()
                try:
                    return self._channel.get(timeout=0)
                except TimeoutError:
                    await bell.wait()
                except SinkClosedError:
                    raise StopAsyncIteration from None
        finally:
            self._channel._unwatch(ring)
