"""``fastsinks demo``: real events to three receivers, two of them bad, and then the proof."""

from __future__ import annotations

import contextlib
import random
import select
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import IO, NamedTuple

import msgspec

from .._cli import demo_receiver
from .._core.backend import Broadcaster
from ..events import Event
from .display import Display, bar, summary
from .route import Route, close_all

TICK = 0.05  #: seconds between two updates of the display
DEADLINE = 45.0  #: seconds after which an event that is still pending counts as missing
REPORT_EVERY = 1.0  #: seconds between two progress lines where there is no terminal
KILLS = 4  #: how often the bad receiver is killed


class Plan(NamedTuple):
    name: str
    manners: str
    delay: float
    faults: float
    kills: int


PLANS = (
    Plan("good", "answers at once", 0.0, 0.0, 0),
    Plan("slow", "takes 20 ms for each request", 0.020, 0.0, 0),
    Plan("bad", "refuses, answers 500, hangs up, is killed and restarted", 0.008, 0.05, KILLS),
)


class Process:
    """A receiver in a process of its own, which can be killed and started again.

    Its port stays reserved in between, bound but not listened to: connections
    are refused, and no other program can take the port.
    """

    def __init__(self, plan: Plan, folder: Path, seed: int) -> None:
        self.plan = plan
        self.journal = folder / f"{plan.name}.ids"
        self._seed = seed
        self._process: subprocess.Popen[bytes] | None = None
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reserved.bind(("127.0.0.1", 0))
        self._port: int = self._reserved.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/events"

    def start(self) -> None:
        self._seed += 1  # so that each start brings other faults
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", demo_receiver.__file__),
                *("--journal", str(self.journal), "--port", str(self._port)),
                *("--delay", str(self.plan.delay), "--faults", str(self.plan.faults)),
                *("--seed", str(self._seed)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must not reach it
        )

    @property
    def running(self) -> bool:
        return self._process is not None

    def wait_until_ready(self, timeout: float) -> None:
        assert self._process is not None
        out: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        if not select.select([out], [], [], timeout)[0] or not out.readline():
            raise RuntimeError(f"the {self.plan.name} receiver did not start")

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                pipe.close()

    def close(self) -> None:
        self.kill()
        self._reserved.close()


