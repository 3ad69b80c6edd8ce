"""What ``fastsinks send`` shows: progress on a terminal, and no control characters of events."""

from __future__ import annotations

import io
import os
import pty
import re
from pathlib import Path

import pytest
from support import (
    DEADLINE,
)
from support.cli import account, started
from support.receiver import Receiver, answer

from fastsinks._cli.display import Display, bar, printable, summary
from fastsinks._cli.route import Row


def on_terminal(*arguments: str | Path, **env: str) -> tuple[str, str]:
    """What appears on standard output, a pipe, and on standard error, a terminal."""
    master, slave = pty.openpty()
    with started(*arguments, stderr=slave) as process, open(master, "rb", buffering=0) as screen:
        os.close(slave)
        shown = b""
        try:
            while chunk := screen.read(65536):
                shown += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
        out, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    return out.decode(), shown.decode()


@pytest.mark.parametrize("term", ["xterm", None])
def test_progress_on_a_terminal(
    term: str | None, ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TERM", raising=False)
    if term is not None:
        monkeypatch.setenv("TERM", term)
    with Receiver(answer(503), answer(503), answer(503)) as receiver:
        out, shown = on_terminal("send", ten, "--to", receiver.url())
        assert account(out, receiver)["delivered"] == 10
    assert "ten.ndjson" in shown
    assert "10 events" in shown
    assert "pending 10" in shown
    assert re.search(r"[\d,]+/s", shown)
    assert "an attempt failed" in shown
    assert shown.endswith("\x1b[J")  # nothing of it is left


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_no_progress_on_a_dumb_terminal(
    term: str, receiver: Receiver, ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    out, shown = on_terminal("send", ten, "--to", receiver.url())
    assert account(out, receiver)["delivered"] == 10
    assert shown == ""


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_display_draws_over_itself_and_keeps_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "8")
    screen = Screen()
    display = Display(screen)
    display.draw(["one", "two"])
    display.draw(["a line that is too long"])
    display.message("said")
    display.clear()
    assert screen.getvalue() == (
        "one\x1b[K\ntwo\x1b[K\n\x1b[J\r\x1b[2Aa line \x1b[K\n\x1b[J\r\x1b[1A\x1b[Jsaid\n"
    )


def test_display_survives_a_stream_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    display = Display(screen)
    screen.close()
    display.draw(["one"])
    display.message("said")
    assert not display.live


def test_what_is_printed_cannot_command_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\u202ed é") == "a\\x1b[2Jb\\nc\\u202ed é"


def test_bar() -> None:
    assert [bar(done, 4, 8) for done in (0, 1, 4)] == ["[........]", "[##......]", "[########]"]
    assert bar(0, 0, 2) == "[..]"


def test_summary() -> None:
    finished = Row("http://a/", 1_200, 1_200, 0, 0, 3, 14, 2345.6)
    waiting = Row("b", 1, 0, 0, 1, 0, 0, 0.0)
    assert summary([finished]) == [
        "endpoint   accepted  delivered  dropped  retries  requests  events/s",
        "http://a/     1,200      1,200        0        3        14     2,346",
    ]
    assert summary([waiting]) == [
        "endpoint  accepted  delivered  dropped  pending  retries  requests  events/s",
        "b                1          0        0        1        0         0         0",
    ]
