"""Fork: the child delivers none of its parent's events and has queues that work at once."""

import pytest
from support.processes import check_program


def test_pending_events_stay_with_the_parent():
    out = check_program("forks", "pending_events_stay_with_the_parent")
    assert out == "True 0\nTrue 1\nTrue 2\n"


def test_the_child_can_use_the_queue_at_once():
    out = check_program("forks", "the_child_can_use_the_queue_at_once")
    assert out == "child\nparent\n"


def test_the_child_can_close_at_once():
    out = check_program("forks", "the_child_can_close_at_once")
    assert out == "['one'] 1\n"


def test_a_fork_of_an_idle_process():
    out = check_program("forks", "a_fork_of_an_idle_process")
    assert out == "['before', 'in the child']\n['before', 'after']\n"


def test_what_waits_in_the_parent_does_not_wait_in_the_child():
    """Locks, turns and waiting calls of other threads stay behind."""
    out = check_program("forks", "what_waits_in_the_parent_does_not_wait_in_the_child")
    assert out == "child\nparent\n"


def test_forks_while_writers_write():
    """A lock may be held at the moment of the fork, by a thread that the child does not have."""
    out = check_program("forks", "forks_while_writers_write")
    assert out == "done\n"


def test_a_child_that_ends_in_the_usual_way_delivers_what_is_its_own():
    out = check_program("forks", "a_child_that_ends_in_the_usual_way_delivers_what_is_its_own")
    assert sorted(out.splitlines()) == ["first in the parent", "second in the child"]


def test_a_grandchild():
    out = check_program("forks", "a_grandchild")
    assert out == "['parent']\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method):
    """A worker process makes use of the library, as its parent does."""
    assert check_program("pool", method) == "[1, 2, 3, 4] 10\n"


def test_the_childs_queues_need_their_own_threads_only():
    out = check_program("forks", "the_childs_queues_need_their_own_threads_only")
    assert out == "done\n"


def test_what_threads_of_the_parent_were_counting():
    """They are not in the child, where the locks that they held at the fork are free."""
    out = check_program("forks", "what_threads_of_the_parent_were_counting")
    assert out == "parent\n"


def test_what_is_being_accounted_for_is_not_waited_for():
    """Another thread tells a listener of an event that is delivered, and is not in the child."""
    out = check_program("forks", "what_is_being_accounted_for_is_not_waited_for")
    assert out == "child\nparent\n"


def test_what_a_channel_holds_stays_with_the_parent():
    out = check_program("forks", "what_a_channel_holds_stays_with_the_parent")
    assert out == "one two\n"


def test_a_thread_of_the_childs_is_not_taken_for_one_of_the_parents():
    """A thread of the parent's was in the middle of a write, and may have had the same identity."""
    out = check_program("forks", "a_thread_of_the_childs_is_not_taken_for_one_of_the_parents")
    assert out == "child\nchild\n"


@pytest.mark.once
def test_a_module_that_is_loaded_after_the_fork():
    """It has not seen the fork, and yet takes no lock of the child's for one of the parent's."""
    # The other backend loads none of them.
    out = check_program("forks", "a_module_that_is_loaded_after_the_fork", backend="python")
    assert out == "child\n"


def test_a_closed_dispatcher_is_closed_in_the_child():
    out = check_program("forks", "a_closed_dispatcher_is_closed_in_the_child")
    assert out == "refused\n"


def test_a_fork_that_runs_none_of_pythons_hooks():
    """C code that makes worker processes forks with the GIL and calls back in the child."""
    out = check_program("forks", "a_fork_that_runs_none_of_pythons_hooks")
    assert out == "child\n" * 20 + "parent\n"


@pytest.mark.parametrize(
    "where",
    ["write", "close", "ingress", "egress", "match", "strategy", "dead letter", "log", "del"],
)
def test_code_that_a_sink_calls_may_fork(where):
    """On whatever thread it is called: the child has queues that work, the parent goes on."""
    out = check_program("forks", "code_that_a_sink_calls_may_fork", where)
    lost = where in ("dead letter", "log")
    assert out == str(["parent"] * (1 if lost else 2)) + "\n"
