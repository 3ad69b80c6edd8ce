"""The words: sentences that can be read at once, in documents, docstrings and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 30

DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
SOURCES = [
    path
    for pattern in ("fastsinks/**/*.py", "fastsinks/**/*.pyi", "src_c/**/*.*")
    for path in ROOT.glob(pattern)
    if path.suffix in (".py", ".pyi", ".pyx", ".pxd", ".h")
]


def sentences(text: str) -> Iterator[str]:
    text = re.sub(r"`+[^`]*`+", "code", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a link is its text
    for paragraph in re.split(r"\n\s*\n|\n\s*[-*|#] |\|", text):
        yield from re.split(r"(?<=[.!?:;])\s+", " ".join(paragraph.split()))


def prose(path: Path) -> Iterator[str]:
    text = path.read_text()
    if path.suffix == ".md":
        text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        yield re.sub(r"<!-- bench.*?<!-- end -->", "", text, flags=re.DOTALL)
        return
    yield from re.findall(r'"""(.*?)"""', text, re.DOTALL)
    for comment in re.findall(r"(?:^[ \t]*#:? .*\n)+", text, re.MULTILINE):
        yield re.sub(r"^[ \t]*#:?", "", comment, flags=re.MULTILINE)
    for comment in re.findall(r"/\*(.*?)\*/", text, re.DOTALL):
        yield re.sub(r"^\s*\*", "", comment, flags=re.MULTILINE)


def too_long(text: str) -> list[str]:
    return [one for one in sentences(text) if len(re.findall(r"\S*\w\S*", one)) > MOST_WORDS]


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=lambda path: str(path.name))
def test_no_sentence_is_too_long(path: Path) -> None:
    assert [long for text in prose(path) for long in too_long(text)] == []


def test_a_long_one_would_be_found() -> None:
    assert too_long(" ".join(["word"] * 31) + ".") != []
    assert too_long(" ".join(["word"] * 30) + ". Another one.") == []
