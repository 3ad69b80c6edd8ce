"""``fastsinks send``, interrupted: what it says, and how a later run can go on from there."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEADLINE,
    LONG,
    BlockRecorder,
    Gate,
    Task,
    eventually,
    in_time,
    parked,
    punctual,
)
from support.cli import account, ids, numbered, numbers, run, started, write_lines
from support.receiver import Receiver, stall

import fastsinks
from fastsinks._cli import route, send
from fastsinks._cli.display import Display
from fastsinks._cli.route import Route
from fastsinks._cli.send import Feeder, Sending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("situation", ["request", "back-off", "full", "idle"])
@punctual
def test_interrupted(situation: str, number: int, away: str, tmp_path: Path) -> None:
    """It ends within a second, whatever it waits for, and says what was not delivered."""
    count = 20_000 if situation == "full" else 10
    events = write_lines(tmp_path / "events.ndjson", *numbered(count))
    with Receiver() as good, Receiver(default=stall()) as stalled:
        bad = stalled.url() if situation in ("request", "full") else away
        urls = ["--to", good.url()] if situation == "idle" else ["--to", good.url(), "--to", bad]
        source = "-" if situation == "idle" else events
        with started(
            *("send", source, *urls, "--timeout", LONG, "--give-up-after", "inf")
        ) as process:
            if situation == "idle":
                assert process.stdin is not None
                process.stdin.write(b'{"id":"e0"}\n')
                process.stdin.flush()
            # The good one has what it can get, and with two the other one is in trouble.
            eventually(lambda: len(ids(good)) >= (1 if situation == "idle" else min(count, 5_000)))
            if bad == stalled.url():
                stalled.wait(1)
            pressed = time.monotonic()
            process.send_signal(number)
            out, err = (text.decode() for text in communicate_keeping_stdin(process))
            took = time.monotonic() - pressed
    assert process.returncode == 1
    in_time(took, 1.0)
    assert "Traceback" not in err
    assert "interrupted at line" in err
    assert account(out, good.url())["delivered"] >= 1
    if situation == "idle":
        assert "not delivered" not in err
    else:
        (missing, offered) = re.findall(rf"not delivered to {bad}: ([\d,]+) of ([\d,]+)", err)[0]
        assert missing == offered
        assert "the first is line 1, id 'e0'" in err


def communicate_keeping_stdin(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Wait for the end; standard input stays open, as a terminal's does."""
    stdin, process.stdin = process.stdin, None
    try:
        return process.communicate(timeout=DEADLINE)
    finally:
        assert stdin is not None
        stdin.close()


def mixed(count: int) -> list[tuple[bytes, list[str]]]:
    """Lines of all kinds, each with the ids of its events."""
    lines = []
    for number in range(1, count + 1):
        if number % 700 == 0:
            lines.append((b'{"cut\n', []))
            continue
        few = 0 if number % 11 == 0 else 3 if number % 500 == 1 else 1
        events = [{"id": f"{number}.{i}"} for i in range(few)]
        line = events[0] if few == 1 else {"events": events} if few else None
        text = json.dumps(line).encode() if line else b""
        lines.append((text + b"\n", [event["id"] for event in events]))
    return lines


