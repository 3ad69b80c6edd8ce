"""The demo proves something: it succeeds over bad receivers, and can fail."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support import DEADLINE, eventually
from support.processes import python_environment

import fastsinks
from fastsinks._cli import demo
from fastsinks._cli.demo import Demo, Finding, Plan, Process, Saboteur, examine, make_events
from fastsinks._cli.display import Display

DATA = Path(fastsinks.__file__).parent / "_cli" / "data" / "registry-events.ndjson"


def start_demo(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "fastsinks", "demo", *arguments],
        env=python_environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ports(text: str) -> list[int]:
    return [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/", text)]


def assert_clean(tmp_path: Path, text: str) -> None:
    """No receiver answers any more, and no file is left."""
    used = ports(text)
    assert len(used) == 3
    for port in used:
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", port)) != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
@pytest.mark.long
def test_the_verdict_holds(tmp_path: Path) -> None:
    with start_demo(tmp_path, "--events", "4000", "--seed", "7") as running:
        out, err = running.communicate(timeout=50)
    assert (running.returncode, err) == (0, ""), out
    for name in ("good", "slow", "bad"):
        assert re.search(rf"{name} +4,000 +4,000 +0 ", out), out
        assert re.search(rf"{name} +4,000 of 4,000 events, none out of order", out), out
    assert out.count("bad receiver: killed") == demo.KILLS
    assert "Verdict: every event reached every receiver" in out
    assert_clean(tmp_path, out)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(tmp_path: Path, number: int) -> None:
    with start_demo(tmp_path) as running:
        assert running.stdout is not None
        seen = ""
        while "Now they are delivered" not in seen:
            line = running.stdout.readline()
            assert line, seen
            seen += line
        running.send_signal(number)
        out, err = running.communicate(timeout=DEADLINE)
    assert (running.returncode, err) == (1, ""), out
    assert "no verdict" in out
    assert_clean(tmp_path, seen + out)


@pytest.mark.long
def test_receivers_end_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    with start_demo(tmp_path) as running:
        assert running.stdout is not None
        seen = ""
        while "Now they are delivered" not in seen:
            seen += running.stdout.readline()
        running.kill()
    for port in ports(seen):
        eventually(lambda port=port: refuses(port))


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def test_what_is_not_delivered_in_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEADLINE", 0.0)
    monkeypatch.setattr(demo, "PLANS", (Plan("slow", "is slow", 60.0, 0.0, 0),))
    screen = io.StringIO()
    assert not Demo(300, 1, Display(screen)).run()
    assert "Verdict: FAILED" in screen.getvalue()


def test_what_a_receiver_lost_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answered, so the summary sees no loss; its journal does."""

    def lossy(journal: Path, sent: Sequence[str]) -> Finding:
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(lines[:-1]))
        return examine(journal, sent)

    monkeypatch.setattr(demo, "examine", lossy)
    monkeypatch.setattr(demo, "PLANS", (Plan("good", "is good", 0.0, 0.0, 0),))
    screen = io.StringIO()
    assert not Demo(300, 1, Display(screen)).run()
    assert "299 of 300 events" in screen.getvalue()
    assert "Verdict: FAILED" in screen.getvalue()


@pytest.mark.parametrize(
    ("journal", "finding", "good"),
    [
        ("abc", Finding(3, 0, 0, 0, 0), True),
        ("aabcb", Finding(3, 0, 0, 2, 0), True),
        ("ab", Finding(2, 1, 0, 0, 0), False),
        ("acb", Finding(3, 0, 1, 0, 0), False),
        ("abxc", Finding(3, 0, 0, 0, 1), False),
        ("", Finding(0, 3, 0, 0, 0), False),
    ],
)
def test_examine(journal: str, finding: Finding, good: bool, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text("".join(f"{ident}\n" for ident in journal))
    assert examine(path, "abc") == finding
    assert finding.good is good


def test_events_are_the_recorded_ones_with_ids_of_their_own() -> None:
    recorded = [json.loads(line) for line in DATA.read_text().splitlines()]
    events = list(make_events(250, random.Random(1)))
    assert len({event.id for event in events}) == 250
    assert [event.id for event in make_events(250, random.Random(1))] == [e.id for e in events]
    for index, event in enumerate(events):
        original = recorded[index % len(recorded)]
        assert event.target.digest == original["target"].get("digest", "")
        assert event.timestamp == original["timestamp"]
        assert event.id != original["id"]


# --------------------------------------------------------------------------- a receiver


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(Plan("good", "is good", 0.0, 0.0, 0), tmp_path, 1)
    yield process
    process.close()


def post(process: Process, body: str) -> int:
    request = urllib.request.Request(process.url, body.encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=DEADLINE) as response:
        status: int = response.status
        return status


def envelope(*ids: str) -> str:
    return json.dumps({"events": [{"id": ident} for ident in ids]})


def test_receiver_refuses_until_it_is_started_and_after_it_was_killed(process: Process) -> None:
    port = int(process.url.split(":")[2].split("/")[0])
    assert refuses(port)
    process.start()
    process.wait_until_ready(DEADLINE)
    assert post(process, envelope("a", "b")) == 200
    process.kill()
    assert refuses(port)
    # Half a line, left by a crash, belongs to a request that was never answered: it is removed.
    with open(process.journal, "a") as journal:
        journal.write("ha")
    process.start()
    process.wait_until_ready(DEADLINE)
    assert post(process, envelope("c")) == 200
    assert process.journal.read_text() == "a\nb\nc\n"


@pytest.mark.parametrize("body", ["", "{", "[]", '{"events": [{}]}', '{"events": [1]}'])
def test_receiver_refuses_what_is_no_envelope(process: Process, body: str) -> None:
    process.start()
    process.wait_until_ready(DEADLINE)
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(process, body)
    assert caught.value.code == 400
    caught.value.close()
    assert process.journal.read_text() == ""


def test_saboteur_kills_by_progress_and_restarts(tmp_path: Path) -> None:
    process = Process(Plan("bad", "is killed", 0.0, 0.0, 2), tmp_path, 1)
    try:
        process.start()
        process.wait_until_ready(DEADLINE)
        saboteur = Saboteur(process, 30, random.Random(1))
        assert saboteur.look(9) is None
        assert "killed" in (saboteur.look(10) or "")
        assert not process.running
        eventually(lambda: saboteur.look(10) == "started again")
        assert process.running
        assert saboteur.look(19) is None
        assert "killed" in (saboteur.look(20) or "")
        eventually(lambda: saboteur.look(30) == "started again")
        assert saboteur.look(30) is None
    finally:
        process.close()
