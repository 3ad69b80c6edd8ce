"""Forks, when it is told to, with a TLS connection idle and with a request under way on another."""

from __future__ import annotations

import faulthandler
import os
import ssl
import sys
import warnings

from fastsinks import Endpoint

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking with threads
ca, idle_url, busy_url = sys.argv[1:]


def endpoint(name: str, url: str) -> Endpoint:
    return Endpoint(
        name,
        url,
        timeout=60,
        close_timeout=20,
        ssl_context=ssl.create_default_context(cafile=ca),
        signer=lambda body: {"X-Process": str(os.getpid())},
    )


idle, busy = endpoint("idle", idle_url), endpoint("busy", busy_url)
idle.write("parent")
assert idle.flush(10)
busy.write("parent")
print("ready", flush=True)
sys.stdin.readline()
children = []
for _ in range(5):
    pid = os.fork()
    if not pid:
        status = 1
        faulthandler.dump_traceback_later(10, exit=True)
        try:
            for sink in idle, busy:
                sink.write("child")
                assert sink.flush(10)
                sink.write("child")
                sink.close(10)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        os._exit(status)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
print("forked", flush=True)
for sink in idle, busy:
    sink.write("parent")
    assert sink.flush(10)
