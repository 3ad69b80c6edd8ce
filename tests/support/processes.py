"""What tests start: interpreters that import the same package and backend."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fastsinks

TESTS = Path(__file__).resolve().parents[1]

PROGRAMS = TESTS / "programs"
"""What tests start; a program finds what they share, as they do."""


def program_command(name: str, *arguments: object) -> list[str]:
    """The command that runs a file of `PROGRAMS`, warnings being errors."""
    # -P: no neighbour of a program hides a module of the same name.
    return [sys.executable, "-W", "error", "-P", f"{PROGRAMS / name}.py", *map(str, arguments)]


def python_environment(backend: str = fastsinks.backend) -> dict[str, str]:
    """The environment in which a new interpreter imports the same package and that backend."""
    package = Path(fastsinks.__file__).parent.parent
    path = os.pathsep.join([str(package), str(TESTS)])
    return {**os.environ, "FASTSINKS_BACKEND": backend, "PYTHONPATH": path}


def _run(
    command: list[str], timeout: float, backend: str = fastsinks.backend
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=python_environment(backend),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def _clean(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stderr == "", done.stderr
    return done.stdout


def run_program(
    name: str, *arguments: object, timeout: float = 25.0, backend: str = fastsinks.backend
) -> subprocess.CompletedProcess[str]:
    """Run a file of `PROGRAMS` in a new interpreter of the same backend, unless told otherwise."""
    return _run(program_command(name, *arguments), timeout, backend)


def probe(line: str) -> str:
    """Run one line of code, which must end well and say nothing on stderr; its output."""
    return _clean(_run([sys.executable, "-W", "error", "-c", line], 20.0))


def check_program(
    name: str, *arguments: object, timeout: float = 25.0, backend: str = fastsinks.backend
) -> str:
    """Run a program that must end well and say nothing on stderr; its output."""
    return _clean(run_program(name, *arguments, timeout=timeout, backend=backend))


def alone(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test in an interpreter of its own, where every thread is of the test's making."""

    @functools.wraps(test)
    def run() -> None:
        check_program("alone", test.__code__.co_filename, test.__qualname__)

    return run
