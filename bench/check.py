"""Compares with the committed baseline, and fails if anything has become slower.

    python -m bench.check                    measure, then compare
    python -m bench.check --results FILE     compare what was measured before

A ratio has regressed if its whole interval lies on the wrong side of the baseline's whole
interval, by more than TOLERANCE: what could be noise in either of them is not counted.
An instruction count has regressed if it exceeds the baseline's by INSTRUCTIONS; they are
compared only where interpreter, compilers and C library are those of the baseline.
A ratio of the baseline that was not measured is a failure, too, unless the peer is
not installed here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .contenders import BUILD, ROOT, missing
from .instructions import ValgrindError, measured
from .peers.hotpaths import PEERS

BASELINE = ROOT / "bench" / "baseline.json"
TOLERANCE = 0.10
INSTRUCTIONS = 0.05

# Too long, or too dependent on whatever else the machine does, to decide anything in a minute.
UNCHECKED = ("neighbour", "latency")
ROUNDS = 0.5  #: the share of `make bench`'s rounds


@dataclass(frozen=True)
class Finding:
    ok: bool
    text: str


def compare(baseline: dict[str, Any], results: dict[str, Any]) -> list[Finding]:
    """Each figure of the baseline, beside the one that was measured now."""
    findings = []
    now = {bar["key"]: bar for bar in results["bars"]}
    for then in baseline["bars"]:
        if then["race"] not in UNCHECKED:
            findings.append(_compare_ratio(then, now.get(then["key"])))
    counts = results.get("instructions")
    if counts is None:
        findings.append(Finding(True, "not compared  instructions: none were counted"))
    elif results["toolchain"] != baseline["toolchain"]:
        differs = [
            f"{name} is {results['toolchain'].get(name)!r}, was {value!r}"
            for name, value in baseline["toolchain"].items()
            if results["toolchain"].get(name) != value
        ]
        findings.append(Finding(True, f"not compared  instructions: {'; '.join(differs)}"))
    else:
        for name, then in baseline["instructions"].items():
            if name in PEERS:
                continue
            findings.append(_compare_count(name, then, counts.get(name)))
    return findings


def _compare_ratio(then: dict[str, Any], now: dict[str, Any] | None) -> Finding:
    key = then["key"]
    if now is None:
        reasons = list(filter(None, map(missing, then["processes"])))
        if reasons:
            return Finding(True, f"not compared  {key}: {reasons[0]}")
        return Finding(False, f"NOT MEASURED  {key}")
    if then["at_most"]:
        regressed = now["low"] > then["high"] * (1 + TOLERANCE)
    else:
        regressed = now["high"] < then["low"] * (1 - TOLERANCE)
    figures = " -> ".join(
        f"{each['value']:.2f} [{each['low']:.2f}, {each['high']:.2f}]" for each in (then, now)
    )
    better = "less" if then["at_most"] else "more"
    return Finding(
        not regressed,
        f"{'REGRESSION' if regressed else 'ok':12}  {key}: {figures} ({better} is better)",
    )


def _compare_count(name: str, then: float, now: float | None) -> Finding:
    if now is None:
        return Finding(False, f"NOT COUNTED   instructions, {name}")
    regressed = now > then * (1 + INSTRUCTIONS)
    word = "REGRESSION" if regressed else "ok"
    return Finding(not regressed, f"{word:12}  instructions, {name}: {then:.1f} -> {now:.1f}")


def measure(folder: Path) -> dict[str, Any]:
    """Run what decides the bars, and count instructions."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "check.json"
    path.unlink(missing_ok=True)
    unchecked = " and ".join(f"not {race}:" for race in UNCHECKED)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "bench", "--bars-only", "-k", unchecked),
            *("--rounds", str(ROUNDS), "--benchmark-json", str(path), "--benchmark-quiet"),
        ],
        cwd=ROOT,
        check=False,  # a missed bar fails `make bench`, not this
    )
    if not path.exists():
        raise SystemExit("nothing was measured")
    results: dict[str, Any] = json.loads(path.read_text())
    try:
        results.update(measured())
    except ValgrindError as error:
        print(f"instructions are not counted: {error}", file=sys.stderr)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the benchmarks with the baseline.")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--results", type=Path, help="do not measure, read this file")
    options = parser.parse_args()
    baseline = json.loads(options.baseline.read_text())
    given: Path | None = options.results
    results = measure(BUILD) if given is None else json.loads(given.read_text())
    findings = compare(baseline, results)
    print(f"\ncompared with {options.baseline}:")
    for finding in findings:
        print(f"  {finding.text}")
    failed = sum(not finding.ok for finding in findings)
    print(f"{failed} of {len(findings)} figures have become worse" if failed else "no regression")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
