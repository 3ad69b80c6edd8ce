"""What the library says in the log: which sink and what kind of event, never its contents."""

import contextlib
import logging
import threading

import pytest
from support import DEADLINE, UNNAMEABLE, Fails, Mute, Recorder, Task, Waits, ledger
from support.processes import check_program

from fastsinks import Breaker, Broadcaster, CloseTimeoutError, Queue, RetryingSink, SinkClosedError

SECRET = "s3cr3t"


class Order:
    """An event with an id, and with contents that must not be logged."""

    def __init__(self, ident):
        self.id = ident
        self.card = SECRET
        self.shown = 0

    def __repr__(self):
        self.shown += 1
        return f"Order({SECRET})"

    __str__ = __repr__


class Shy:
    """An event that raises when it is asked for its id."""

    @property
    def id(self):
        raise RuntimeError(SECRET)

    def __repr__(self):
        raise RuntimeError(SECRET)


EVENTS = [
    Order("order-7"),
    {"id": "order-7", "card": SECRET},
    {"card": SECRET},
    SECRET,
    SECRET.encode(),
    [SECRET],
    (SECRET, 1),
    Shy(),
    None,
]


@pytest.fixture(autouse=True)
def everything_is_logged(caplog):
    caplog.set_level(logging.DEBUG)


def check(caplog, event):
    assert caplog.records
    assert SECRET not in caplog.text
    for record in caplog.records:
        assert record.name.partition(".")[0] == "fastsinks"
    if (isinstance(event, dict) and "id" in event) or isinstance(event, Order):
        assert "order-7" in caplog.text
    else:
        assert type(event).__name__ in caplog.text
    if isinstance(event, Order):
        assert event.shown == 0


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
class TestContents:
    def test_an_event_that_a_queue_drops(self, caplog, event):
        with Queue(Recorder(Fails(lambda: ValueError(SECRET)))) as queue:
            queue.write(event)
        check(caplog, event)

    def test_an_event_for_which_a_queue_has_no_room(self, caplog, event, gate):
        with Queue(Recorder(gate), maxsize=1, when_full="drop_newest") as queue:
            queue.write("first")
            queue.write(event)
            check(caplog, event)
            gate.open()

    def test_an_event_that_is_left_at_the_deadline(self, caplog, event, gate):
        queue = Queue(Recorder(gate))
        queue.write(event)
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert SECRET not in str(caught.value)
        assert SECRET not in caplog.text

    def test_an_event_that_a_retrying_sink_drops(self, caplog, event):
        dst = Recorder(Fails(lambda: ValueError(SECRET)))
        with RetryingSink(dst, Breaker(5, 0.0, max_attempts=2)) as sink:
            sink.write(event)
        check(caplog, event)

    def test_an_event_that_one_sink_of_a_broadcaster_refuses(self, caplog, event):
        with Broadcaster(Recorder(Fails(lambda: ValueError(SECRET)))) as sink:
            sink.write(event)
        check(caplog, event)

    def test_an_event_at_which_others_raise(self, caplog, event):
        class Bad:
            def ingress(self, event):
                raise ValueError(SECRET)

            def egress(self, event):
                raise ValueError(SECRET)

        dead = Recorder(Fails(lambda: ValueError(SECRET)))
        with Queue(Recorder(Fails()), listeners=[Bad()], dead_letter=dead) as queue:
            queue.write(event)
        assert caplog.records
        assert SECRET not in caplog.text


class TestWhatCannotBeNamed:
    """The name of its type is logged instead: a name that raises costs no event."""

    @pytest.mark.parametrize("event", UNNAMEABLE, ids=["huge", "odd"])
    def test_an_event_that_is_tried_again(self, caplog, event):
        dst, dead = Recorder(Fails(times=1)), Recorder()
        with Queue(RetryingSink(dst, Breaker(9, 0.0)), dead_letter=dead) as queue:
            queue.write(event)
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (1, 1, 0, 0)
        assert dst.events == [event]
        assert dead.events == []
        assert "(OSError)" in caplog.text

    @pytest.mark.parametrize("event", UNNAMEABLE, ids=["huge", "odd"])
    def test_an_event_that_is_lost(self, caplog, event):
        dst, dead = Recorder(Fails(times=1)), Recorder()
        with Queue(dst, name="the queue", dead_letter=dead) as queue:
            queue.write_many([event, "next"])
            assert queue.flush(DEADLINE)
        assert dst.events == ["next"]
        assert dead.events == [event]
        kind = type(event).__name__
        assert f"the queue: dropped an event: {kind} (OSError)" in caplog.messages

    def test_an_error(self, caplog):
        dst = Recorder(Fails(Mute))
        with Queue(dst, name="the queue") as queue:
            queue.write("one")
        assert "the queue: dropped an event: str (Mute)" in caplog.messages

    def test_a_destination(self, caplog):
        class Nameless(Recorder):
            @property
            def log_label(self):
                raise ZeroDivisionError

        RetryingSink(Nameless(Fails(times=1)), Breaker(9, 0.0)).write("one")
        assert "Nameless: an attempt failed, retrying: str (OSError)" in caplog.messages

    def test_an_interrupt_is_none_of_this(self):
        """Ctrl-C as the id is asked for."""

        class Struck:
            @property
            def id(self):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            RetryingSink(Recorder(Fails(times=1)), Breaker(9, 0.0)).write(Struck())


