"""How many threads there are: few, only while there is work, and never one that just waits.

Each test counts in a process of its own, where all threads are its own.
"""

import _thread
import gc
import itertools
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from support import (
    DEADLINE,
    LONG,
    MOMENT,
    BlockRecorder,
    Fails,
    Gate,
    Recorder,
    Task,
    Waits,
    at_length,
    eventually,
    ledger,
    os_threads,
    strike_at,
)
from support.processes import alone

from fastsinks import (
    Breaker,
    Broadcaster,
    Channel,
    CloseTimeoutError,
    Dispatcher,
    NullSink,
    Queue,
    RetryingSink,
)
from fastsinks._core import thread_state


@alone
def test_none_before_there_is_work():
    dispatcher = Dispatcher()
    sinks = [Queue(NullSink()), Queue(NullSink(), dispatcher=dispatcher), Channel()]
    sinks.append(Broadcaster(*sinks))
    sinks.append(RetryingSink(NullSink(), Breaker(1, 1.0)))
    assert os_threads() == 1
    dispatcher.close()
    assert os_threads() == 1


@alone
def test_idle_queues_have_none():
    queues = [Queue(NullSink()) for _ in range(1000)]
    assert os_threads() == 1
    for queue in queues:
        queue.write("one")
    for queue in queues:
        assert queue.flush(DEADLINE)
    assert os_threads() < 10


