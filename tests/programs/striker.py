"""Sends SIGUSR1 to its parent, whose id is the argument, at random moments until that has ended."""

from __future__ import annotations

import os
import random
import signal
import sys
import time

target = int(sys.argv[1])
while os.getppid() == target:
    time.sleep(random.random() ** 3 * 0.003)
    os.kill(target, signal.SIGUSR1)
