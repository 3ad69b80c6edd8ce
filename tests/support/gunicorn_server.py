"""A real gunicorn around an application of the tests."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from support import DEADLINE
from support.processes import python_environment


class Gunicorn:
    """A real gunicorn with two workers, on a socket of the test's."""

    def __init__(self, folder: Path, app: str, *options: str) -> None:
        if importlib.util.find_spec("gunicorn") is None:
            reason = "this test needs gunicorn (a Python package)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        command = [sys.executable, "-m", "gunicorn", "--workers=2", "--no-control-socket"]
        descriptor = self._socket.fileno()
        self._log = (folder / "gunicorn.log").open("w")
        self._process = subprocess.Popen(
            [*command, f"--bind=fd://{descriptor}", *options, app],
            env={**python_environment(), "HOME": str(folder)},
            pass_fds=[descriptor],
            cwd=Path(__file__).parents[1],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        assert self._process.wait(DEADLINE) == 0
        self._socket.close()
        self._log.close()
