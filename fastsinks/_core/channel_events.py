"""``async for event in channel``, for the channels of both backends."""

from __future__ import annotations

from typing import Any

from .errors import SinkClosedError


class ChannelEvents:
    """An asynchronous iterator over a channel's events.

    The coroutine itself takes an event from the channel, on its loop's thread; no helper
    thread does it on its behalf. So a cancelled ``anext`` has taken nothing, and loses
    nothing. Other threads only notify the loop.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def __aiter__(self) -> ChannelEvents:
        return self

    async def __anext__(self) -> Any:
        import asyncio  # here, where it is loaded already: the core does without

        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def notify() -> None:  # called by writers and closers, on any thread
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop is closed, and no coroutine waits any more
                pass

        self._channel._watch(notify)
        try:
            while True:
                changed.clear()
                try:
                    return self._channel.get(timeout=0)
                except TimeoutError:
                    await changed.wait()
                except SinkClosedError:
                    raise StopAsyncIteration from None
        finally:
            self._channel._unwatch(notify)
