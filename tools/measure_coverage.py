"""Which lines the quick tier runs: of the package, and of the compiled core, each with a floor.

    python tools/measure_coverage.py [pytest's arguments]

The core is built with gcov's counters in build/coverage, where the suite then runs with both
backends; coverage.py follows the programs that it starts. What counts is what ran: a test that
fails, because all is slower, fails nothing here.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

FLOORS = {"Python": 96.0, "compiled core": 91.0}
"""Per cent of lines. Raise them with what is measured; they are not to go down."""

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "coverage"
LIBRARY = BUILD / "lib"
CORE = Path("src_c", "fastsinks", "_core")
TIER = "not long and not integration"
WITHOUT = ["process/test_signals_storm.py", "process/test_fork_load.py"]
"""What strikes coverage.py itself, too, or forks while another thread holds a lock of its."""


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


def start(backend: str, arguments: list[str]) -> subprocess.Popen[bytes]:
    once = "" if backend == "c" else " and not once"
    return subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "coverage", "run", f"--rcfile={ROOT / 'pyproject.toml'}"),
            *(
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "-m",
                TIER + once,
            ),
            *(f"--ignore={ROOT / 'tests' / path}" for path in WITHOUT),
            *(arguments or [str(ROOT / "tests")]),
        ],
        cwd=BUILD,  # not in the root, where `fastsinks` would be the one built in place
        env={
            **os.environ,
            "FASTSINKS_BACKEND": backend,
            "PYTHONPATH": str(LIBRARY),
            "COVERAGE_FILE": str(BUILD / ".coverage"),
        },
        stdout=(BUILD / f"{backend}.log").open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def of_python() -> dict[str, tuple[int, int]]:
    """Lines that ran and lines, of each file."""
    run = [sys.executable, "-P", "-m", "coverage"]
    options = [f"--rcfile={ROOT / 'pyproject.toml'}", "--quiet"]
    report = BUILD / "python.json"
    files = {**os.environ, "COVERAGE_FILE": str(BUILD / ".coverage")}
    for words in (["combine"], ["json", "-o", str(report)]):
        # In the root, whose files are those that the others are copies of.
        subprocess.run([*run, *words, *options], cwd=ROOT, env=files, check=True)
    return {
        name: (file["summary"]["covered_lines"], file["summary"]["num_statements"])
        for name, file in json.loads(report.read_text())["files"].items()
    }


def of_the_core() -> dict[str, tuple[int, int]]:
    """The same of the sources that are compiled; a line counts once, however much C it becomes."""
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
    running = [(backend, start(backend, sys.argv[1:])) for backend in ("c", "python")]
    for backend, process in running:
        status = process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what a test that failed has left behind
        *_, last = (BUILD / f"{backend}.log").read_text().splitlines()
        print(f"{backend:6} {last}")
        if status not in (0, 1):  # 1: some tests have failed
            raise SystemExit(f"the suite did not come to its end: status {status}")
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
