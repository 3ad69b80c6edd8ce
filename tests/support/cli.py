"""``fastsinks send`` as tests run it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastsinks
from support.processes import python_environment
from support.receiver import Receiver

DATA = Path(fastsinks.__file__).parent / "_cli" / "data" / "registry-events.ndjson"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "fastsinks", *map(str, arguments)]


def run(*arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        env=python_environment() | {"COLUMNS": "100"} | env,
        input=stdin,
        capture_output=True,
        timeout=20,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@contextmanager
def started(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | (
        options
    )
    process = subprocess.Popen(command(*arguments), env=python_environment(), **options)
    with process:
        try:
            yield process
        finally:
            process.kill()


def write_lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def numbered(count: int) -> list[dict[str, str]]:
    return [{"id": f"e{i}"} for i in range(count)]


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for request in receiver.requests for event in request.events]


def account(output: str, receiver: Receiver | str) -> dict[str, int]:
    """The summary's line of one endpoint, by column."""
    columns, *lines = [line.split() for line in output.splitlines()]
    url = receiver if isinstance(receiver, str) else receiver.url()
    (cells,) = [line for line in lines if line[0] == url]
    return {
        name: int(cell.replace(",", "")) for name, cell in zip(columns[1:], cells[1:], strict=True)
    }


def numbers(pattern: str, output: str) -> list[tuple[int, ...]]:
    """The numbers in the place of each ``(#)``, for each time that it was said."""
    found = re.finditer(pattern.replace("#", r"\d[\d,]*"), output)
    return [tuple(int(text.replace(",", "")) for text in match.groups()) for match in found]
