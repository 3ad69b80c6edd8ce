"""Programs of several processes that are scraped as one."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from support import eventually
from support.monitored import NAMES, ask, exported, samples, stopped

from fastsinks import Endpoint, monitoring
from fastsinks.monitoring import _multiprocess

warnings.simplefilter("ignore", DeprecationWarning)  # that a fork has threads


def metrics(name: str = "e") -> Any:
    return exported(ask("/metrics").text, name)


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            sys.stdout.flush()
        finally:
            os._exit(0)
    return pid


def up(name: str = "e", **options: Any) -> Endpoint:
    return Endpoint(name, os.environ["RECEIVER"], **options)


def down(name: str = "e", **options: Any) -> Endpoint:
    return Endpoint(name, "http://127.0.0.1:9/", threshold=1, backoff=3600, **options)


def numbers_are_fresh() -> None:
    endpoint = up()
    for n in range(1, 20):
        endpoint.write("event")
        assert endpoint.flush(10)
        assert metrics() == endpoint.metrics, n
    print(metrics().successes)


def a_registry_of_ones_own() -> None:
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


def what_nobody_scrapes_is_published_all_the_same() -> None:
    def published():
        registry = CollectorRegistry()
        _multiprocess.Merged(registry)  # the thread may be making the file just now
        labels = {"type": "Events", "endpoint": "e"}
        return registry.get_sample_value("registry_notifications_events_total", labels)

    endpoint = down()
    endpoint.write_many(range(5))
    eventually(lambda: published() == 5)
    stopped(endpoint)
    print("published")


def a_file_that_is_just_being_made_is_waited_for() -> None:
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


def the_last_numbers_are_published_at_exit() -> None:
    endpoint = up()
    endpoint.write_many(range(500))


def latencies() -> None:
    with up() as endpoint:
        endpoint.write_many(range(5))
    name = "registry_notifications_delivery_seconds"
    found = samples(ask("/metrics").text)
    labels = frozenset({("endpoint", "e")})
    print(found[name + "_count", labels], found[name + "_sum", labels] > 0)
    print(max(n for (sample, _), n in found.items() if sample == name + "_bucket"))


def hostile_names() -> None:
    endpoints = [up(name) for name in NAMES.values()]
    endpoints[0].write("event")
    assert endpoints[0].flush(10)
    found = samples(ask("/metrics").text)
    names = {dict(labels)["endpoint"] for name, labels in found if "pending" in name}
    print(len(names) == len(NAMES))


def without_the_directory_nothing_of_this_happens() -> None:
    with up() as endpoint:
        endpoint.write("event")
        ask("/metrics")
        print([thread.name for thread in threading.enumerate() if "monitoring" in thread.name])


def a_directory_that_goes_away_and_comes_back() -> None:
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


def a_childs_counts_are_its_own_and_the_sum_is_right() -> None:
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


def what_a_dead_process_had_pending_goes() -> None:
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


def a_stopped_process_holds_up_no_scrape() -> None:
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


def forks_while_others_publish() -> None:
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


if __name__ == "__main__":
    kept = globals()[sys.argv[1]](*sys.argv[2:])
