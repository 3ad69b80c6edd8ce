"""On a machine that has been up for years: the monotonic clock counts from its start."""

import shutil
import subprocess

import pytest
from support import python_command, python_environment

YEARS = 3
UNSHARE = ["unshare", "--map-root-user", "--time", "--fork", "--monotonic", str(YEARS * 31557600)]

PROGRAM = """
    import threading, time
    from support import DEADLINE, Gate, Recorder, Task, TimedRecorder
    from fastsinks import Breaker, Channel, Queue, RetryingSink

    assert time.monotonic() > 2 * 365 * 86400

    def idle_cpu():
        before = time.process_time()
        threading.Event().wait(0.3)
        return time.process_time() - before

    dst = TimedRecorder()
    queue = Queue(dst, maxsize=1)
    queue.write("one")
    assert queue.flush(DEADLINE)
    assert idle_cpu() < 0.1, "with nothing to do"

    gate = Gate()
    slow = RetryingSink(Recorder(gate), Breaker(1, 1))
    writers = [Task(slow.write, n).blocked() for n in range(2)]
    full = Queue(Recorder(gate), maxsize=1)
    full.write("stuck")
    writers.append(Task(full.write, "waits for room").blocked())
    channel = Channel()
    writers.append(Task(channel.write, "waits for a reader").blocked())
    assert idle_cpu() < 0.1, "while writers wait"
    assert channel.get(DEADLINE) == "waits for a reader"
    gate.open()
    for writer in writers:
        writer.result()
    full.close(DEADLINE)
    assert full.stats() == (2, 2, 0, 0)
    queue.close(DEADLINE)
    assert 0 < dst.timeouts[0] <= DEADLINE
"""


def test_after_years():
    if shutil.which("unshare") is None:
        pytest.skip("this platform has no unshare, and so no clock of its own for a process")
    probe = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, timeout=10)
    if probe.returncode:
        pytest.skip(f"no time namespace to be had here: {probe.stderr.strip()}")
    done = subprocess.run(
        [*UNSHARE, *python_command(PROGRAM)],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
