"""The strategies: how long to wait, when to give up, and on whose clock."""

import gc
import random
import statistics
import threading
import time
import weakref

import pytest
from support import (
    BAD_SECONDS,
    BAD_SIZES,
    LONG,
    Fails,
    Hostile,
    Recorder,
    Task,
    Token,
    at_length,
    eventually,
    together,
)

from fastsinks import Breaker, ExponentialBackoff, RetryingSink, RetryStrategy

ERROR = OSError()


def fail(strategy, times, event="event"):
    return [strategy.failure(event, ERROR) for _ in range(times)]


def makers():
    return [
        pytest.param(lambda **options: Breaker(2, 0.0, **options), id="breaker"),
        pytest.param(lambda **options: ExponentialBackoff(0.0, 0.0, **options), id="backoff"),
    ]


@pytest.fixture(params=makers())
def make(request):
    return request.param


class TestBoth:
    def test_they_are_strategies(self, make):
        assert isinstance(make(), RetryStrategy)

    def test_they_never_drop_unless_told_to(self, make):
        strategy = make()
        assert not any(fail(strategy, 10_000))

    def test_an_answer_is_a_number(self, make):
        strategy = make()
        fail(strategy, 5)
        assert isinstance(strategy.proceed("event"), float)
        assert type(strategy.failure("event", ERROR)) is bool
        assert strategy.success("event") is None

    @pytest.mark.parametrize("attempts", [1, 2, 5])
    def test_max_attempts(self, make, attempts):
        strategy = make(max_attempts=attempts)
        assert fail(strategy, attempts) == [False] * (attempts - 1) + [True]

    def test_attempts_are_those_of_the_event(self, make):
        """Events that share a strategy do not use up each other's attempts."""
        strategy = make(max_attempts=3)
        first, second = Token(), Token()
        assert fail(strategy, 2, first) == [False, False]
        assert fail(strategy, 2, second) == [False, False]
        assert fail(strategy, 1, first) == [True]
        assert fail(strategy, 1, second) == [True]

    def test_identity_decides_about_events(self, make):
        strategy = make(max_attempts=2)
        first, second = [1], [1]
        assert fail(strategy, 1, first) == [False]
        assert fail(strategy, 1, second) == [False]
        assert fail(strategy, 1, Hostile()) == [False]

    def test_success_ends_the_count(self, make):
        strategy = make(max_attempts=3)
        event = Token()
        fail(strategy, 2, event)
        strategy.success(event)
        assert fail(strategy, 3, event) == [False, False, True]

    def test_a_dropped_event_that_comes_again_starts_afresh(self, make):
        strategy = make(max_attempts=2)
        event = Token()
        assert fail(strategy, 4, event) == [False, True, False, True]

    def test_a_new_event_is_not_taken_for_an_old_one(self, make):
        """An object may get the address of one that is gone."""
        strategy = make(max_attempts=2)
        for _ in range(500):
            assert strategy.failure(Token(), ERROR) is False

    def test_finished_events_are_let_go(self, make):
        strategy = make(max_attempts=2)
        dropped, delivered = Token(), Token()
        watches = weakref.ref(dropped), weakref.ref(delivered)
        fail(strategy, 2, dropped)
        fail(strategy, 1, delivered)
        strategy.success(delivered)
        del dropped, delivered
        gc.collect()
        assert [watch() for watch in watches] == [None, None]

    def test_max_elapsed(self, make):
        strategy = make(max_elapsed=0.05)
        event, other = Token(), Token()
        assert strategy.failure(event, ERROR) is False
        eventually(lambda: strategy.failure(event, ERROR))
        assert strategy.failure(other, ERROR) is False

    def test_max_elapsed_is_not_over_too_soon(self, make):
        strategy = make(max_elapsed=LONG)
        assert not any(fail(strategy, 100))
        strategy = make(max_elapsed=0.1)
        event = Token()
        began = time.monotonic()
        strategy.failure(event, ERROR)
        eventually(lambda: strategy.failure(event, ERROR))
        assert time.monotonic() - began >= 0.095

    def test_either_limit_is_enough(self, make):
        strategy = make(max_attempts=2, max_elapsed=LONG)
        assert fail(strategy, 2) == [False, True]

    def test_at_work(self, make):
        dst, dead = Recorder(Fails(only=lambda event: event == "bad")), Recorder()
        with RetryingSink(dst, make(max_attempts=3), dead_letter=dead) as sink:
            for event in ("good", "bad", "better"):
                Task(sink.write, event).result()
        assert dst.events == ["good", "better"]
        assert dead.events == ["bad"]
        assert dst.attempts.count(["bad"]) == 3

    def test_at_work_when_the_same_object_is_written_twice(self, make):
        event = "bad"
        dst, dead = Recorder(Fails()), Recorder()
        with RetryingSink(dst, make(max_attempts=2), dead_letter=dead) as sink:
            sink.write(event)
            sink.write(event)
        assert dead.events == [event, event]
        assert len(dst.attempts) == 4

    @pytest.mark.parametrize(("attempts", "error"), [*BAD_SIZES, (0, ValueError)])
    def test_bad_max_attempts(self, make, attempts, error):
        with pytest.raises(error, match=str(attempts)):
            make(max_attempts=attempts)

    @pytest.mark.parametrize(("seconds", "error"), BAD_SECONDS)
    def test_bad_max_elapsed(self, make, seconds, error):
        with pytest.raises(error):
            make(max_elapsed=seconds)


