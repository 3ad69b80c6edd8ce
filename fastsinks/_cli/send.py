"""``fastsinks send``: every event of a file or pipe to every URL."""

from __future__ import annotations

import io
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from .._core.backend import Broadcaster
from .display import Display
from .ndjson import MAX_LINE, Record, parse, split
from .route import Route, close_all

BLOCK = 500  #: events handed over at a time, at most

TICK = 0.1  #: seconds between two updates of the display

LAST_CHANCE = 0.3  #: seconds that requests in flight have left after an interrupt


class Feeder(threading.Thread):
    """Reads the source and writes its events to the broadcaster.

    It is a daemon thread because a read from a terminal or pipe may never return, and
    the main thread has to handle Ctrl-C meanwhile. ``file`` must be unbuffered, so that
    no buffer's lock is held when the process ends.
    """

    def __init__(
        self, source: str, file: io.RawIOBase, broadcaster: Broadcaster, display: Display
    ) -> None:
        super().__init__(name="fastsinks-feeder", daemon=True)
        self.source = source
        self.lines = 0  # the last line read; no later one has been offered to an endpoint
        self.events = 0  # in these lines, whichever endpoints accepted them
        self.malformed = 0
        self.error: str | None = None
        self.complete = False  # read to the end
        self.finished = threading.Event()
        self.handed_over = threading.Event()  # all that was read has been handed over
        self._bytes = 0
        self._latest: list[Any] = []  # the events handed over last
        self._file = file
        self._broadcaster = broadcaster
        self._display = display
        self._stopping = False
        status = os.fstat(file.fileno())
        self._size = status.st_size if stat.S_ISREG(status.st_mode) else 0

    def run(self) -> None:
        try:
            with self._file:
                self.complete = self._feed()
        except OSError as error:
            self.error = f"{self.source}: {error.strerror or error}"
        except Exception as error:  # else it would look like the end of the file
            self.error = f"{self.source}: {type(error).__name__}: {error}"
        finally:
            self.finished.set()
            self.handed_over.set()

    def stop(self) -> None:
        """Read no further; a write that waits for room ends when the endpoints are closed."""
        self._stopping = True

    def percentage(self) -> str:
        """How much of the source has been read, if it is a regular file."""
        # From a count, and not from the file, which the other thread may be closing.
        return f"  {min(100, 100 * self._bytes // self._size)}%" if self._size else ""

    def first_beyond(self, count: int) -> Any:
        """The event after the first ``count`` of those read, if it is one of the latest."""
        index = count - (self.events - len(self._latest))
        return self._latest[index] if 0 <= index < len(self._latest) else None

    def _groups(self) -> Iterator[list[bytes | None]]:
        groups = split(self._file)
        while True:
            self.handed_over.set()
            group = next(groups, None)
            self.handed_over.clear()
            if group is None:
                return
            yield group

    def _feed(self) -> bool:
        """Hand over all events; false once no endpoint accepts any more."""
        number = 0
        for group in self._groups():
            block: list[Any] = []
            for line in group:
                number += 1
                self._bytes += MAX_LINE if line is None else len(line) + 1
                try:
                    block += parse(line, number)
                except ValueError as error:
                    # First what is before this line: if that is the end, it was not read.
                    if not self._hand_over(block, number - 1):
                        return False
                    block = []
                    self.lines = number
                    self.malformed += 1
                    self._display.message(f"fastsinks: {self.source}: line {number}: {error}")
                if len(block) >= BLOCK:
                    if not self._hand_over(block, number):
                        return False
                    block = []
            if not self._hand_over(block, number):
                return False
        return True

    def _hand_over(self, block: list[Any], line: int) -> bool:
        """Offer the rest of the events up to ``line``; false once no endpoint accepts any more.

        If no endpoint accepted any of them, they count as not read.
        """
        if self._stopping or not self._broadcaster.sinks:
            return False
        before = self.lines, self.events, self._latest
        self.lines, self.events = line, self.events + len(block)
        self._latest = block or self._latest
        for start in range(0, len(block), BLOCK):
            self._broadcaster.write_many(block[start : start + BLOCK])
            # The broadcaster removes an endpoint that is closed, even while this waits for room.
            if not self._broadcaster.sinks:
                if start == 0:
                    self.lines, self.events, self._latest = before
                return False
        return True


