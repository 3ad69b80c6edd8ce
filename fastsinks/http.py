"""HTTPSink: one POST for each event or block of events."""

from __future__ import annotations

import email.utils
import math
import os
import re
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from . import _check
from ._attempts import Attempts
from ._backend import Counters, Sink
from ._errors import DeliveryError, SinkClosedError
from ._exchange import Exchange
from ._log import describe_error, logger
from ._transport import Answer, Transport
from ._url import Address
from ._version import __version__
from .encoders import Encoder, EnvelopeEncoder

__all__ = ["HTTPSink"]

MAX_REDIRECTS = 5
MAX_RETRY_AFTER = 300.0  #: seconds; a receiver may ask for more, but is not obeyed further

_FOLLOWED = frozenset({301, 302, 307, 308})

# What the sink decides by itself: a second opinion would garble the request.
_FRAMING = frozenset({"content-length", "transfer-encoding"})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# Phrases that Python renamed in 3.13: a metric's label should not depend on the interpreter.
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    416: "Requested Range Not Satisfiable",
    422: "Unprocessable Entity",
}

Headers = Mapping[str, str]
Signer = Callable[[bytes], Mapping[str, str | Sequence[str]]]


class HTTPSink(Sink):
    """Posts events to one URL, all events of a write in one request body.

    ``write`` and ``write_many`` may be called by any thread; requests go out one at a
    time over a kept-alive connection of the sink's own. They block until the receiver
    has answered, for at most ``timeout`` seconds from connecting to the end of the
    answer, redirects included. Credentials in the URL become an ``Authorization``
    header and are shown nowhere. Proxies of the environment are not used.

    ``headers`` maps names to a string or a list of strings and overrides the sink's
    own in any case; ``encoder`` is an object with ``media_type`` and
    ``encode(events) -> bytes``; ``signer`` is called with each body before it is sent
    and returns headers to add. Neither set is sent to another origin. An event must not
    be changed once it was written: a repeated write of the same objects sends the same bytes.

    A listener has ``success(status, event)``, ``failure(status, event)`` and
    ``error(exc, event)``; one of them is called for each event of each attempt, on
    the writing thread. What it raises is logged.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 1.0,
        headers: Mapping[str, str | Sequence[str]] | None = None,
        encoder: Encoder | None = None,
        signer: Signer | None = None,
        ssl_context: ssl.SSLContext | None = None,
        listeners: Iterable[Any] = (),
    ) -> None:
        super().__init__()
        self._address = Address.parse(url)
        self._timeout = _positive("timeout", timeout)
        self._encoder = EnvelopeEncoder() if encoder is None else _checked_encoder(encoder)
        if signer is not None and not callable(signer):
            raise TypeError(f"a signer is callable with the body, unlike {type(signer).__name__}")
        self._signer = signer
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(
                f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}"
            )
        self._ssl_context = ssl_context
        self._listeners = _check.listeners(listeners, "success", "failure", "error")
        self._counters = Counters()
        self._attempts = Attempts()

        defaults = {
            "Content-Type": self._encoder.media_type,
            "User-Agent": f"fastsinks/{__version__}",
        }
        own = {"Authorization": self._address.authorization} if self._address.authorization else {}
        configured = _lines("headers", {} if headers is None else headers)
        self._headers = _merge(defaults | own, configured)
        self._foreign_headers = _merge(defaults, [])

        # The last body and the events it was made of, for a repetition of the same write. One
        # attribute, replaced as a whole: threads that compete only encode once more.
        self._encoded: tuple[tuple[Any, ...], bytes] | None = None
        # By process: a fork must not share sockets. dict operations are atomic, which is
        # what makes the first writers of a child agree on one.
        self._transports: dict[int, Transport] = {}
        self._transport()

    @property
    def url(self) -> str:
        """Where events are posted, without the credentials that the URL may have had."""
        return self._address.shown

    @property
    def timeout(self) -> float:
        """Seconds that one exchange may take in all."""
        return self._timeout

    @property
    def counters(self) -> Counters:
        """``successes``, ``failures``, ``errors`` and ``statuses()`` of the attempts so far, in
        events; for reading."""
        return self._counters

    @property
    def attempts(self) -> Attempts:
        """How the latest requests went; for reading."""
        return self._attempts

    @property
    def requests(self) -> int:
        """HTTP requests begun by this process, redirects and repetitions included."""
        return self._transport().exchanges.requests

    @property
    def in_flight(self) -> int:
        """Exchanges that this process has begun and not ended: at most one at a time."""
        return self._transport().exchanges.in_flight

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def write(self, event: Any) -> None:
        """Post one event. Raises DeliveryError, or SinkClosedError if the sink is closed,
        also while the request is under way."""
        self._deliver((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        """Post events in one request: all of them are committed, or none is."""
        block = tuple(events)
        if block or self.closed:
            self._deliver(block)

    def close(self, timeout: float | None = None) -> None:
        """Close, interrupting a request that is under way; its write raises SinkClosedError.

        Returns when such writes have let go of their connections, or after ``timeout``
        seconds, whichever comes first; nothing accepted can be left. Idempotent.
        """
        super().close(timeout)
        self._transport().close(_check.timeout(timeout))
        self._encoded = None

    # -- one attempt

    def _deliver(self, events: tuple[Any, ...]) -> None:
        if self.closed:
            raise SinkClosedError
        try:
            body = self._encode(events)
            headers = self._signed(body)
        except DeliveryError as error:
            self._failed(error, events)
            raise
        transport = self._transport()
        exchange = transport.exchanges.begin(self._timeout)
        try:
            answer, accepted = self._post(transport, exchange, body, headers)
        except (DeliveryError, SinkClosedError) as error:
            self._failed(error, events)
            raise
        status = _status_text(answer.status)
        if accepted:
            self._encoded = None
            self._counters.success(status, len(events))
            self._attempts.succeeded()
            self._tell("success", answer.status, events)
            return
        self._counters.failure(status, len(events))
        text = f"{self.url} answered {status}"
        self._attempts.failed(text)
        self._tell("failure", answer.status, events)
        raise DeliveryError(text, status=answer.status, retry_after=_retry_after(answer))

    def _failed(self, error: Exception, events: tuple[Any, ...]) -> None:
        self._counters.error(len(events))
        if isinstance(error, DeliveryError):  # to be closed is no failure of the receiver's
            self._attempts.failed(str(error), permanent=error.permanent)
        self._tell("error", error, events)

    def _encode(self, events: tuple[Any, ...]) -> bytes:
        encoded = self._encoded
        if encoded is not None and _same(encoded[0], events):
            return encoded[1]
        try:
            body = self._encoder.encode(events)
        except DeliveryError:
            raise
        except Exception as error:
            # Neither text nor traceback goes on: they may quote the event.
            kinds = ", ".join(sorted({type(event).__name__ for event in events}))
            raise DeliveryError(
                f"{type(self._encoder).__name__} cannot encode {kinds}: {type(error).__name__}",
                permanent=True,
            ) from None
        if not isinstance(body, bytes):
            raise DeliveryError(
                f"{type(self._encoder).__name__} made {type(body).__name__} instead of bytes",
                permanent=True,
            )
        self._encoded = (events, body)
        return body

    def _post(
        self, transport: Transport, exchange: Exchange, body: bytes, headers: Headers
    ) -> tuple[Answer, bool]:
        """The answer in the end, and whether it means that the events were accepted."""
        try:
            address = self._address
            for hop in range(MAX_REDIRECTS + 1):
                own = address.origin == self._address.origin
                answer = transport.post(
                    exchange, address, body, headers if own else self._foreign(address)
                )
                if answer.status not in _FOLLOWED or answer.location is None:
                    return answer, 200 <= answer.status < 400
                if hop < MAX_REDIRECTS:
                    try:
                        address = address.follow(answer.location)
                    except ValueError:
                        break
            return answer, False
        except SinkClosedError:
            raise
        except (HTTPError, OSError, ValueError) as error:
            if self.closed:
                raise SinkClosedError("closed while the request was under way") from None
            raise DeliveryError(f"{self.url}: {self._reason(error)}") from error
        finally:
            transport.exchanges.end()

    def _signed(self, body: bytes) -> Headers:
        if self._signer is None:
            return self._headers
        try:
            return _merge(self._headers, _lines("signer", self._signer(body)))
        except Exception as error:
            # A signer knows a secret; its exceptions had better stay here.
            raise DeliveryError(f"the signer raised {type(error).__name__}") from None

    def _foreign(self, address: Address) -> Headers:
        """Headers for another origin: nothing configured, and its own URL's credentials only."""
        if address.authorization is None:
            return self._foreign_headers
        return _merge(self._foreign_headers, [("Authorization", address.authorization)])

    def _reason(self, error: BaseException) -> str:
        """What happened, in words that contain neither headers nor what the receiver sent."""
        while isinstance(error, HTTPError):
            inner = error.args[-1] if error.args else None
            cause = inner if isinstance(inner, BaseException) else error.__cause__
            if cause is None:
                break
            error = cause
        if isinstance(error, (TimeoutError, PoolTimeoutError)):
            return f"no answer within {self._timeout:g} s"
        kind = type(error).__name__
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"{kind}: {error.verify_message}"
        if isinstance(error, ssl.SSLError):
            return f"{kind}: {error.reason}" if error.reason else kind
        if isinstance(error, OSError) and not isinstance(error, HTTPError):
            text = error.strerror or str(error)
            return f"{kind}: {text}" if text else kind
        return kind

    def _tell(self, method: str, outcome: object, events: tuple[Any, ...]) -> None:
        for listener in self._listeners:
            for event in events:
                try:
                    getattr(listener, method)(outcome, event)
                except Exception as error:
                    logger.error("a listener's %s() raised %s", method, describe_error(error))

    # -- one process

    def _transport(self) -> Transport:
        pid = os.getpid()
        transport = self._transports.get(pid)
        if transport is None:
            transport = self._transports.setdefault(pid, Transport(self._address.origin, self._tls))
            for other in [key for key in self._transports.copy() if key != pid]:
                inherited = self._transports.pop(other, None)
                if inherited is not None:
                    inherited.disown()
        return transport

    def _tls(self) -> ssl.SSLContext:
        """The sink's one context, made when it is first needed: loading certificates takes long."""
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context


