"""The benchmarks run, say what they skip, and fail when they should.

Figures of a few events mean nothing, and none is asserted here.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.once, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
TINY = ("--size", "0.001", "--rounds", "0.01")

Json = dict[str, Any]


def bench(*words: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    for name in ("FASTSINKS_BACKEND", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=240,
        check=False,
    )


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the benchmarks, which are no part of what is installed."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module


@pytest.mark.long
class TestRun:
    def test_every_contender_runs_at_every_work(self, module: Any, tmp_path: Path) -> None:
        results, plot = tmp_path / "results.json", tmp_path / "plot.svg"
        done = bench("pytest", "bench", *TINY, "--benchmark-json", results, "--plot", plot)
        assert done.returncode in (0, 1), done.stdout  # with so few events a bar may be missed
        measured = json.loads(results.read_text())
        missing = module("bench.contenders").missing
        races = module("bench.works").RACES
        wanted = {
            (work.title, lane.contender.label)
            for race in races
            for work in race.works
            for lane in work.lanes
            if not missing(lane.run.process)
        }
        found = {
            (each["extra_info"]["work"], each["extra_info"]["contender"])
            for each in measured["benchmarks"]
            if each["stats"]["rounds"] >= 2 and each["stats"]["min"] >= 0
        }
        assert found == wanted, done.stdout
        assert {bar["key"] for bar in measured["bars"]} == {
            bar.key
            for race in races
            for bar in race.bars
            if not any(missing(lane.run.process) for lane in bar.lanes)
        }
        misses = sum(not bar["passed"] for bar in measured["bars"])
        assert done.returncode == (1 if misses else 0), done.stdout
        assert done.stdout.count("\nMISS  ") == 2 * misses  # at the failure, and in the table
        assert plot.read_text().count("<polyline") >= 8

    def test_what_is_not_installed_is_said_and_skipped(self) -> None:
        done = bench("pytest", "bench", *TINY, "-k", "latency and (go-events or pure)", path="")
        assert done.returncode == 0, done.stdout
        assert "2 passed, 2 skipped" in done.stdout
        assert "not compared with docker/go-events: Go is not installed" in done.stdout

        done = bench("bench.instructions", path="")
        assert done.returncode == 1
        assert "instructions are not counted: valgrind is not installed" in done.stdout

    def test_a_failing_contender_is_no_result(self, module: Any) -> None:
        contenders, race = module("bench.contenders"), module("bench.race")
        work = module("bench.work")
        good = work.lane(contenders.FASTSINKS, "queue", 10, sink="native")
        bad = work.lane(contenders.FASTSINKS, "queue", 10, sink="no such sink")
        samples = race.run_race([good, bad], rounds=2)
        assert len(samples.of(good)) == 2
        with pytest.raises(contenders.ContenderError, match="KeyError: 'no such sink'"):
            samples.of(bad)

    def test_instructions_are_counted(self, tmp_path: Path) -> None:
        counts = tmp_path / "counts.json"
        done = bench("bench.instructions", "--json", counts)
        if shutil.which("valgrind") is None:
            assert done.returncode == 1
            return
        assert done.returncode == 0, done.stdout
        instructions = json.loads(counts.read_text())["instructions"]
        assert 50 < instructions["Queue.write"] < 5_000
        assert instructions["Queue.write_many"] < instructions["Queue.write"]


class TestBar:
    def samples(self, ours: float, theirs: float) -> list[list[float]]:
        return [[ours * noise for noise in (1.0, 1.1, 0.9)], [theirs] * 3]

    def test_passes_and_misses(self, module: Any) -> None:
        bar = module("bench.bar")
        faster = bar.Bar("work", "peer", "twice as fast", (), 2.0)
        assert faster.passed(faster.measure(self.samples(10, 21)))
        assert not faster.passed(faster.measure(self.samples(10, 19)))
        slower = bar.Bar(
            "work", "peer", "not much slower", (), 1.1, at_most=True, formula=bar.times_the_time
        )
        assert slower.passed(slower.measure(self.samples(10, 9.5)))
        assert not slower.passed(slower.measure(self.samples(10, 9)))

    def test_the_interval_has_the_ratio_and_the_spread(self, module: Any) -> None:
        bar = module("bench.bar")
        ratio = bar.ratio([[10.0, 11.0, 9.0, 10.0, 12.0], [20.0] * 5], bar.times_faster)
        assert ratio.low < ratio.value == 2.0 < ratio.high
        steady = bar.ratio([[10.0] * 5, [20.0] * 5], bar.times_faster)
        assert steady.low == steady.value == steady.high

    def test_the_neighbour_is_judged_by_what_is_added(self, module: Any) -> None:
        share = module("bench.works.neighbour").share_of_the_best
        assert share([150.0, 400.0, 200.0, 100.0]) == 0.5
        assert share([90.0, 400.0, 200.0, 100.0]) == 0.0


TOOLS = {"machine": "x86_64", "compiler": "cc 12"}


def figure(key: str, value: float, *, at_most: bool = False, process: str = "others") -> Json:
    return {
        "key": key,
        "race": "queue",
        "processes": ["fastsinks", process],
        "at_most": at_most,
        "value": value,
        "low": value * 0.95,
        "high": value * 1.05,
    }


BASELINE: Json = {
    "bars": [
        figure("faster", 4.0),
        figure("slower", 1.0, at_most=True),
        figure("go", 8.0, process="go"),
    ],
    "toolchain": TOOLS,
    "instructions": {"Queue.write": 300.0},
}


class TestCheck:
    @pytest.fixture
    def check(self, tmp_path: Path) -> Any:
        def check(results: Json, path: str | None = None) -> tuple[int, str]:
            for name, content in (("baseline", BASELINE), ("results", results)):
                (tmp_path / name).write_text(json.dumps(content))
            done = bench(
                *("bench.check", "--baseline", tmp_path / "baseline"),
                *("--results", tmp_path / "results"),
                path=path,
            )
            return done.returncode, done.stdout

        return check

    def test_the_same_figures_pass(self, check: Any) -> None:
        code, said = check(BASELINE)
        assert (code, "no regression" in said) == (0, True)

    @pytest.mark.parametrize(("bar", "factor"), [(0, 0.9), (1, 1.1), (0, 3.0), (1, 0.3)])
    def test_noise_and_improvements_pass(self, check: Any, bar: int, factor: float) -> None:
        code, said = check(worse(bar, factor))
        assert code == 0, said

    @pytest.mark.parametrize(("bar", "factor"), [(0, 0.7), (1, 1.4), (2, 0.5)])
    def test_a_regression_fails(self, check: Any, bar: int, factor: float) -> None:
        code, said = check(worse(bar, factor))
        assert code == 1
        assert f"REGRESSION    {BASELINE['bars'][bar]['key']}:" in said
        assert "1 of 4 figures have become worse" in said

    def test_what_was_not_measured_fails(self, check: Any) -> None:
        results = copy.deepcopy(BASELINE)
        del results["bars"][0]
        code, said = check(results)
        assert (code, "NOT MEASURED  faster" in said) == (1, True)

    def test_a_peer_that_is_not_installed_does_not(self, check: Any) -> None:
        results = copy.deepcopy(BASELINE)
        del results["bars"][2]
        code, said = check(results, path="")
        assert (code, "not compared  go: Go is not installed" in said) == (0, True)

    def test_more_instructions_fail(self, check: Any) -> None:
        results = copy.deepcopy(BASELINE)
        results["instructions"]["Queue.write"] = 320.0
        code, said = check(results)
        assert (code, "REGRESSION    instructions, Queue.write: 300.0 -> 320.0" in said) == (
            1,
            True,
        )

    def test_instructions_of_other_tools_are_not_compared(self, check: Any) -> None:
        results = copy.deepcopy(BASELINE)
        results["instructions"]["Queue.write"] = 400.0
        results["toolchain"] = {**TOOLS, "compiler": "cc 13"}
        code, said = check(results)
        assert (code, "compiler is 'cc 13', was 'cc 12'" in said) == (0, True)

    def test_the_recorded_baseline_has_every_bar(self, module: Any) -> None:
        baseline = json.loads((ROOT / "bench" / "baseline.json").read_text())
        assert [bar["key"] for bar in baseline["bars"]] == [
            bar.key for race in module("bench.works").RACES for bar in race.bars
        ]


def worse(bar: int, factor: float) -> Json:
    """The baseline with one ratio changed."""
    results = copy.deepcopy(BASELINE)
    for name in ("value", "low", "high"):
        results["bars"][bar][name] *= factor
    return results


def test_the_figures_of_the_documents_are_those_of_the_baseline() -> None:
    done = bench("bench.record", "--check")
    assert done.returncode == 0, done.stdout
