"""The page for people: a single file, which fetches only numbers, and from its own server."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files


@cache
def page() -> bytes:
    return files(__package__).joinpath("page.html").read_bytes()


def _hashes(tag: str) -> str:
    """The sources that a browser may use: exactly those in the file."""
    found = re.findall(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), page(), re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(source).digest()).decode() for source in found]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


PAGE_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'",
    ),
]
