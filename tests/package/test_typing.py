"""The types that users see: a strict program over all of them, and the stubs against the core."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastsinks

pytestmark = [pytest.mark.once, pytest.mark.timeout(180)]

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = Path(__file__).with_name("typing_sample.py")


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.long
def test_a_strict_program_and_the_package_itself() -> None:
    assert "no issues found" in run("mypy", "--strict", ROOT / "fastsinks", SAMPLE)


def test_the_sample_uses_every_public_name() -> None:
    words = set(re.findall(r"\w+", SAMPLE.read_text()))
    assert set(fastsinks.__all__) - words == set()


@pytest.mark.long
def test_the_stubs_agree_with_what_is_there() -> None:
    allowed = ROOT / "tests" / "stubtest-allowlist.txt"
    assert "no issues found" in run("mypy.stubtest", "fastsinks", "--allowlist", allowed)
