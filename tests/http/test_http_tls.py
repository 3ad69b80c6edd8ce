"""HTTPSink over TLS: trust, one context, and the same bounds as in the clear."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator

import pytest
import trustme
from support import DEADLINE, Task, in_time, punctual
from support.receiver import (
    Behaviour,
    Connection,
    Receiver,
    drip,
    flood,
    head,
    redirect,
    reset,
    stall,
)

from fastsinks import DeliveryError, SinkClosedError
from fastsinks.http import HTTPSink

TIMEOUT = 0.3
BOUND = TIMEOUT * 1.2 + 0.25  # as in test_http_hostile


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture
def receiver(server_context: ssl.SSLContext) -> Iterator[Receiver]:
    with Receiver(tls=server_context) as receiver:
        yield receiver


def test_a_context_that_trusts_the_receiver(
    receiver: Receiver, client_context: ssl.SSLContext
) -> None:
    with HTTPSink(receiver.url(), ssl_context=client_context) as sink:
        for i in range(20):
            sink.write(i)
    assert [request.events for request in receiver.requests] == [[i] for i in range(20)]
    assert receiver.connections == 1


def test_the_systems_trust_is_the_default(receiver: Receiver) -> None:
    with (
        HTTPSink(receiver.url()) as sink,
        pytest.raises(DeliveryError, match=r"SSLCertVerificationError.*certificate") as caught,
    ):
        sink.write("event")
    assert (caught.value.status, caught.value.permanent) == (None, False)
    assert receiver.requests == []


def test_the_name_is_verified(authority: trustme.CA, client_context: ssl.SSLContext) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("elsewhere.test").configure_cert(context)
    with (
        Receiver(tls=context) as receiver,
        HTTPSink(receiver.url(), ssl_context=client_context) as sink,
    ):
        with pytest.raises(DeliveryError, match="SSLCertVerificationError"):
            sink.write("event")
        assert receiver.requests == []


def test_a_context_that_verifies_nothing_is_the_callers_choice(receiver: Receiver) -> None:
    """And needs no warning at each request: warnings are errors here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with HTTPSink(receiver.url(), ssl_context=context) as sink:
        sink.write("event")
        assert context.verify_mode == ssl.CERT_NONE
    assert len(receiver.requests) == 1


def test_client_certificates(authority: trustme.CA, server_context: ssl.SSLContext) -> None:
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(strict)
    strict.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(strict)
    with_certificate, without = ssl.create_default_context(), ssl.create_default_context()
    for context in (with_certificate, without):
        authority.configure_trust(context)
    authority.issue_cert("sender@example.org").configure_cert(with_certificate)
    with Receiver(tls=strict) as receiver:
        with (
            HTTPSink(receiver.url(), ssl_context=without) as sink,
            pytest.raises(DeliveryError) as caught,
        ):
            sink.write("event")
        assert caught.value.status is None
        with HTTPSink(receiver.url(), ssl_context=with_certificate) as sink:
            sink.write("event")
        assert len(receiver.requests) == 1


