"""HTTPSink: one POST for each event or block of events."""

from __future__ import annotations

import math
import ssl
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from urllib3.exceptions import HTTPError

from ._core import arguments, callbacks
from ._core.backend import Counters, Sink
from ._core.errors import DeliveryError, SinkClosedError
from ._core.per_process import PerProcess
from ._core.version import __version__
from ._http.addresses import is_public
from ._http.answer import Answer
from ._http.exchange import Exchange
from ._http.headers import Headers, check_value, lines_of, merge
from ._http.outcomes import Outcomes, explain
from ._http.payload import Payload, Unaccepted
from ._http.transport import Transport
from ._http.url import URL
from .encoders import EnvelopeEncoder, takes_blocks
from .signing import takes_id
from .typing import Allow, Encoder, HTTPListener, Signer

__all__ = ["HTTPSink", "is_public"]

MAX_REDIRECTS = 5


class HTTPSink(Sink):
    """Posts events to one URL, all events of a write in one request body.

    ``write`` and ``write_many`` may be called by any thread. At most ``concurrency`` exchanges
    are in flight at a time, each with a permit, over kept-alive connections of the sink's own.
    With one, the default, events arrive in the order in which writers got the permit; with
    more, only the events of one request are in order. A write blocks until the receiver has
    answered, for at most ``timeout`` seconds from connecting to the end of the answer,
    redirects included. Credentials in the URL become an ``Authorization``
    header and are shown nowhere. Proxies of the environment are not used.

    ``headers`` maps names to a string or a list of strings. They override the sink's own
    headers, whose case does not matter. ``encoder`` is an object with ``media_type`` and
    ``encode(events) -> bytes``. ``signer`` returns headers to add: it is called with each body
    before it is sent, and with the payload's id if it takes two arguments. Neither these nor
    ``headers`` are sent to another origin. An event must not be changed once it is written:
    a repeated write of the same objects sends the same bytes. What a receiver asks for by
    ``Retry-After`` (on 429 and 503) is cut to ``retry_after_max`` seconds. ``allow`` is called
    with each address, an ``ipaddress`` object, before the sink connects to it, redirects
    included; use ``is_public``, say. An address that it refuses is a permanent DeliveryError.

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
        listeners: Iterable[HTTPListener] = (),
        concurrency: int = 1,
        retry_after_max: float = 300.0,
        allow: Allow | None = None,
    ) -> None:
        super().__init__()
        self._url = URL.parse(url)
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
        self.log_label = f"{type(self).__name__} {self._url.shown}"  #: its name in log lines
        self._counters = Counters()
        self._outcomes = Outcomes()

        defaults = {
            "Content-Type": self._encoder.media_type,
            "User-Agent": f"fastsinks/{__version__}",
        }
        own = {"Authorization": self._url.authorization} if self._url.authorization else {}
        configured = lines_of("headers", {} if headers is None else headers)
        self._headers = merge(defaults | own, configured)
        self._foreign_headers = merge(defaults, [])

        self._unaccepted = Unaccepted(self._concurrency)
        # A fork must not share sockets.
        self._transports = PerProcess(self._new_transport, Transport.disown)

    @property
    def url(self) -> str:
        """Where events are posted, without the credentials that the URL may have had."""
        return self._url.shown

    @property
    def timeout(self) -> float:
        """Seconds that one exchange may take in all."""
        return self._timeout

    @property
    def concurrency(self) -> int:
        """Exchanges that may be in flight at a time."""
        return self._concurrency

    @property
    def takes_blocks(self) -> bool:
        """Whether a request may carry several events: what the encoder says."""
        return self._takes_blocks

    @property
    def counters(self) -> Counters:
        """``successes``, ``failures``, ``errors`` and ``statuses()`` of the attempts so far, in
        events; callers only read it."""
        return self._counters

    @property
    def outcomes(self) -> Outcomes:
        """How the latest requests ended; callers only read it."""
        return self._outcomes

    @property
    def requests(self) -> int:
        """HTTP requests begun by this process, redirects and repetitions included."""
        return self._transport().in_flight.requests

    @property
    def in_flight(self) -> int:
        """Exchanges that this process has begun and not ended, at most ``concurrency``."""
        return len(self._transport().in_flight)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def write(self, event: Any) -> None:
        """Post one event. Raises DeliveryError, or SinkClosedError if the sink is closed,
        also while the request is in flight."""
        self._deliver((event,))

    def write_many(self, events: Iterable[Any]) -> None:
        """Post events in one request: all of them are committed, or none is. With an
        encoder that takes no blocks, each has its own request, up to the first that fails."""
        block = tuple(events)
        if self._takes_blocks or len(block) < 2:
            if block or self.closed:
                self._deliver(block)
        else:
            for event in block:
                self._deliver((event,))

    def measure(self, events: Iterable[Any]) -> int:
        """Bytes of the body that a write of these events sends. The body is kept for that write.
        Raises a permanent DeliveryError if they cannot be encoded."""
        return len(self._encode(tuple(events)).body)

    def close(self, timeout: float | None = None) -> None:
        """Close, interrupting a request that is in flight; its write raises SinkClosedError.

        Returns when such writes have let go of their connections, or after ``timeout``
        seconds, whichever comes first; nothing accepted can be left. Idempotent.
        """
        super().close(timeout)
        self._transport().close(arguments.timeout(timeout))
        self._unaccepted.clear()

    # -- one attempt

    def _deliver(self, events: tuple[Any, ...]) -> None:
        if self.closed:
            raise SinkClosedError
        try:
            payload = self._encode(events)
            headers = self._signed(payload)
        except DeliveryError as error:
            self._failed(error, events)
            raise
        exchange = Exchange(self._timeout)
        try:
            answer, accepted = self._post(self._transport(), exchange, payload.body, headers)
        except (DeliveryError, SinkClosedError) as error:
            if exchange.begun:  # else closed while it waited for a permit
                self._failed(error, events)
            raise
        status = answer.status_text
        if accepted:
            self._unaccepted.forget(events)
            self._counters.success(status, len(events))
            self._outcomes.succeeded()
            self._tell("success", answer.status, events)
            return
        self._counters.failure(status, len(events))
        text = f"{self.url} answered {status}"
        self._outcomes.failed(text)
        self._tell("failure", answer.status, events)
        after = answer.seconds_to_wait(self._retry_after_max)
        raise DeliveryError(text, status=answer.status, retry_after=after)

    def _failed(self, error: Exception, events: tuple[Any, ...]) -> None:
        self._counters.error(len(events))
        if isinstance(error, DeliveryError):  # SinkClosedError is not the receiver's failure
            self._outcomes.failed(str(error), permanent=error.permanent)
        self._tell("error", error, events)

    def _encode(self, events: tuple[Any, ...]) -> Payload:
        payload = self._unaccepted.find(events)
        if payload is None:
            body = callbacks.encode(self._encoder, events)
            ident = f"msg_{uuid.uuid4().hex}" if self._signer_takes_id else ""
            payload = Payload(events, body, ident)
            self._unaccepted.keep(payload)
        return payload

    def _post(
        self, transport: Transport, exchange: Exchange, body: bytes, headers: Headers
    ) -> tuple[Answer, bool]:
        """The last answer, and whether it means that the events were accepted."""
        try:
            transport.in_flight.begin(exchange)
            url = self._url
            for hop in range(MAX_REDIRECTS + 1):
                own = url.origin == self._url.origin
                answer = transport.post(exchange, url, body, headers if own else self._foreign(url))
                if not answer.redirects:
                    return answer, answer.accepted
                if hop < MAX_REDIRECTS:
                    try:
                        url = url.follow(answer.location or "")
                    except ValueError:
                        break
            return answer, False
        except (DeliveryError, SinkClosedError):
            raise
        except (HTTPError, OSError, ValueError) as error:
            if self.closed:
                raise SinkClosedError("closed while the request was in flight") from None
            raise DeliveryError(f"{self.url}: {explain(error, self._timeout)}") from error
        finally:
            exchange.over = True
            transport.in_flight.end(exchange)

    def _signed(self, payload: Payload) -> Headers:
        if self._signer is None:
            return self._headers
        args = (payload.body, payload.id) if self._signer_takes_id else (payload.body,)
        return callbacks.sign(
            self._signer, lambda made: merge(self._headers, lines_of("signer", made)), *args
        )

    def _foreign(self, url: URL) -> Headers:
        """Headers for another origin: nothing configured, and its own URL's credentials only."""
        if url.authorization is None:
            return self._foreign_headers
        return merge(self._foreign_headers, [("Authorization", url.authorization)])

    def _tell(self, method: str, outcome: object, events: tuple[Any, ...]) -> None:
        for event in events if self._listeners else ():
            callbacks.tell(self._listeners, method, outcome, event)

    # -- one process

    def _transport(self) -> Transport:
        return self._transports.get()

    def _new_transport(self) -> Transport:
        return Transport(self._url.origin, self._tls, self._concurrency, self._allow)

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
    check_value("encoder", "media_type", media_type)
    return encoder  # type: ignore[no-any-return]
