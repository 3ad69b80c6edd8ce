"""Signers: headers by which a receiver can tell who sent a body.

A signer is any callable that takes a body and returns headers. One with a second positional
parameter is given the payload's id, too. That string is the same for every attempt at the
same events in the same request, and different for every other payload.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any

from .typing import Signer

__all__ = ["Signer", "StandardWebhooksSigner"]

_PREFIX = "whsec_"


class StandardWebhooksSigner:
    """Signs as Standard Webhooks 1.0 says: HMAC-SHA256 over id, time of the attempt and body.

    A secret is ``whsec_`` and base64, as receivers show it (the prefix may be missing), or
    the key itself as ``bytes``. With several secrets each body is signed with every one, so
    that receivers may change over in their own time. Put the new one first, and take the old
    one out when all have changed. ``webhook-id`` is the payload's id, the same for every
    attempt. Stateless; any thread may call it. Its secrets are never shown.
    """

    def __init__(self, secret: str | bytes, *more: str | bytes) -> None:
        self._keys = tuple(hmac.new(key, digestmod="sha256") for key in _keys((secret, *more)))

    def __call__(self, body: bytes, payload_id: str) -> dict[str, str]:
        """The three headers for this very body."""
        timestamp = str(int(time.time()))
        prefix = f"{payload_id}.{timestamp}.".encode()
        signatures = []
        for key in self._keys:
            mac = key.copy()  # copies the state that the key has set up, not the key
            mac.update(prefix)
            mac.update(body)
            signatures.append("v1," + base64.b64encode(mac.digest()).decode("ascii"))
        return {
            "webhook-id": payload_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": " ".join(signatures),
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._keys)} secrets>"


def _keys(secrets: Iterable[Any]) -> Iterable[bytes]:
    """The keys in the secrets. Errors say which secret is wrong and quote none."""
    for number, secret in enumerate(secrets, 1):
        if isinstance(secret, str):
            text = secret.removeprefix(_PREFIX).rstrip("=")
            try:
                key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
            except (ValueError, binascii.Error):
                raise ValueError(f"secret {number} is not base64") from None
        elif isinstance(secret, (bytes, bytearray)):
            key = bytes(secret)
        else:
            kind = type(secret).__name__
            raise TypeError(f"secret {number} must be a string or bytes, not {kind}")
        if not key:
            raise ValueError(f"secret {number} is empty")
        yield key


def takes_id(signer: Callable[..., Any]) -> bool:
    """Whether a signer takes the payload's id as well as the body."""
    try:
        inspect.signature(signer).bind(b"", "")
    except (TypeError, ValueError):  # one parameter, or built in and without a signature
        return False
    return True
