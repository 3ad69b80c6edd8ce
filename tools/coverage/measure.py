"""Which lines the quick tier runs: of the package, and of the compiled core, each with a floor.

    python tools/coverage/measure.py [pytest's arguments]

The core is built with gcov's counters in build/coverage, where the suite then runs with both
backends; coverage.py follows the programs that it starts. It fails if the suite is not over at
its deadline, or if a test fails, and fails again at full speed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

FLOORS = {"Python": 96.0, "compiled core": 91.0}
"""Per cent of lines. Raise them as coverage rises; they must not go down."""

DEADLINE = 1200.0
"""Seconds for both suites together, which take half of that on two cores."""

GRACE = 5.0
"""Seconds for a suite that is stopped to log where its threads are."""

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "coverage"
LIBRARY = BUILD / "lib"
CORE = Path("src_c", "fastsinks", "_core")
TIER = "not long and not integration and not punctual"
WITHOUT = {
    "package": "looks at files, and at what an import loads: coverage.py loads more",
    "core/test_leaks.py": "counts objects, and those of coverage.py come on top",
    "process/test_exit_runs.py": "ends programs at any moment, most before they have told",
    "process/test_fork_load.py": "forks by the hundred, each with a deadline",
    "process/test_signals.py": "has timers that ring again before a traced handler returns",
    "process/test_signals_storm.py": "strikes at any moment, and so in coverage.py itself",
}
"""Tests that cannot be measured, and why. TIER leaves out slow and punctual ones by their marks."""

TAIL = 100
"""Lines of a log that are shown after a failure."""


def build() -> None:
    shutil.rmtree(LIBRARY, ignore_errors=True)
    for old in [*BUILD.rglob("*.gcda"), *BUILD.glob(".coverage*")]:
        old.unlink()
    subprocess.run(
        [
            *(sys.executable, "setup.py", "-qq", "build"),
            *("--build-base", str(BUILD), "--build-lib", str(LIBRARY)),
        ],
        cwd=ROOT,
        env={**os.environ, "FASTSINKS_COVERAGE": "1", "CFLAGS": "-O1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    shutil.copy(HERE / "unlocked.py", LIBRARY)


def environment(backend: str) -> dict[str, str]:
    return {
        **os.environ,
        "FASTSINKS_BACKEND": backend,
        "PYTHONPATH": str(LIBRARY),
        "COVERAGE_FILE": str(BUILD / ".coverage"),
    }


def passes_at_full_speed(backend: str) -> bool:
    """Whether the tests that have just failed do not fail again, when they are not traced."""
    command = ["-P", "-m", "pytest", "-q", "-o", f"cache_dir={BUILD / backend}", "--last-failed"]
    again = subprocess.run(
        [sys.executable, *command, str(ROOT / "tests")],
        cwd=BUILD,
        env=environment(backend),
        stdin=subprocess.DEVNULL,
        timeout=DEADLINE,
        check=False,
    )
    return again.returncode == 0


def start(backend: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    once = "" if backend == "c" else " and not once"
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "coverage", "run", f"--rcfile={HERE / 'config.toml'}"),
            *("-m", "pytest", "-q", "-o", f"cache_dir={BUILD / backend}", "-m", TIER + once),
            *(f"--ignore={ROOT / 'tests' / path}" for path in WITHOUT),
            *(str(ROOT / "tests"), *arguments),
        ],
        cwd=BUILD,  # not in the root, where `fastsinks` would be the one built in place
        env=environment(backend),
        stdin=subprocess.DEVNULL,
        stdout=(BUILD / f"{backend}.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def run_suites(arguments: list[str]) -> bool:
    """Whether the suite passed with both backends, in time; what went wrong is shown."""
    deadline = time.monotonic() + DEADLINE
    running = {backend: start(backend, arguments) for backend in ("c", "python")}
    wrong: dict[str, str] = {}
    failed: set[str] = set()
    try:
        for backend, process in running.items():
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                wrong[backend] = f"was not over after {DEADLINE:g} s"
                process.send_signal(signal.SIGABRT)  # makes pytest log where each thread is
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            else:
                if status == 1:
                    failed.add(backend)
                elif status:
                    wrong[backend] = f"ended with status {status}"
    finally:
        for process in running.values():
            # The whole group: a test may have left programs running.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for backend in running:
        lines = (BUILD / f"{backend}.log").read_text(errors="replace").splitlines()
        if backend in wrong:
            print(f"--- backend {backend}: its suite {wrong[backend]}", *lines[-TAIL:], sep="\n")
        elif backend in failed:
            print(f"--- backend {backend}: tests failed", *lines[-TAIL:], sep="\n", flush=True)
            if not passes_at_full_speed(backend):
                wrong[backend] = "failed twice"
        else:
            print(f"{backend:6} {lines[-1]}")
    return not wrong


def of_python() -> dict[str, tuple[int, int]]:
    """Of each file, how many lines ran and how many it has."""
    run = [sys.executable, "-P", "-m", "coverage"]
    options = [f"--rcfile={HERE / 'config.toml'}", "--quiet"]
    report = BUILD / "python.json"
    files = {
        **os.environ,
        "COVERAGE_FILE": str(BUILD / ".coverage"),
        "PYTHONPATH": str(LIBRARY),
    }
    for words in (["combine"], ["json", "-o", str(report)]):
        # In the root: the measured files are copies of those here.
        subprocess.run([*run, *words, *options], cwd=ROOT, env=files, check=True)
    return {
        name: (file["summary"]["covered_lines"], file["summary"]["num_statements"])
        for name, file in json.loads(report.read_text())["files"].items()
    }


def of_the_core() -> dict[str, tuple[int, int]]:
    """The same for the compiled sources; a line counts once, however much C it becomes."""
    counts: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for data in BUILD.rglob("*.gcda"):
        done = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(data)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        for text in done.stdout.splitlines():
            for file in json.loads(text)["files"]:
                path = Path(file["file"])
                if path.suffix in (".pyx", ".pxd", ".h") and CORE.name in path.parts[-2:]:
                    for line in file["lines"]:
                        counts[path.name][line["line_number"]] += line["count"]
    return {
        str(CORE / name): (sum(count > 0 for count in lines.values()), len(lines))
        for name, lines in counts.items()
    }


def main() -> int:
    build()
    if not run_suites(sys.argv[1:]):
        return 1
    missed = False
    for name, files in ("Python", of_python()), ("compiled core", of_the_core()):
        print(f"\n{name}")
        for file, (ran, lines) in sorted(files.items()):
            if lines:
                print(f"  {file:44} {ran:5} of {lines:5} {100 * ran / lines:6.1f} %")
        percent = 100 * sum(ran for ran, _ in files.values()) / sum(n for _, n in files.values())
        print(f"{name}: {percent:.1f} % of lines, the floor is {FLOORS[name]:.1f} %")
        missed |= percent < FLOORS[name]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