class TestBursts:
    def test_one_line_when_it_begins_and_one_when_it_is_over(self, caplog):
        broken = threading.Event()
        broken.set()

        def hook(events):
            if broken.is_set():
                raise OSError

        with Queue(Recorder(hook)) as queue:
            queue.write_many(range(100))
            assert queue.flush(DEADLINE)
            assert len(caplog.records) == 1
            broken.clear()
            queue.write_many(range(100))
            assert queue.flush(DEADLINE)
            assert len(caplog.records) <= 2
            assert "100" in caplog.text
            broken.set()
            queue.write_many(range(100))
            assert queue.flush(DEADLINE)
            assert len(caplog.records) == 3

    def test_each_queue_has_its_own(self, caplog):
        queues = [Queue(Recorder(Fails()), name=f"queue-{number}") for number in range(3)]
        for queue in queues:
            queue.write_many(range(10))
            queue.close()
        for queue in queues:
            told = [record.getMessage() for record in caplog.records]
            first, last = [line for line in told if queue.name in line]
            assert "int" in first
            assert "10 events in all" in last

    def test_a_loss_is_an_error_and_a_retry_a_warning(self, caplog):
        dst = Recorder(Fails())
        with RetryingSink(dst, Breaker(5, 0.0, max_attempts=2)) as sink:
            sink.write("event")
        with Queue(Recorder(Fails())) as queue:
            queue.write("event")
        with Broadcaster(Recorder(Fails())) as broadcaster:
            broadcaster.write("event")
        told = [(record.levelname, record.getMessage()) for record in caplog.records]
        assert [level for level, line in told if "retrying" in line] == ["WARNING"]
        assert [level for level, line in told if "dropped" in line] == ["ERROR"] * 2
        assert [level for level, line in told if "refused" in line] == ["ERROR"]

    def test_backing_off_is_told_once(self, caplog):
        strategy = Waits(0.001)
        with RetryingSink(Recorder(Fails(times=5)), strategy) as sink:
            sink.write("event")
        told = [record.getMessage() for record in caplog.records]
        assert len([line for line in told if "backing off for 0.001 s" in line]) == 1
        assert "backing off" in told[1]  # after the first failure

    def test_success_is_silent(self, caplog):
        with Queue(RetryingSink(Recorder(), Breaker(1, 1.0))) as queue:
            queue.write_many(range(100))
        assert caplog.records == []


class TestHandlers:
    """Handlers are the user's code: they may raise, and may use what they log about."""

    def test_one_that_raises(self, on_log):
        def emit(record):
            raise ZeroDivisionError

        on_log(emit)
        dst, dead = Recorder(Fails(only=lambda event: event == 1)), Recorder()
        with Queue(dst, dead_letter=dead) as queue:
            queue.write_many(range(4))
            assert queue.flush(DEADLINE)
            assert ledger(queue) == (4, 3, 1, 0)
        assert dst.events == [0, 2, 3]
        assert dead.events == [1]

    def test_one_that_writes_to_the_queue(self, on_log):
        lines = []

        def emit(record):
            if not lines:
                lines.append(record)
                queue.write("from the handler")
                ledger(queue)

        on_log(emit)
        dst = Recorder(Fails(only=lambda event: event == "bad"))
        queue = Queue(dst)
        queue.write("bad")
        assert dst.wait(1) == ["from the handler"]
        Task(queue.close).result()

    def test_one_that_writes_to_the_broadcaster(self, on_log):
        lines = []

        def emit(record):
            if not lines:
                lines.append(record)
                sink.write("from the handler")

        on_log(emit)
        dst = Recorder()
        sink = Broadcaster(Recorder(Fails(only=lambda event: event == "bad")), dst)
        Task(sink.write, "bad").result()
        Task(sink.close).result()
        assert dst.events == ["bad", "from the handler"]

    def test_one_that_closes_the_retrying_sink(self, on_log):
        on_log(lambda record: sink.close())
        sink = RetryingSink(Recorder(Fails(times=1)), Breaker(1, 0.0))
        writer = Task(sink.write, "one")
        with contextlib.suppress(SinkClosedError):
            writer.result()
        assert sink.closed


def test_nothing_is_printed_where_logging_is_not_configured():
    out = check_program("unconfigured", "nothing_is_printed_where_logging_is_not_configured")
    assert out == "1\n"