@pytest.mark.parametrize("source", ["file", "pipe"])
@pytest.mark.parametrize("first", ["good", "stalled"])
def test_an_interrupted_run_can_be_resumed(first: str, source: str, tmp_path: Path) -> None:
    """Its report, what the receivers got and the rest of the file together are the whole file."""
    lines = mixed(16_000)
    path = tmp_path / "mixed.ndjson"
    path.write_bytes(b"".join(text for text, _ in lines))
    with Receiver() as good, Receiver(default=stall()) as stalled, path.open("rb") as file:
        urls = [good.url(), stalled.url()]
        to = [word for url in (urls if first == "good" else urls[::-1]) for word in ("--to", url)]
        with started(
            *("send", path if source == "file" else "-", *to),
            *("--timeout", LONG, "--give-up-after", "inf"),
            stdin=file,
        ) as process:
            eventually(lambda: len(ids(good)) >= 4_500)
            process.send_signal(signal.SIGINT)
            out, err = (text.decode() for text in process.communicate(timeout=DEADLINE))
        assert process.returncode == 1
        name = "mixed.ndjson" if source == "file" else "standard input"
        ((end,),) = numbers(rf"interrupted at line (#) of {name}", err)
        assert numbers(rf"{name} was not read beyond line (#)", err) == [(end,)]
        read = [ident for _, idents in lines[:end] for ident in idents]

        got = ids(good)
        books = {url: account(out, url) for url in urls}
        for url in urls:
            delivered, accepted = books[url]["delivered"], books[url]["accepted"]
            missing = len(read) - delivered
            text = rf"not delivered to {url}: (#) of (#) events, the first is line (#), id '{{}}'"
            expected = (
                [] if not missing else [(missing, len(read), int(read[delivered].split(".")[0]))]
            )
            assert numbers(text.format(read[delivered] if missing else ""), err) == expected
            never = [] if accepted == len(read) else [(len(read) - accepted,)]
            assert (
                numbers(rf"not delivered to {url}: .*; (#) of them were never accepted", err)
                == never
            )
        # A request that was under way at the end may have arrived.
        assert books[urls[0]]["delivered"] <= len(got) <= books[urls[0]]["delivered"] + 100
        assert books[urls[1]]["delivered"] == 0
        assert max(book["accepted"] for book in books.values()) == len(read)
        assert got == read[: len(got)]
        malformed = numbers(rf"{name}: line (#): ", err)
        assert malformed == [(number,) for number in range(700, end + 1, 700)]
        assert numbers(rf"{name}: (#) malformed lines were not sent", err) == [(len(malformed),)]

        rest = b"".join(text for text, _ in lines[end:])
        assert run("send", "-", "--to", good.url(), stdin=rest).returncode == 1  # malformed ones
        assert ids(good)[len(got) :] == [ident for _, idents in lines[end:] for ident in idents]


@pytest.mark.parametrize(
    ("taken", "line", "events", "malformed"),
    [(0, 0, 0, 0), (1, 301, 1_500, 0), (3, 302, 1_500, 1), (4, 303, 1_501, 1)],
)
def test_what_nobody_took_was_not_read(
    taken: int, line: int, events: int, malformed: int, tmp_path: Path
) -> None:
    """A line of whose events some were taken counts as a whole."""

    def close(block: list[Any]) -> None:
        if len(recorder.blocks) == taken:
            raise fastsinks.SinkClosedError

    recorder = BlockRecorder(close)
    path = write_lines(tmp_path / "f", *numbered(300), {"events": numbered(1_200)})
    path.write_text(path.read_text() + '{"cut\n{"id":"last"}\n')
    display = Display(io.StringIO())
    feeder = Feeder("f", io.FileIO(path), fastsinks.Broadcaster(recorder), display)
    feeder.run()
    assert feeder.error is None
    assert feeder.complete == (taken == 4)
    assert (feeder.lines, feeder.events, feeder.malformed) == (line, events, malformed)
    if taken == 1:
        assert feeder.first_beyond(500) == {"id": "e200"}
    assert feeder.first_beyond(events) is None


def test_an_interrupted_block_reaches_all_who_have_room(
    receiver: Receiver, ten: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()

    class Halfway(fastsinks.Endpoint):
        def write_many(self, events: Any) -> None:
            super().write_many(events)
            gate()

    class Pressed(Display):
        def draw(self, lines: Sequence[str]) -> None:
            gate.wait_entered()
            raise KeyboardInterrupt

    def open_once_waited_for() -> None:
        parked(threading.main_thread())
        gate.open()

    def stop(feeder: Feeder) -> None:
        monkeypatch.setattr(send, "TICK", DEADLINE)
        Task(open_once_waited_for)

    monkeypatch.setattr(Feeder, "stop", stop)
    with Receiver() as other:
        last = Route("last", other.url())
        monkeypatch.setattr(route, "Endpoint", Halfway)
        routes = [Route("first", receiver.url()), last]
        errors = io.StringIO()
        file = io.FileIO(ten)
        assert not Sending("ten", file, routes, Pressed(errors), give_up_after=LONG).run()
        assert ids(receiver) == ids(other) == [f"e{i}" for i in range(10)]
    assert "not delivered" not in errors.getvalue()
