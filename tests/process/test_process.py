"""PerProcess: one object for each process, whatever the parent's was doing when it forked."""

import threading

from support import together
from support.processes import check_program

from fastsinks._core.per_process import PerProcess


def test_the_same_one_for_all_threads():
    mine = PerProcess(threading.Lock)
    assert set(together(*[mine.get] * 8)) == {mine.get()}


def test_a_lock_that_was_held_is_free_in_a_child():
    out = check_program("per_process", "a_lock_that_was_held_is_free_in_a_child")
    assert out == "child\nparent\n"


def test_a_childs_threads_agree_on_one():
    """None of them uses an object that another thread has replaced."""
    check_program("per_process", "a_childs_threads_agree_on_one")


def test_what_was_inherited_is_disowned_once():
    out = check_program("per_process", "what_was_inherited_is_disowned_once")
    assert out == "True\nTrue\n"
