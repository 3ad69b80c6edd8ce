"""HTTPSink: one POST for each event or block of events."""

from __future__ import annotations

import email.utils
import math
import re
import ssl
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from urllib3 import HTTPHeaderDict
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as PoolTimeoutError

from ._core import arguments, callbacks
from ._core.backend import Counters, Sink
from ._core.errors import DeliveryError, SinkClosedError
from ._core.per_process import PerProcess
from ._core.version import __version__
from ._http.addresses import Allow, is_public
from ._http.exchange import Exchange
from ._http.outcomes import Attempts
from ._http.transport import Answer, Transport
from ._http.url import Address
from .encoders import Encoder, EnvelopeEncoder, takes_blocks
from .signing import Signer, takes_id

__all__ = ["HTTPSink", "is_public"]

MAX_REDIRECTS = 5

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


class Block(NamedTuple):
    """What one request carries."""

    events: tuple[Any, ...]
    body: bytes
    id: str  #: the same for every attempt at these events


class HTTPSink(Sink):
    """Posts events to one URL, all events of a write in one request body.

    ``write`` and ``write_many`` may be called by any thread; at most ``concurrency``
    requests are under way at a time, over kept-alive connections of the sink's own; with one,
    the default, they go out in the order of the turns that writers take, with more, only
    the events of one request are in order. A write blocks until the receiver
    has answered, for at most ``timeout`` seconds from connecting to the end of the
    answer, redirects included. Credentials in the URL become an ``Authorization``
    header and are shown nowhere. Proxies of the environment are not used.

    ``headers`` maps names to a string or a list of strings and overrides the sink's
    own in any case; ``encoder`` is an object with ``media_type`` and
    ``encode(events) -> bytes``; ``signer`` is called with each body before it is sent, and
    with the block's id if it takes two arguments, and returns headers to add. Neither set is
    sent to another origin. An event must not be changed once it was written: a repeated write
    of the same objects sends the same bytes. What a receiver asks for by ``Retry-After`` (on 429
    and 503) is cut to ``retry_after_max`` seconds. ``allow`` is asked about each address before
    the sink connects to it, redirects included: a callable from an ``ipaddress`` object, such
    as ``is_public``. An address that it refuses is a permanent DeliveryError.

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
        concurrency: int = 1,
        retry_after_max: float = 300.0,
        allow: Allow | None = None,
    ) -> None:
        super().__init__()
        self._address = Address.parse(url)
        self._timeout = _positive("timeout", timeout)
        self._encoder = EnvelopeEncoder() if encoder is None else _checked_encoder(encoder)
        if signer is not None and not callable(signer):
            raise TypeError(f"a signer is callable with the body, unlike {type(signer).__name__}")
        self._takes_blocks = takes_blocks(self._encoder)
        self._signer: Any = signer
        self._signer_takes_id = signer is not None and takes_id(signer)
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(
                f"ssl_context must be an ssl.SSLContext, not {type(ssl_context).__name__}"
            )
        self._ssl_context = ssl_context
        self._concurrency = arguments.size("concurrency", concurrency, least=1)
        self._retry_after_max = arguments.seconds("retry_after_max", retry_after_max)
        if allow is not None and not callable(allow):
            raise TypeError(f"allow must be callable with an address, unlike {allow!r}")
        self._allow = allow
        self._listeners = arguments.listeners(listeners, "success", "failure", "error")
        self.log_label = f"{type(self).__name__} {self._address.shown}"  #: its name in log lines
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

        # The latest blocks that were not accepted, for repetitions of the same writes: as many
        # as there may be under way. By first event and size; who looks compares the rest. Dict
        # operations are atomic: threads that compete only encode once more.
        self._kept: dict[tuple[int, int], Block] = {}
        # A fork must not share sockets.
        self._transports = PerProcess(self._new_transport, Transport.disown)

    @property
    def url(self) -> str:
        """Where events are posted, without the credentials that the URL may have had."""
        return self._address.shown

    @property
    def timeout(self) -> float:
        """Seconds that one exchange may take in all."""
        return self._timeout

    @property
    def concurrency(self) -> int:
        """Requests that may be under way at a time."""
        return self._concurrency

    @property
    def takes_blocks(self) -> bool:
        """Whether a request may carry several events: what the encoder says."""
        return self._takes_blocks

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
        """Exchanges that this process has begun and not ended, at most ``concurrency``."""
        return self._transport().exchanges.in_flight

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def write(self, event: Any) -> None:
        """Post one event. Raises DeliveryError, or SinkClosedError if the sink is closed,
        also while the request is under way."""
        self._deliver((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        """Post events in one request: all of them are committed, or none is. With an
        encoder that takes no blocks, in a request each, up to the first that fails."""
        block = tuple(events)
        if self._takes_blocks or len(block) < 2:
            if block or self.closed:
                self._deliver(block)
        else:
            for event in block:
                self._deliver((event,))

    def measure(self, events: Iterable[Any]) -> int:
        """Bytes of the body that a write of these events would send, and then does send.
        Raises a permanent DeliveryError if they cannot be encoded."""
        return len(self._encode(tuple(events)).body)

    def close(self, timeout: float | None = None) -> None:
        """Close, interrupting a request that is under way; its write raises SinkClosedError.

        Returns when such writes have let go of their connections, or after ``timeout``
        seconds, whichever comes first; nothing accepted can be left. Idempotent.
        """
        super().close(timeout)
        self._transport().close(arguments.timeout(timeout))
        self._kept.clear()

    # -- one attempt

    def _deliver(self, events: tuple[Any, ...]) -> None:
        if self.closed:
            raise SinkClosedError
        try:
            block = self._encode(events)
            headers = self._signed(block)
        except DeliveryError as error:
            self._failed(error, events)
            raise
        transport = self._transport()
        exchange = Exchange(self._timeout)
        try:
            answer, accepted = self._post(transport, exchange, block.body, headers)
        except (DeliveryError, SinkClosedError) as error:
            if exchange.begun:  # else closed while it waited for its turn
                self._failed(error, events)
            raise
        status = _status_text(answer.status)
        if accepted:
            self._kept.pop(_key(events), None)
            self._counters.success(status, len(events))
            self._attempts.succeeded()
            self._tell("success", answer.status, events)
            return
        self._counters.failure(status, len(events))
        text = f"{self.url} answered {status}"
        self._attempts.failed(text)
        self._tell("failure", answer.status, events)
        after = _retry_after(answer, self._retry_after_max)
        raise DeliveryError(text, status=answer.status, retry_after=after)

    def _failed(self, error: Exception, events: tuple[Any, ...]) -> None:
        self._counters.error(len(events))
        if isinstance(error, DeliveryError):  # to be closed is no failure of the receiver's
            self._attempts.failed(str(error), permanent=error.permanent)
        self._tell("error", error, events)

    def _encode(self, events: tuple[Any, ...]) -> Block:
        key = _key(events)
        block = self._kept.get(key)
        if block is not None and _same(block.events, events):
            return block
        body = callbacks.encode(self._encoder, events)
        block = Block(events, body, f"msg_{uuid.uuid4().hex}" if self._signer_takes_id else "")
        self._kept.pop(key, None)  # to the end of the line
        self._kept[key] = block
        if len(self._kept) > self._concurrency:
            for old in list(self._kept)[: -self._concurrency]:
                self._kept.pop(old, None)
        return block

    def _post(
        self, transport: Transport, exchange: Exchange, body: bytes, headers: Headers
    ) -> tuple[Answer, bool]:
        """The answer in the end, and whether it means that the events were accepted."""
        try:
            transport.exchanges.begin(exchange)
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
        except (DeliveryError, SinkClosedError):
            raise
        except (HTTPError, OSError, ValueError) as error:
            if self.closed:
                raise SinkClosedError("closed while the request was under way") from None
            raise DeliveryError(f"{self.url}: {self._reason(error)}") from error
        finally:
            exchange.over = True
            transport.exchanges.end(exchange)

    def _signed(self, block: Block) -> Headers:
        if self._signer is None:
            return self._headers
        try:
            made = (
                self._signer(block.body, block.id)
                if self._signer_takes_id
                else self._signer(block.body)
            )
            return _merge(self._headers, _lines("signer", made))
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
        for event in events if self._listeners else ():
            callbacks.tell(self._listeners, method, outcome, event)

    # -- one process

    def _transport(self) -> Transport:
        return self._transports.get()

    def _new_transport(self) -> Transport:
        return Transport(self._address.origin, self._tls, self._concurrency, self._allow)

    def _tls(self) -> ssl.SSLContext:
        """The sink's one context, made when it is first needed: loading certificates takes long."""
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context


def _positive(name: str, value: Any) -> float:
    number = arguments.seconds(name, value)
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


def _key(events: tuple[Any, ...]) -> tuple[int, int]:
    return id(events[0]), len(events)


def _same(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether these are the very same objects; their own ``__eq__`` is not asked."""
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def _status_text(status: int) -> str:
    # The receiver's own phrase could be anything, and another one each time.
    phrase = _PHRASES.get(status)
    return f"{status} {phrase}" if phrase else str(status)


def _retry_after(answer: Answer, most: float) -> float | None:
    """Seconds that the receiver asked for, in number or as a date; none if it makes no sense."""
    if answer.status not in (429, 503) or answer.retry_after is None:
        return None
    text = answer.retry_after.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]*)?", text):
        return min(float(text), most)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return min(max(0.0, moment.timestamp() - time.time()), most)
