"""One run: everything set up, tormented, calmed down, and audited."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

from support import Task

import fastsinks
from fastsinks import Broadcaster, Endpoint
from fastsinks.endpoint import open_endpoints
from fastsinks.events import new_event

from . import audit
from .line import Line, Writing
from .plan import SHARES, Deed, schedule
from .specs import PATIENCE, SPECS
from .victim import Victim
from .vitals import Vitals

LATE = 1.0
"""Seconds by which a close may miss its deadline on a machine that has other things to do."""

Say = Callable[[str], object]


class Run:
    def __init__(self, seed: int, seconds: float, folder: Path, say: Say) -> None:
        self._seed = seed
        self._seconds = seconds
        self._folder = folder
        self._say = say
        self._wrong: list[str] = []

    def run(self) -> bool:
        """Whether the books balance."""
        before = Vitals.now()
        threading.excepthook = self._died
        with contextlib.ExitStack() as stack:
            self._victims = {
                name: Victim(name, share, self._folder, self._seed)
                for name, share in SHARES.items()
            }
            for victim in self._victims.values():
                stack.callback(victim.close)
                victim.start()
            for victim in self._victims.values():
                victim.wait_until_ready(PATIENCE)
            lines = {
                spec.name: Line(spec, self._victims[spec.receiver].url, self._folder)
                for spec in SPECS
            }
            self._torment(lines)
            self._settle(lines)
        self._check_end(before, lines)
        self._audit(lines)
        for text in self._wrong:
            self._say(f"wrong: {text}")
        return not self._wrong

    def _died(self, args: threading.ExceptHookArgs) -> None:
        self._wrong.append(f"{args.thread} died of {args.exc_type.__name__}: {args.exc_value}")

    # -- the torment

    def _torment(self, lines: dict[str, Line]) -> None:
        self._began = time.monotonic()
        self._broadcaster = Broadcaster(
            *(line.endpoint for line in lines.values() if line.spec.broadcast)
        )
        self._heard: list[Task] = []
        stop = threading.Event()
        writers = self._start_writers(lines, stop)
        returns: list[Deed] = []  # of receivers that are away, to be undone
        deeds = schedule(self._seed, self._seconds)
        while deeds or returns:
            due, mine = min((which[0].at, which is deeds) for which in (deeds, returns) if which)
            time.sleep(max(0.0, self._began + due - time.monotonic()))
            if not mine:
                self._undo(returns.pop(0))
                continue
            deed = deeds.pop(0)
            self._say(f"{deed.at:6.1f} s  {deed}")
            self._do(deed, lines)
            if deed.kind in ("kill", "freeze"):
                returns.append(deed._replace(at=deed.at + deed.seconds))
                returns.sort()
        time.sleep(max(0.0, self._began + self._seconds - time.monotonic()))
        stop.set()
        for victim in self._victims.values():
            victim.calm()  # writers that wait for room have to get it
        for writer in writers:
            writer.result(PATIENCE)

    def _start_writers(self, lines: dict[str, Line], stop: threading.Event) -> list[Task]:
        writers = []
        shared = Writing()
        for line in lines.values():
            if line.spec.broadcast:
                line.writings["all"] = shared
                continue
            for number in range(line.spec.writers):
                seed = f"{self._seed} writer {line.spec.name} {number}"
                writers.append(Task(line.write_until, stop, f"w{number}", seed))
        return [*writers, Task(self._broadcast, shared, stop)]

    def _broadcast(self, writing: Writing, stop: threading.Event) -> None:
        """One writer to several lines, of events that they ignore, too."""
        left = next(spec for spec in SPECS if spec.broadcast)
        ignored = new_event("pull", id="ignored:0")
        while not stop.wait(10 / left.rate):
            self._broadcaster.write(ignored)
            for _ in range(10):
                self._broadcaster.write(left.event(f"all:{writing.count}"))
                writing.count += 1

    def _do(self, deed: Deed, lines: dict[str, Line]) -> None:
        match deed.kind:
            case "kill":
                self._victims[deed.whom].kill()
            case "freeze":
                self._victims[deed.whom].freeze()
            case "remake":
                lines[deed.whom].remake(deed.seconds, self._swap)
            case _:
                self._heard.append(lines[deed.whom].fork())

    def _undo(self, deed: Deed) -> None:
        victim = self._victims[deed.whom]
        if deed.kind == "kill":
            victim.start()
        else:
            victim.thaw()

    def _swap(self, old: Endpoint, new: Endpoint) -> None:
        if old in self._broadcaster.sinks:
            self._broadcaster.add(new)
            self._broadcaster.remove(old)

    # -- the end

    def _settle(self, lines: dict[str, Line]) -> None:
        """All receivers are well: everything that can arrive does."""
        pending = sum(line.endpoint.metrics.pending for line in lines.values())
        self._say(f"{self._seconds:6.1f} s  all receivers are well; {pending:,} events are pending")
        deadline = time.monotonic() + PATIENCE

        def left() -> float:
            return max(0.0, deadline - time.monotonic())

        for line in lines.values():
            if not line.endpoint.flush(left()):
                self._wrong.append(f"line {line.spec.name} is stuck")
        for child in self._heard:
            child.join(left())
        for line in lines.values():
            line.bereave()
            line.end(left())
        for line in lines.values():
            if not line.ended(left() + LATE):
                self._wrong.append(f"line {line.spec.name}: a close does not return")
        del self._broadcaster

    def _check_end(self, before: Vitals, lines: dict[str, Line]) -> None:
        """The process is what it was before: nothing of it is left."""
        deadline = time.monotonic() + 10.0
        while (wrong := Vitals.now().compare(before)) and time.monotonic() < deadline:
            time.sleep(0.1)  # the last workers are on their way out
        self._vitals = (before, Vitals.now())
        self._wrong += wrong
        self._wrong += [f"{endpoint!r} is still listed" for endpoint in open_endpoints()]
        for line in lines.values():
            alive = sum(term.endpoint() is not None for term in line.terms)
            if alive:
                self._wrong.append(f"{alive} closed endpoints of line {line.spec.name} are alive")
            for term in line.terms:
                if term.late > LATE:
                    self._wrong.append(
                        f"line {line.spec.name}: close() of endpoint {term.number} was "
                        f"{term.late:.2f} s late"
                    )

    def _audit(self, lines: dict[str, Line]) -> None:
        journals = {}
        for name, victim in self._victims.items():
            with victim.journal.open() as journal:
                journals[name], complaints = audit.read_journal(journal)
            for text, times in complaints.items():
                self._wrong.append(f"receiver {name} complains {times} times: {text}")
        say = self._say
        say(
            "\nline       endpoints    written   accepted  delivered    dropped  pending  "
            "  received  missing  disordered  repeated  unknown"
        )
        for line in lines.values():
            claim = _claim(line)
            found = audit.examine(claim, journals[line.spec.receiver][line.spec.name])
            metrics = [term.metrics for term in line.terms]
            say(
                f"{line.spec.name:10} {len(metrics):9} {len(claim.written):10,} "
                f"{sum(each.events for each in metrics):10,} "
                f"{sum(each.successes for each in metrics):10,} "
                f"{sum(each.dropped for each in metrics):10,} "
                f"{sum(each.pending for each in metrics):8,}  "
                f"{found.received:10,} {found.missing:8,} {found.disordered:11,} "
                f"{found.repeated:9,} {found.unknown:8,}"
            )
            wrong = audit.balance(claim) + [
                child.trouble for child in line.children if child.trouble
            ]
            if not found.good:
                wrong.append(f"{found}")
            self._wrong += [f"line {line.spec.name}: {text}" for text in wrong]
        late = max(term.late for line in lines.values() for term in line.terms)
        children = [child for line in lines.values() for child in line.children]
        before, after = self._vitals
        say(
            f"\n{len(children)} forked children wrote {sum(child.count for child in children)} of "
            f"the events. No close was later than {max(0.0, late):.3f} s.\n"
            f"threads {before.threads} -> {after.threads}, "
            f"descriptors {before.descriptors} -> {after.descriptors}, "
            f"resident {before.resident:.0f} -> {after.resident:.0f} MiB; "
            f"backend {fastsinks.backend!r}"
        )


def _claim(line: Line) -> audit.Claim:
    """What the auditor is to know of a line."""
    children = {
        f"{child.writer}:{number}" for child in line.children for number in range(child.count)
    }
    written = {
        f"{writer}:{number}"
        for writer, writing in line.writings.items()
        for number in set(range(writing.count)).difference(writing.refused)
    }
    return audit.Claim(
        written=written | children,
        children=children,
        terms=[
            audit.Closed(term.metrics, term.undelivered)
            for term in sorted(line.terms, key=lambda term: term.number)
        ],
        buried=line.buried.read_text().split(),
        undelivered=[ident for child in line.children for ident in child.undelivered],
        concurrency=line.spec.concurrency,
        slack=line.spec.concurrency * line.spec.batch_size,
        may_lose=line.spec.may_lose,
        doubled=line.spec.broadcast,
    )
