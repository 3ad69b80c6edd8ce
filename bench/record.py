"""Makes the last run of `make bench` the baseline.

    python -m bench.record             write bench/baseline.json, the plot and the tables
    python -m bench.record --check     only say whether the tables are those of the baseline

The tables stand in the documents between `<!-- bench: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .check import BASELINE
from .contenders import BUILD, ROOT
from .instructions import ValgrindError, measured
from .report import duration

RESULTS = BUILD / "results.json"
PLOT = BUILD / "scaling.svg"
DOCUMENTS = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
PUBLISHED = ROOT / "docs" / "scaling.svg"
ENOUGH = 8  #: the least rounds for which an interval means something
PLACE = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def condense(results: dict[str, Any]) -> dict[str, Any]:
    """The part of pytest-benchmark's JSON that is committed."""
    machine = results["machine_info"]
    times = []
    for benchmark in results["benchmarks"]:
        stats = benchmark["stats"]
        if stats["rounds"] < ENOUGH:
            raise ValueError(f"{stats['rounds']} rounds of {benchmark['name']} say too little")
        times.append(
            {
                **benchmark["extra_info"],
                "rounds": stats["rounds"],
                "median": nanoseconds(stats["median"]),
                "q1": nanoseconds(stats["q1"]),
                "q3": nanoseconds(stats["q3"]),
            }
        )
    return {
        "command": "make bench",
        "machine": {
            "processor": f"{machine['cpu'].get('brand_raw')}, {machine['cpu'].get('count')} cores",
            "python": f"{machine['python_implementation']} {machine['python_version']}",
            "go": machine["go"],
        },
        "bars": [
            {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in bar.items()
            }
            for bar in results["bars"]
        ],
        "times": times,
        **measured(),
    }


def nanoseconds(seconds: float) -> float:
    return round(seconds * 1e9, 4)


def markdown(rows: Iterable[Iterable[str]]) -> str:
    first, *rest = [f"| {' | '.join(row)} |" for row in rows]
    rule = re.sub(r"[^|]+", "---", first)
    return "\n".join([first, rule, *rest]) + "\n"


def bars(baseline: dict[str, Any]) -> str:
    """The table of the bar."""
    rows = [("work", "peer", "wanted", "measured [95 %]", "")]
    for bar in baseline["bars"]:
        detail = f" ({bar['detail']})" if bar["detail"] else ""
        rows.append(
            (
                bar["work"] + detail,
                bar["peer"],
                bar["at_least"],
                f"{bar['value']:.2f} [{bar['low']:.2f}, {bar['high']:.2f}]",
                "pass" if bar["passed"] else "**miss**",
            )
        )
    return markdown(rows)


def times(baseline: dict[str, Any]) -> str:
    """Every work with all its contenders."""
    parts = []
    works = dict.fromkeys((time["work"], time["unit"]) for time in baseline["times"])
    for work, unit in works:
        rows = [(f"{work}, for one {unit}", "median", "quartiles")]
        for time in baseline["times"]:
            if time["work"] == work:
                quartiles = f"{duration(time['q1'])} to {duration(time['q3'])}"
                rows.append((time["contender"], duration(time["median"]), quartiles))
        parts.append(markdown(rows))
    return "\n".join(parts)


def instructions(baseline: dict[str, Any]) -> str:
    rows = [("path, for one event", "instructions", "L1 misses", "last-level misses")]
    for name, count in baseline["instructions"].items():
        first, last = (f"{max(0.0, misses):.1f}" for misses in baseline["misses"][name])
        rows.append((name, f"{count:.0f}", first, last))
    return markdown(rows)


def machine(baseline: dict[str, Any]) -> str:
    """Where the figures come from."""
    where = baseline["machine"]
    go = f", {where['go'].removesuffix(' linux/amd64')}" if where["go"] else ""
    return f"`{baseline['command']}` on {where['processor']}; {where['python']}{go}.\n"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "bars": bars,
    "times": times,
    "instructions": instructions,
    "machine": machine,
}


def filled(document: str, baseline: dict[str, Any]) -> str:
    """The document with the tables of the baseline."""
    return PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]](baseline)}{found[3]}", document)


def main() -> int:
    parser = argparse.ArgumentParser(description="Publish the last run of the benchmarks.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    if not options.check:
        try:
            baseline = condense(json.loads(RESULTS.read_text()))
        except (FileNotFoundError, ValgrindError, ValueError) as error:
            print(f"nothing to record: {error}", file=sys.stderr)
            return 1
        BASELINE.write_text(json.dumps(baseline, indent=1, ensure_ascii=False) + "\n")
        shutil.copyfile(PLOT, PUBLISHED)
    baseline = json.loads(BASELINE.read_text())
    stale: list[Path] = []
    for path in DOCUMENTS:
        before = path.read_text()
        after = filled(before, baseline)
        if options.check and after != before:
            stale.append(path)
        elif after != before:
            path.write_text(after)
    for path in stale:
        print(f"{path}: its figures are not those of {BASELINE}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
