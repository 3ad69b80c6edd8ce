"""What waits does nothing, on a machine that has been up for years."""

from __future__ import annotations

import threading
import time

from support import DEADLINE, Gate, Recorder, Task, TimedRecorder

from fastsinks import Breaker, Channel, Queue, RetryingSink

assert time.monotonic() > 2 * 365 * 86400


def idle_cpu() -> float:
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
(timeout,) = dst.timeouts
assert timeout is not None
assert 0 < timeout <= DEADLINE
