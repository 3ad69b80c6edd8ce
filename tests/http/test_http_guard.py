"""HTTPSink with `allow`: checked on the address that is connected to, whatever led there."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from support import DEADLINE, Recorder
from support.receiver import (
    Receiver,
    accepting_receiver,  # noqa: F401  (a fixture)
    redirect,
    refused,
)

from fastsinks import DeliveryError, Endpoint
from fastsinks.http import HTTPSink, is_public

PUBLIC = [
    "8.8.8.8",
    "172.15.255.255",
    "172.32.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]

NOT_PUBLIC = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::a00:1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::8.8.8.8",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:c0a8:101:1::1",
    "2001::1",
    "2001:0:808:808::1",
    "2001:db8::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "100::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that resolve to what a test says."""
    found: dict[str, list[str]] = {}
    genuine = socket.getaddrinfo

    def lookup(host: str, port: int, *args: Any) -> Any:
        if host not in found or socket.AI_NUMERICHOST in args:
            return genuine(host, port, *args)
        return [info for address in found[host] for info in genuine(address, port, *args)]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:7f00:1]"])
def test_no_form_of_an_address_passes(receiver: Receiver, host: str) -> None:
    with HTTPSink(f"http://{host}:{receiver.port}/", allow=is_public) as sink:
        error = refused(sink)
        assert error.permanent
        assert "not allowed" in str(error)
        assert sink.counters.errors == 1
    assert receiver.connections == 0


def test_a_name_is_what_it_resolves_to(receiver: Receiver, names: dict[str, list[str]]) -> None:
    names["innocent.test"] = ["127.0.0.1"]
    with HTTPSink(f"http://innocent.test:{receiver.port}/", allow=is_public) as sink:
        assert refused(sink).permanent
    assert receiver.connections == 0


def test_only_allowed_addresses_of_a_name_are_used(
    receiver: Receiver, names: dict[str, list[str]]
) -> None:
    names["both.test"] = ["127.0.0.2", "127.0.0.1"]
    asked = []

    def allow(address: Any) -> bool:
        asked.append(str(address))
        return str(address) == "127.0.0.1"

    with HTTPSink(f"http://both.test:{receiver.port}/", allow=allow) as sink:
        sink.write("event")
        sink.write("on the same connection")
    assert asked == ["127.0.0.2", "127.0.0.1"]
    assert receiver.connections == 1


def test_a_name_may_change_its_mind(receiver: Receiver, names: dict[str, list[str]]) -> None:
    """Each connection is checked, not the name once."""
    names["rebinding.test"] = ["127.0.0.1"]
    allowed = {"127.0.0.1"}
    url = f"http://rebinding.test:{receiver.port}/"
    with HTTPSink(url, allow=lambda address: str(address) in allowed) as sink:
        sink.write("event")
        allowed.clear()
        sink.write("on the same connection")
        receiver.then(lambda connection, request: False)
        refused(sink)  # the kept connection has gone, and no other may be made
    assert receiver.connections == 1


def test_a_redirect_does_not_lead_around_it(receiver: Receiver) -> None:
    with (
        Receiver(redirect(receiver.url()), host="::1") as first,
        HTTPSink(first.url(), allow=lambda address: address.version == 6) as sink,
    ):
        assert refused(sink).permanent
        assert len(first.requests) == 1
    assert receiver.connections == 0


def test_addresses_in_addresses_are_shown_as_what_they_are(receiver: Receiver) -> None:
    asked = []
    with HTTPSink(f"http://[::ffff:7f00:1]:{receiver.port}/", allow=asked.append) as sink:
        refused(sink)
    assert asked == [ipaddress.ip_address("127.0.0.1")]


def test_an_endpoint_gives_such_events_up(receiver: Receiver) -> None:
    lost = Recorder()
    with Endpoint("e", receiver.url(), allow=is_public, dead_letter=lost) as endpoint:
        endpoint.write_many(range(3))
        assert endpoint.flush(DEADLINE)
        assert endpoint.metrics.dropped == 3
    assert lost.events == [0, 1, 2]
    assert receiver.connections == 0


def test_one_that_raises(receiver: Receiver) -> None:
    def allow(address: object) -> bool:
        raise KeyError("s3cret")

    with HTTPSink(receiver.url(), allow=allow) as sink:
        error = refused(sink)
    assert not error.permanent
    assert str(error) == "allow raised KeyError"
    assert receiver.connections == 0


def test_off_by_default(receiver: Receiver) -> None:
    with HTTPSink(receiver.url()) as sink:
        sink.write("event")
    assert len(receiver.requests) == 1


def test_what_is_no_guard() -> None:
    with pytest.raises(TypeError, match="allow"):
        HTTPSink("http://127.0.0.1/", allow=True)  # type: ignore[arg-type]


def test_a_refusal_leaves_no_connection_behind(receiver: Receiver) -> None:
    with HTTPSink(receiver.url(), allow=lambda address: False) as sink:
        for _ in range(5):
            with pytest.raises(DeliveryError):
                sink.write("event")
        assert sink.in_flight == 0
