"""Programs that end at a random moment of their deliveries: `--exits 300`, or `make exits`.

What a run does follows from its seed, which is in the message of a failure: ten events or two
hundred, a receiver that is quick, slow, broken for a while or for good, more writers that go on
or wait for room. Pending events arrive, once each, or are reported; whatever the end.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.processes import program_command, python_environment
from support.receiver import Behaviour, Connection, Receiver, Request, head

AT_A_TIME = 4
BATCH = 20  # events in a request, at most

WAYS = {
    "end": 0,
    "sys.exit": 3,
    "exception": 1,
    "handled signal": 7,
    "signal": -signal.SIGTERM,
}

LOST = re.compile(r"endpoint 'hook': (\d+) events were not delivered before the process ended")
EXPECTED = [
    LOST,
    re.compile(r"endpoint 'hook'(, request \d)?: dropped an event: str \(.*closed.*\)"),
]
TRACEBACK = re.compile(
    r"Traceback \(most recent call last\):\n(  .*\n)+ZeroDivisionError: on purpose\n"
)


class Run:
    """One program and its receiver, as its seed has it."""

    def __init__(self, way: str, seed: str) -> None:
        self.way = way
        self.seed = seed
        self.random = chance = random.Random(f"{seed} {way}")
        self.acknowledged: list[str] = []
        self.answers = 0
        self.receiver_is = chance.choice(["quick", "slow", "broken at first", "stuck"])
        self.good_for = chance.randrange(5)  # requests before it gets stuck
        self.failures = chance.randrange(1, 4)  # requests that it refuses at first
        self.delay = chance.random() ** 2 * 0.1
        self.writers = chance.choice([0, 0, 1, 2])
        self.options: dict[str, Any] = {
            "way": way,
            "batch": BATCH,
            "events": chance.choice([0, 1, 10, 50, 200]),
            "pause": chance.choice([0.0, 0.001]),
            "linger": chance.choice([0.0, 0.01, 3600.0]),
            "concurrency": chance.choice([1, 1, 3]),
            "backoff": chance.choice([0.001, 0.05]),
            "writers": self.writers,
            "maxsize": 5 if self.writers and chance.random() < 0.5 else 0,
            "close_timeout": 0.3 if self.receiver_is == "stuck" else 20.0,
            "delay": self.delay,
        }
        if sys.version_info[:2] == (3, 12) and self.receiver_is == "stuck":
            # No thread starts at its exit: requests that get stuck take each other's time.
            self.options["concurrency"] = 1
        self._lock = threading.Lock()

    def behaviour(self, connection: Connection, request: Request) -> bool:
        with self._lock:
            self.answers += 1
            number = self.answers
            pause = self.random.random() * 0.02
        if self.receiver_is == "stuck" and number > self.good_for:
            while connection.sock.recv(65536):
                pass
            return False
        if self.receiver_is == "slow":
            connection.receiver.closing.wait(pause)
        if self.receiver_is == "broken at first" and number <= self.failures:
            connection.send(head(503, "Content-Length: 0"))
            return True
        with self._lock:
            self.acknowledged += request.events
        connection.send(head(200, "Content-Length: 0"))
        return True

    def run(self) -> None:
        behaviour: Behaviour = self.behaviour
        with Receiver(default=behaviour) as receiver:
            process = subprocess.Popen(
                program_command("random_end", json.dumps(self.options | {"url": receiver.url()})),
                env=python_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
            with process:
                assert process.stdout is not None
                first = b""
                if "signal" in self.way:
                    while not first.endswith(b"ready\n"):  # writers may be ahead
                        line = process.stdout.readline()
                        assert line, process.communicate()
                        first += line
                    time.sleep(self.delay)  # the moment is random: nothing is waited for
                    process.terminate()
                try:
                    out, err = process.communicate(timeout=40)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    raise
        self.check(process.returncode, (first + out).decode(), err.decode())

    def check(self, status: int, out: str, err: str) -> None:
        if status != WAYS[self.way]:
            raise AssertionError(f"it ended with {status}:\n{err}")
        lines = out.splitlines()
        if out and not out.endswith("\n"):
            lines.pop()
        accepted = {line[9:] for line in lines if line.startswith("accepted ")}
        # A writer that was stopped in between has not said what was its last.
        last = {line.split()[1]: -1 for line in lines if line.startswith("accepted ")}
        for name, n in (event.split() for event in accepted):
            last[name] = max(last[name], int(n))
        names = ["main", *(f"writer{n}" for n in range(self.writers))]
        unsaid = {f"{name} {last.get(name, -1) + 1}" for name in names}
        arrived = self.acknowledged
        assert len(set(arrived)) == len(arrived), "an event arrived twice"
        assert set(arrived) <= accepted | unsaid
        if self.way == "signal":
            assert err == ""  # the system ends the process at once
            return
        queued = [line[7:] for line in lines if line.startswith("queued ")]
        handed = [line[4:] for line in lines if line.startswith("out ")]
        assert handed[: len(queued)] == queued
        assert len(handed) <= len(queued) + 1
        if self.way == "exception":
            traceback = TRACEBACK.match(err)
            assert traceback, err
            err = err[traceback.end() :]
        lost = 0
        for line in err.splitlines():
            assert any(expected.fullmatch(line) for expected in EXPECTED), err
            found = LOST.fullmatch(line)
            if found:
                lost += int(found[1])
        if self.receiver_is == "stuck":
            missing = len(accepted - set(arrived))
            # What is interrupted counts as lost, and an answer may have been on its way.
            cut_off = self.options["concurrency"] * BATCH
            unknown = len(unsaid - set(arrived)) + cut_off
            assert missing <= lost <= missing + unknown, (missing, lost)
        else:
            assert err == ""
            assert accepted <= set(arrived), accepted - set(arrived)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("way", WAYS)
def test_exits(way: str, request: pytest.FixtureRequest) -> None:
    count, seed = request.config.getoption("--exits"), request.config.getoption("--seed")

    def one(number: int) -> str | None:
        run = Run(way, f"{seed}/{number}")
        try:
            run.run()
        except Exception as error:
            shown = {**run.options, "receiver": run.receiver_is, "good_for": run.good_for}
            return f"--seed {run.seed} {shown}: {type(error).__name__}: {error}"
        return None

    numbers: Any = range(count)
    if "/" in str(seed):  # that of one run
        seed, _, number = seed.partition("/")
        numbers = [number] * count
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        failures = [failure for failure in pool.map(one, numbers) if failure]
    assert not failures, f"{len(failures)} of {count}:\n" + "\n".join(failures[:5])
