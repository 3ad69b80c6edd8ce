"""JSON as the package writes it: by msgspec, plus types that users of the json module expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


def _plain(value: Any) -> Any:
    """Turn a value that msgspec does not know into one that it knows."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)

write = _encoder.encode
"""Any JSON-able value as one line of UTF-8. Raises TypeError for what JSON cannot express,
ValueError for text that UTF-8 cannot (lone surrogates), RecursionError for what contains itself."""

write_lines = _encoder.encode_lines
"""Any JSON-able values, each with a line end behind it."""
