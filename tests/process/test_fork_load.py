"""Hundreds of forks while everything is in use: each event once, by the process that wrote it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
from support.processes import check_program
from support.receiver import Receiver, answer


def expected(counts: list[int], forks: int) -> tuple[Counter[str], Counter[str]]:
    """The events of the parent, and those of the children."""
    parents = Counter(f"parent {i} {n}" for i, count in enumerate(counts) for n in range(count))
    children = Counter(f"child {number} one" for number in range(forks))
    children.update(f"child {number} many" for number in range(forks))
    children.update(f"child {number} thread" for number in range(0, forks, 5))
    return parents, children


@pytest.mark.timeout(180)
def test_forks_under_load(request: pytest.FixtureRequest) -> None:
    forks = request.config.getoption("--forks")
    with Receiver() as plain, Receiver(default=answer(202)) as wide:
        pid, *numbers = check_program(
            "fork_load", plain.url(), wide.url(), forks, timeout=170
        ).split()
        parents, children = expected([int(number) for number in numbers], forks)
        for receiver in plain, wide:
            by_parent: Counter[str] = Counter()
            by_children: Counter[str] = Counter()
            processes: dict[int, set[str | None]] = defaultdict(set)
            for request in receiver.requests:
                process: Any = request.header("X-Process")
                (by_parent if process == pid else by_children).update(request.events)
                processes[request.connection].add(process)
            assert by_parent == parents
            assert by_children == children
            assert all(len(users) == 1 for users in processes.values())  # none is shared
