"""Fixtures of every test, and the checks that hold around each of them."""

from __future__ import annotations

import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import Gate, Task, at_length

import fastsinks

WANTED = os.environ.get("FASTSINKS_BACKEND", "") or "c"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="everything in its full length")
    parser.addoption(
        "--count", type=int, default=1, help="run every test so many times, to find flaky ones"
    )
    parser.addoption(
        "--seconds", type=float, help="how long each storm of test_full_and_slow lasts"
    )
    parser.addoption("--exits", type=int, help="end so many programs each way")
    parser.addoption("--forks", type=int, help="fork so often under load")
    parser.addoption(
        "--seed", default=f"{random.randrange(10**6)}", help="repeats the random runs of a seed"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.full:
        os.environ["FASTSINKS_FULL"] = "1"  # for the programs that tests start, too
    for option, length in {
        "seconds": at_length(0.2, 0.6),
        "exits": at_length(4, 20),
        "forks": at_length(50, 500),
    }.items():
        if getattr(config.option, option) is None:
            setattr(config.option, option, length)
    # A shell starts background jobs with Ctrl-C ignored, and so would be every program that a
    # test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if fastsinks.backend != WANTED:
        raise pytest.UsageError(
            f"the backend is {fastsinks.backend!r}, the environment asks for {WANTED!r}"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of what the compiled core alone promises, if this is the twin."""
    if fastsinks.backend == "c":
        return
    more = [item for item in items if item.get_closest_marker("compiled") is not None]
    config.hook.pytest_deselected(items=more)
    items[:] = [item for item in items if item.get_closest_marker("compiled") is None]


def pytest_report_header(config: pytest.Config) -> str:
    return f"fastsinks backend: {fastsinks.backend} ({os.path.dirname(fastsinks.__file__)})"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("once") is None:
        metafunc.fixturenames.append("_backend")
        metafunc.parametrize("_backend", [fastsinks.backend])
    count = metafunc.config.getoption("--count")
    if count > 1:
        metafunc.fixturenames.append("_round")
        metafunc.parametrize("_round", range(count))
    if "storm_seconds" in metafunc.fixturenames:
        seconds = metafunc.config.getoption("--seconds")
        limited = pytest.param(seconds, marks=pytest.mark.timeout(30 + 2 * seconds))
        metafunc.parametrize("storm_seconds", [limited], ids=[f"{seconds:g} s"])


def _ours(thread: threading.Thread) -> bool:
    return isinstance(thread, Task) or not thread.daemon


@pytest.fixture(autouse=True)
def no_leftover_threads() -> Iterator[None]:
    """A test leaves no call running, and nothing that would keep the process alive."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5.0
    for thread in threading.enumerate():
        if thread not in before and _ours(thread):
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"the test left {thread} behind"


@pytest.fixture
def make_gate(no_leftover_threads: None) -> Iterator[Callable[[], Gate]]:
    """Makes gates that are opened at the end, whatever happens to the test."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate())
        return gates[-1]

    yield make
    for gate in gates:
        gate.open()


@pytest.fixture
def on_log() -> Iterator[Callable[[Callable[[logging.LogRecord], object]], None]]:
    """Has a function called with each record of the library's, as a handler of the user's."""
    installed: list[logging.Handler] = []

    def add(function: Callable[[logging.LogRecord], object]) -> None:
        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                function(record)

        installed.append(Handler())
        logging.getLogger("fastsinks").addHandler(installed[-1])

    yield add
    for handler in installed:
        logging.getLogger("fastsinks").removeHandler(handler)


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    return make_gate()
