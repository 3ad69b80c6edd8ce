"""Several processes that are scraped as one, the way prometheus-client does it.

With ``PROMETHEUS_MULTIPROC_DIR`` each process writes its numbers to files there, and a
scrape of any of them adds them up. Collectors that compute their numbers at a scrape are left
out of that. So a thread publishes ours: from time to time, so that little is lost with a
process that is killed, and whenever another process is about to be scraped.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Any

from prometheus_client import Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from .._core import log
from .._core.atexit import at_exit
from .._core.log import describe_error
from ..endpoint import Endpoint, open_endpoints, registry
from ._accounts import accounts
from ._families import FAMILIES, Family, Row
from ._pipe import Pipe, ask_others, find_dead

INTERVAL = 0.5
"""Seconds between two publications that no process has asked for ..."""

SHARE = 0.05
"""... or more, where publishing many endpoints would take a larger part of the thread's time."""

PATIENCE = 0.25
"""Seconds that a scrape waits for other processes' fresh numbers; then it takes the latest."""

ROLL_CALL = 5.0
"""Seconds between two searches for dead processes, where no scrape notices them."""

Key = tuple[str, tuple[str, ...]]


def enabled() -> bool:
    """Whether prometheus-client keeps its values in files; it decides that when imported."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


class Merged(MultiProcessCollector):
    """All processes' numbers, added up.

    prometheus-client's own collector fails on a file that another process has opened and not
    yet extended to its full length. A moment later it can be read.
    """

    def collect(self) -> Iterable[Metric]:
        deadline = monotonic() + PATIENCE
        while True:
            try:
                return super().collect()  # type: ignore[no-any-return, no-untyped-call]
            except struct.error:
                if monotonic() > deadline:
                    raise
            sleep(0.001)


class Publisher:
    """Writes this process's numbers to prometheus-client's files, and asks others to."""

    def __init__(self) -> None:
        self._baseline: dict[Key, float] = {}  # counts that belong to the parent process
        self._exiting = False
        self._reset()

    def _reset(self) -> None:
        # Re-entrant: a signal handler that runs in here may close an endpoint, or fork.
        self._lock = threading.RLock()
        # All below is guarded by _lock.
        self._values: dict[Key, Any] = {}  # prometheus-client's
        self._published: dict[Key, float] = {}
        self._publishing = False
        self._thread: threading.Thread | None = None
        self._pipe: Pipe | None = None  # used by the thread alone

    # -- numbers

    def publish(self) -> None:
        """Write what has changed. Any thread may call it."""
        with self._lock:
            if self._publishing:
                return
            self._publishing = True
            try:
                for account in accounts.by_name():
                    for family in FAMILIES:
                        for row in (family.shares or family.rows)(account):
                            self._write(family, row)
            finally:
                self._publishing = False

    def refresh(self) -> None:
        """Publish, make the other processes publish, and remove the gauges of dead ones."""
        self.start()
        self.publish()
        folder = _folder()
        self._mark_dead(folder, ask_others(folder, PATIENCE))

    def _write(self, family: Family, row: Row) -> None:
        name, labels, values_of_labels, number = row
        key = (name, values_of_labels)
        is_gauge = family.kind == "gauge"
        if not is_gauge:
            number -= self._baseline.get(key, 0)
        last = self._published.get(key)
        if number == last:
            return
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = values.ValueClass(
                family.kind,
                family.name,
                name,
                labels,
                values_of_labels,
                family.help,
                multiprocess_mode=family.merge,
            )
        if is_gauge:
            value.set(number)
        else:
            # Not set(): an earlier process of the same id may have left its counts there.
            value.inc(number - (last or 0))
        self._published[key] = number

    def _mark_dead(self, folder: str, pids: list[int]) -> None:
        for pid in pids:
            mark_process_dead(pid, folder)  # type: ignore[no-untyped-call]

    # -- the thread

    def start(self, endpoint: Endpoint | None = None) -> None:
        """Start the thread that publishes, unless it runs already."""
        with self._lock:
            if self._thread is not None or self._exiting:
                return
            self._thread = threading.Thread(
                target=self._run, name="fastsinks monitoring", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter is shutting down
                self._thread = None

    def _run(self) -> None:
        pause = INTERVAL
        troubled = False
        roll_call = monotonic() + ROLL_CALL
        while True:
            try:
                took = self._serve(pause)
                pause = max(INTERVAL, took / SHARE)
                if monotonic() > roll_call:
                    self._mark_dead(_folder(), find_dead(_folder()))
                    roll_call = monotonic() + ROLL_CALL
                troubled = False
            except Exception as error:
                # The directory is gone, or full. Say so once, and try again: it may come back.
                if not troubled:
                    log.error("monitoring: cannot publish: %s", describe_error(error))
                troubled = True
                if self._pipe is not None:
                    self._pipe.close()
                    self._pipe = None
                sleep(INTERVAL)

    def _serve(self, pause: float) -> float:
        """Wait until it is time, then publish; the seconds that publishing took."""
        if self._pipe is None:
            self._pipe = Pipe(_folder())
        else:
            self._pipe.wait(pause)
        began = monotonic()
        self._pipe.mark()
        try:
            self.publish()
        finally:
            self._pipe.mark()
        return monotonic() - began

    # -- the process

    def before_fork(self) -> None:
        # So that no thread is inside prometheus-client, whose lock the child would find held.
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        self._lock.release()

    def after_fork_in_child(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self._reset()
        self._baseline = {
            (name, values_of_labels): number
            for account in accounts.by_name()
            for family in FAMILIES
            if family.kind != "gauge"
            for name, _, values_of_labels, number in (family.shares or family.rows)(account)
        }
        if open_endpoints():
            self.start()

    def at_exit(self) -> None:
        """Publish for the last time, after the endpoints have been closed."""
        self._exiting = True
        registry.close_all()  # its own hook, which does the same, may run later
        self.publish()


def _folder() -> str:
    return os.environ["PROMETHEUS_MULTIPROC_DIR"]


publisher = Publisher()

if enabled():
    registry.when_opened = publisher.start
    os.register_at_fork(
        before=publisher.before_fork,
        after_in_parent=publisher.after_fork_in_parent,
        after_in_child=publisher.after_fork_in_child,
    )
    at_exit(publisher.at_exit)
    if open_endpoints():
        publisher.start()
