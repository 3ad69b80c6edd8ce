"""``fastsinks send`` as a user runs it: a process of its own, against real receivers."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    python_environment,
)
from support.receiver import Receiver, answer, hang_up, stall

import fastsinks
from fastsinks._cli import ndjson, route, send
from fastsinks._cli.display import Display, bar, printable, summary
from fastsinks._cli.ndjson import parse, split
from fastsinks._cli.route import Route, Row
from fastsinks._cli.send import Feeder, Sending

DATA = Path(fastsinks.__file__).parent / "_cli" / "data" / "registry-events.ndjson"


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "fastsinks", *map(str, arguments)]


def run(*arguments: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments),
        env=python_environment() | {"COLUMNS": "100"} | env,
        input=stdin,
        capture_output=True,
        timeout=20,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@contextmanager
def started(*arguments: str | Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | (
        options
    )
    process = subprocess.Popen(command(*arguments), env=python_environment(), **options)
    with process:
        try:
            yield process
        finally:
            process.kill()


def write_lines(path: Path, *values: Any) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))
    return path


def numbered(count: int) -> list[dict[str, str]]:
    return [{"id": f"e{i}"} for i in range(count)]


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for request in receiver.requests for event in request.events]


def account(output: str, receiver: Receiver | str) -> dict[str, int]:
    """The summary's line of one endpoint, by column."""
    columns, *lines = [line.split() for line in output.splitlines()]
    url = receiver if isinstance(receiver, str) else receiver.url()
    (cells,) = [line for line in lines if line[0] == url]
    return {
        name: int(cell.replace(",", "")) for name, cell in zip(columns[1:], cells[1:], strict=True)
    }