def switches():
    """How often each thread but this one has gone to sleep so far."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            try:
                status = (task / "status").read_text()
            except (FileNotFoundError, ProcessLookupError):  # its thread ends meanwhile
                continue
            found[task.name] = int(re.search(r"\nvoluntary_ctxt_switches:\t(\d+)", status)[1])
    return found


@pytest.mark.once
@alone
def test_idle_seconds_wake_nobody():
    queues = [Queue(Recorder()) for _ in range(100)]
    for queue in queues:
        queue.write("one")
    for queue in queues:
        assert queue.flush(DEADLINE)
    before = switches()
    assert before
    threading.Event().wait(0.5)  # until the last worker has parked
    before = switches()
    threading.Event().wait(at_length(1.0, 10.0))
    assert switches() == before


@alone
def test_lingering_queues_have_none():
    queues = [Queue(BlockRecorder(), batch_size=9, linger=LONG) for _ in range(200)]
    for queue in queues:
        queue.write("waits")
    dst = Recorder()
    with Queue(dst) as healthy:
        healthy.write("one")
        dst.wait(1)
    assert os_threads() < 10
    for queue in queues:
        queue.close()


@alone
def test_a_retry_in_back_off_has_none():
    dispatcher = Dispatcher(max_workers=4)
    strategies = [Waits() for _ in range(300)]
    sinks = [Recorder(Fails()) for _ in strategies]
    queues = [
        Queue(RetryingSink(dst, strategy), dispatcher=dispatcher)
        for dst, strategy in zip(sinks, strategies, strict=True)
    ]
    for queue in queues:
        queue.write("one")
    for strategy in strategies:
        assert strategy.failed.wait(DEADLINE)
    eventually(lambda: os_threads() <= 1 + 4)  # but for one that starts a worker, and ends
    dst = Recorder()
    with Queue(dst, dispatcher=dispatcher) as healthy:
        for number in range(10):
            healthy.write(number)
            dst.wait(number + 1)
    eventually(lambda: os_threads() <= 1 + 4)
    assert [len(dst.attempts) for dst in sinks] == [1] * 300
    for queue in queues:
        with pytest.raises(CloseTimeoutError) as caught:
            queue.close(0)
        assert caught.value.undelivered == ["one"]
    dispatcher.close()


@alone
def test_nor_on_the_default_dispatcher():
    strategies = [Waits() for _ in range(500)]
    sinks = [RetryingSink(Recorder(Fails()), strategy) for strategy in strategies]
    queues = [Queue(sink) for sink in sinks]
    for queue in queues:
        queue.write("one")
    for strategy in strategies:
        assert strategy.failed.wait(DEADLINE)
    assert os_threads() < 50
    for sink, queue in zip(sinks, queues, strict=True):
        sink.close()
        queue.close()


@alone
def test_no_more_than_max_workers():
    gate = Gate()
    dispatcher = Dispatcher(max_workers=3)
    queues = [Queue(Recorder(gate), dispatcher=dispatcher) for _ in range(30)]
    most = 0  # of those that threading knows, which a bare thread is not that starts a worker
    for queue in queues:
        queue.write("stuck")
        most = max(most, threading.active_count())
    gate.wait_entered()
    for _ in range(20):
        threading.Event().wait(0.005)
        most = max(most, threading.active_count())
    eventually(lambda: os_threads() <= 1 + 3)
    gate.open()
    for queue in queues:
        queue.close()
    assert most <= 1 + 3
    dispatcher.close()


def start_no_more():
    """From now on as at the exit of CPython 3.12: no thread can be started."""

    def refuse(*args, **options):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    _thread.start_new_thread = threading.Thread.start = refuse


@alone
def test_who_waits_does_not_help_where_workers_are_blocked():
    """The waiting thread would be blocked, too, beyond its own deadline."""
    gates = [Gate(), Gate(), Gate()]
    dispatcher = Dispatcher()
    queues = [Queue(Recorder(gate), dispatcher=dispatcher) for gate in gates]
    queues[0].write("stuck")
    gates[0].wait_entered()
    eventually(lambda: os_threads() == 1 + 2)  # one works, another stands by
    start_no_more()
    queues[1].write("stuck, too")
    gates[1].wait_entered()
    queues[2].write("nobody is left for it")
    start = time.monotonic()
    assert not queues[2].flush(0.1)
    with pytest.raises(CloseTimeoutError):
        dispatcher.close(0.1)
    assert time.monotonic() - start < DEADLINE / 2
    for gate in gates:
        gate.open()
    for queue in queues:
        queue.close(DEADLINE)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_waits_for_a_queue_runs_it_if_nobody_else_can(workers):
    dispatcher = Dispatcher(max_workers=workers)
    gate = Gate()
    behind = [Queue(Recorder(), dispatcher=dispatcher) for _ in range(3)]
    flushed = []

    class Flushes:
        def write(self, event):
            for queue in behind:
                queue.write(event)
                flushed.append(queue.flush(DEADLINE))

        def close(self):
            for queue in behind:
                queue.close(DEADLINE)

    stuck = [Queue(Recorder(gate), dispatcher=dispatcher) for _ in range(workers - 1)]
    for queue in stuck:
        queue.write("stuck")
        gate.wait_entered()
    queue = Queue(Flushes(), dispatcher=dispatcher)
    queue.write("event")
    assert queue.flush(DEADLINE)
    assert flushed == [True] * 3
    queue.close(DEADLINE)
    gate.open()
    for queue in stuck:
        queue.close(DEADLINE)
    dispatcher.close(DEADLINE)


@alone
def test_ctrl_c_in_a_destination_that_it_runs_is_its_own():
    """The event is lost to the queue, as by any exception; the call raises; the rest goes on."""
    start_no_more()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dst = Recorder(lambda events: events == [3] and os.kill(os.getpid(), signal.SIGINT))
    queue = Queue(dst)
    queue.write_many(range(6))
    with pytest.raises(KeyboardInterrupt):
        queue.flush(DEADLINE)
    assert thread_state.here.interrupts is None  # nothing keeps it
    assert queue.flush(DEADLINE)
    assert dst.events == [0, 1, 2, 4, 5]
    assert ledger(queue) == (6, 5, 1, 0)
    queue.close(DEADLINE)
    assert dst.closes == 1


@pytest.mark.compiled
@alone
def test_a_strike_on_the_way_back_from_any_call_loses_nothing_silently():
    """In the destination it costs the event, as above; elsewhere it may be delivered twice."""
    logging.disable()
    sys.unraisablehook = lambda unraisable: None  # a strike in a weak reference's callback
    start_no_more()
    for call in ("flush", "close", "dispatcher"):
        for number in itertools.count():
            dst, dispatcher = Recorder(), Dispatcher()
            queue = Queue(dst, batch_size=2, dispatcher=dispatcher)
            queue.write_many([1, 2, 3])
            calls = {"flush": queue.flush, "close": queue.close, "dispatcher": dispatcher.close}
            struck = strike_at(number, calls[call])
            queue.close(DEADLINE)
            assert dst.closes <= 1, (call, number)
            accepted, delivered, dropped, pending = ledger(queue)
            assert (accepted, delivered + dropped, pending) == (3, 3, 0), (call, number)
            assert len({1, 2, 3} - {*dst.events}) <= dropped, (call, number)
            if not struck:
                break


@alone
def test_they_come_back_when_threads_can_be_started_again():
    starts = _thread.start_new_thread, threading.Thread.start
    start_no_more()
    dst = Recorder()
    queue = Queue(dst)
    queue.write("delivered here")
    assert queue.flush(DEADLINE)
    assert dst.events == ["delivered here"]
    assert os_threads() == 1
    _thread.start_new_thread, threading.Thread.start = starts
    queue.write("by a worker")
    dst.wait(2)
    assert os_threads() > 1
    queue.close()


@alone
def test_idle_workers_go_away_and_come_back():
    dispatcher = Dispatcher(idle_timeout=0.1)
    dst = Recorder()
    with Queue(dst, dispatcher=dispatcher) as queue:
        for number in range(3):
            queue.write(number)
            dst.wait(number + 1)
            eventually(lambda: os_threads() == 1)
    assert dst.events == [0, 1, 2]
    dispatcher.close()


@alone
def test_they_go_away_after_a_crowd_too():
    dispatcher = Dispatcher(idle_timeout=0.1)
    gate = Gate()
    queues = [Queue(Recorder(gate), dispatcher=dispatcher) for _ in range(20)]
    for queue in queues:
        queue.write("stuck")
    eventually(lambda: os_threads() >= 1 + 20)
    gate.open()
    for queue in queues:
        assert queue.flush(DEADLINE)
    eventually(lambda: os_threads() == 1)
    for queue in queues:
        queue.close()
    dispatcher.close()


@alone
def test_they_go_away_with_the_last_event_of_the_last_queue():
    """Most of them stand idle by then, and there is nothing left for which to wait."""
    dispatcher = Dispatcher(idle_timeout=LONG)
    gates = [Gate() for _ in range(8)]
    queues = [Queue(Recorder(gate), dispatcher=dispatcher) for gate in gates]
    for queue, gate in zip(queues, gates, strict=True):
        queue.write("stuck")
        gate.wait_entered()
    closers = [Task(queue.close).blocked() for queue in queues]
    for closer, gate in zip(closers, gates, strict=True):
        gate.open()
        closer.result()
        threading.Event().wait(MOMENT)  # the worker parks
    eventually(lambda: os_threads() == 1)


@alone
def test_they_go_away_when_the_dispatcher_is_closed():
    dispatcher = Dispatcher(idle_timeout=LONG)
    with Queue(NullSink(), dispatcher=dispatcher) as queue:
        queue.write("one")
    dispatcher.close()
    eventually(lambda: os_threads() == 1)


@alone
def test_they_go_away_with_a_dispatcher_that_nobody_knows_any_more():
    with Queue(NullSink(), dispatcher=Dispatcher(idle_timeout=0.1)) as queue:
        queue.write("one")
    del queue

    def gone():
        gc.collect()
        return os_threads() == 1

    eventually(gone)


@alone
def test_one_at_a_time_needs_few():
    """A queue that is written to now and then does not gather workers."""
    dst = Recorder()
    with Queue(dst) as queue:
        for number in range(500):
            queue.write(number)
            dst.wait(number + 1)
    assert os_threads() < 8
