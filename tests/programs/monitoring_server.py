"""Programs with a monitoring server."""

from __future__ import annotations

import os
import socket
import sys
import warnings

from support.monitored import get

from fastsinks import monitoring


def a_server_does_not_keep_the_process_alive() -> None:
    server = monitoring.serve(port=0)
    print(get(server.url + "/healthz").text, end="")


def a_child_lets_go_of_the_port() -> None:
    warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads
    server = monitoring.serve(port=0)
    port = int(server.url.rpartition(":")[2])
    closed, tell_closed = os.pipe()
    free, tell_free = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(tell_free)  # whatever ends the parent is the end of the child
        assert server.closed
        server.close()
        os.write(tell_closed, b"x")
        os.read(free, 1)
        os._exit(0)
    os.close(tell_closed)
    os.read(closed, 1)
    server.close()
    socket.create_server(("127.0.0.1", port), reuse_port=False).close()
    os.write(tell_free, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    print("free")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
