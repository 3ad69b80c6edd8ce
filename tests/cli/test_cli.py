"""``fastsinks send`` as a user runs it: a process of its own, against real receivers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support import (
    DEADLINE,
)
from support.cli import DATA, account, command, ids, numbered, numbers, run, started, write_lines
from support.processes import python_environment
from support.receiver import Receiver, answer, hang_up


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
