"""What the command draws: a few lines that are redrawn in place, and the summary."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from .._core import log

if TYPE_CHECKING:
    from .route import Row

COLUMNS = ("endpoint", "accepted", "delivered", "dropped", "retries", "requests", "events/s")


def summary(rows: Iterable[Row]) -> list[str]:
    """What became of each endpoint's events, as lines of a table, which has a ``pending`` column
    only if there is any."""
    rows = list(rows)
    columns = list(COLUMNS)
    if any(row.pending for row in rows):
        columns.insert(4, "pending")
    cells = [columns]
    for row in rows:
        counts = row._asdict()
        counts["endpoint"] = printable(row.name)
        counts["events/s"] = f"{row.rate:,.0f}"
        cells.append([_cell(counts[column]) for column in columns])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column == "endpoint" else cell.rjust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    ]


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def printable(text: str) -> str:
    """``text`` with control characters escaped, as a terminal would obey them."""
    return "".join(
        char if unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode()
        for char in text
    )


def bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // total if total else 0
    return "[" + "#" * filled + "." * (width - filled) + "]"


class Display:
    """Lines at the bottom of a terminal, drawn over each time, with messages above them.

    On anything but a terminal only the messages appear. Any thread may call
    it. A stream that breaks is not written to again: delivery goes on without it.
    """

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream: TextIO | None = stream if stream is not None else sys.stderr
        self._lock = threading.RLock()
        self._shown = 0  # lines on the screen that were drawn here
        self.live = not quiet and _is_terminal(self._stream)

    def draw(self, lines: Sequence[str]) -> None:
        """Show ``lines`` in the place of those drawn before."""
        if not self.live:
            return
        size = shutil.get_terminal_size()
        lines = [line[: size.columns - 1] for line in lines[: max(1, size.lines - 1)]]
        with self._lock:
            text = "".join(f"{line}\x1b[K\n" for line in lines)
            self._write(f"{self._up()}{text}\x1b[J")
            self._shown = len(lines)

    def message(self, text: str) -> None:
        """Print a line that stays."""
        with self._lock:
            clear = f"{self._up()}\x1b[J" if self._shown else ""
            self._shown = 0
            self._write(f"{clear}{printable(text)}\n")

    def clear(self) -> None:
        """Erase what was drawn."""
        with self._lock:
            if self._shown:
                self._write(f"{self._up()}\x1b[J")
                self._shown = 0

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Within this, show the library's warnings as messages."""
        handler = _LogToDisplay(self)
        with log.handled_by(handler):
            yield

    def _up(self) -> str:
        return f"\r\x1b[{self._shown}A" if self._shown else ""

    def _write(self, text: str) -> None:
        if self._stream is None:  # the process was started without it
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # hung up, or closed
            self.live = False


def _is_terminal(stream: TextIO | None) -> bool:
    if stream is None or os.environ.get("TERM") in ("dumb", "unknown"):
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


class _LogToDisplay(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__(logging.WARNING)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.message(f"fastsinks: {record.getMessage()}")
