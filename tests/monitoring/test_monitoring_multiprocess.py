"""Several processes that are scraped as one: sums, forks, kills, exits."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from support import eventually
from support.gunicorn_server import Gunicorn
from support.monitored import exported, get, samples, value
from support.processes import check_program
from support.receiver import Receiver


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as receiver:
        monkeypatch.setenv("RECEIVER", receiver.url())
        yield receiver


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> Path:
    """A directory that the processes of a test share."""
    folder = tmp_path / "shared numbers"
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    return folder


def run(scenario: str) -> str:
    return check_program("monitoring_processes", scenario)


def merged(folder: Path) -> str:
    """What the processes have left, the way of prometheus-client's own documentation."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry).decode()


class TestOneProcess:
    def test_numbers_are_fresh(self, folder: Path) -> None:
        out = run("numbers_are_fresh")
        assert out == "19\n"

    def test_a_registry_of_ones_own(self, folder: Path) -> None:
        out = run("a_registry_of_ones_own")
        assert out == "1\n1\n1\n"

    def test_what_nobody_scrapes_is_published_all_the_same(self, folder: Path) -> None:
        out = run("what_nobody_scrapes_is_published_all_the_same")
        assert out == "published\n"

    def test_a_file_that_is_just_being_made_is_waited_for(self, folder: Path) -> None:
        out = run("a_file_that_is_just_being_made_is_waited_for")
        assert out == "1\n"

    def test_the_last_numbers_are_published_at_exit(self, folder: Path) -> None:
        run("the_last_numbers_are_published_at_exit")
        totals = exported(merged(folder), "e")
        assert (totals.events, totals.successes) == (500, 500)

    def test_even_if_monitoring_was_imported_late(self, folder: Path) -> None:
        check_program("imports", "monitoring_late")
        assert exported(merged(folder), "e").successes == 500

    def test_latencies(self, folder: Path) -> None:
        out = run("latencies")
        assert out == "5.0 True\n5.0\n"

    def test_hostile_names(self, folder: Path) -> None:
        out = run("hostile_names")
        assert out == "True\n"

    def test_without_the_directory_nothing_of_this_happens(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        out = run("without_the_directory_nothing_of_this_happens")
        assert out == "[]\n"

    def test_a_directory_that_goes_away_and_comes_back(self, folder: Path) -> None:
        out = run("a_directory_that_goes_away_and_comes_back")
        assert out == "1 monitoring: cannot publish: FileNotFoundError\n"


class TestForks:
    def test_a_childs_counts_are_its_own_and_the_sum_is_right(self, folder: Path) -> None:
        out = check_program(
            "monitoring_processes", "a_childs_counts_are_its_own_and_the_sum_is_right"
        )
        assert out == "(0, 8, 8, 0)\n10 {'200 OK': 10}\n10\n"

    def test_what_a_dead_process_had_pending_goes(self, folder: Path) -> None:
        out = run("what_a_dead_process_had_pending_goes")
        assert out == "8 8\n8 5\n"

    def test_a_stopped_process_holds_up_no_scrape(self, folder: Path) -> None:
        out = run("a_stopped_process_holds_up_no_scrape")
        assert out == "3 True\n"

    def test_forks_while_others_publish(self, folder: Path) -> None:
        out = run("forks_while_others_publish")
        assert out == "20\n"


class Monitored(Gunicorn):
    """One that serves the monitoring, and writes to endpoints."""

    def write(self, endpoint: str, count: int) -> Counter[int]:
        """Write `count` events; how many each worker has taken."""
        answers = [get(f"{self.url}/write/{endpoint}") for _ in range(count)]
        return Counter(int(answer.text) for answer in answers)

    def write_to_both(self, endpoint: str) -> Counter[int]:
        """Write until two workers have had a part of it."""
        taken: Counter[int] = Counter()

        def both() -> bool:
            taken.update(self.write(endpoint, 10))
            return len(taken) >= 2

        eventually(both, 20)
        return taken

    def metrics(self, endpoint: str) -> Any:
        return exported(get(f"{self.url}/metrics").text, endpoint)


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.timeout(60)
@pytest.mark.parametrize("options", [[], ["--preload"], ["--threads=4"]], ids=" ".join)
def test_gunicorn(folder: Path, tmp_path: Path, options: list[str]) -> None:
    with Monitored(tmp_path, "programs.mounted:app", *options) as server:
        delivered = server.write_to_both("up")
        waiting = server.write_to_both("down")
        # Whichever worker answers tells the sum of both.
        for _ in range(10):
            assert server.metrics("up").successes == delivered.total()
            assert server.metrics("down").pending == waiting.total()
        victim = delivered.most_common(1)[0][0]
        os.kill(victim, signal.SIGKILL)
        left = waiting.total() - waiting[victim]
        eventually(lambda: server.metrics("down").pending == left)
        for _ in range(10):
            assert server.metrics("up").successes == delivered.total()
            assert server.metrics("down").events == waiting.total()
            assert server.metrics("down").pending == left
        # Its successor counts on.
        more = server.write_to_both("up")
        assert victim not in more
        for _ in range(10):
            assert server.metrics("up").successes == delivered.total() + more.total()
        text = get(f"{server.url}/metrics").text
        assert value(text, "registry_notifications_breaker_open", endpoint="up") == 0
        samples(text)
