"""On a machine that has been up for years: the monotonic clock counts from its start."""

import shutil
import subprocess

import pytest
from support.processes import program_command, python_environment

YEARS = 3
UNSHARE = ["unshare", "--map-root-user", "--time", "--fork", "--monotonic", str(YEARS * 31557600)]


def test_after_years():
    if shutil.which("unshare") is None:
        pytest.skip("this platform has no unshare, and so no clock of its own for a process")
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        pytest.skip(f"no time namespace to be had here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*UNSHARE, *program_command("uptime")],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
