"""The exceptions: one class for each meaning, and what they carry survives a pickle."""

import pickle

import pytest

import fastsinks
from fastsinks import CloseTimeoutError, DeliveryError, QueueFullError, SinkClosedError, SinkError


@pytest.mark.parametrize(
    "kind", [SinkClosedError, QueueFullError, CloseTimeoutError, DeliveryError]
)
def test_all_are_sink_errors(kind):
    assert issubclass(kind, SinkError)
    assert issubclass(kind, Exception)
    assert getattr(fastsinks, kind.__name__) is kind
    assert kind.__name__ in fastsinks.__all__


def test_closed_needs_no_words():
    assert "closed" in str(SinkClosedError())
    assert str(SinkClosedError("gone")) == "gone"


def test_a_close_that_timed_out_is_a_timeout_with_the_undelivered():
    events = [1, None, "three"]
    error = CloseTimeoutError("late", events)
    events.clear()
    assert isinstance(error, TimeoutError)
    assert error.undelivered == [1, None, "three"]
    assert CloseTimeoutError("late").undelivered == []
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.undelivered) == ("late", [1, None, "three"])


def test_a_failed_delivery_says_what_came_back():
    error = DeliveryError("busy", status=503, retry_after=2.5, permanent=False)
    assert (error.status, error.retry_after, error.permanent) == (503, 2.5, False)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.retry_after) == ("busy", 503, 2.5)


def test_a_failed_delivery_without_an_answer():
    error = DeliveryError("refused")
    assert error.status is None
    assert error.retry_after is None
    assert error.permanent is False
