"""A receiver's process, as the run that torments it sees it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from support.processes import python_environment

from fastsinks._cli.demo import Plan, Process


class Victim(Process):
    """Can also be frozen, and in the end be calm: from its next start on it makes no faults."""

    def __init__(self, name: str, share: float, folder: Path, seed: int) -> None:
        super().__init__(Plan(name, "", 0.0, share, 0), folder, seed)
        self._share = share
        self._starts = 0

    def start(self) -> None:
        self._starts += 1  # other faults after each start
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "soak.server"),
                *("--journal", str(self.journal), "--port", str(self._port)),
                *("--seed", f"{self._seed} {self.plan.name} {self._starts}"),
                *("--faults", str(self._share)),
            ],
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us
        )

    def freeze(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def calm(self) -> None:
        """Start anew, to take everything from now on."""
        self.kill()
        self._share = 0.0
        self.start()
