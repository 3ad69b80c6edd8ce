"""The variables, which are a registry's own, and what they must not tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import DEADLINE, LONG, eventually
from support.monitored import NAMES, NOWHERE, ask, stopped
from support.receiver import Receiver, answer

from fastsinks import Endpoint, ExponentialBackoff, monitoring

REGISTRY = json.loads(Path(__file__).with_name("registry-debug-vars.json").read_text())
"""What a registry 3 answered: an endpoint that delivers, and one whose receiver is away."""

SECRET = "s3cr3t"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def listed() -> list[dict[str, Any]]:
    endpoints: list[dict[str, Any]] = monitoring.variables()["registry"]["notifications"][
        "endpoints"
    ]
    return endpoints


def shape(value: Any) -> Any:
    """The keys and the types, in order, of everything but free-form mappings."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items() if key not in OURS]
    return type(value).__name__


OURS = {"Dropped", "Retries"}


class TestShape:
    def test_is_a_registrys_own(self, receiver: Receiver) -> None:
        theirs, _dead = REGISTRY["registry"]["notifications"]["endpoints"]
        with Endpoint(
            "local-5003",
            receiver.url("/callback"),
            headers={"Authorization": ["Bearer secret-token"]},
            timeout=0.5,
            threshold=5,
            backoff=1.0,
        ) as endpoint:
            endpoint.write_many(range(102))
            assert endpoint.flush(DEADLINE)
            (ours,) = listed()
        assert monitoring.variables().keys() == REGISTRY.keys()
        assert shape(ours) == shape(theirs)
        assert set(ours["Metrics"]) == set(theirs["Metrics"]) | OURS
        # The values, too, but for the port and the secret.
        theirs["url"] = receiver.url("/callback")
        theirs["Headers"] = {"Authorization": ["[redacted]"]}
        theirs["Metrics"] |= {"Dropped": 0, "Retries": 0}
        assert ours == theirs

    def test_nobody_hears_it(self) -> None:
        theirs = REGISTRY["registry"]["notifications"]["endpoints"][1]
        endpoint = Endpoint(
            "dead", NOWHERE, timeout=0.5, threshold=1, backoff=LONG, close_timeout=0
        )
        try:
            endpoint.write_many(range(102))
            eventually(lambda: endpoint.metrics.errors)
            (ours,) = listed()
            assert shape(ours) == shape(theirs)
            assert ours["Headers"] is None
            assert ours["Metrics"]["Pending"] == 102
            assert ours["Metrics"]["Errors"] == ours["Metrics"]["Retries"] >= 1
            assert ours["Metrics"]["Statuses"] == {}
        finally:
            stopped(endpoint)

    def test_without_endpoints(self) -> None:
        assert monitoring.variables() == {"registry": {"notifications": {"endpoints": []}}}

    def test_what_is_ignored(self, receiver: Receiver) -> None:
        with Endpoint(
            "e",
            receiver.url(),
            ignore_media_types=["application/octet-stream"],
            ignore_actions=["pull", "mount"],
        ):
            (endpoint,) = listed()
        assert endpoint["IgnoredMediaTypes"] == ["application/octet-stream"]
        assert endpoint["Ignore"] == {
            "MediaTypes": ["application/octet-stream"],
            "Actions": ["pull", "mount"],
        }

    @pytest.mark.parametrize(
        ("seconds", "nanoseconds"),
        [(0.5, 500_000_000), (0.1, 100_000_000), (1e-9, 1)],
    )
    def test_durations_are_nanoseconds(self, seconds: float, nanoseconds: int) -> None:
        with Endpoint("e", NOWHERE, timeout=seconds, backoff=seconds):
            (endpoint,) = listed()
        assert endpoint["Timeout"] == endpoint["Backoff"] == nanoseconds
        assert type(endpoint["Timeout"]) is int

    def test_an_answer_that_is_refused(self) -> None:
        with (
            Receiver(answer("503 Service Unavailable")) as receiver,
            Endpoint("e", receiver.url(), backoff=0) as endpoint,
        ):
            endpoint.write_many(["a", "b"])
            assert endpoint.flush(DEADLINE)
            (ours,) = listed()
        assert ours["Metrics"]["Failures"] == ours["Metrics"]["Retries"] >= 1
        assert ours["Metrics"]["Statuses"]["503 Service Unavailable"] >= 1

    def test_an_event_that_is_given_up(self) -> None:
        strategy = ExponentialBackoff(0, 0, max_attempts=2)
        with Endpoint("e", NOWHERE, strategy=strategy, batch_size=1) as endpoint:
            endpoint.write("event")
            assert endpoint.flush(DEADLINE)
            (ours,) = listed()
        assert ours["Metrics"]["Dropped"] == 1
        assert ours["Metrics"]["Errors"] == 2
        assert ours["Metrics"]["Retries"] == 1

    def test_a_duration_beyond_a_registrys_integers(self) -> None:
        with Endpoint("e", NOWHERE, timeout=1e30, backoff=1e30):
            (endpoint,) = listed()
        assert 10**16 < endpoint["Timeout"] < 2**63
        assert 10**16 < endpoint["Backoff"] < 2**63


