"""Signers, and StandardWebhooksSigner as the reference library verifies it."""

from __future__ import annotations

import base64
import functools
import time
from collections.abc import Callable
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from support import DEADLINE
from support.receiver import (
    Receiver,
    Request,
    accepting_receiver,  # noqa: F401  (a fixture)
    answer,
    hang_up,
    refused,
)

from fastsinks import DeliveryError, Endpoint, HTTPSink
from fastsinks.signing import StandardWebhooksSigner

OLD = "whsec_" + base64.b64encode(b"old key of twenty-four!!").decode()
NEW = "whsec_" + base64.b64encode(b"new key of twenty-four!!").decode()


def verified(request: Request, secret: str | bytes = NEW) -> bool:
    """What the reference library says of a request."""
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    headers = {name: request.header(name) or "" for name in names}
    try:
        Webhook(secret).verify(request.body, headers)
    except WebhookVerificationError:
        return False
    return True


class TestStandardWebhooks:
    def test_the_reference_library_verifies_what_is_sent(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), signer=StandardWebhooksSigner(NEW)) as sink:
            sink.write({"text": "\u00fc"})
            sink.write_many(range(100))
        assert all(map(verified, receiver.requests))
        assert not any(verified(request, OLD) for request in receiver.requests)
        first, second = receiver.requests
        assert first.header("webhook-id") != second.header("webhook-id")
        first.body += b" "
        assert not verified(first)

    def test_several_secrets(self, receiver: Receiver) -> None:
        with HTTPSink(receiver.url(), signer=StandardWebhooksSigner(NEW, OLD)) as sink:
            sink.write("event")
        (request,) = receiver.requests
        assert verified(request, NEW)
        assert verified(request, OLD)
        assert not verified(request, "whsec_" + base64.b64encode(b"another").decode())
        assert (request.header("webhook-signature") or "").count("v1,") == 2

    @pytest.mark.parametrize(
        "secret",
        [NEW, NEW.removeprefix("whsec_"), b"new key of twenty-four!!", "whsec_YQ==", "whsec_YQ"],
    )
    def test_forms_of_a_secret(self, receiver: Receiver, secret: str | bytes) -> None:
        with HTTPSink(receiver.url(), signer=StandardWebhooksSigner(secret)) as sink:
            sink.write("event")
        assert verified(receiver.requests[0], secret)

    def test_the_id_is_the_same_for_every_attempt(self) -> None:
        with (
            Receiver(answer(500), hang_up, answer(429)) as receiver,
            Endpoint(
                "e", receiver.url(), backoff=0, signer=StandardWebhooksSigner(NEW)
            ) as endpoint,
        ):
            endpoint.write("event")
            assert endpoint.flush(DEADLINE)
            endpoint.write("event")
            assert endpoint.flush(DEADLINE)
        *attempts, after = receiver.requests
        assert len(attempts) == 4
        assert len({request.header("webhook-id") for request in attempts}) == 1
        assert after.header("webhook-id") != attempts[0].header("webhook-id")
        assert all(map(verified, receiver.requests))

    def test_the_timestamp_is_the_attempts(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receiver.then(answer(500))
        with HTTPSink(receiver.url(), signer=StandardWebhooksSigner(NEW)) as sink:
            event: dict[str, int] = {}
            refused(sink, event)
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + 60)
            sink.write(event)
        first, second = receiver.requests
        assert first.header("webhook-id") == second.header("webhook-id")
        assert int(second.header("webhook-timestamp") or 0) >= int(now + 60)
        assert verified(second)

    @pytest.mark.parametrize(
        ("secrets", "error"),
        [
            ((), TypeError),
            (("",), ValueError),
            (("whsec_",), ValueError),
            ((b"",), ValueError),
            (("whsec_s3cret!",), ValueError),
            (("s3cret\u00fc",), ValueError),
            ((None,), TypeError),
            ((NEW, 7), TypeError),
            ((NEW, "s3cret-"), ValueError),
        ],
    )
    def test_what_is_no_secret(self, secrets: tuple[Any, ...], error: type[Exception]) -> None:
        with pytest.raises(error) as caught:
            StandardWebhooksSigner(*secrets)
        assert "s3cret" not in str(caught.value)
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    def test_secrets_are_shown_nowhere(self) -> None:
        signer = StandardWebhooksSigner(NEW, b"s3cret")
        shown = repr(signer) + repr(vars(signer)) + str(signer)
        assert "s3cret" not in shown
        assert "new key" not in shown
        assert NEW.removeprefix("whsec_") not in shown


class ById:
    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, body: bytes, block_id: str) -> dict[str, str]:
        self.ids.append(block_id)
        return {"X-Signed": "yes"}

    def method(self, body: bytes, block_id: str = "none") -> dict[str, str]:
        return self(body, block_id)


@pytest.mark.parametrize(
    "shape",
    [
        lambda by_id: by_id,
        lambda by_id: by_id.method,
        lambda by_id: lambda *args: by_id(*args),
        lambda by_id: functools.partial(lambda x, body, block_id: by_id(body, block_id), 1),
    ],
)
def test_a_signer_may_ask_for_the_blocks_id(shape: Callable[[ById], Any]) -> None:
    by_id = ById()
    with Receiver(answer(500)) as receiver, HTTPSink(receiver.url(), signer=shape(by_id)) as sink:
        block: list[dict[str, int]] = [{}, {}]
        with pytest.raises(DeliveryError):
            sink.write_many(block)
        sink.write_many(block)
        sink.write_many(block)
        sink.write(block[0])
    assert all(by_id.ids)
    assert by_id.ids[0] == by_id.ids[1]
    assert len(set(by_id.ids)) == 3
    assert [request.header("X-Signed") for request in receiver.requests] == ["yes"] * 4


def test_a_signer_of_the_body_alone(receiver: Receiver) -> None:
    def sign(body: bytes, *, salt: str = "x") -> dict[str, str]:
        return {"X-Signed": str(len(body))}

    with HTTPSink(receiver.url(), signer=sign) as sink:
        sink.write("event")
    assert receiver.requests[0].header("X-Signed") == str(len(receiver.requests[0].body))
