"""What it costs a program to import something: each time in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .worker import Round

PROGRAM = Path(__file__).with_name("importing.py")


@contextmanager
def statement(*, text: str) -> Iterator[Round]:
    """Nanoseconds that ``text``, an import statement, takes in a fresh interpreter."""

    def run(events: int) -> list[float]:
        done = subprocess.run(
            [sys.executable, str(PROGRAM), text], stdout=subprocess.PIPE, check=True
        )
        return [float(done.stdout)]

    yield run
