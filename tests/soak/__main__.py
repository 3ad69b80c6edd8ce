"""The command: python -m soak [--seconds N] [--seed N]. Exit status 0 if the books balance."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

from .run import Run


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description="Torment endpoints, then count.")
    parser.add_argument("--seconds", type=float, default=120.0, help="of torment (120)")
    parser.add_argument("--seed", type=int, help="repeat the faults of a run (a random one)")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    # CPython 3.12 and later warn of any fork beside threads, which is what is done here.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    print(f"seed {seed}, {options.seconds:g} s", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fastsinks-soak-") as folder:
        holds = Run(seed, options.seconds, Path(folder), lambda text: print(text, flush=True)).run()
    verdict = "every event is accounted for, and nothing is left" if holds else "FAILED"
    print(f"Verdict: {verdict} (seed {seed}, {time.monotonic() - began:.0f} s).")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
