"""The pages of the monitoring server, as a WSGI application."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import msgspec
from prometheus_client import REGISTRY, CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.exposition import choose_encoder

from . import _multiprocess
from ._accounts import accounts
from ._exposition import exposition
from ._page import PAGE_HEADERS, page
from ._prometheus import Collector, is_registered, omitted
from ._status import status
from ._variables import variables

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_END = b"# EOF\n"  # of OpenMetrics
_COMPRESSED = 1024  # bytes; smaller answers are not worth compressing
_GZIP = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")

_SURROGATE = re.compile("[\ud800-\udfff]")

Headers = list[tuple[str, str]]


def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """``/debug/vars``, ``/metrics``, ``/healthz``, and a page for people at ``/``.

    Mount it anywhere in a WSGI application; the page uses relative URLs. It takes GET and
    HEAD and changes nothing. It does not authenticate its clients: all of them see names and
    URLs of endpoints, but never credentials or events.
    """
    path = environ.get("PATH_INFO", "")
    method = environ["REQUEST_METHOD"]
    if not path:
        # Mounted at a path without a slash at its end, which the page's relative URLs need.
        last = environ.get("SCRIPT_NAME", "").rpartition("/")[2]
        where = quote(last, encoding="latin-1") + "/" if last else "/"
        return _answer(environ, start_response, "308 Permanent Redirect", [("Location", where)])
    route = _ROUTES.get("/" + path.strip("/"))
    if route is None:
        return _answer(environ, start_response, "404 Not Found", [], b"not found\n")
    if method not in ("GET", "HEAD"):
        headers = [("Allow", "GET, HEAD")]
        return _answer(environ, start_response, "405 Method Not Allowed", headers, b"GET only\n")
    headers, body = route(environ)
    return _answer(environ, start_response, "200 OK", headers, body)


def _answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    status_line: str,
    headers: Headers,
    body: bytes = b"",
) -> Iterable[bytes]:
    names = {name.lower() for name, _ in headers}
    if "content-type" not in names:
        headers = [*headers, ("Content-Type", "text/plain; charset=utf-8")]
    headers = [
        *headers,
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Vary", "Accept, Accept-Encoding"),
    ]
    if len(body) >= _COMPRESSED and _GZIP.search(environ.get("HTTP_ACCEPT_ENCODING", "")):
        # The lowest level: these texts are repetitive, and a scrape waits for them.
        body = gzip.compress(body, 1)
        headers.append(("Content-Encoding", "gzip"))
    headers.append(("Content-Length", str(len(body))))
    start_response(status_line, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _page(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    return PAGE_HEADERS, page()


def _health(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    return [], b"ok\n"


def _variables(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    return _json(variables())


def _status(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    return _json(status())


def _json(value: Any) -> tuple[Headers, bytes]:
    try:
        body = msgspec.json.format(msgspec.json.encode(value), indent=1)
    except UnicodeEncodeError:
        # A name has a lone surrogate, which strict readers refuse even as a JSON escape.
        text = json.dumps(value, ensure_ascii=False, indent=1)
        body = _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text).encode()
    return [("Content-Type", "application/json; charset=utf-8")], body


def _metrics(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    registry = REGISTRY
    if _multiprocess.enabled():
        _multiprocess.publisher.refresh()
        registry = CollectorRegistry()
        _multiprocess.Merged(registry)  # type: ignore[no-untyped-call]
    elif "name[]" not in parse_qs(environ.get("QUERY_STRING", "")):
        return _all_metrics(environ)
    elif not is_registered(REGISTRY):
        registry = CollectorRegistry()
        registry.register(_Everything())
        registry.register(Collector())
    kept: Headers = []

    def start_response(status_line: str, headers: Headers) -> None:
        kept.extend(headers)

    encode = make_wsgi_app(registry, disable_compression=True)
    body = b"".join(encode({**environ, "REQUEST_METHOD": "GET", "PATH_INFO": "/"}, start_response))
    return kept, body


def _all_metrics(environ: WSGIEnvironment) -> tuple[Headers, bytes]:
    """Our metrics, and all that the process exports from prometheus-client's own registry."""
    encoder, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
    with omitted():
        body = encoder(REGISTRY)
    openmetrics = body.endswith(_END)
    ours = exposition(accounts.by_name(), openmetrics=openmetrics).encode()
    body = body.removesuffix(_END) + ours + _END if openmetrics else body + ours
    return [("Content-Type", content_type)], body


class _Everything:
    """All of prometheus-client's own registry, as one collector."""

    def collect(self) -> Iterator[Metric]:
        yield from REGISTRY.collect()

    describe = collect


_ROUTES: dict[str, Callable[[WSGIEnvironment], tuple[Headers, bytes]]] = {
    "/": _page,
    "/healthz": _health,
    "/metrics": _metrics,
    "/debug/vars": _variables,
    "/debug/endpoints": _status,
}