class Sending:
    """One run of ``fastsinks send``, watched and ended by the main thread."""

    def __init__(
        self,
        source: str,
        file: io.RawIOBase,
        routes: Sequence[Route],
        display: Display,
        *,
        give_up_after: float,
    ) -> None:
        self.routes = routes
        self._display = display
        self._give_up_after = give_up_after
        self._started = time.monotonic()
        broadcaster = Broadcaster(*(route.endpoint for route in routes))
        self.feeder = Feeder(source, file, broadcaster, display)

    def run(self) -> bool:
        """Send everything; true if all of it was delivered. Ctrl-C ends it early."""
        feeder = self.feeder
        interrupted = False
        try:
            with self._display.logging():
                feeder.start()
                while not feeder.finished.wait(TICK):
                    self._look()
                while self._look():
                    self._wait_a_tick()
        except KeyboardInterrupt:
            interrupted = True
            feeder.stop()
            feeder.handed_over.wait(TICK)  # so that all get the same events, if there is room
        self._display.clear()
        close_all(self.routes, LAST_CHANCE)
        # Set at once: a write that waited for room has ended, as the endpoints are closed.
        feeder.handed_over.wait(LAST_CHANCE)
        if interrupted:
            self._say(f"interrupted at line {feeder.lines:,} of {feeder.source}")
        if feeder.error:
            self._say(feeder.error)
        if not feeder.complete:
            self._say(f"{feeder.source} was not read beyond line {feeder.lines:,}")
        if feeder.malformed:
            self._say(f"{feeder.source}: {feeder.malformed:,} malformed lines were not sent")
        delivered = [self._report(route) for route in self.routes]
        return all(delivered) and feeder.complete and not feeder.malformed and not interrupted

    def _look(self) -> bool:
        """Update the display, close endpoints that are stuck; whether anything is pending."""
        rows = [route.look() for route in self.routes]
        for route, row in zip(self.routes, rows, strict=True):
            if row.pending and route.stalled > self._give_up_after:
                route.close(0)
                self._say(
                    f"{route.name}: nothing was delivered for {self._give_up_after:g} s: giving up"
                )
        feeder = self.feeder
        elapsed = time.monotonic() - self._started
        lines = [
            f"{feeder.source}{feeder.percentage()}  {feeder.events:,} events"
            f"  {feeder.events / elapsed if elapsed else 0:,.0f}/s"
            + (f"  malformed {feeder.malformed:,}" if feeder.malformed else "")
        ]
        width = max(len(row.name) for row in rows)
        for row in rows:
            lines.append(
                f"  {row.name:<{width}}  delivered {row.delivered:,}  pending {row.pending:,}"
                f"  {row.rate:,.0f}/s"
                + (f"  retries {row.retries:,}" if row.retries else "")
                + (f"  dropped {row.dropped:,}" if row.dropped else "")
            )
        self._display.draw(lines)
        return any(row.pending for row in rows)

    def _wait_a_tick(self) -> None:
        deadline = time.monotonic() + TICK
        for route in self.routes:
            route.endpoint.flush(max(0.0, deadline - time.monotonic()))

    def _report(self, route: Route) -> bool:
        feeder, row = self.feeder, route.look()
        missing = feeder.events - row.delivered
        if not missing:
            return True
        text = f"not delivered to {route.name}: {missing:,} of {feeder.events:,} events"
        first = route.dropped.first if route.dropped.count else feeder.first_beyond(row.accepted)
        if first is not None:
            text += f", the first is {_name(first)}"
        if row.accepted < feeder.events:
            text += f"; {feeder.events - row.accepted:,} of them were never accepted"
        self._say(text)
        return False

    def _say(self, text: str) -> None:
        self._display.message(f"fastsinks: {text}")


def _name(event: Any) -> str:
    """Where an event came from; never its contents."""
    if not isinstance(event, Record):
        return f"a {type(event).__name__}"
    ident = event.get("id")
    name = f"line {event.line:,}"
    return f"{name}, id {ident[:80]!r}" if isinstance(ident, str) else name
