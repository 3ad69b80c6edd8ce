"""URL: where a request goes, taken apart once, and the form of it that may be shown."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urljoin

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

_PORTS = {"http": 80, "https": 443}
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


class Origin(NamedTuple):
    """What has to be the same for two URLs to trust each other with credentials."""

    scheme: str
    host: str
    port: int


class URL(NamedTuple):
    """A parsed http or https URL. ``shown`` is the URL without its credentials."""

    origin: Origin
    path: str  #: path and query, as they go on the request line
    authorization: str | None  #: the header that the URL's credentials stand for
    shown: str

    @classmethod
    def parse(cls, url: str) -> URL:
        """Raises TypeError or ValueError, neither of which quotes the URL's credentials."""
        if not isinstance(url, str):
            raise TypeError(f"a URL must be a string, not {type(url).__name__}")
        if _UNPRINTABLE.search(url):
            raise ValueError("a URL must not contain spaces, line ends or other control characters")
        scheme = url.partition(":")[0].lower() if "://" in url else ""
        if scheme not in _PORTS:
            raise ValueError(f"a URL must start with http:// or https://, not {scheme + ':'!r}")
        try:
            parts = parse_url(url)
        except LocationParseError:
            raise ValueError(f"invalid URL {_without_credentials(url)!r}") from None
        if not parts.host:
            raise ValueError(f"URL {_without_credentials(url)!r} names no host")
        if parts.port == 0:
            raise ValueError(f"URL {_without_credentials(url)!r} has no usable port")
        return cls(
            Origin(scheme, parts.host.lower(), parts.port or _PORTS[scheme]),
            parts.request_uri,
            _basic(parts.auth) if parts.auth else None,
            Url(scheme, None, parts.host, parts.port, parts.path, parts.query).url,
        )

    def follow(self, location: str) -> URL:
        """The URL that a Location header means, seen from here. Raises ValueError."""
        if _UNPRINTABLE.search(location):  # urljoin would silently leave some of it out
            raise ValueError("a Location must not contain spaces or control characters")
        # http.client reads headers as latin-1; what is not ASCII in a URL is UTF-8.
        location = location.encode("latin-1", "replace").decode("utf-8", "replace")
        return URL.parse(urljoin(self.shown, location))


def _basic(auth: str) -> str:
    user, _, password = auth.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return "Basic " + base64.b64encode(pair).decode("ascii")


def _without_credentials(url: str) -> str:
    """For messages about URLs that do not parse: drop whatever might be userinfo."""
    scheme, _, rest = url.partition("://")
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    # An unescaped slash in a password ends the authority early: then hide up to the last @.
    _, at, host = authority.rpartition("@")
    if not at and "@" in rest:
        host = rest.rpartition("@")[2]
    return f"{scheme}://{host}"
