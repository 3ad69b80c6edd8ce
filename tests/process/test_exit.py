"""The end of the program: what is pending is delivered, and nothing hangs or is printed."""

import time

import pytest
from support import at_length
from support.processes import check_program, run_program

LINES = [str(number) for number in range(200)]


class TestPending:
    @pytest.mark.parametrize("pause", [0.0, 0.002])
    def test_at_the_end_of_the_program(self, pause):
        out = check_program("ends", "at_the_end_of_the_program", pause)
        assert out.split() == LINES

    def test_in_a_function_that_forgot_its_queue(self):
        out = check_program("ends", "in_a_function_that_forgot_its_queue")
        assert out.split() == LINES

    @pytest.mark.parametrize(
        ("end", "status"),
        [("", 0), ("3", 3), ("exception", 1)],
        ids=["sys.exit()", "sys.exit(3)", "raise ZeroDivisionError"],
    )
    def test_whatever_the_end(self, end, status):
        done = run_program("ends", "whatever_the_end", end)
        assert done.returncode == status
        assert done.stdout.split() == LINES
        assert ("ZeroDivisionError" in done.stderr) == (status == 1)
        assert "Fatal" not in done.stderr
        assert "fastsinks" not in done.stderr

    def test_in_many_queues(self):
        out = check_program("ends", "in_many_queues")
        assert sorted(out.split()) == ["1"] * 100 + ["2"] * 100

    def test_behind_one_another(self):
        out = check_program("ends", "behind_one_another")
        assert out.split() == LINES

    def test_in_a_block_that_is_waited_for(self):
        out = check_program("ends", "in_a_block_that_is_waited_for")
        assert out == "[0, 1, 2]\n"

    def test_on_a_dispatcher_of_its_own(self):
        out = check_program("ends", "on_a_dispatcher_of_its_own")
        assert out.split() == LINES

    def test_when_no_worker_was_ever_needed_before(self):
        """Written by an atexit handler, after the last moment at which a thread can start."""
        out = check_program("ends", "when_no_worker_was_ever_needed_before")
        assert out.split() == LINES

    def test_after_a_retry(self):
        out = check_program("ends", "after_a_retry")
        assert out.split() == LINES


class TestHopeless:
    """What cannot be delivered does not keep the program, and is reported."""

    @pytest.fixture(autouse=True)
    def _at_length(self, monkeypatch):
        monkeypatch.setenv("FASTSINKS_EXIT_TIMEOUT", str(at_length(0.5, 5)))

    def test_a_receiver_that_never_recovers(self):
        began = time.monotonic()
        done = run_program("ends", "a_receiver_that_never_recovers")
        assert time.monotonic() - began < 12
        assert done.returncode == 0
        assert done.stdout == ""
        assert "queue" in done.stderr
        assert "secret" not in done.stderr
        assert "Traceback" not in done.stderr
        assert "Fatal" not in done.stderr

    def test_a_destination_that_never_returns(self):
        done = run_program("ends", "a_destination_that_never_returns")
        assert done.returncode == 0
        assert "Fatal" not in done.stderr
        assert "secret" not in done.stderr


class TestNothingIsLeftBehind:
    def test_an_import_starts_nothing(self):
        out = check_program("imports", "an_import_starts_nothing")
        assert out == "0 1\n"

    def test_threads_that_wait_for_ever(self):
        assert check_program("ends", "threads_that_wait_for_ever") == ""

    def test_writers_that_go_on(self):
        """Daemon threads write while the interpreter goes down; again and again, no crash."""
        for _ in range(at_length(1, 5)):
            done = run_program("ends", "writers_that_go_on")
            assert (done.returncode, done.stderr) == (0, "")

    def test_objects_that_outlive_the_package(self):
        assert check_program("ends", "objects_that_outlive_the_package") == ""

    def test_a_sink_that_writes_as_it_is_finalised(self):
        assert check_program("ends", "a_sink_that_writes_as_it_is_finalised") == ""
