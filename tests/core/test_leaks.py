"""A million repetitions leave nothing behind: no memory, no object, no reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from programs.operations import KINDS
from support import at_length
from support.processes import python_environment

pytestmark = [pytest.mark.once, pytest.mark.timeout(120)]

OPERATIONS = Path(__file__).parents[1] / "programs" / "operations.py"
RESIDENT = 4 << 20
"""Bytes that come and go with threads, and four for each of a million."""

BLOCKS = 3000
"""Objects that do so. Of the rarest operation a thousand are done, each making dozens."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left(kind: str) -> None:
    count = int(at_length(50_000, 1_000_000) * KINDS[kind][0])
    done = subprocess.run(
        [sys.executable, "-W", "error", OPERATIONS, kind, str(count)],
        env=python_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    grown, blocks, *references = map(int, done.stdout.split())
    assert references == [0] * len(references)
    assert blocks < BLOCKS
    assert grown < RESIDENT
