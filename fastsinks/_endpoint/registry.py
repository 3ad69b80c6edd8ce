"""Registry: the open endpoints of this process, and what becomes of them at its end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Generic, Protocol, TypeVar

from .._core import log
from .._core.atexit import at_exit
from .._core.errors import CloseTimeoutError
from .._core.log import describe_error
from .._core.thread_state import is_interrupt


class Listed(Protocol):
    """What the registry asks of an endpoint, so that it need not know the class."""

    @property
    def name(self) -> str: ...

    @property
    def close_timeout(self) -> float: ...

    @property
    def over(self) -> bool: ...

    def flush(self, timeout: float) -> bool: ...

    def close(self, timeout: float) -> None: ...


E = TypeVar("E", bound=Listed)


class Registry(Generic[E]):
    """Endpoints from their construction until they are closed, in that order.

    It holds strong references: an endpoint without any other reference may still have events to
    deliver. Any thread may call it. Each use of its dict is a single operation, which is atomic,
    so that there is no lock that a fork could leave held.
    """

    def __init__(self) -> None:
        self._open: dict[int, E] = {}
        self._hooked = False
        # Monitoring sets both, to keep its totals. The first is called with each new endpoint,
        # the second with each closed one while it is still listed, perhaps more than once.
        self.when_opened: Callable[[E], object] | None = None
        self.when_closed: Callable[[E], object] | None = None

    def add(self, endpoint: E) -> None:
        if not self._hooked:
            # Registered late, because hooks run in reverse: urllib3's pools, which endpoints
            # need, have registered theirs by now and are finalised after the endpoints.
            self._hooked = True
            at_exit(self.close_all)
        self._open[id(endpoint)] = endpoint
        if self.when_opened is not None:
            self.when_opened(endpoint)

    def remove(self, endpoint: E) -> None:
        """Call it once the endpoint is over; a second call does no harm."""
        if self.when_closed is not None:
            self.when_closed(endpoint)
        self._open.pop(id(endpoint), None)

    def open(self) -> tuple[E, ...]:
        """All endpoints that are not over."""
        endpoints = self._open.copy().values()
        for endpoint in endpoints:
            # A close() from inside a delivery returns first, and a worker then ends the endpoint.
            if endpoint.over:
                self.remove(endpoint)
        return tuple(endpoint for endpoint in endpoints if id(endpoint) in self._open)

    def close_all(self) -> None:
        """At exit: deliver what is pending, to all endpoints at the same time, and log what is
        left. Whatever one of them, or a log handler, raises, each is closed.

        Ctrl-C means that no time is left: it is raised again when all have been closed.
        """
        start = monotonic()
        endpoints = sorted(self.open(), key=lambda endpoint: endpoint.close_timeout)
        interrupts: list[BaseException] = []
        # Ends all lingering: workers serve all endpoints while this thread waits for one.
        for endpoint in endpoints:
            _call(interrupts, endpoint, lambda endpoint: endpoint.flush(0))

        def close(endpoint: E) -> None:
            left = 0.0 if interrupts else start + endpoint.close_timeout - monotonic()
            endpoint.close(max(0.0, left))

        for endpoint in endpoints:
            _call(interrupts, endpoint, close)
        if interrupts:
            raise interrupts[0]


def _call(interrupts: list[BaseException], endpoint: E, call: Callable[[E], object]) -> None:
    """Make a call of an endpoint; Ctrl-C, there or in a log handler, goes to ``interrupts``."""
    try:
        try:
            call(endpoint)
        except CloseTimeoutError as error:
            log.error(
                "endpoint %r: %d events were not delivered before the process ended",
                endpoint.name,
                len(error.undelivered),
            )
        except BaseException as error:
            log.error("endpoint %r: close() raised %s", endpoint.name, describe_error(error))
            if is_interrupt(error):
                raise
    except BaseException as interrupt:
        interrupts.append(interrupt)
