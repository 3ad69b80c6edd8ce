"""What the tests of the command share: receivers, and ten events."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import numbered, write_lines
from support.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def away() -> Iterator[str]:
    """The URL of a port that refuses connections, and that no other program can take meanwhile."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}/"


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "ten.ndjson", *numbered(10))
