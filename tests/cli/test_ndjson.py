"""The lines that ``fastsinks send`` reads."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence

import pytest

from fastsinks._cli import ndjson
from fastsinks._cli.ndjson import parse, split


class Chunks(io.RawIOBase):
    """A file that is read in the given pieces."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    def read(self, size: int = -1) -> bytes:
        return self._chunks.pop(0) if self._chunks else b""


@pytest.mark.parametrize(
    ("chunks", "groups"),
    [
        ([], []),
        ([b"a\n"], [[b"a"]]),
        ([b"a"], [[b"a"]]),
        ([b"a\nb\nc"], [[b"a", b"b"], [b"c"]]),
        ([b"a\nb", b"b", b"b\n", b"\n"], [[b"a"], [b"bbb"], [b""]]),
        ([b"123456789", b"0\nab\n"], [[None, b"ab"]]),
        ([b"12345678\n"], [[b"12345678"]]),
        ([b"a\n1234", b"56789"], [[b"a"], [None]]),
    ],
)
def test_split(
    chunks: Sequence[bytes], groups: list[list[bytes | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ndjson, "MAX_LINE", 8)
    assert list(split(Chunks(*chunks))) == groups


def test_split_waits_for_a_pipe_that_does_not_block() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as file, open(writing, "wb", buffering=0) as end:
        end.write(b"a\nb")
        groups = split(file)
        assert next(groups) == [b"a"]
        end.write(b"\n")
        assert next(groups) == [b"b"]


@pytest.mark.parametrize("text", ["1", "null", '"text"', "[1, 2]", '{"events": 1}', '{"body": ""}'])
def test_any_json_value_is_an_event(text: str) -> None:
    assert parse(text.encode(), 1) == [json.loads(text)]


def test_parse_refuses_what_was_too_long() -> None:
    with pytest.raises(ValueError, match="longer than"):
        parse(None, 1)