def test_one_context_is_made_once(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    genuine = ssl.create_default_context

    def counting(*args: object, **options: object) -> ssl.SSLContext:
        made.append(1)
        return genuine()

    monkeypatch.setattr(ssl, "create_default_context", counting)
    with HTTPSink(receiver.url()) as sink:
        for _ in range(3):
            with pytest.raises(DeliveryError):
                sink.write("event")
    assert len(made) == 1


def test_a_redirect_to_tls_uses_the_context(
    receiver: Receiver, client_context: ssl.SSLContext
) -> None:
    with (
        Receiver(redirect(receiver.url("/safe"))) as plain,
        HTTPSink(
            plain.url(), ssl_context=client_context, headers={"Authorization": "Bearer t"}
        ) as sink,
    ):
        sink.write("event")
    assert receiver.requests[0].path == "/safe"
    assert receiver.requests[0].header("Authorization") is None


def test_a_plain_receiver(client_context: ssl.SSLContext) -> None:
    with (
        Receiver() as receiver,
        HTTPSink(receiver.url().replace("http:", "https:"), ssl_context=client_context) as sink,
    ):
        task = Task(sink.write, "event")
        with pytest.raises(DeliveryError) as caught:
            task.result()
        assert caught.value.status is None


def test_connections_closed_while_idle_go_unnoticed(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def last(connection: Connection, request: object) -> bool:
        connection.send(head(200, "Content-Length: 0"))
        return False

    with (
        Receiver(default=last, tls=server_context) as receiver,
        HTTPSink(receiver.url(), ssl_context=client_context) as sink,
    ):
        for i in range(5):
            sink.write(i)
            receiver.wait_no_connection()
        assert len(receiver.requests) == 5


SLOW: dict[str, Behaviour] = {
    "never answers": stall(),
    "drips headers": drip(b"A: b\r\n" * 10_000, after=b"HTTP/1.1 200 OK\r\n"),
    "drips 100s": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
}


@pytest.mark.parametrize("behaviour", SLOW.values(), ids=SLOW.keys())
@punctual
def test_one_deadline_bounds_any_answer(
    behaviour: Behaviour, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        Receiver(behaviour, tls=server_context) as receiver,
        HTTPSink(receiver.url(), timeout=TIMEOUT, ssl_context=client_context) as sink,
    ):
        start = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer within") as caught:
            sink.write("event")
        in_time(time.monotonic() - start, BOUND)
        assert caught.value.status is None
        sink.write("the next request works")


def never_greets(connection: Connection) -> bool:
    connection.receiver.closing.wait()
    return False


def drips_its_greeting(connection: Connection) -> bool:
    connection.drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 10_000, 0.02)
    return False


@pytest.mark.parametrize("greet", [never_greets, drips_its_greeting])
@punctual
def test_the_handshake_is_bounded_too(
    greet: Callable[[Connection], bool], client_context: ssl.SSLContext
) -> None:
    with Receiver(greet=greet) as receiver:
        url = receiver.url().replace("http:", "https:")
        with HTTPSink(url, timeout=TIMEOUT, ssl_context=client_context) as sink:
            start = time.monotonic()
            with pytest.raises(DeliveryError) as caught:
                sink.write("event")
            in_time(time.monotonic() - start, BOUND)
            assert caught.value.status is None


@punctual
def test_a_receiver_that_never_reads(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    def read_no_body(connection: Connection, request: object) -> bool:
        connection.receiver.closing.wait()
        return False

    with (
        Receiver(read_no_body, tls=server_context, read_bodies=False) as receiver,
        HTTPSink(receiver.url(), timeout=TIMEOUT, ssl_context=client_context) as sink,
    ):
        start = time.monotonic()
        with pytest.raises(DeliveryError, match="no answer within"):
            sink.write("x" * 16 * 1024 * 1024)
        in_time(time.monotonic() - start, BOUND + 0.2)  # encryption takes its time


def test_answers_without_end_are_cut_off(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        Receiver(flood(b"x" * 65536, first=head(200)), tls=server_context) as receiver,
        HTTPSink(receiver.url(), timeout=10, ssl_context=client_context) as sink,
    ):
        sink.write("event")
        receiver.wait_no_connection()


def test_a_reset_is_an_error(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with (
        Receiver(reset, tls=server_context) as receiver,
        HTTPSink(receiver.url(), ssl_context=client_context) as sink,
    ):
        with pytest.raises(DeliveryError) as caught:
            sink.write("first")
        assert caught.value.status is None
        sink.write("second")
        assert len(receiver.requests) == 2


def test_close_interrupts_a_request(
    server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    with Receiver(stall(), tls=server_context) as receiver:
        sink = HTTPSink(receiver.url(), timeout=DEADLINE * 2, ssl_context=client_context)
        task = Task(sink.write, "event")
        receiver.wait(1)
        sink.close()
        with pytest.raises(SinkClosedError):
            task.result()


def test_close_interrupts_a_handshake(client_context: ssl.SSLContext) -> None:
    with Receiver(greet=never_greets) as receiver:
        url = receiver.url().replace("http:", "https:")
        sink = HTTPSink(url, timeout=DEADLINE * 2, ssl_context=client_context)
        task = Task(sink.write, "event")
        receiver.wait_connections(1)
        task.blocked()
        sink.close()
        with pytest.raises(SinkClosedError):
            task.result()
