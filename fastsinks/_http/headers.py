"""Headers of a request: checking and merging them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from urllib3 import HTTPHeaderDict

Headers: TypeAlias = Mapping[str, str]
Line: TypeAlias = tuple[str, str]

# Headers that the sink sets itself: a second value would garble the request.
_FRAMING = frozenset({"content-length", "transfer-encoding"})

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def lines_of(what: str, headers: Any) -> list[Line]:
    """Header lines, checked. Errors name the header and never its value, which may be secret."""
    if not isinstance(headers, Mapping):
        raise TypeError(
            f"{what} must be a mapping of names to strings, not {type(headers).__name__}"
        )
    lines: list[Line] = []
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
            check_value(what, name, value)
            lines.append((name, value.strip(" \t")))
    return lines


def check_value(what: str, name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what}: {name} must be a string, not {type(value).__name__}")
    if any(character in value for character in "\r\n\0"):
        raise ValueError(f"{what}: the value of {name} contains a line end or a NUL")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{what}: the value of {name} is not Latin-1 text") from None


def merge(base: Headers, lines: list[Line]) -> Headers:
    """Headers for urllib3: those of ``base`` that ``lines`` do not override, then ``lines``."""
    overridden = {name.lower() for name, _ in lines}
    merged = [item for item in base.items() if item[0].lower() not in overridden] + lines
    if len({name.lower() for name, _ in merged}) == len(merged):
        return dict(merged)  # sent several times as fast as an HTTPHeaderDict
    several = HTTPHeaderDict()
    for name, value in merged:
        several.add(name, value)
    return several
