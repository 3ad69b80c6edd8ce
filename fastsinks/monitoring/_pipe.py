"""Named pipes: processes that share a directory ask each other by them, and notice dead ones."""

from __future__ import annotations

import errno
import glob
import os
import re
import select
from pathlib import Path
from time import monotonic, sleep

_NAME = "fastsinks_{}.fifo"
_PID = re.compile(r"fastsinks_([0-9]+)\.fifo")


class Pipe:
    """This process's own end: others write to it when they want its numbers to be fresh.

    A file beside it has a count for its modification time, odd while numbers are being
    written. By it a process that asked knows when writing has begun, and ended, after that.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, _NAME.format(os.getpid()))
        # Opened before it has its name: a pipe without a reader means that its process is dead.
        unnamed = f"{self._path}.new"
        Path(unnamed).unlink(missing_ok=True)
        os.mkfifo(unnamed, 0o600)
        # For writing, too: else it reports its end whenever the last other process closes it.
        self._fd = os.open(unnamed, os.O_RDWR | os.O_NONBLOCK)
        self._marks = _marks(self._path)
        self._count = 0
        Path(self._marks).touch(0o600)
        os.utime(self._marks, ns=(0, 0))
        os.rename(unnamed, self._path)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def wait(self, timeout: float) -> bool:
        """Whether another process has asked within ``timeout`` seconds."""
        if not self._poll.poll(timeout * 1000):
            return False
        os.read(self._fd, 4096)
        return True

    def mark(self) -> None:
        """Call before numbers are written, and again after that."""
        self._count += 1
        os.utime(self._marks, ns=(self._count, self._count))

    def close(self) -> None:
        os.close(self._fd)


def ask_others(folder: str, patience: float) -> list[int]:
    """Ask the other processes for fresh numbers, and wait for them. Returns the pids of dead ones.

    Waits for ``patience`` seconds at most; a process that is stopped or very busy is
    not waited for any longer.
    """
    dead, asked = _others(folder, b"?")
    deadline = monotonic() + patience
    while asked and monotonic() < deadline:
        path, count = asked[-1]
        if (_count(path) or count) >= count:
            asked.pop()
        else:
            sleep(0.001)
    return dead


def find_dead(folder: str) -> list[int]:
    """The pids of processes that have left a pipe behind; it is removed."""
    return _others(folder, b"")[0]


def _others(folder: str, question: bytes) -> tuple[list[int], list[tuple[str, int]]]:
    dead: list[int] = []
    asked: list[tuple[str, int]] = []
    for path in glob.glob(os.path.join(glob.escape(folder), _NAME.format("*"))):
        match = _PID.fullmatch(os.path.basename(path))
        if match is None or int(match[1]) == os.getpid():
            continue
        count = _count(path)
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no process has it open for reading
                dead.append(int(match[1]))
                Path(_marks(path)).unlink(missing_ok=True)
                Path(path).unlink(missing_ok=True)
            continue
        try:
            if question and count is not None:
                os.write(fd, question)
                # If no writing is under way, the next two marks are of one that began after
                # the question; else the present one has to end first.
                asked.append((path, count + 2 + count % 2))
        except (BlockingIOError, BrokenPipeError):
            pass  # thousands of questions are unread, or it has just died
        finally:
            os.close(fd)
    return dead, asked


def _marks(pipe: str) -> str:
    return f"{pipe.removesuffix('.fifo')}.marks"


def _count(pipe: str) -> int | None:
    try:
        return os.stat(_marks(pipe)).st_mtime_ns
    except FileNotFoundError:
        return None