class TestSetOnce:
    @pytest.mark.parametrize(
        ("strategy", "fields"),
        [
            (Breaker(2, 3, max_attempts=4, max_elapsed=5), {"threshold": 2, "backoff": 3.0}),
            (
                ExponentialBackoff(1, 2, 3, max_attempts=4, max_elapsed=5),
                {"base": 1.0, "factor": 2.0, "max": 3.0},
            ),
        ],
    )
    def test_fields(self, strategy, fields):
        for field, value in {**fields, "max_attempts": 4, "max_elapsed": 5.0}.items():
            assert repr(getattr(strategy, field)) == repr(value)
            with pytest.raises(AttributeError, match=field):
                setattr(strategy, field, value)
            assert repr(getattr(strategy, field)) == repr(value)


class TestBreaker:
    def test_no_wait_below_the_threshold(self):
        breaker = Breaker(3, LONG)
        assert breaker.proceed("event") <= 0
        for _ in range(2):
            breaker.failure("event", ERROR)
            assert breaker.proceed("event") <= 0
        breaker.failure("event", ERROR)
        assert LONG - 10 < breaker.proceed("event") <= LONG

    def test_success_starts_afresh(self):
        breaker = Breaker(2, LONG)
        fail(breaker, 5)
        breaker.success("event")
        assert breaker.proceed("event") <= 0
        fail(breaker, 1)
        assert breaker.proceed("event") <= 0
        fail(breaker, 1)
        assert breaker.proceed("event") > 0

    def test_the_wait_is_what_is_left_since_the_last_failure(self):
        breaker = Breaker(1, 0.2)
        began = time.monotonic()
        fail(breaker, 1)
        first = breaker.proceed("event")
        assert 0.2 - (time.monotonic() - began) <= first + 0.001 <= 0.201
        threading.Event().wait(0.02)
        assert breaker.proceed("event") <= first - 0.015
        eventually(lambda: breaker.proceed("event") <= 0)
        assert time.monotonic() - began >= 0.199
        fail(breaker, 1)
        assert breaker.proceed("event") > 0.1

    def test_consecutive_failures_of_any_event_count(self):
        breaker = Breaker(3, LONG)
        for event in ("a", "b", "c"):
            breaker.failure(event, ERROR)
        assert breaker.proceed("d") > 0

    def test_a_threshold_of_none(self):
        """Before the first failure there is nothing to wait since, however young the clock is."""
        breaker = Breaker(0, 1e9)
        assert breaker.proceed("event") <= 0
        fail(breaker, 1)
        assert breaker.proceed("event") > 0

    def test_a_backoff_of_none(self):
        breaker = Breaker(1, 0)
        fail(breaker, 10)
        assert breaker.proceed("event") <= 0

    def test_it_is_thread_safe(self):
        breaker = Breaker(8000, LONG)
        together(*[lambda: fail(breaker, 1000)] * 7, lambda: fail(breaker, 999))
        assert breaker.proceed("event") <= 0
        fail(breaker, 1)
        assert breaker.proceed("event") > 0

    @pytest.mark.parametrize(("threshold", "error"), BAD_SIZES)
    def test_bad_thresholds(self, threshold, error):
        with pytest.raises(error, match=str(threshold)):
            Breaker(threshold, 1.0)

    @pytest.mark.parametrize(("backoff", "error"), [*BAD_SECONDS, (None, TypeError)])
    def test_bad_backoffs(self, backoff, error):
        with pytest.raises(error):
            Breaker(1, backoff)

    def test_it_says_what_it_needs(self):
        with pytest.raises(TypeError):
            Breaker()
        with pytest.raises(TypeError):
            Breaker(1, 1.0, 5)


