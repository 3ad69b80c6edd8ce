"""Channel, read and awaited from asyncio."""

import asyncio
import itertools
import time

import pytest
from support import (
    DEADLINE,
    Task,
    parked,
    together,
)

from fastsinks import Channel


def run(coroutine):
    """Run a coroutine with a deadline in a fresh loop."""

    async def main():
        return await asyncio.wait_for(coroutine, DEADLINE)

    return asyncio.run(main())


async def collect(channel):
    return [event async for event in channel]


async def until(predicate):
    """Let the other tasks of the loop run until the predicate holds."""
    deadline = time.monotonic() + DEADLINE
    while not predicate():
        assert time.monotonic() < deadline
        await asyncio.sleep(0)


class TestAsync:
    def test_it_drains_and_ends(self):
        channel = Channel(buffer=4)
        channel.write_many([1, None, 3, 4])
        channel.close()
        assert run(collect(channel)) == [1, None, 3, 4]
        assert run(collect(channel)) == []

    @pytest.mark.parametrize("buffer", [0, 1, 7])
    def test_threads_write_to_it(self, buffer):
        channel = Channel(buffer)

        def write():
            together(
                *[
                    lambda writer=writer: [channel.write((writer, n)) for n in range(100)]
                    for writer in range(3)
                ]
            )
            channel.close()

        writer = Task(write)
        events = run(collect(channel))
        writer.result()
        assert len(events) == 300
        for number in range(3):
            assert [n for w, n in events if w == number] == list(range(100))

    def test_the_loop_goes_on_meanwhile(self):
        channel = Channel()

        async def main():
            reader = asyncio.create_task(anext(aiter(channel)))
            for _ in range(100):
                await asyncio.sleep(0)
            assert not reader.done()
            writer = asyncio.to_thread(channel.write, "one")
            assert await writer is None
            return await reader

        assert run(main()) == "one"

    def test_the_loop_itself_may_write_where_there_is_room(self):
        channel = Channel(buffer=1)
        seen = []

        async def read():
            async for event in channel:
                seen.append(event)

        async def main():
            reader = asyncio.create_task(read())
            for number in range(20):
                channel.write(number)
                await until(lambda number=number: len(seen) > number)
            channel.close()
            await reader

        run(main())
        assert seen == list(range(20))

    def test_several_readers_share_the_events(self):
        channel = Channel()

        async def main():
            readers = [asyncio.create_task(collect(channel)) for _ in range(4)]
            writer = asyncio.to_thread(lambda: [channel.write(n) for n in range(100)])
            await writer
            channel.close()
            return await asyncio.gather(*readers)

        events = list(itertools.chain(*run(main())))
        assert sorted(events) == list(range(100))

    def test_a_thread_and_a_loop_may_both_read(self):
        channel = Channel()
        reader = Task(list, channel)
        writers = Task(lambda: [[channel.write(n) for n in range(200)], channel.close()])
        events = run(collect(channel)) + reader.result()
        writers.result()
        assert sorted(events) == list(range(200))

    def test_close_ends_a_waiting_reader(self):
        channel = Channel()

        async def main():
            reader = asyncio.create_task(collect(channel))
            await asyncio.sleep(0)
            await asyncio.to_thread(channel.close)
            return await reader

        assert run(main()) == []

    def test_a_cancelled_reader_takes_nothing(self):
        channel = Channel()

        async def main():
            reader = asyncio.create_task(anext(aiter(channel)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            writer = asyncio.to_thread(channel.write, "one")
            task = asyncio.create_task(writer)
            assert await anext(aiter(channel)) == "one"
            await task

        run(main())

    @pytest.mark.parametrize("buffer", [0, 1])
    def test_a_reader_cancelled_just_as_an_event_is_there_for_it(self, buffer):
        channel = Channel(buffer)

        async def main():
            reader = asyncio.create_task(anext(aiter(channel)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            writer = Task(channel.write, "one")
            parked(writer)  # it has met the reader, or waits; the loop has not run since
            reader.cancel()
            try:
                event = await reader
            except asyncio.CancelledError:
                event = await anext(aiter(channel))
            assert event == "one"
            await asyncio.to_thread(writer.result)

        Task(run, main()).result()

    @pytest.mark.parametrize("buffer", [0, 1, 5])
    def test_cancellation_at_any_moment_loses_no_event_and_no_order(self, buffer):
        channel = Channel(buffer)
        seen = []

        async def main():
            pauses = itertools.cycle([0, 1e-5, 0, 1e-4, 5e-4])
            while True:
                reader = asyncio.create_task(anext(aiter(channel)))
                await asyncio.sleep(next(pauses))
                reader.cancel()
                try:
                    seen.append(await reader)
                except asyncio.CancelledError:
                    pass
                except StopAsyncIteration:
                    return

        def write():
            for number in range(500):
                channel.write(number)
            channel.close()

        writer = Task(write)
        asyncio.run(main())
        writer.result()
        assert seen == list(range(500))

    def test_wait_for_may_time_out_again_and_again(self):
        channel = Channel()
        seen = []

        async def main():
            for timeout in itertools.cycle([1e-5, 1e-4, 1e-3]):
                try:
                    seen.append(await asyncio.wait_for(anext(aiter(channel)), timeout))
                except TimeoutError:
                    pass
                except StopAsyncIteration:
                    return

        writer = Task(lambda: [[channel.write(n) for n in range(300)], channel.close()])
        asyncio.run(main())
        writer.result()
        assert seen == list(range(300))

    def test_a_loop_that_ends_leaves_its_events_to_others(self):
        channel = Channel()

        async def give_up():
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(aiter(channel)), 0.01)

        asyncio.run(give_up())
        writer = Task(channel.write, "one").blocked()
        assert channel.get() == "one"
        writer.result()

    def test_a_loop_that_ends_without_a_word_leaves_its_events_to_others(self):
        """The reader was not cancelled; its loop is simply gone."""
        channel = Channel()
        loop = asyncio.new_event_loop()
        reader = loop.create_task(anext(aiter(channel)))
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(asyncio.sleep(0))
        reader._log_destroy_pending = False
        loop.close()
        writer = Task(channel.write, "one")
        assert channel.get(DEADLINE) == "one"
        writer.result()

    def test_a_channel_may_be_read_in_one_loop_after_another(self):
        channel = Channel(buffer=3)
        for number in range(3):
            channel.write(number)

            async def main():
                return await anext(aiter(channel))

            assert run(main()) == number
