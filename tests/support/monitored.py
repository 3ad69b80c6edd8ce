"""What the tests of monitoring share: a registry, requests, programs that CI has to have."""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from fastsinks import Endpoint, EndpointMetrics, monitoring
from support import DEADLINE

NOWHERE = "http://127.0.0.1:9/events"
"""A URL at which no receiver listens."""

NAMES = {
    "quotes": "a \"quoted\" 'name' with \\backslashes\\ and \\n",
    "newlines": "first\nsecond\r\nthird\tfourth",
    "markup": "<script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;{{7*7}}",
    "long": "x" * 10_000,
    "surrogates": "caf\udce9 \ud800",
    "controls": "nul \0 escape \x1b[31m delete \x7f next line \x85 separator \u2028",
    "direction": "\u202egnp.exe\u202c \u200f",
    "empty": "",
    "unicode": "été 事件 🎉",
    "braces": '{type="Events"} 5\n# EOF',
}
"""Names that a user might give to an endpoint."""


@pytest.fixture(name="registry")
def registry_fixture() -> Iterator[CollectorRegistry]:
    """A registry that knows of the test's own endpoints alone."""
    registry = CollectorRegistry()
    monitoring.register(registry)
    monitoring.unregister(registry)  # forgets what earlier tests have closed
    monitoring.register(registry)
    yield registry
    monitoring.unregister(registry)


def program(name: str) -> str:
    """Where a program is that a test needs. CI has to have it; elsewhere the test is skipped."""
    found = shutil.which(name)
    if found is None:
        reason = f"this test needs {name} (Debian, Ubuntu: chromium, chromium-driver, prometheus)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Answer(NamedTuple):
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def get(url: str, *, method: str = "GET", timeout: float = DEADLINE, **headers: str) -> Answer:
    """Ask a server. An underscore in a header's name stands for a hyphen."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, headers=names, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers, error.read())


def ask(path: str, method: str = "GET", **environ: str) -> Answer:
    """Call the WSGI application, under the eyes of the standard library's validator."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        started.extend((status, headers))
        return lambda data: None

    full: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": method, "SCRIPT_NAME": ""}
    full |= {"QUERY_STRING": "", **environ}
    setup_testing_defaults(full)
    answer = validator(monitoring.wsgi_app)(full, start_response)
    try:
        body = b"".join(answer)
    finally:
        answer.close()  # type: ignore[attr-defined]
    status, headers = started
    message = Message()
    for name, value in headers:
        message[name] = value
    return Answer(int(status.split()[0]), message, body)


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """What a Prometheus would read; no sample may be there twice."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(text: str, name: str, **labels: str) -> float | None:
    return samples(text).get((name, frozenset(labels.items())))


def exported(text: str, endpoint: str) -> EndpointMetrics:
    """An endpoint's metrics as they are read from an exposition."""
    all_samples = samples(text)

    def number(name: str, **labels: str) -> int:
        return int(all_samples[name, frozenset({**labels, "endpoint": endpoint}.items())])

    def events(kind: str) -> int:
        return number("registry_notifications_events_total", type=kind)

    return EndpointMetrics(
        pending=number("registry_notifications_pending_total"),
        events=events("Events"),
        successes=events("Successes"),
        failures=events("Failures"),
        errors=events("Errors"),
        dropped=events("Dropped"),
        retries=events("Retries"),
        statuses={
            dict(labels)["code"]: int(count)
            for (name, labels), count in all_samples.items()
            if name == "registry_notifications_status_total"
            and dict(labels)["endpoint"] == endpoint
        },
    )


def stopped(endpoint: Endpoint) -> None:
    """Close an endpoint that cannot deliver."""
    try:
        endpoint.close(0)
    except Exception:
        pass
