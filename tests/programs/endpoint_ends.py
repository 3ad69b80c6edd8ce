"""Programs that end, or fork, with endpoints open: the first argument says how."""

from __future__ import annotations

import os
import signal
import sys
import warnings

from fastsinks.endpoint import Endpoint, open_endpoints

warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking with threads


def what_is_pending(first_url: str, second_url: str) -> None:
    first = Endpoint("first", first_url, linger=3600)
    for i in range(500):
        first.write(i)
    Endpoint("second", second_url, ignore_actions=["pull"]).write("kept")


def the_first_request(url: str) -> None:
    Endpoint("e", url, linger=3600).write("event")


def nobody_lingers(stuck: str, good: str) -> None:
    Endpoint("stuck", stuck, timeout=60, close_timeout=0.5).write("lost")
    Endpoint("lingering", good, linger=3600, close_timeout=0.5).write("kept")


def closed_ones() -> None:
    with Endpoint("e", "http://127.0.0.1:1/"):
        pass
    assert open_endpoints() == ()


def a_child(url: str, close: str) -> None:
    signal.alarm(15)

    endpoint = Endpoint("e", url, timeout=10)
    endpoint.write("parent 1")
    assert endpoint.flush(10)
    endpoint.write_many(["parent 2"] * 50)
    child = os.fork()
    if not child:
        assert open_endpoints() == (endpoint,)
        endpoint.write("child")
        if close == "True":
            endpoint.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    endpoint.write("parent 3")
    endpoint.close()
    print("done")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
