"""Instructions and cache misses of the hot paths, counted by callgrind.

    python -m bench.instructions [--json FILE]

Unlike times these can be repeated: no other process, no frequency changes them. They depend
on the interpreter, the compilers and the C library, so counts are only comparable where
those are the same. The caches are callgrind's simulation of this processor's first and
last level.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from .contenders import ROOT
from .peers.hotpaths import PATHS

EVENTS = re.compile(r"^events: (.+)$", re.MULTILINE)
SUMMARY = re.compile(r"^summary: (.+)$", re.MULTILINE)
PARTS = 3  # of a path: all before it, N events, 2 N events


class ValgrindError(Exception):
    """Valgrind is not installed, or cannot run this interpreter."""


class Counts(NamedTuple):
    """For one event."""

    instructions: float
    first_level: float  # data accesses that missed the first-level cache
    last_level: float  # ... and the last one


def count() -> dict[str, Counts]:
    """By path."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise ValgrindError("valgrind is not installed (Debian, Ubuntu: apt install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                "--cache-sim=yes",
                f"--callgrind-out-file={folder}/out",
                "--dump-before=getppid",
                *(sys.executable, "-m", "bench.peers.hotpaths"),
            ],
            cwd=ROOT,
            env={**os.environ, "FASTSINKS_BACKEND": "c", "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if done.returncode:
            raise ValgrindError(done.stderr)
        names = done.stdout.splitlines()
        parts = [
            _totals(Path(folder, f"out.{number}").read_text())
            for number in range(1, PARTS * len(names) + 1)
        ]
    counts = {}
    for i, name in enumerate(names):
        events = PATHS[name][1]
        once, twice = parts[PARTS * i + 1], parts[PARTS * i + 2]
        counts[name] = Counts(
            *(round((b - a) / events, 2) for a, b in zip(once, twice, strict=True))
        )
    return counts


def _totals(part: str) -> tuple[int, int, int]:
    names = EVENTS.findall(part)[0].split()
    totals = dict(zip(names, map(int, SUMMARY.findall(part)[0].split()), strict=False))
    return (
        totals["Ir"],
        totals.get("D1mr", 0) + totals.get("D1mw", 0),
        totals.get("DLmr", 0) + totals.get("DLmw", 0),
    )


def toolchain() -> dict[str, str]:
    """The versions that the counts depend on."""
    compiler = os.environ.get("CC", "cc")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    return {
        "machine": platform.machine(),
        "python": f"{platform.python_version()} {platform.python_compiler()}",
        "cython": metadata.version("Cython"),
        "compiler": version.stdout.splitlines()[0],
        "libc": " ".join(platform.libc_ver()),
    }


def measured() -> dict[str, Any]:
    counts = count()
    return {
        "toolchain": toolchain(),
        "instructions": {name: each.instructions for name, each in counts.items()},
        "misses": {name: [each.first_level, each.last_level] for name, each in counts.items()},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the instructions of the hot paths.")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    options = parser.parse_args()
    try:
        result = measured()
    except ValgrindError as error:
        print(f"instructions are not counted: {error}", file=sys.stderr)
        return 1
    print(f"{'for one event (callgrind)':32}  instructions  L1 misses  LL misses")
    for name, instructions in result["instructions"].items():
        first, last = result["misses"][name]
        print(f"{name:32}  {instructions:12.1f}  {first:9.2f}  {last:9.2f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
