"""The chaos run: a short one holds, one that loses something does not, and the auditor sees all."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from support.processes import run_program

from fastsinks import EndpointMetrics
from fastsinks._cli.demo import Finding
from soak.audit import Claim, Closed, balance, examine, read_journal
from soak.plan import SHARES, schedule
from soak.specs import SPECS
from soak.vitals import GROWTH, Vitals


def soak(*options: str) -> subprocess.CompletedProcess[str]:
    """Three seconds of it."""
    return run_program("short_soak", *options, timeout=100)


@pytest.mark.timeout(120)
@pytest.mark.long
def test_it_holds() -> None:
    done = soak()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "seed 11, 3 s" in done.stdout
    assert "Verdict: every event is accounted for" in done.stdout
    for deed in ("killed", "frozen", "a new endpoint", "a child is forked"):
        assert deed in done.stdout
    for spec in SPECS:
        assert re.search(rf"^{spec.name} +\d", done.stdout, re.MULTILINE)


@pytest.mark.timeout(120)
@pytest.mark.long
def test_it_does_not() -> None:
    """A library that sends one block without its last event, and another in reverse."""
    done = soak("careless")
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    wrong = re.findall(r"^wrong: (.*)$", done.stdout, re.MULTILINE)
    finding = r"line plain: Finding\(received=\d+, missing=[1-9]\d*, disordered=[1-9]\d*, "
    assert all(text.startswith("line plain: ") for text in wrong), done.stdout
    assert re.match(finding, wrong[-1]), done.stdout
    assert "Verdict: FAILED" in done.stdout


def test_the_seed_decides_what_happens_when() -> None:
    assert schedule(1, 60.0) == schedule(1, 60.0)
    assert schedule(1, 60.0) != schedule(2, 60.0)
    for seconds in (3.0, 60.0):
        deeds = schedule(1, seconds)
        assert {deed.kind for deed in deeds} == {"kill", "freeze", "remake", "fork"}
        assert {deed.whom for deed in deeds} == {*SHARES, *(spec.name for spec in SPECS)}
        assert all(0 < deed.at < seconds for deed in deeds)


WRITTEN = {"w:0", "w:1", "w:2", "x:0"}


@pytest.mark.parametrize(
    ("requests", "options", "finding"),
    [
        (["w:0 w:1", "x:0", "w:2"], {}, Finding(4, 0, 0, 0, 0)),
        (["w:0 w:1", "x:0"], {}, Finding(3, 1, 0, 0, 0)),
        (["w:0 w:1", "x:0"], {"buried": ["w:2"]}, Finding(3, 0, 0, 0, 0)),
        (["w:0 w:1", "x:0"], {"undelivered": ["w:2"]}, Finding(3, 0, 0, 0, 0)),
        (["w:0 w:1 w:2", "w:0 w:1 w:2", "x:0"], {}, Finding(4, 0, 0, 3, 0)),
        (["w:1", "w:0", "w:2 x:0"], {}, Finding(4, 0, 1, 0, 0)),
        (["w:1", "w:0", "w:2 x:0"], {"buried": ["w:0"]}, Finding(4, 0, 0, 0, 0)),
        (["w:1", "w:0", "w:2 x:0"], {"concurrency": 2}, Finding(4, 0, 0, 0, 0)),
        (["w:1 w:0", "w:2 x:0"], {"concurrency": 2}, Finding(4, 0, 1, 0, 0)),
        (["w:0 w:1 w:2", "x:0 x:1"], {}, Finding(4, 0, 0, 0, 1)),
        ([], {}, Finding(0, 4, 0, 0, 0)),
    ],
)
def test_what_the_auditor_finds(
    requests: list[str], options: dict[str, Any], finding: Finding
) -> None:
    claim = Claim(WRITTEN, **options)
    assert examine(claim, [("e.1", ids.split()) for ids in requests]) == finding


def test_each_endpoint_has_an_order_of_its_own() -> None:
    assert examine(Claim(WRITTEN), [("e.2", ["w:2", "x:0"]), ("e.1", ["w:0", "w:1"])]).good


def term(
    events: int, successes: int, dropped: int = 0, pending: int = 0, undelivered: str = ""
) -> Closed:
    metrics = EndpointMetrics(pending, events, successes, 0, 0, dropped, 0, {})
    return Closed(metrics, undelivered.split())


@pytest.mark.parametrize(
    ("terms", "options", "complaint"),
    [
        ([term(3, 3), term(1, 1)], {}, ""),
        ([term(3, 3), term(1, 1)], {"children": {"w:0"}}, "3 events were written, 4 accepted"),
        ([term(3, 3)], {"children": {"w:0"}}, ""),
        ([term(3, 3)], {}, "4 events were written, 3 accepted"),
        ([term(5, 5)], {"doubled": True}, ""),
        ([term(4, 3, pending=1)], {}, "closed with 1 pending"),
        ([term(4, 3)], {}, "4 accepted, 3 delivered, 0 dropped"),
        ([term(4, 5)], {"slack": 1}, "4 accepted, 5 delivered, 0 dropped"),
        ([term(4, 3, 1)], {"buried": ["w:2"]}, "1 lost"),
        ([term(4, 3, 1)], {"buried": ["w:2"], "may_lose": True}, ""),
        ([term(4, 3, 1)], {"may_lose": True}, "1 dropped, 0 in the dead letter"),
        (
            [term(4, 3, 2, undelivered="w:2")],
            {"buried": ["w:2", "w:1"], "may_lose": True, "slack": 1},
            "",
        ),
        (
            [term(4, 3, 2, undelivered="w:2")],
            {"buried": ["w:2", "w:2"], "may_lose": True, "slack": 1},
            "1 buried twice",
        ),
        (
            [term(4, 3, 1, undelivered="w:2")],
            {"buried": ["w:1"], "may_lose": True},
            "w:2 came back",
        ),
        ([term(4, 4)], {"undelivered": ["w:2"]}, "1 lost"),
    ],
)
def test_what_the_books_tell(terms: list[Closed], options: dict[str, Any], complaint: str) -> None:
    wrong = balance(Claim(WRITTEN, terms=terms, **options))
    assert [complaint in text for text in wrong] == ([True] if complaint else [])


def test_a_journal_is_read_by_line() -> None:
    requests, complaints = read_journal(["e.1 a b\n", "! e: ValueError\n", "f.1 c\n", "e.2 d\n"])
    assert requests["e"] == [("e.1", ["a", "b"]), ("e.2", ["d"])]
    assert requests["f"] == [("f.1", ["c"])]
    assert complaints == {"e: ValueError": 1}


def test_what_a_process_has_to_give_back() -> None:
    before = Vitals(1, 6, 30.0)
    assert Vitals(1, 6, 30.0 + GROWTH).compare(before) == []
    assert len(Vitals(2, 7, 31.0 + GROWTH).compare(before)) == 3