def _positive(name: str, value: Any) -> float:
    number = _check.seconds(name, value)
    if not number or math.isinf(value):
        raise ValueError(f"{name} must be more than zero and finite, got {value!r}")
    return number


def _checked_encoder(encoder: Any) -> Encoder:
    if not callable(getattr(encoder, "encode", None)):
        raise TypeError(f"an encoder needs an encode() method, {type(encoder).__name__!r} has none")
    media_type = getattr(encoder, "media_type", None)
    if not isinstance(media_type, str):
        raise TypeError(f"an encoder needs a media_type, {type(encoder).__name__!r} has none")
    _check_value("encoder", "media_type", media_type)
    return encoder  # type: ignore[no-any-return]


def _lines(what: str, headers: Any) -> list[tuple[str, str]]:
    """Header lines, checked. Errors name the header and never its value, which may be secret."""
    if not isinstance(headers, Mapping):
        raise TypeError(
            f"{what} must be a mapping of names to strings, not {type(headers).__name__}"
        )
    lines = []
    for name, values in headers.items():
        if not isinstance(name, str):
            raise TypeError(f"{what}: a header's name must be a string, not {type(name).__name__}")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{what}: {name!r} is not a header name")
        if name.lower() in _FRAMING:
            raise ValueError(f"{what}: {name} is set by the sink itself")
        if isinstance(values, str):
            values = [values]
        elif not isinstance(values, Sequence) or isinstance(values, (bytes, bytearray)):
            raise TypeError(
                f"{what}: {name} must be a string or a list of strings, not {type(values).__name__}"
            )
        if not values:
            raise ValueError(f"{what}: {name} has no value")
        for value in values:
            _check_value(what, name, value)
            lines.append((name, value.strip(" \t")))
    return lines


