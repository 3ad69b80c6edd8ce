"""PerProcess: one object for each process, whatever the parent's was doing when it forked."""

import threading

from support import run_clean, together

from fastsinks._core.per_process import PerProcess

COMMON = """
import os, sys, threading
from fastsinks._core.per_process import PerProcess
from support import Gate, Task

def in_child(function):
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

"""


def test_the_same_one_for_all_threads():
    mine = PerProcess(threading.Lock)
    assert set(together(*[mine.get] * 8)) == {mine.get()}


def test_a_lock_that_was_held_is_free_in_a_child():
    out = run_clean(
        COMMON
        + """
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
"""
    )
    assert out == "child\nparent\n"


def test_a_childs_threads_agree_on_one():
    """None of them goes on with what another has replaced."""
    run_clean(
        COMMON
        + """
from support import together

many = [PerProcess(threading.Lock) for _ in range(100)]

def child():
    for mine in many:
        assert len(set(together(mine.get, mine.get, mine.get, mine.get))) == 1

in_child(child)
"""
    )


def test_what_was_inherited_is_disowned_once():
    out = run_clean(
        COMMON
        + """
mine = PerProcess(os.getpid, lambda pid: print(pid == parent))
parent = os.getpid()

def child():
    assert mine.get() == mine.get() == os.getpid()

in_child(child)
in_child(child)
assert mine.get() == parent
"""
    )
    assert out == "True\nTrue\n"
