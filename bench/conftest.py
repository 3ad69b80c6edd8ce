"""Options of the benchmarks, the races that the chosen tests need, and the report."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

from . import plot
from .contenders import missing
from .race import Race, Samples, run_race
from .report import Judged, race_lines, verdict
from .work import Lane
from .works import RACES

JUDGED = pytest.StashKey[list[Judged]]()
RAN = pytest.StashKey[dict[str, Samples]]()
WANTED = pytest.StashKey[dict[str, list[Lane]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastsinks")
    group.addoption(
        "--size", type=float, default=1.0, help="events of a round, as a multiple of the usual"
    )
    group.addoption(
        "--rounds", type=float, default=1.0, help="rounds of a race, as a multiple of the usual"
    )
    group.addoption(
        "--bars-only", action="store_true", help="only the contenders that a bar asks for"
    )
    group.addoption("--plot", type=Path, help="draw the scaling plot to this SVG file")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[JUDGED] = []
    config.stash[RAN] = {}
    config.stash[WANTED] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("bars_only"):
        asked_for = {lane for race in RACES for bar in race.bars for lane in bar.lanes}
        unasked = [item for item in items if not asked_for.issuperset(lanes_of(item))]
        items[:] = [item for item in items if item not in unasked]
        config.hook.pytest_deselected(items=unasked)


def pytest_collection_finish(session: pytest.Session) -> None:
    wanted = session.config.stash[WANTED]
    for item in session.items:
        if not any(item.iter_markers("skip")):
            wanted.setdefault(race_of(item).name, []).extend(lanes_of(item))


def race_of(item: pytest.Item) -> Race:
    race: Race = item.callspec.params["race"]  # type: ignore[attr-defined]
    return race


def lanes_of(item: pytest.Item) -> tuple[Lane, ...]:
    params = item.callspec.params  # type: ignore[attr-defined]
    return params["bar"].lanes if "bar" in params else (params["lane"],)


@pytest.fixture
def samples(race: Race, request: pytest.FixtureRequest) -> Samples:
    """What the contenders of a race have measured; the first test that asks runs the race."""
    config = request.config
    ran = config.stash[RAN]
    if race.name not in ran:
        rounds = max(2, round(race.rounds * config.getoption("rounds")))
        ran[race.name] = run_race(config.stash[WANTED][race.name], rounds, config.getoption("size"))
    return ran[race.name]


@pytest.fixture
def judged(request: pytest.FixtureRequest) -> list[Judged]:
    return request.config.stash[JUDGED]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    path = config.getoption("plot")
    fan_out = config.stash[RAN].get("fan-out")
    if path is not None and fan_out is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(plot.scaling(plot.curves(fan_out)))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    say = terminalreporter.write_line
    for race in RACES:
        if race.name in config.stash[RAN]:
            ran = set(config.stash[WANTED][race.name])
            terminalreporter.section(f"{race.name}: ratios of medians")
            for line in race_lines(race, config.stash[RAN][race.name], ran):
                say(line)
    judged = config.stash[JUDGED]
    if judged:
        terminalreporter.section("the bar: ratio of medians [95 % of bootstrap samples]")
        for each in judged:
            say(verdict(each), green=each.passed, red=not each.passed)
    reason = missing("go")
    if reason:
        say(f"not compared with docker/go-events: {reason}")


def pytest_benchmark_update_json(
    config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]
) -> None:
    output_json["bars"] = [judged.as_dict() for judged in config.stash[JUDGED]]


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    del machine_info["node"]
    machine_info["go"] = None if missing("go") else output("go", "version")
    machine_info["libc"] = " ".join(platform.libc_ver())


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
