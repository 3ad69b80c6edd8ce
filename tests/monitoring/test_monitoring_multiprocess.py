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
from support import eventually, run_clean
from support.gunicorn_server import Gunicorn
from support.monitored import exported, get, samples, value
from support.receiver import Receiver

SETUP = """
import os, sys, threading, time, warnings
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from fastsinks import Endpoint, monitoring
from support.monitored import ask, exported, stopped, value
from support import eventually

warnings.simplefilter("ignore", DeprecationWarning)  # that a fork has threads

def metrics(name="e"):
    return exported(ask("/metrics").text, name)

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            sys.stdout.flush()
        finally:
            os._exit(0)
    return pid

def up(name="e", **options):
    return Endpoint(name, os.environ["RECEIVER"], **options)

def down(name="e", **options):
    return Endpoint(name, "http://127.0.0.1:9/", threshold=1, backoff=3600, **options)
"""


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


def run(code: str) -> str:
    return run_clean(SETUP + "\n" + "\n".join(line[8:] for line in code.splitlines()))


def merged(folder: Path) -> str:
    """What the processes have left, the way of prometheus-client's own documentation."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    return generate_latest(registry).decode()


class TestOneProcess:
    def test_numbers_are_fresh(self, folder: Path) -> None:
        out = run("""
        endpoint = up()
        for n in range(1, 20):
            endpoint.write("event")
            assert endpoint.flush(10)
            assert metrics() == endpoint.metrics, n
        print(metrics().successes)
        """)
        assert out == "19\n"

    def test_a_registry_of_ones_own(self, folder: Path) -> None:
        out = run("""
        alone, accompanied, by_the_book = [CollectorRegistry() for _ in range(3)]
        monitoring.register(alone)
        MultiProcessCollector(accompanied)
        monitoring.register(accompanied)
        MultiProcessCollector(by_the_book)
        with up() as endpoint:
            endpoint.write("event")
        for registry in alone, accompanied, by_the_book:
            text = generate_latest(registry).decode()
            print(exported(text, "e").successes)  # and nothing is there twice
        """)
        assert out == "1\n1\n1\n"

    def test_what_nobody_scrapes_is_published_all_the_same(self, folder: Path) -> None:
        out = run("""
        from fastsinks.monitoring._multiprocess import Merged

        def published():
            registry = CollectorRegistry()
            Merged(registry)  # the thread may be making the file just now
            labels = {"type": "Events", "endpoint": "e"}
            return registry.get_sample_value("registry_notifications_events_total", labels)

        endpoint = down()
        endpoint.write_many(range(5))
        eventually(lambda: published() == 5)
        stopped(endpoint)
        print("published")
        """)
        assert out == "published\n"

    def test_a_file_that_is_just_being_made_is_waited_for(self, folder: Path) -> None:
        out = run("""
        endpoint = up()
        endpoint.write("event")
        assert endpoint.flush(10)
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        made = os.path.join(folder, "counter_1.db")
        open(made, "x").close()  # prometheus-client makes it long in a second step

        def make():
            with open(made, "r+b") as file:
                file.truncate(1 << 16)

        later = threading.Timer(0.05, make)
        later.start()
        print(metrics().successes)
        later.join()
        """)
        assert out == "1\n"

    def test_the_last_numbers_are_published_at_exit(self, folder: Path) -> None:
        run("""
        endpoint = up()
        endpoint.write_many(range(500))
        """)
        totals = exported(merged(folder), "e")
        assert (totals.events, totals.successes) == (500, 500)

    def test_even_if_monitoring_was_imported_late(self, folder: Path) -> None:
        code = """
        import os
        from fastsinks import Endpoint
        endpoint = Endpoint("e", os.environ["RECEIVER"])
        from fastsinks import monitoring
        endpoint.write_many(range(500))
        """
        run_clean(code)
        assert exported(merged(folder), "e").successes == 500

    def test_latencies(self, folder: Path) -> None:
        out = run("""
        from support.monitored import samples
        with up() as endpoint:
            endpoint.write_many(range(5))
        name = "registry_notifications_delivery_seconds"
        found = samples(ask("/metrics").text)
        labels = frozenset({("endpoint", "e")})
        print(found[name + "_count", labels], found[name + "_sum", labels] > 0)
        print(max(n for (sample, _), n in found.items() if sample == name + "_bucket"))
        """)
        assert out == "5.0 True\n5.0\n"

    def test_hostile_names(self, folder: Path) -> None:
        out = run("""
        from support.monitored import NAMES, samples
        endpoints = [up(name) for name in NAMES.values()]
        endpoints[0].write("event")
        assert endpoints[0].flush(10)
        found = samples(ask("/metrics").text)
        names = {dict(labels)["endpoint"] for name, labels in found if "pending" in name}
        print(len(names) == len(NAMES))
        """)
        assert out == "True\n"

    def test_without_the_directory_nothing_of_this_happens(
        self, receiver: Receiver, tmp_path: Path
    ) -> None:
        out = run("""
        with up() as endpoint:
            endpoint.write("event")
            ask("/metrics")
            print([thread.name for thread in threading.enumerate() if "monitoring" in thread.name])
        """)
        assert out == "[]\n"

    def test_a_directory_that_goes_away_and_comes_back(self, folder: Path) -> None:
        out = run("""
        import logging
        lines = []
        class Handler(logging.Handler):
            def emit(self, record):
                lines.append(record.getMessage())
        logging.getLogger("fastsinks").addHandler(Handler())
        folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
        endpoint = up()
        metrics()
        os.rename(folder, folder + " of yesterday")
        eventually(lambda: lines)
        os.mkdir(folder)
        eventually(lambda: os.listdir(folder))
        assert endpoint.flush(10)
        print(len(lines), lines[0])
        """)
        assert out == "1 monitoring: cannot publish: FileNotFoundError\n"


class TestForks:
    def test_a_childs_counts_are_its_own_and_the_sum_is_right(self, folder: Path) -> None:
        out = run("""
        endpoint = up()
        endpoint.write_many(range(5))
        assert endpoint.flush(10)
        assert metrics().successes == 5
        reader, writer = os.pipe()

        def work():
            assert metrics().successes == 5
            endpoint.write_many(range(3))
            assert endpoint.flush(10)
            assert metrics().successes == 8
            os.write(writer, b"x")
            time.sleep(3600)

        pid = child(work)
        os.read(reader, 1)
        print(metrics()[:4])
        endpoint.write_many(range(2))
        assert endpoint.flush(10)
        print(metrics().successes, metrics().statuses)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        print(metrics().successes)
        """)
        assert out == "(0, 8, 8, 0)\n10 {'200 OK': 10}\n10\n"

    def test_what_a_dead_process_had_pending_goes(self, folder: Path) -> None:
        out = run("""
        endpoint = down()
        endpoint.write_many(range(5))
        reader, writer = os.pipe()

        def work():
            endpoint.write_many(range(3))
            eventually(lambda: endpoint.breaker_open)
            metrics()  # else a scrape has nothing of it, if it is too slow to answer
            os.write(writer, b"x")
            time.sleep(3600)

        pid = child(work)
        os.read(reader, 1)
        first = metrics()
        print(first.events, first.pending)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        last = metrics()
        print(last.events, last.pending)
        stopped(endpoint)
        """)
        assert out == "8 8\n8 5\n"

    def test_a_stopped_process_holds_up_no_scrape(self, folder: Path) -> None:
        out = run("""
        import signal
        endpoint = down()
        reader, writer = os.pipe()

        def work():
            endpoint.write_many(range(3))
            metrics()
            os.write(writer, b"x")
            time.sleep(3600)

        pid = child(work)
        os.read(reader, 1)
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        began = time.monotonic()
        print(metrics().pending, time.monotonic() - began < 2)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        stopped(endpoint)
        """)
        assert out == "3 True\n"

    def test_forks_while_others_publish(self, folder: Path) -> None:
        out = run("""
        from fastsinks.monitoring import _multiprocess
        _multiprocess.INTERVAL = 0.0
        endpoint = up()
        over = threading.Event()

        def scrape():
            while not over.is_set():
                metrics()

        scraper = threading.Thread(target=scrape)
        scraper.start()

        def work():
            endpoint.write("event")
            assert endpoint.flush(10)
            metrics()

        for _ in range(20):
            pid = child(work)
            assert os.waitpid(pid, 0)[1] == 0
        over.set()
        scraper.join()
        print(metrics().successes)
        """)
        assert out == "20\n"


class Monitored(Gunicorn):
    """One that serves the monitoring, and writes to endpoints."""

    def write(self, endpoint: str, count: int) -> Counter[int]:
        """Write so many events; how many each worker has taken."""
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