def numbers(pattern: str, output: str) -> list[tuple[int, ...]]:
    """The numbers in the place of each ``(#)``, for each time that it was said."""
    found = re.finditer(pattern.replace("#", r"\d[\d,]*"), output)
    return [tuple(int(text.replace(",", "")) for text in match.groups()) for match in found]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def away() -> Iterator[str]:
    """The URL of a port that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}/"


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "ten.ndjson", *numbered(10))


# ---------------------------------------------------------------------------- delivery


def test_every_event_reaches_every_url_unchanged(receiver: Receiver) -> None:
    events = [json.loads(line) for line in DATA.read_text().splitlines()]
    assert len(events) == 111
    with Receiver() as other:
        done = run("send", DATA, "--to", receiver.url(), "--to", other.url())
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        for each in (receiver, other):
            assert [event for request in each.requests for event in request.events] == events
            line = account(done.stdout, each)
            assert line.pop("events/s") > 0
            assert line == {
                "accepted": 111,
                "delivered": 111,
                "dropped": 0,
                "retries": 0,
                "requests": len(each.requests),
            }


def test_standard_input(receiver: Receiver) -> None:
    done = run("send", "-", "--to", receiver.url(), stdin=b'{"id":"a"}\n{"id":"b"}')
    assert done.returncode == 0
    assert ids(receiver) == ["a", "b"]


def test_events_of_a_pipe_leave_as_they_come(receiver: Receiver) -> None:
    with started("send", "-", "--to", receiver.url()) as process:
        assert process.stdin is not None
        for count in (1, 2):
            process.stdin.write(b'{"id":"%d"}\n' % count)
            process.stdin.flush()
            receiver.wait(count)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    assert ids(receiver) == ["1", "2"]


def test_nothing_to_send_is_all_delivered(receiver: Receiver) -> None:
    assert run("send", "-", "--to", receiver.url()).returncode == 0
    assert receiver.requests == []


def test_envelopes(receiver: Receiver, tmp_path: Path) -> None:
    envelope = {"events": [{"id": "b"}, {"id": "c"}]}
    recorded = {"headers": {"Content-Type": "x"}, "body": json.dumps(envelope, indent=3)}
    lines = [{"id": "a"}, envelope, {"events": None}, recorded, {"id": "d", "events": []}]
    done = run("send", write_lines(tmp_path / "f", *lines), "--to", receiver.url())
    assert done.returncode == 0, done.stderr
    assert ids(receiver) == ["a", "b", "c", "b", "c", "d"]
    assert account(done.stdout, receiver)["accepted"] == 6


def test_options_reach_the_request(receiver: Receiver, ten: Path) -> None:
    done = run(
        *("send", ten, "--to", receiver.url(), "--batch-size", "4"),
        *("--header", "X-One: 1", "--header", "x-two:a", "--header", "X-Two: b"),
    )
    assert done.returncode == 0, done.stderr
    assert [len(request.events) for request in receiver.requests[-2:]] == [4, 2]
    assert receiver.requests[0].header("X-One") == "1"
    assert receiver.requests[0].all("X-Two") == ["a", "b"]


def test_a_failure_is_retried_and_said(ten: Path) -> None:
    with Receiver(answer(503), hang_up) as receiver:
        done = run("send", ten, "--to", receiver.url())
        assert done.returncode == 0, done.stderr
        line = account(done.stdout, receiver)
    assert line["delivered"] == 10
    assert line["retries"] > 0
    assert line["requests"] == len(receiver.requests)
    assert "503" in done.stderr
    assert "e0" in done.stderr


def test_quiet(receiver: Receiver, ten: Path) -> None:
    done = run("send", ten, "--to", receiver.url(), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_credentials_are_not_shown(away: str, ten: Path) -> None:
    url = away.replace("http://", "http://user:secret@")
    header = "Authorization: Bearer confidential"
    with Receiver(answer(500)) as receiver:
        more = receiver.url(userinfo="user:secret")
        done = run(
            *("send", ten, "--to", url, "--to", more),
            *("--header", header, "--give-up-after", "0.3"),
        )
        assert receiver.requests[0].header("Authorization") == "Bearer confidential"
    assert done.returncode == 1
    for secret in ("secret", "confidential"):
        assert secret not in done.stdout + done.stderr


# ------------------------------------------------------------------- what is not delivered


def test_malformed_lines_are_named_and_the_rest_is_sent(receiver: Receiver) -> None:
    lines = [
        b'\xef\xbb\xbf{"id":"a"}\r\n',
        b'{"id":\n',
        b"\n",
        b'{"id":"b"}\n',
        b'{"headers":{},"body":"[]"}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
        b'{"id":"c"}\n',
        b'{"cut',
    ]
    done = run("send", "-", "--to", receiver.url(), stdin=b"".join(lines))
    assert done.returncode == 1
    assert ids(receiver) == ["a", "b", "c"]
    named = [int(n) for n in re.findall(r"standard input: line (\d+): ", done.stderr)]
    assert named == [2, 5, 6, 7, 9]
    assert "5 malformed" in done.stderr


def test_an_endpoint_that_is_away_is_given_up(receiver: Receiver, away: str, ten: Path) -> None:
    done = run("send", ten, "--to", away, "--to", receiver.url(), "--give-up-after", "0.3")
    assert done.returncode == 1
    assert ids(receiver) == [f"e{i}" for i in range(10)]
    assert account(done.stdout, receiver)["delivered"] == 10
    line = account(done.stdout, away)
    assert (line["accepted"], line["delivered"], line["dropped"]) == (10, 0, 10)
    assert f"not delivered to {away}: 10 of 10 events, the first is line 1, id 'e0'" in done.stderr
    assert f"not delivered to {receiver.url()}" not in done.stderr


def test_memory_is_bounded_and_what_was_not_read_is_said(away: str, tmp_path: Path) -> None:
    events = write_lines(tmp_path / "many.ndjson", *numbered(20_000))
    done = run("send", events, "--to", away, "--give-up-after", "0.5")
    assert done.returncode == 1
    accepted = account(done.stdout, away)["accepted"]
    assert 4_500 <= accepted <= 5_000
    assert numbers(r"many.ndjson was not read beyond line (#)", done.stderr) == [(accepted,)]
    missing = numbers(
        rf"not delivered to {away}: (#) of (#) events, the first is line 1,", done.stderr
    )
    assert missing == [(accepted, accepted)]


def test_an_event_that_is_always_refused_is_dropped(ten: Path) -> None:
    def refuse_e3(connection: Any, request: Any) -> bool:
        bad = any(event["id"] == "e3" for event in request.events)
        return answer(400 if bad else 200)(connection, request)

    with Receiver(default=refuse_e3) as receiver:
        done = run("send", ten, "--to", receiver.url(), "--max-attempts", "2")
        line = account(done.stdout, receiver)
    assert done.returncode == 1
    assert (line["accepted"], line["delivered"], line["dropped"]) == (10, 9, 1)
    assert "1 of 10 events, the first is line 4, id 'e3'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("situation", ["request", "back-off", "full", "idle"])
@punctual
def test_interrupted(situation: str, number: int, away: str, tmp_path: Path) -> None:
    """It ends within a second whatever it waits for, and says what was not delivered."""
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
    """What its report says and what the receivers got are the whole, with the rest of the file."""
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


# -------------------------------------------------------------------------- bad usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "COMMAND"),
        (["nonsense"], "nonsense"),
        (["send", "{ten}"], "--to"),
        (["send", "{folder}/missing", "--to", "http://localhost"], "missing: No such file"),
        (["send", "{folder}", "--to", "http://localhost"], "Is a directory"),
        (["send", "{ten}", "--to", "ftp://localhost/"], "ftp:"),
        (["send", "{ten}", "--to", "localhost:80"], "http://"),
        (["send", "{ten}", "--to", "http://"], "host"),
        (["send", "{ten}", "--to", "http://a b/"], "spaces"),
        (["send", "{ten}", "--to", "http://localhost:99999/"], "--to"),
        (["send", "{ten}", "--to", "http://localhost", "--header", "X"], "Name: value"),
        (["send", "{ten}", "--to", "http://localhost", "--header", "X: a\nb"], "X"),
        (["send", "{ten}", "--to", "http://localhost", "--timeout", "0"], "--timeout"),
        (["send", "{ten}", "--to", "http://localhost", "--timeout", "nan"], "--timeout"),
        (["send", "{ten}", "--to", "http://localhost", "--timeout", "soon"], "'soon'"),
        (["send", "{ten}", "--to", "http://localhost", "--batch-size", "0"], "--batch-size"),
        (["send", "{ten}", "--to", "http://localhost", "--batch-size", "1.5"], "'1.5'"),
        (["send", "{ten}", "--to", "http://localhost", "--max-attempts", "-1"], "--max-attempts"),
        (["send", "{ten}", "--to", "http://localhost", "--give-up-after", "-1"], "--give-up-after"),
        (["demo", "--events", "0"], "--events"),
    ],
)
def test_bad_usage(arguments: Sequence[str], said: str, ten: Path) -> None:
    words = [
        word.replace("{ten}", str(ten)).replace("{folder}", str(ten.parent)) for word in arguments
    ]
    done = run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert said in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "send"),
        (["send", "--help"], "--give-up-after"),
        (["demo", "--help"], "receivers"),
        (["--version"], "fastsinks 0"),
    ],
)
def test_help(arguments: Sequence[str], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout


def test_a_reader_of_the_output_that_went_away(receiver: Receiver, ten: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with started("send", ten, "--to", receiver.url(), stdout=writing) as process:
        os.close(writing)
        _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert err == b""


@pytest.mark.parametrize("closed", [(1,), (2,), (1, 2)])
def test_started_without_standard_streams(
    closed: Sequence[int], receiver: Receiver, ten: Path
) -> None:
    shut = " ".join(f"{number}>&-" for number in closed)
    words = ["sh", "-c", f'exec "$@" {shut}', "sh", *command("send", ten, "--to", receiver.url())]
    done = subprocess.run(
        words, env=python_environment(), capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (1 not in closed)
    assert ids(receiver) == [f"e{i}" for i in range(10)]


# -------------------------------------------------------------------------- the display


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


# ---------------------------------------------------------------------------- the lines


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
