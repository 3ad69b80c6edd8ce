"""What an import does, and when: nothing of the package is imported before a scenario begins."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading


def an_import_starts_nothing() -> None:
    from support import os_threads

    before = os_threads()
    import fastsinks

    fastsinks.Queue(fastsinks.NullSink())
    print(os_threads() - before, threading.active_count())


def logging_is_not_configured() -> None:
    before = list(logging.root.handlers), logging.root.level
    importlib.import_module("fastsinks.monitoring")
    log = logging.getLogger("fastsinks")
    assert (list(logging.root.handlers), logging.root.level) == before
    print([type(handler).__name__ for handler in log.handlers], log.level, log.propagate)


def monitoring_late() -> None:
    from fastsinks import Endpoint

    endpoint = Endpoint("e", os.environ["RECEIVER"])
    importlib.import_module("fastsinks.monitoring")
    endpoint.write_many(range(500))


if __name__ == "__main__":
    kept = globals()[sys.argv[1]](*sys.argv[2:])
