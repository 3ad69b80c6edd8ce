"""Programs that fork with something that each process has of its own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from support import Gate, Task, together

from fastsinks._core.per_process import PerProcess


def in_child(function: Callable[[], object]) -> None:
    pid = os.fork()
    if not pid:
        try:
            function()
            sys.stdout.flush()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def a_lock_that_was_held_is_free_in_a_child() -> None:
    lock = PerProcess(threading.Lock)
    gate = Gate()

    def hold():
        with lock.get():
            gate()

    task = Task(hold)
    gate.wait_entered()

    def child():
        with lock.get():
            print("child")

    in_child(child)
    assert lock.get().locked()
    gate.open()
    task.result()
    with lock.get():
        print("parent")


def a_childs_threads_agree_on_one() -> None:
    many = [PerProcess(threading.Lock) for _ in range(100)]

    def child():
        for mine in many:
            assert len(set(together(mine.get, mine.get, mine.get, mine.get))) == 1

    in_child(child)


def what_was_inherited_is_disowned_once() -> None:
    mine = PerProcess(os.getpid, lambda pid: print(pid == parent))
    parent = os.getpid()

    def child():
        assert mine.get() == mine.get() == os.getpid()

    in_child(child)
    in_child(child)
    assert mine.get() == parent


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