def _check_value(what: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what}: {name} must be a string, not {type(value).__name__}")
    if any(character in value for character in "\r\n\0"):
        raise ValueError(f"{what}: the value of {name} contains a line end or a NUL")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what}: the value of {name} is not Latin-1 text") from None


def _merge(base: Headers, lines: list[tuple[str, str]]) -> Headers:
    """Headers for urllib3: those of ``base`` that ``lines`` do not override, then ``lines``."""
    overridden = {name.lower() for name, _ in lines}
    merged = [item for item in base.items() if item[0].lower() not in overridden] + lines
    if len({name.lower() for name, _ in merged}) == len(merged):
        return dict(merged)  # several times faster to send than what follows
    several = HTTPHeaderDict()
    for name, value in merged:
        several.add(name, value)
    return several


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether these are the very same objects; their own ``__eq__`` is not asked."""
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _status_text(status: int) -> str:
    # The receiver's own phrase could be anything, and another one each time.
    phrase = _PHRASES.get(status)
    return f"{status} {phrase}" if phrase else str(status)


def _retry_after(answer: Answer) -> float | None:
    """Seconds that the receiver asked for, in number or as a date; none if it makes no sense."""
    if answer.status not in (429, 503) or answer.retry_after is None:
        return None
    text = answer.retry_after.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), MAX_RETRY_AFTER)
