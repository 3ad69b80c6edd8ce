"""A program that a signal interrupts in the call that its argument names."""

from __future__ import annotations

import sys
from collections.abc import Callable

from support import Fails, Gate, Recorder, Waits

import fastsinks

gate = Gate()
full = fastsinks.Queue(Recorder(gate), maxsize=1)
full.write("one")
gate.wait_entered()
channel = fastsinks.Channel()
retrying = fastsinks.RetryingSink(Recorder(Fails()), Waits())
calls: dict[str, Callable[[], object]] = {
    "write": lambda: full.write("two"),
    "flush": full.flush,
    "close": full.close,
    "get": channel.get,
    "retry": lambda: retrying.write("one"),
}
print("ready", flush=True)
try:
    calls[sys.argv[1]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
gate.open()
full.close()
