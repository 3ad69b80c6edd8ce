"""Programs that configure no logging, or very little."""

from __future__ import annotations

import builtins
import logging
import sys

from fastsinks import Endpoint, Queue


def one_logger_silences_everything() -> None:
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fastsinks").setLevel(logging.CRITICAL)
    endpoint = Endpoint("hook", "http://127.0.0.1:9/", close_timeout=0.1)
    endpoint.write_many(range(10))


def what_was_left_at_exit_is_told() -> None:
    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
    logging.getLogger("urllib3").disabled = True
    endpoint = Endpoint("hook", "http://127.0.0.1:9/", close_timeout=0.1)
    endpoint.write_many(range(10))


def a_handler_raises_at_exit(error: str) -> None:
    """Three endpoints before a receiver that is away; the log cannot be written."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise getattr(builtins, error)("disk full")

    class Dead:
        def __init__(self, name: str) -> None:
            self.name = name

        def write(self, event: object) -> None:
            print(self.name, event, flush=True)

        def close(self) -> None:
            pass

    logger = logging.getLogger("fastsinks")
    logger.addHandler(Raises())
    logger.propagate = False
    for name in "abc":
        endpoint = Endpoint(name, "http://127.0.0.1:9/", close_timeout=0.2, dead_letter=Dead(name))
        endpoint.write(name)


def nothing_is_printed_where_logging_is_not_configured() -> None:
    class Bad:
        def write(self, event):
            raise OSError("secret")

        def close(self):
            pass

    with Queue(Bad()) as queue:
        queue.write("secret")
    print(queue.stats().dropped)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
