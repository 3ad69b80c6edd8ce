"""The export to Prometheus: names, numbers, closed endpoints, hostile names, a real server."""

from __future__ import annotations

import gc
import json
import subprocess
import threading
import time
import urllib.parse
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from support import DEADLINE, LONG, Gate, Task, eventually
from support.monitored import (
    NAMES,
    NOWHERE,
    ask,
    exported,
    get,
    program,
    registry_fixture,  # noqa: F401
    samples,
    stopped,
    value,
)
from support.receiver import Receiver, answer, when

from fastsinks import Endpoint, ExponentialBackoff, NullSink, Queue, monitoring
from fastsinks._core.stats import LATENCY_BOUNDS

KINDS = {"Events", "Successes", "Failures", "Errors", "Dropped", "Retries"}

UPSTREAM = {
    "registry_notifications_pending_total": 'non-counter metrics should not have "_total" suffix'
}
"""What promtool says about names that are the registry's and kept on purpose."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def latest(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


class TestNumbers:
    def test_are_the_endpoints_own(self, registry: CollectorRegistry) -> None:
        with Receiver(answer("500 Internal Server Error")) as receiver:
            strategy = ExponentialBackoff(0, 0, max_attempts=2)
            with (
                Endpoint("good", receiver.url(), backoff=0) as good,
                Endpoint("bad", NOWHERE, strategy=strategy, batch_size=1) as bad,
            ):
                good.write_many(range(5))
                bad.write_many(range(3))
                assert good.flush(DEADLINE)
                assert bad.flush(DEADLINE)
                text = latest(registry)
                assert exported(text, "good") == good.metrics
                assert exported(text, "bad") == bad.metrics
        assert good.metrics.failures >= 1
        assert bad.metrics.dropped == 3

    def test_all_types_from_the_start(self, registry: CollectorRegistry) -> None:
        with Endpoint("e", NOWHERE):
            found = samples(latest(registry))
        kinds = {
            dict(labels)["type"]
            for name, labels in found
            if name == "registry_notifications_events_total"
        }
        assert kinds == KINDS
        assert set(found.values()) == {0}

    def test_pending_goes_up_and_down(
        self,
        registry: CollectorRegistry,
        gate: Gate,
    ) -> None:
        def pending() -> float | None:
            return value(latest(registry), "registry_notifications_pending_total", endpoint="e")

        def in_flight() -> float | None:
            return value(
                latest(registry), "registry_notifications_requests_in_flight", endpoint="e"
            )

        with (
            Receiver(when(gate, answer())) as receiver,
            Endpoint("e", receiver.url(), timeout=DEADLINE) as endpoint,
        ):
            assert (pending(), in_flight()) == (0, 0)
            endpoint.write_many(range(7))
            gate.wait_entered()
            assert (pending(), in_flight()) == (7, 1)
            gate.open()
            assert endpoint.flush(DEADLINE)
            assert pending() == 0
            eventually(lambda: in_flight() == 0)

    def test_the_breaker(self, registry: CollectorRegistry) -> None:
        def is_open() -> float | None:
            return value(latest(registry), "registry_notifications_breaker_open", endpoint="e")

        with Receiver(*[answer("503 Service Unavailable")] * 3) as receiver:
            gate = Gate()
            receiver.then(when(gate, answer()))
            with Endpoint(
                "e", receiver.url(), threshold=3, backoff=0.01, timeout=DEADLINE
            ) as endpoint:
                assert is_open() == 0
                endpoint.write("event")
                gate.wait_entered()
                assert is_open() == 1
                gate.open()
                assert endpoint.flush(DEADLINE)
                assert is_open() == 0

    def test_the_age_of_the_oldest(self, registry: CollectorRegistry) -> None:
        def oldest() -> float:
            age = value(
                latest(registry), "registry_notifications_oldest_pending_seconds", endpoint="e"
            )
            assert age is not None
            return age

        endpoint = Endpoint("e", NOWHERE, threshold=1, backoff=LONG)
        assert oldest() == 0
        before = time.monotonic()
        endpoint.write("event")
        after = time.monotonic()
        eventually(lambda: endpoint.breaker_open)
        low = time.monotonic() - after
        age = oldest()
        assert low <= age <= time.monotonic() - before
        stopped(endpoint)
        assert oldest() == 0

    def test_the_latency_of_what_was_delivered(
        self, registry: CollectorRegistry, receiver: Receiver
    ) -> None:
        name = "registry_notifications_delivery_seconds"
        for total in (7, 14):  # and a successor goes on counting
            with Endpoint("e", receiver.url()) as endpoint:
                endpoint.write_many(range(7))
                assert endpoint.flush(DEADLINE)
                for text in (latest(registry), ask("/metrics").text):
                    found = samples(text)
                    labels = frozenset({("endpoint", "e")})
                    assert found[f"{name}_count", labels] == total
                    assert 0 < found[f"{name}_sum", labels] < total * DEADLINE
                    buckets = {
                        float(dict(labels)["le"]): count
                        for (sample, labels), count in found.items()
                        if sample == f"{name}_bucket"
                    }
                    counts = [buckets[bound] for bound in sorted(buckets)]
                    assert counts == sorted(counts)
                    assert counts[-1] == total
                    assert len(counts) == len(LATENCY_BOUNDS) + 1

    def test_gauges_and_counters(self, registry: CollectorRegistry) -> None:
        with Endpoint("e", NOWHERE):
            kinds = {metric.name: metric.type for metric in registry.collect()}
        assert kinds == {
            "registry_notifications_events": "counter",
            "registry_notifications_status": "counter",
            "registry_notifications_pending_total": "gauge",
            "registry_notifications_oldest_pending_seconds": "gauge",
            "registry_notifications_delivery_seconds": "histogram",
            "registry_notifications_requests_in_flight": "gauge",
            "registry_notifications_breaker_open": "gauge",
        }

    def test_endpoints_of_one_name_are_one_series(
        self,
        registry: CollectorRegistry,
        receiver: Receiver,
    ) -> None:
        with Endpoint("twin", receiver.url()) as one, Endpoint("twin", receiver.url()) as two:
            one.write_many(range(3))
            two.write_many(range(4))
            assert one.flush(DEADLINE)
            assert two.flush(DEADLINE)
            total = exported(latest(registry), "twin")
        assert (total.events, total.successes, total.statuses) == (7, 7, {"200 OK": 7})


class TestClosed:
    def test_totals_stay(
        self,
        registry: CollectorRegistry,
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write_many(range(5))
        assert endpoint.metrics.successes == 5
        assert exported(latest(registry), "e") == endpoint.metrics
        # Long after that, when the endpoint itself is gone:
        later = time.monotonic() + LONG
        monkeypatch.setattr("fastsinks.monitoring._accounts.monotonic", lambda: later)
        metrics, gone = endpoint.metrics, weakref.ref(endpoint)
        del endpoint
        assert exported(latest(registry), "e") == metrics
        gc.collect()
        assert gone() is None
        assert exported(latest(registry), "e") == metrics

    def test_a_successor_goes_on_counting(
        self,
        registry: CollectorRegistry,
        receiver: Receiver,
    ) -> None:
        for total in (5, 10, 15):
            with Endpoint("e", receiver.url()) as endpoint:
                endpoint.write_many(range(5))
            assert exported(latest(registry), "e").successes == total

    def test_what_was_left_is_dropped_and_not_pending(
        self,
        registry: CollectorRegistry,
    ) -> None:
        endpoint = Endpoint("e", NOWHERE, threshold=1, backoff=LONG)
        endpoint.write_many(range(5))
        eventually(lambda: endpoint.breaker_open)
        text = latest(registry)
        assert exported(text, "e").pending == 5
        assert value(text, "registry_notifications_breaker_open", endpoint="e") == 1
        stopped(endpoint)
        text = latest(registry)
        assert exported(text, "e") == endpoint.metrics
        assert (exported(text, "e").pending, exported(text, "e").dropped) == (0, 5)
        assert value(text, "registry_notifications_breaker_open", endpoint="e") == 0

    def test_counters_never_go_down_while_endpoints_come_and_go(
        self,
        registry: CollectorRegistry,
        receiver: Receiver,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("fastsinks.monitoring._accounts.FINAL_AFTER", 0.0)
        over = threading.Event()

        def come_and_go() -> int:
            rounds = 0
            while not over.is_set():
                with Endpoint("e", receiver.url()) as endpoint:
                    endpoint.write("event")
                rounds += 1
            return rounds

        tasks = [Task(come_and_go) for _ in range(2)]
        seen = [0]
        try:
            while seen[-1] < 100:
                total = registry.get_sample_value(
                    "registry_notifications_events_total", {"type": "Successes", "endpoint": "e"}
                )
                seen.append(int(total or 0))
        finally:
            over.set()
        rounds = sum(task.result() for task in tasks)
        assert seen == sorted(seen)
        assert exported(latest(registry), "e").successes == rounds

    def test_one_that_its_own_worker_closes(
        self,
        registry: CollectorRegistry,
    ) -> None:
        class Closes(NullSink):
            def write(self, event: object) -> None:
                endpoint.close()

        strategy = ExponentialBackoff(0, 0, max_attempts=1)
        endpoint = Endpoint("e", NOWHERE, strategy=strategy, dead_letter=Closes())
        endpoint.write("event")
        eventually(lambda: not monitoring.variables()["registry"]["notifications"]["endpoints"])
        assert exported(latest(registry), "e").dropped == 1


class TestRegistering:
    def test_by_default_in_the_default_registry(self) -> None:
        from prometheus_client import REGISTRY

        monitoring.register()
        try:
            with Endpoint("e", NOWHERE):
                assert "registry_notifications_events_total" in latest(REGISTRY)
        finally:
            monitoring.unregister()
        assert "registry_notifications" not in latest(REGISTRY)

    def test_twice_is_once(self, registry: CollectorRegistry) -> None:
        monitoring.register(registry)
        with Endpoint("e", NOWHERE):
            samples(latest(registry))
        monitoring.unregister(registry)
        assert latest(registry) == ""
        monitoring.unregister(registry)

    def test_several_registries(self, registry: CollectorRegistry) -> None:
        other = CollectorRegistry()
        monitoring.register(other)
        with Endpoint("e", NOWHERE):
            assert latest(other) == latest(registry)
        monitoring.unregister(other)
        assert exported(latest(registry), "e").events == 0  # not forgotten yet

    def test_unregistering_forgets_the_closed_ones(self, receiver: Receiver) -> None:
        first, second = CollectorRegistry(), CollectorRegistry()
        monitoring.register(first)
        with Endpoint("e", receiver.url()) as endpoint:
            endpoint.write("event")
        monitoring.unregister(first)
        monitoring.register(second)
        try:
            assert samples(latest(second)) == {}
        finally:
            monitoring.unregister(second)

    def test_a_name_that_is_taken(self) -> None:
        taken = CollectorRegistry()
        Counter("registry_notifications_events", "somebody else's", registry=taken)
        with pytest.raises(ValueError, match="registry_notifications_events"):
            monitoring.register(taken)
        monitoring.unregister(taken)
        assert "somebody else's" in latest(taken)

    def test_a_registry_can_go_away(self) -> None:
        forgotten = CollectorRegistry()
        monitoring.register(forgotten)
        gone = weakref.ref(forgotten)
        del forgotten
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
class TestHostileNames:
    def test_in_the_text_format(self, registry: CollectorRegistry, name: str) -> None:
        with Endpoint(name, NOWHERE), Endpoint("neighbour", NOWHERE):
            for text in (latest(registry), ask("/metrics").text):
                endpoints = {
                    dict(labels)["endpoint"]
                    for sample, labels in samples(text)
                    if sample.startswith("registry_notifications_pending")
                }
                assert "neighbour" in endpoints
                if name.isprintable() or name in (NAMES["direction"], NAMES["braces"]):
                    assert name in endpoints

    def test_in_openmetrics(self, registry: CollectorRegistry, name: str) -> None:
        with Endpoint(name, NOWHERE), Endpoint("neighbour", NOWHERE):
            accept = "application/openmetrics-text; version=1.0.0"
            for text in (
                openmetrics.generate_latest(registry).decode(),
                ask("/metrics", HTTP_ACCEPT=accept).text,
            ):
                families = list(text_string_to_metric_families(text))
                assert any(
                    sample.labels.get("endpoint") == "neighbour"
                    for family in families
                    for sample in family.samples
                )


def test_two_names_with_surrogates_are_two_series(
    registry: CollectorRegistry,
) -> None:
    with Endpoint("\udc80", NOWHERE), Endpoint("\udc81", NOWHERE):
        text = latest(registry)
        assert exported(text, "\\udc80") == exported(text, "\\udc81")


class TestManyEndpoints:
    """2,000 of them, with statuses, while another thread writes."""

    COUNT = 2000
    BAR = 0.250  # seconds for a scrape

    @pytest.mark.timeout(60)
    @pytest.mark.long
    def test_a_scrape_is_quick_and_holds_up_no_writer(
        self,
        registry: CollectorRegistry,
        receiver: Receiver,
    ) -> None:
        endpoints = [Endpoint(f"endpoint-{i}", receiver.url()) for i in range(self.COUNT)]
        over = threading.Event()
        writes: list[tuple[float, float]] = []

        def write() -> None:
            with Queue(NullSink()) as queue:
                while not over.wait(0.0005):
                    began = time.perf_counter()
                    queue.write("event")
                    writes.append((began, time.perf_counter()))

        try:
            for endpoint in endpoints[:50]:
                endpoint.write("event")
            for endpoint in endpoints[:50]:
                assert endpoint.flush(DEADLINE)
            writer = Task(write)
            with monitoring.serve(port=0) as server:
                scrapes = []
                for accept in ("text/plain", "application/openmetrics-text; version=1.0.0") * 4:
                    began = time.perf_counter()
                    text = get(server.url + "/metrics", Accept=accept).text
                    scrapes.append((began, time.perf_counter()))
                    assert text.count("\nregistry_notifications_pending_total{") == self.COUNT
            over.set()
            writer.result()
        finally:
            over.set()
            for endpoint in endpoints:
                endpoint.close()
        # The best of several: other programs run on this machine, too.
        seconds = [until - since for since, until in scrapes]
        assert min(seconds) < self.BAR, seconds
        waits = [
            max(end - start for start, end in writes if start < until and since < end)
            for since, until in scrapes
        ]
        assert min(waits) < self.BAR, waits


@pytest.mark.integration
@pytest.mark.long
class TestPrometheus:
    def test_promtool_is_content(self) -> None:
        promtool = program("promtool")
        with (
            Receiver(answer("503 Service Unavailable")) as receiver,
            Endpoint("e", receiver.url(), backoff=0) as endpoint,
        ):
            endpoint.write("event")
            assert endpoint.flush(DEADLINE)
            lines = ask("/metrics").text.splitlines(keepends=True)
        text = "".join(line for line in lines if "registry_notifications" in line)
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        said = dict(
            line.split(" ", 1) for line in (done.stdout + done.stderr).splitlines() if line.strip()
        )
        assert said == UPSTREAM

    @pytest.mark.timeout(60)
    def test_a_real_server_scrapes_it(self, tmp_path: Path, receiver: Receiver) -> None:
        prometheus = program("prometheus")
        endpoints = {
            key: Endpoint(name, receiver.url()) for key, name in NAMES.items() if key != "empty"
        }
        try:
            for endpoint in endpoints.values():
                endpoint.write_many(range(3))
                assert endpoint.flush(DEADLINE)
            with monitoring.serve(port=0) as monitor:
                target = monitor.url.removeprefix("http://")
                config = tmp_path / "prometheus.yml"
                config.write_text(
                    "global: {scrape_interval: 200ms}\n"
                    "scrape_configs:\n"
                    f"- {{job_name: fastsinks, static_configs: [{{targets: ['{target}']}}]}}\n"
                )
                with Prometheus(prometheus, config, tmp_path) as server:
                    eventually(lambda: server.query("up") == {"": 1}, 30)
                    found = server.query(
                        'registry_notifications_events_total{type="Successes"}', "endpoint"
                    )
                    types = server.get("/api/v1/metadata")
                    assert server.get("/api/v1/targets")["activeTargets"][0]["lastError"] == ""
        finally:
            for endpoint in endpoints.values():
                endpoint.close()
        # Each name is a series of its own, with its very text where that is text.
        assert [*found.values()].count(3) == len(endpoints)
        for key in ("quotes", "newlines", "markup", "long", "direction", "unicode", "braces"):
            assert found[NAMES[key]] == 3
        assert found["caf\\udce9 \\ud800"] == 3
        assert types["registry_notifications_events"][0]["type"] == "counter"
        assert types["registry_notifications_pending_total"][0]["type"] == "gauge"


class Prometheus:
    """A Prometheus server that keeps its data in a directory of the test's."""

    def __init__(self, binary: str, config: Path, folder: Path) -> None:
        self._log = (folder / "prometheus.log").open("w+")
        self._process = subprocess.Popen(
            [
                binary,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--log.level=info",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Self:
        try:
            eventually(self._find, 20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _find(self) -> bool:
        """The port that it chose is in its log."""
        assert self._process.poll() is None, self._said()
        for line in self._said().splitlines():
            if "Listening on" in line:
                address = line.split("address=")[-1].split()[0]
                self.url = f"http://{address}"
                return get(f"{self.url}/-/ready").status == 200
        return False

    def _said(self) -> str:
        return Path(self._log.name).read_text()

    def __exit__(self, *exc_info: object) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE)
        self._log.close()

    def get(self, path: str, **query: str) -> dict[str, list[dict[str, str]]]:
        answer = get(f"{self.url}{path}?{urllib.parse.urlencode(query)}")
        found: dict[str, list[dict[str, str]]] = json.loads(answer.body)["data"]
        return found

    def query(self, expression: str, label: str = "") -> dict[str, float]:
        result: list[dict[str, dict[str, str]]] = self.get(  # type: ignore[assignment]
            "/api/v1/query", query=expression
        )["result"]
        return {row["metric"].get(label, ""): float(row["value"][1]) for row in result}
