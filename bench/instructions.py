"""Instructions that the hot paths take, counted by callgrind.

    python -m bench.instructions [--json FILE]

Unlike times these can be repeated: no other process, no frequency, no cache changes
them. They depend on the interpreter, the compilers and the C library, so counts are
only comparable where those are the same.
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
from typing import Any

from .contenders import ROOT

SUMMARY = re.compile(r"^summary: (\d+)", re.MULTILINE)
PARTS = 3  # of a path: all before it, N events, 2 N events


class ValgrindError(Exception):
    """Valgrind is not installed, or cannot run this interpreter."""


def count() -> dict[str, float]:
    """Instructions for an event, by path."""
    from .peers.hotpaths import EVENTS

    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise ValgrindError("valgrind is not installed (Debian, Ubuntu: apt install valgrind)")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                valgrind,
                "--tool=callgrind",
                f"--callgrind-out-file={folder}/out",
                "--dump-before=getppid",
                sys.executable,
                "-m",
                "bench.peers.hotpaths",
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
            int(SUMMARY.findall(Path(folder, f"out.{number}").read_text())[0])
            for number in range(1, PARTS * len(names) + 1)
        ]
    return {
        name: round((parts[PARTS * i + 2] - parts[PARTS * i + 1]) / EVENTS, 2)
        for i, name in enumerate(names)
    }


def toolchain() -> dict[str, str]:
    """What the counts depend on."""
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
    return {"toolchain": toolchain(), "instructions": counts}


def main() -> int:
    parser = argparse.ArgumentParser(description="Count the instructions of the hot paths.")
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    options = parser.parse_args()
    try:
        result = measured()
    except ValgrindError as error:
        print(f"instructions are not counted: {error}", file=sys.stderr)
        return 1
    print("instructions for one event (callgrind)")
    for name, instructions in result["instructions"].items():
        print(f"  {name:30} {instructions:8.1f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
