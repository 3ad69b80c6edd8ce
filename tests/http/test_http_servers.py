"""HTTPSink and Endpoint with receivers that many people run: Go's net/http, and nginx.

And the other way round: what a registry sends.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE, eventually

from fastsinks import Endpoint, HTTPSink
from fastsinks.events import (
    EVENTS_MEDIA_TYPE,
    Actor,
    Descriptor,
    Event,
    Platform,
    Request,
    Source,
    Target,
    decode,
    encode,
    new_event,
)

HERE = Path(__file__).parent
CAPTURED = [
    json.loads(line) for line in (HERE / "registry-envelopes.ndjson").read_bytes().splitlines()
]


@pytest.mark.parametrize("request_", CAPTURED, ids=lambda r: decode(r["body"]).events[0].action)
def test_what_a_registry_has_sent(request_: dict[str, Any]) -> None:
    """Requests that registries 2.x and 3.x made; nothing is lost in reading them."""
    envelope = decode(request_["body"])
    assert envelope.events
    assert json.loads(encode(envelope.events)) == json.loads(request_["body"])


def program(name: str, package: str) -> str:
    """Where a program is. CI has to have it; elsewhere the test is skipped."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/go/bin")
    if found is None:
        reason = f"this test needs {name} (Debian, Ubuntu: {package})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