class TestListing:
    def test_from_construction_until_closed(self) -> None:
        first = Endpoint("first", NOWHERE)
        second = Endpoint("second", NOWHERE)
        assert [endpoint["name"] for endpoint in listed()] == ["first", "second"]
        first.close()
        assert [endpoint["name"] for endpoint in listed()] == ["second"]
        second.close()
        assert listed() == []

    def test_what_is_returned_is_the_callers(self) -> None:
        with Endpoint("e", NOWHERE, ignore_actions=["pull"], headers={"A": "b"}):
            (endpoint,) = listed()
            endpoint["Ignore"]["Actions"].append("push")
            endpoint["Headers"]["B"] = []
            endpoint["Metrics"]["Statuses"]["200 OK"] = 5
            (again,) = listed()
            assert again["Ignore"]["Actions"] == ["pull"]
            assert list(again["Headers"]) == ["A"]
            assert again["Metrics"]["Statuses"] == {}


class TestSecrets:
    def test_are_not_told(self) -> None:
        with Endpoint(
            "e",
            f"http://user:{SECRET}@127.0.0.1:9/events",
            headers={"Authorization": f"Bearer {SECRET}", "X-Keys": [SECRET, SECRET]},
        ):
            for path in ("/debug/vars", "/debug/endpoints", "/metrics", "/"):
                assert SECRET not in ask(path).text
            (endpoint,) = listed()
            assert endpoint["Headers"] == {
                "Authorization": ["[redacted]"],
                "X-Keys": ["[redacted]", "[redacted]"],
            }
            assert endpoint["url"] == NOWHERE

    def test_nor_by_the_last_error(self) -> None:
        endpoint = Endpoint(
            "e",
            f"http://user:{SECRET}@127.0.0.1:9/events",
            headers={"Authorization": f"Bearer {SECRET}"},
            backoff=LONG,
            threshold=1,
        )
        try:
            endpoint.write({"card": SECRET})
            eventually(lambda: endpoint.metrics.errors)
            text = ask("/debug/endpoints").text
            assert "refused" in text
            assert SECRET not in text
        finally:
            stopped(endpoint)


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("path", ["/debug/vars", "/debug/endpoints"])
def test_hostile_names(name: str, path: str) -> None:
    with Endpoint(name, NOWHERE), Endpoint("neighbour", NOWHERE):
        body = json.loads(ask(path).body.decode("utf-8", "strict"))
        assert (path, listed()[0]["name"]) == (path, name)
        endpoints = body.get("endpoints") or body["registry"]["notifications"]["endpoints"]
        endpoints = [endpoint for endpoint in endpoints if endpoint.get("state") != "closed"]
        assert [endpoint["name"] for endpoint in endpoints][1] == "neighbour"
        shown = endpoints[0]["name"]
        shown.encode()  # is text
        if name != NAMES["surrogates"]:
            assert shown == name
        else:
            assert shown == "caf\\udce9 \\ud800"
