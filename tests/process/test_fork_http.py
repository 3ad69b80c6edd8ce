"""Fork: a child has connections of its own, however it was forked, and whatever was in flight."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
import trustme
from support import Gate, eventually
from support.gunicorn_server import Gunicorn
from support.monitored import get
from support.processes import program_command, python_environment
from support.receiver import Connection, Receiver, Request, answer, when


def senders(receiver: Receiver) -> dict[int, set[str | None]]:
    """The processes that have used each connection."""
    found: dict[int, set[str | None]] = {}
    for request in receiver.requests:
        found.setdefault(request.connection, set()).add(request.header("X-Process"))
    return found


def check_connections(receiver: Receiver, processes: int) -> None:
    found = senders(receiver)
    assert all(len(users) == 1 for users in found.values()), found
    assert len(found) == processes, found  # and each of them kept the one it had


def test_tls(gate: Gate, tmp_path: Path) -> None:
    """Idle, and with a request under way: the parent's sessions go on, a child makes its own."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Receiver(tls=context) as idle, Receiver(when(gate, answer()), tls=context) as busy:
        process = subprocess.Popen(
            program_command("fork_tls", tmp_path / "ca.pem", idle.url(), busy.url()),
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            gate.wait_entered()
            process.stdin.write("fork\n")
            process.stdin.flush()
            assert process.stdout.readline() == "forked\n"
            gate.open()
        assert process.returncode == 0
        for receiver in idle, busy:
            assert sorted(receiver.events) == ["child"] * 10 + ["parent"] * 2
            check_connections(receiver, 1 + 5)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str, gate: Gate) -> None:
    def keeps_the_parent(connection: Connection, request: Request) -> bool:
        if request.events == ["parent"]:  # which a worker's request may overtake
            gate()
        return answer()(connection, request)

    with Receiver() as idle, Receiver(default=keeps_the_parent) as busy:
        process = subprocess.Popen(
            program_command("pool_http", method, idle.url(), busy.url()),
            env=python_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "forked\n"
            gate.wait_entered()
            gate.open()
            process.communicate("go on\n", timeout=20)
        assert process.returncode == 0
        for receiver in idle, busy:
            events = [f"worker {number}" for number in range(4)]
            assert sorted(receiver.events) == ["parent", *events]
            assert all(len(users) == 1 for users in senders(receiver).values())


@pytest.mark.integration
@pytest.mark.long
@pytest.mark.timeout(60)
def test_gunicorn_that_preloads(
    gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master has a connection, and a request under way, when it forks its workers."""
    with Receiver() as idle, Receiver(when(gate, answer())) as busy:
        monkeypatch.setenv("RECEIVER", idle.url())
        monkeypatch.setenv("BUSY_RECEIVER", busy.url())
        with Gunicorn(tmp_path, "programs.preloaded:app", "--preload") as server:
            gate.wait_entered()
            workers: list[str] = []

            def both() -> bool:
                workers.append(get(server.url).text)
                return len(set(workers)) == 2

            eventually(both, 20)
            gate.open()
        for receiver in idle, busy:
            assert sorted(receiver.events) == ["master"] + ["worker"] * len(workers)
            check_connections(receiver, 1 + 2)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("imported", ["before", "in the worker"])
def test_the_end_of_a_worker_delivers_what_is_pending(method: str, imported: str) -> None:
    """It runs none of the interpreter's exit handlers."""
    with Receiver() as receiver:
        out = subprocess.run(
            program_command("worker_ends", method, imported, receiver.url()),
            env=python_environment(),
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
        assert (out.stderr, out.stdout) == ("", "0 [0, 1, 2]\n")
        assert receiver.events == list(range(100))
