"""The contenders, and the processes that they run in."""

from __future__ import annotations

import functools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "bench"
GOPATH = Path(os.environ.get("GOPATH", "/usr/share/gocode"))
GO_EVENTS = "github.com/docker/go-events"
GO_PACKAGES = (GO_EVENTS, "github.com/sirupsen/logrus")
DEBIAN = "golang-go golang-github-docker-go-events-dev golang-github-sirupsen-logrus-dev"

ANSWER_WITHIN = 120.0  #: seconds for one round, far more than any of them takes


@dataclass(frozen=True)
class Contender:
    """A line of a table. Contenders with equal ``process`` share one (they never overlap)."""

    label: str
    process: str  # a key of COMMANDS
    module: str = ""  # of bench.peers: where its loads are
    options: tuple[tuple[str, Any], ...] = ()  # of each of its loads

    def __str__(self) -> str:
        return self.label


WORKER = (sys.executable, "-m", "bench.peers.worker")
COMMANDS: dict[str, tuple[str, ...]] = {
    "fastsinks": WORKER,
    "twin": WORKER,
    "others": WORKER,
    "go": (str(BUILD / "go-peer"), str(BUILD / "go-events.test")),
}
BACKENDS = {"fastsinks": "c", "twin": "python", "others": "c"}

FASTSINKS = Contender("fastsinks", "fastsinks", "ours")
TWIN = Contender("fastsinks, pure Python", "twin", "ours")
SIMPLE_QUEUE = Contender("SimpleQueue + thread", "others", "stdlib", (("kind", "SimpleQueue"),))
QUEUE = Contender("queue.Queue + thread", "others", "stdlib", (("kind", "Queue"),))
LOGGING = Contender("QueueHandler, QueueListener", "others", "stdlib", (("kind", "logging"),))
LOOP = Contender("a Python loop", "others", "stdlib")
PROMETHEUS = Contender("prometheus-client", "others", "stdlib", (("kind", "prometheus"),))
URLLIB3 = Contender("urllib3", "others", "imports")
GO = Contender("go-events", "go")


class ContenderError(Exception):
    """A contender's process reported a failed round, or does not answer."""


def missing(process: str) -> str | None:
    """What a process would need that this machine does not have."""
    if process != "go":
        return None
    if shutil.which("go") is None:
        return f"Go is not installed (Debian, Ubuntu: apt install {DEBIAN})"
    for package in GO_PACKAGES:
        if not (GOPATH / "src" / package).is_dir():
            return f"{package} is not in {GOPATH} (Debian, Ubuntu: apt install {DEBIAN})"
    return None


@functools.cache
def build(process: str) -> None:
    """Compile the program of a process, if it has one. Raises an error if that fails."""
    if process != "go":
        return
    peer, benchmark = COMMANDS["go"]
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH)}
    BUILD.mkdir(parents=True, exist_ok=True)
    for command in (
        ("go", "build", "-o", peer, "./bench/peers/go"),
        ("go", "test", "-c", "-o", benchmark, GO_EVENTS),
    ):
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)


@dataclass
class Process:
    """One running contender process, asked one thing at a time."""

    key: str
    _buffer: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        environment = dict(os.environ)
        if self.key in BACKENDS:
            environment["FASTSINKS_BACKEND"] = BACKENDS[self.key]
            environment["PYTHONPATH"] = str(ROOT)
        self._popen = subprocess.Popen(
            COMMANDS[self.key],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def open(self, name: str, load: str, options: Mapping[str, Any]) -> None:
        self._ask({"do": "open", "name": name, "load": load, "options": dict(options)})

    def round(self, name: str, events: int) -> list[float]:
        """What the load has measured, in nanoseconds."""
        return self._ask({"do": "round", "name": name, "events": events})

    def close(self, name: str) -> None:
        self._ask({"do": "close", "name": name})

    def end(self) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()  # it ends with its standard input
        try:
            self._popen.wait(10)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._popen.stdout.close()

    def _ask(self, request: dict[str, Any]) -> list[float]:
        assert self._popen.stdin is not None
        try:
            self._popen.stdin.write(json.dumps(request).encode() + b"\n")
            answer = json.loads(self._line(time.monotonic() + ANSWER_WITHIN))
        except (OSError, ValueError) as error:
            raise ContenderError(f"{self.key}: {request}: {error}") from None
        if answer.get("error"):
            raise ContenderError(f"{self.key}: {request}: {answer['error']}")
        return answer.get("values") or []

    def _line(self, deadline: float) -> bytes:
        assert self._popen.stdout is not None
        while b"\n" not in self._buffer:
            # Sleeps while the round runs, and so takes no processor time from it.
            if not select.select([self._popen.stdout], [], [], deadline - time.monotonic())[0]:
                raise OSError(f"no answer within {ANSWER_WITHIN} s")
            data = os.read(self._popen.stdout.fileno(), 65536)
            if not data:
                raise OSError("it has ended")
            self._buffer += data
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return bytes(line)
