"""HTTP delivery against plain posting, over TCP to a receiver in a process of its own.

    python -m bench.http_rates [--rounds N] [--size X] [--json]

Rounds are interleaved, in random order; each ratio is the median of the rounds' own
ratios. CPU is that of this process, all threads (``time.process_time``); the receiver's
is not in it. What is compared:

endpoint      Endpoint with its defaults; registry events, written one by one
connection    the same events, each in a request on a connection of its own
single        Endpoint(batch_size=1)
sink          HTTPSink.write, in a loop
bare          HTTPConnectionPool.urlopen in a loop, on one kept-alive connection
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Callable
from time import perf_counter, process_time
from typing import Any

from urllib3 import HTTPConnectionPool
from urllib3.util import parse_url

import fastsinks
from fastsinks import Endpoint, HTTPSink
from fastsinks.events import EVENTS_MEDIA_TYPE, encode, new_event

HEADERS = {"Content-Type": EVENTS_MEDIA_TYPE, "User-Agent": "bench"}
DEADLINE = 60.0

Measure = tuple[float, float]  #: seconds and CPU seconds, both for one event
TIME, CPU = 0, 1

EVENTS = {"endpoint": 20_000, "connection": 200, "single": 1000, "sink": 1000, "bare": 1000}

# The bars: name, unit, bound, and whether more is better.
BOUNDS = (
    ("endpoint_cpu_us", 5.0, False),
    ("endpoint_rate_to_connection", 80.0, True),
    ("single_time_to_bare", 1.1, False),
    ("single_cpu_to_bare", 1.1, False),
    ("sink_time_to_bare", 1.1, False),
    ("sink_cpu_to_bare", 1.1, False),
)


def registry_event(number: int) -> Any:
    return new_event(
        "push",
        repository="library/app",
        tag=f"v{number}",
        digest="sha256:" + "80fc0872" * 8,
        media_type="application/vnd.oci.image.manifest.v1+json",
        size=1234,
        url="http://127.0.0.1:5000/v2/library/app/manifests/sha256:" + "80fc0872" * 8,
    )


def timed(call: Callable[[], object], count: int) -> Measure:
    start, cpu = perf_counter(), process_time()
    call()
    return (perf_counter() - start) / count, (process_time() - cpu) / count


class Contest:
    """All that is compared, on connections that stay open between the rounds."""

    def __init__(self, url: str, size: float = 1.0) -> None:
        self._url = url
        parts = parse_url(url)
        self._where = (parts.host or "", parts.port)
        self._pool = HTTPConnectionPool(*self._where, maxsize=1)
        self._sink = HTTPSink(url, timeout=DEADLINE)
        self._endpoint = Endpoint("bench", url, timeout=DEADLINE)
        self._single = Endpoint("bench, one by one", url, timeout=DEADLINE, batch_size=1)
        self.counts = {name: max(1, int(count * size)) for name, count in EVENTS.items()}
        self._events = [registry_event(i) for i in range(max(self.counts.values()))]

    def run(self, name: str) -> Measure:
        events = self._events[: self.counts[name]]
        return timed(lambda: getattr(self, name)(events), len(events))

    def endpoint(self, events: list[Any]) -> None:
        self._deliver(self._endpoint, events)

    def single(self, events: list[Any]) -> None:
        self._deliver(self._single, events)

    def _deliver(self, endpoint: Endpoint, events: list[Any]) -> None:
        for event in events:
            endpoint.write(event)
        if not endpoint.flush(DEADLINE):
            raise RuntimeError("the receiver takes too long")

    def sink(self, events: list[Any]) -> None:
        for event in events:
            self._sink.write(event)

    def bare(self, events: list[Any]) -> None:
        for event in events:
            self._pool.urlopen("POST", "/", encode((event,)), HEADERS)

    def connection(self, events: list[Any]) -> None:
        for event in events:
            with HTTPConnectionPool(*self._where, maxsize=1) as pool:
                pool.urlopen("POST", "/", encode((event,)), HEADERS)

    def close(self) -> None:
        for sink in (self._endpoint, self._single, self._sink):
            sink.close()
        self._pool.close()


def measure(rounds: int = 11, size: float = 1.0) -> dict[str, float]:
    """The figures that BOUNDS names."""
    command = [sys.executable, "-m", "bench.peers.receiver", "1"]
    rows: list[dict[str, Measure]] = []
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as receiver:
        assert receiver.stdout is not None
        contest = Contest(receiver.stdout.readline().strip(), size)
        try:
            for _ in range(rounds + 1):
                names = list(EVENTS)
                random.shuffle(names)
                rows.append({name: contest.run(name) for name in names})
        finally:
            contest.close()
            receiver.terminate()
    del rows[0]  # it includes connecting, and what else is done once

    def median(name: str, part: int, to: str | None = None) -> float:
        return statistics.median(row[name][part] / (row[to][part] if to else 1) for row in rows)

    figures = {
        "endpoint_cpu_us": median("endpoint", CPU) * 1e6,
        "endpoint_rate_to_connection": median("connection", TIME, "endpoint"),
    }
    for name in ("single", "sink"):
        figures[f"{name}_time_to_bare"] = median(name, TIME, "bare")
        figures[f"{name}_cpu_to_bare"] = median(name, CPU, "bare")
    for name in EVENTS:
        figures[f"{name}_us"] = median(name, TIME) * 1e6
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--size", type=float, default=1.0, help="multiplies the events of a round")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.rounds, options.size)
    if options.json:
        print(json.dumps(figures))
        return 0
    print(f"backend: {fastsinks.backend}")
    missed = 0
    for name, bound, more in BOUNDS:
        met = figures[name] >= bound if more else figures[name] <= bound
        missed += not met
        verdict = "" if met else "  missed"
        print(f"{name:30} {figures[name]:8.2f}   asked: {'≥' if more else '≤'} {bound:g}{verdict}")
    for name in EVENTS:
        print(f"{name + ', µs an event':30} {figures[name + '_us']:8.2f}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
