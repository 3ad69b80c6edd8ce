"""The books: what was written against what arrived, was buried, or came back.

It knows only numbers and ids, and nothing of the faults. An id is ``writer:number``; the numbers
of a writer count up in the order in which it wrote.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fastsinks import EndpointMetrics
from fastsinks._cli.demo import Finding

Arrivals = Iterable[tuple[str, Sequence[str]]]
"""By request: which endpoint sent it, and the ids in it."""


class Closed(NamedTuple):
    """What an endpoint's metrics were once it was closed, and what its close gave back."""

    metrics: EndpointMetrics
    undelivered: Sequence[str]


@dataclass
class Claim:
    """What is known of a line without asking its receiver."""

    written: set[str]  #: accepted, as far as the writers know
    children: set[str] = field(default_factory=set)  #: of those, by forked children
    terms: Sequence[Closed] = ()
    buried: Sequence[str] = ()
    undelivered: Sequence[str] = ()  #: by the children's endpoints
    concurrency: int = 1
    slack: int = 0  #: events that may be in requests when the deadline of a close has passed
    may_lose: bool = False
    doubled: bool = False  #: during a change both endpoints may get the same event


def examine(claim: Claim, arrivals: Arrivals) -> Finding:
    """What the receiver got. Of one endpoint, first arrivals are in each writer's order; with
    a concurrency, the events of each request are."""
    gone = set(claim.buried).union(claim.undelivered, *(term.undelivered for term in claim.terms))
    seen: dict[str, set[str]] = defaultdict(set)
    latest: dict[tuple[str, str], int] = defaultdict(lambda: -1)
    disordered = repeated = 0
    unknown: set[str] = set()
    for term, ids in arrivals:
        if claim.concurrency > 1:
            latest.clear()
        for ident in ids:
            if ident not in claim.written:
                unknown.add(ident)
                continue
            writer, _, number = ident.partition(":")
            if ident in seen[term]:
                repeated += 1
                if claim.concurrency == 1:
                    continue
            seen[term].add(ident)
            if ident not in gone:  # else it may come late, from a request that was given up
                disordered += int(number) < latest[term, writer]
                latest[term, writer] = max(latest[term, writer], int(number))
    received = set().union(*seen.values())
    missing = claim.written - received - gone
    return Finding(len(received), len(missing), disordered, repeated, len(unknown))


def balance(claim: Claim) -> list[str]:
    """What is wrong with the line's own books, in words."""
    wrong = []
    by_parent = len(claim.written) - len(claim.children)
    accepted = sum(term.metrics.events for term in claim.terms)
    if accepted < by_parent or (accepted > by_parent and not claim.doubled):
        wrong.append(f"{by_parent} events were written, {accepted} accepted")
    for number, (metrics, undelivered) in enumerate(claim.terms, 1):
        if metrics.pending:
            wrong.append(f"endpoint {number} is closed with {metrics.pending} pending")
        surplus = metrics.successes + metrics.dropped + metrics.pending - metrics.events
        if not 0 <= surplus <= (claim.slack if undelivered else 0):
            wrong.append(
                f"endpoint {number}: {metrics.events} accepted, {metrics.successes} delivered, "
                f"{metrics.dropped} dropped"
            )
    dropped = sum(term.metrics.dropped for term in claim.terms)
    if dropped != len(claim.buried):
        wrong.append(f"{dropped} dropped, {len(claim.buried)} in the dead letter")
    dead = Counter(claim.buried)
    if not claim.doubled and len(dead) < len(claim.buried):
        wrong.append(f"{len(claim.buried) - len(dead)} buried twice")
    for term in claim.terms:
        for ident in term.undelivered:
            if not dead[ident]:
                wrong.append(f"{ident} came back, and is not in the dead letter")
                break
    if not claim.may_lose and (dropped or claim.undelivered):
        wrong.append(f"{dropped + len(claim.undelivered)} lost, which had time enough")
    return wrong


def read_journal(lines: Iterable[str]) -> tuple[Mapping[str, Arrivals], Counter[str]]:
    """A receiver's journal: the requests of each line, and what it complained of how often."""
    requests: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
    complaints: Counter[str] = Counter()
    for text in lines:
        if text.startswith("!"):
            complaints[text[2:].strip()] += 1
            continue
        sender, *ids = text.split()
        requests[sender.partition(".")[0]].append((sender, ids))
    return requests, complaints