class Saboteur:
    """Kills a receiver as its share of the events grows, and restarts it a moment later."""

    def __init__(self, victim: Process, total: int, rng: random.Random) -> None:
        self._victim = victim
        kills = victim.plan.kills
        self._kill_at = [total * (i + 1) // (kills + 1) for i in range(kills)]
        self._random = rng
        self._restart_at = 0.0

    def look(self, delivered: int) -> str | None:
        """Kill or restart the receiver if that is due. Returns what was done, in words."""
        if not self._victim.running:
            if time.monotonic() < self._restart_at:
                return None
            self._victim.start()
            return "started again"
        if not self._kill_at or delivered < self._kill_at[0]:
            return None
        del self._kill_at[0]
        down = self._random.uniform(0.3, 0.9)
        self._restart_at = time.monotonic() + down
        self._victim.kill()
        return f"killed; connections are refused for {down:.1f} s"


class Finding(NamedTuple):
    """What one receiver got, from its own journal."""

    received: int  #: different events
    missing: int
    disordered: int  #: events that first arrived after a later one
    repeated: int
    unknown: int  #: ids that were never sent

    @property
    def good(self) -> bool:
        return not (self.missing or self.disordered or self.unknown)


def examine(journal: Path, sent: Sequence[str]) -> Finding:
    position = {ident: index for index, ident in enumerate(sent)}
    seen: set[int] = set()
    latest = -1
    disordered = repeated = unknown = 0
    for ident in journal.read_text().splitlines():
        index = position.get(ident)
        if index is None:
            unknown += 1
        elif index in seen:
            repeated += 1
        else:
            seen.add(index)
            disordered += index < latest
            latest = max(latest, index)
    return Finding(len(seen), len(sent) - len(seen), disordered, repeated, unknown)


def make_events(count: int, rng: random.Random) -> Iterator[Event]:
    """The recorded events over and over, each with an id of its own."""
    recorded = (
        resources.files("fastsinks._cli").joinpath("data/registry-events.ndjson").read_bytes()
    )
    originals = [msgspec.json.decode(line, type=Event) for line in recorded.splitlines()]
    for index in range(count):
        ident = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        yield msgspec.structs.replace(originals[index % len(originals)], id=ident)


class Demo:
    """One run of the demo, shown on ``display``."""

    def __init__(self, count: int, seed: int, display: Display) -> None:
        self._count = count
        self._seed = seed
        self._display = display
        self._say = display.message

    def run(self) -> bool:
        """True if every receiver got every event, first arrivals in order."""
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastsinks-demo-"))
            self._processes = [Process(plan, Path(folder), self._seed) for plan in PLANS]
            for process in self._processes:
                stack.callback(process.close)
            stack.callback(self._display.clear)
            try:
                return self._run(stack)
            except KeyboardInterrupt:
                self._say("interrupted: no verdict")
                return False

    def _run(self, stack: contextlib.ExitStack) -> bool:
        rng = random.Random(self._seed)
        self._say("Three receivers on this machine, each in a process of its own:")
        for process in self._processes:
            process.start()
        for process in self._processes:
            process.wait_until_ready(10.0)
            self._say(f"  {process.plan.name:5} {process.url}  {process.plan.manners}")

        events = list(make_events(self._count, rng))
        sent = [event.id for event in events]
        routes = [
            Route(p.plan.name, p.url, timeout=2.0, close_timeout=0.1) for p in self._processes
        ]
        stack.callback(close_all, routes, 0.1)
        broadcaster = Broadcaster(*(route.endpoint for route in routes))
        started = time.monotonic()
        for event in events:
            broadcaster.write(event)
        self._say(
            f"{self._count:,} events, made from those of a real registry, were written for all "
            f"three in {time.monotonic() - started:.2f} s. Now they are delivered:"
        )
        self._watch(routes, started, rng)
        self._display.clear()

        rows = [route.look() for route in routes]
        close_all(routes, 0.1)
        for line in ["", *summary(rows), ""]:
            self._say(line)
        self._say("What the receivers really got, by their own journals:")
        holds = True
        for process, row in zip(self._processes, rows, strict=True):
            finding = examine(process.journal, sent)
            self._say(
                f"  {process.plan.name:5} {finding.received:,} of {self._count:,} events, "
                f"{finding.disordered or 'none'} out of order, {finding.repeated:,} repeated"
                + (f", {finding.unknown:,} unknown" if finding.unknown else "")
            )
            balanced = row.accepted == row.delivered == self._count and not row.dropped
            if not balanced:
                self._say(f"  {process.plan.name:5} the summary says otherwise")
            holds = holds and finding.good and balanced
        if holds:
            self._say(
                "Verdict: every event reached every receiver at least once, "
                f"first arrivals in order ({time.monotonic() - started:.0f} s)."
            )
        else:
            self._say("Verdict: FAILED.")
        return holds

    def _watch(self, routes: Sequence[Route], started: float, rng: random.Random) -> None:
        """Show progress, and sabotage, until all is delivered or the deadline has passed."""
        saboteurs = [
            Saboteur(process, self._count, rng) if process.plan.kills else None
            for process in self._processes
        ]
        next_report = started
        while True:
            rows = [route.look() for route in routes]
            now = time.monotonic()
            for row, saboteur in zip(rows, saboteurs, strict=True):
                deed = saboteur.look(row.delivered) if saboteur and row.pending else None
                if deed:
                    self._say(f"{now - started:5.1f} s  {row.name} receiver: {deed}")
            if not any(row.pending for row in rows) or now - started > DEADLINE:
                return
            if self._display.live:
                self._display.draw(
                    [
                        f"  {row.name:5} {bar(row.delivered, self._count)} "
                        f"{row.delivered:>7,} of {self._count:,}  pending {row.pending:>7,}  "
                        f"{row.rate:>7,.0f}/s  retries {row.retries:,}"
                        for row in rows
                    ]
                )
            elif now >= next_report:
                next_report = now + REPORT_EVERY
                shares = ", ".join(f"{row.name} {row.delivered:,}" for row in rows)
                self._say(f"{now - started:5.1f} s  delivered: {shares}")
            for route in routes:
                route.endpoint.flush(max(0.0, now + TICK - time.monotonic()))