def draws(strategy, count=3000):
    return [strategy.proceed("event") for _ in range(count)]


def check_uniform(values, bound):
    """All in [0, bound), and spread as a uniform draw is, by more than five sigma."""
    assert min(values) >= 0
    assert max(values) < bound
    assert abs(statistics.fmean(values) - bound / 2) < 0.04 * bound
    for quarter in range(4):
        share = sum(quarter <= value / bound * 4 < quarter + 1 for value in values) / len(values)
        assert abs(share - 0.25) < 0.05


class TestExponentialBackoff:
    def test_no_wait_before_the_first_failure(self):
        assert draws(ExponentialBackoff(5.0, 5.0, 50.0), 20) == [0] * 20

    @pytest.mark.parametrize("failures", [1, 2, 3, 4, 5, 6, 10])
    def test_the_bounds(self, failures):
        strategy = ExponentialBackoff(base=1.0, factor=2.0, max=40.0)
        fail(strategy, failures)
        check_uniform(draws(strategy), min(40.0, 1.0 + 2.0 * 2 ** (failures - 1)))

    def test_the_defaults(self):
        strategy = ExponentialBackoff()
        fail(strategy, 1)
        check_uniform(draws(strategy), 2.0)
        fail(strategy, 20)
        check_uniform(draws(strategy), 20.0)

    def test_it_never_falls_back(self):
        """The original's shift overflows: 20 s becomes 1 s at 56 failures."""
        strategy = ExponentialBackoff()
        for failures in range(1, 200):
            fail(strategy, 1)
            if failures > 8:
                assert max(draws(strategy, 60)) > 10.0

    def test_a_million_failures(self):
        strategy = ExponentialBackoff(max=8.0)
        fail(strategy, at_length(100_000, 1_000_000))
        check_uniform(draws(strategy), 8.0)
        strategy.success("event")
        assert strategy.proceed("event") == 0

    def test_a_base_of_none(self):
        strategy = ExponentialBackoff(base=0, factor=1.0, max=20.0)
        fail(strategy, 1)
        check_uniform(draws(strategy), 1.0)
        fail(strategy, 2)
        check_uniform(draws(strategy), 4.0)

    def test_nothing_at_all(self):
        for strategy in (ExponentialBackoff(0, 0), ExponentialBackoff(max=0)):
            fail(strategy, 70)
            assert draws(strategy, 10) == [0] * 10

    def test_a_base_above_the_maximum(self):
        strategy = ExponentialBackoff(base=100.0, max=3.0)
        fail(strategy, 1)
        check_uniform(draws(strategy), 3.0)

    def test_success_starts_afresh(self):
        strategy = ExponentialBackoff(base=0, factor=1.0, max=100.0)
        fail(strategy, 50)
        strategy.success("event")
        assert strategy.proceed("event") == 0
        fail(strategy, 1)
        assert max(draws(strategy, 100)) < 1.0

    def test_draws_differ_whatever_the_seed(self):
        values = []
        for _ in range(2):
            random.seed(1)
            strategy = ExponentialBackoff()
            fail(strategy, 3)
            values.append(draws(strategy, 5))
        assert len(set(values[0])) == 5

    def test_it_is_thread_safe(self):
        strategy = ExponentialBackoff(base=0.0, factor=1.0, max=1e9)
        together(*[lambda: fail(strategy, 3)] * 7)
        bound = 2.0**20
        values = draws(strategy)
        assert max(values) < bound
        assert statistics.fmean(values) > bound * 0.45

    @pytest.mark.parametrize("name", ["base", "factor", "max"])
    @pytest.mark.parametrize(("value", "error"), [*BAD_SECONDS, (None, TypeError)])
    def test_bad_durations(self, name, value, error):
        with pytest.raises(error):
            ExponentialBackoff(**{name: value})

    def test_limits_are_named(self):
        with pytest.raises(TypeError):
            ExponentialBackoff(1.0, 1.0, 20.0, 5)