EVENTS = [
    *[event for request in CAPTURED for event in decode(request["body"]).events],
    Event(),
    new_event("push", repository="\u00fc/\U0001f600", tag="<&>\u2028"),
    new_event(
        "pull",
        Target(
            media_type="m",
            size=2**40,
            digest="sha256:ab",
            urls=["http://a", "http://b"],
            annotations={"k": "v"},
            data=b"\x00\xff",
            platform=Platform("amd64", "linux", "1", ["f"], "v8"),
            artifact_type="t",
            length=2**40,
            repository="r",
            from_repository="f",
            url="u",
            tag="t",
            references=[Descriptor(media_type="m", size=1), Descriptor()],
        ),
        request=Request("1", "a", "h", "GET", "u"),
        actor=Actor("somebody"),
        source=Source("s", "i"),
        timestamp="2026-01-02T03:04:05.000000001+01:00",
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = program("go", "golang-go")
    binary = tmp_path_factory.mktemp("go") / "receiver"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOTOOLCHAIN": "local",
        "GOCACHE": str(binary.parent / "cache"),
        "CGO_ENABLED": "0",
    }
    command = [go, "build", "-o", str(binary), str(HERE / "go" / "receiver.go")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return binary


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.timeout(180)
class TestGo:
    @pytest.fixture
    def url(self, built: Path) -> Iterator[str]:
        with subprocess.Popen(
            [built], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/"

    def report(self, url: str) -> dict[str, Any]:
        with urllib.request.urlopen(url + "report", timeout=DEADLINE) as answer:
            report: dict[str, Any] = json.load(answer)
        report["connections"] -= 1  # this one
        return report

    def test_the_registrys_structs_decode_what_is_sent(self, url: str) -> None:
        with HTTPSink(url, timeout=DEADLINE) as sink:
            sink.write_many(EVENTS)
        report = self.report(url)
        assert report["errors"] is None
        assert report["contentTypes"] == [EVENTS_MEDIA_TYPE]
        # Go leaves out what is empty in its own way: compare what it means.
        assert decode(json.dumps({"events": report["events"]})).events == EVENTS

    def test_one_connection_serves_an_endpoint(self, url: str) -> None:
        events = [new_event("push", repository=f"r/{i}") for i in range(1000)]
        with Endpoint("go", url, timeout=DEADLINE) as endpoint:
            for event in events:
                endpoint.write(event)
            assert endpoint.flush(DEADLINE)
            requests = endpoint.requests
        report = self.report(url)
        assert [event["id"] for event in report["events"]] == [event.id for event in events]
        assert report["connections"] == 1
        assert report["requests"] == requests < 100

    def test_as_many_connections_as_requests_at_a_time(self, url: str) -> None:
        events = [new_event("push", repository=f"r/{i}") for i in range(500)]
        with Endpoint("go", url, timeout=DEADLINE, concurrency=3, batch_size=5) as endpoint:
            endpoint.write_many(events)
            assert endpoint.flush(DEADLINE)
        report = self.report(url)
        assert {event["id"] for event in report["events"]} == {event.id for event in events}
        assert len(report["events"]) == 500
        assert report["connections"] <= 3

    def test_refusals_are_counted_and_the_connection_is_kept(self, url: str) -> None:
        with Endpoint("go", url, timeout=DEADLINE, batch_size=1) as endpoint:
            endpoint.write(new_event("push"))
            assert endpoint.flush(DEADLINE)
            endpoint.write({"unknown": 1})
            while not endpoint.metrics.failures:
                time.sleep(0.01)
            with pytest.raises(TimeoutError):
                endpoint.close(0.1)
        report = self.report(url)
        assert report["connections"] == 1
        assert "unknown" in report["errors"][0]


NGINX = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{}}
http {{
    log_format connections "$connection $status $content_length";
    access_log {home}/access.log connections;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    server {{
        listen 127.0.0.1:{port};
        {options}
        location / {{ return 204; }}
        location /text {{ return 200 "accepted"; }}
        location /moved {{ return 308 /; }}
    }}
}}
"""

Server = Callable[..., AbstractContextManager[str]]


@pytest.mark.integration
class TestNginx:
    @pytest.fixture
    def serve(self, tmp_path: Path) -> Server:
        nginx = program("nginx", "nginx-light")

        @contextmanager
        def serve(options: str = "") -> Iterator[str]:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            conf = tmp_path / "nginx.conf"
            conf.write_text(NGINX.format(home=tmp_path, port=port, options=options))
            error_log = str(tmp_path / "error.log")
            command = [nginx, "-p", str(tmp_path), "-e", error_log, "-c", str(conf)]
            with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
                try:
                    self.wait(port, process)
                    yield f"http://127.0.0.1:{port}"
                finally:
                    process.terminate()

        return serve

    def wait(self, port: int, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline and process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        pytest.fail("nginx does not listen")

    def log(self, home: Path, count: int) -> list[tuple[str, str]]:
        """Connection and status of each request. Written once an answer has been sent."""

        def lines() -> list[str]:
            return (home / "access.log").read_text().splitlines()

        eventually(lambda: len(lines()) >= count)
        return [(line.split()[0], line.split()[1]) for line in lines()]

    @pytest.mark.parametrize("path", ["/", "/text"])
    def test_one_connection_serves_an_endpoint(
        self, serve: Server, tmp_path: Path, path: str
    ) -> None:
        with serve() as url, Endpoint("nginx", url + path, timeout=DEADLINE) as endpoint:
            for i in range(1000):
                endpoint.write(i)
            assert endpoint.flush(DEADLINE)
            assert endpoint.metrics.successes == 1000
            log = self.log(tmp_path, endpoint.requests)
            assert len(log) == endpoint.requests
        assert len({connection for connection, _ in log}) == 1

    def test_connections_that_it_ends_cost_nothing(self, serve: Server, tmp_path: Path) -> None:
        """It closes each after so many requests, and says so."""
        with (
            serve("keepalive_requests 5;") as url,
            Endpoint("nginx", url + "/text", timeout=DEADLINE, batch_size=1) as endpoint,
        ):
            endpoint.write_many(range(50))
            assert endpoint.flush(DEADLINE)
            metrics = endpoint.metrics
            log = self.log(tmp_path, 50)
        assert (metrics.successes, metrics.errors, metrics.failures) == (50, 0, 0)
        assert len(log) == 50
        assert len({connection for connection, _ in log}) == 10

    def test_idle_connections_that_it_ends_cost_nothing(
        self, serve: Server, tmp_path: Path
    ) -> None:
        with (
            serve("keepalive_timeout 50ms;") as url,
            HTTPSink(url + "/text", timeout=DEADLINE) as sink,
        ):
            for _ in range(3):
                sink.write("event")
                time.sleep(0.15)  # what is idle for so long is closed at the other end
            assert sink.counters.successes == 3
            assert len({connection for connection, _ in self.log(tmp_path, 3)}) == 3

    def test_redirects(self, serve: Server, tmp_path: Path) -> None:
        with serve() as url, HTTPSink(url + "/moved", timeout=DEADLINE) as sink:
            sink.write("event")
            assert [status for _, status in self.log(tmp_path, 2)] == ["308", "204"]

    def test_the_default_limits_agree(self, serve: Server, tmp_path: Path) -> None:
        """nginx refuses bodies of more than 1 MiB unless told otherwise."""
        with serve() as url, Endpoint("nginx", url + "/", timeout=DEADLINE) as endpoint:
            endpoint.write_many(["x" * 50_000] * 100)
            assert endpoint.flush(DEADLINE)
            metrics = endpoint.metrics
        assert metrics.statuses == {"204 No Content": 100}
