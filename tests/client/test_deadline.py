"""Time limits by a fake clock: their own interruptions, those of others, and both at once."""

from __future__ import annotations

import asyncio

import pytest

from pilothouse.client.deadline import is_being_cancelled, noticing_silence, within
from pilothouse.foundation.clock import FakeClock


async def test_a_block_that_takes_too_long_is_a_timeout_that_says_of_what() -> None:
    clock = FakeClock()

    async def work() -> None:
        async with within(clock, 5, "list of pods"):
            await clock.sleep(10)

    task = asyncio.create_task(work())
    await clock.run(6)
    with pytest.raises(TimeoutError, match="list of pods: no answer within 5 s"):
        await task
    assert clock.waiting == 0


async def test_a_block_that_ends_in_time_leaves_nothing() -> None:
    clock = FakeClock()

    async def work() -> int:
        async with within(clock, 5, "x"):
            await clock.sleep(4)
        async with noticing_silence(clock, 5, lambda: 0, "x"):
            await clock.sleep(4)
        await clock.sleep(20)
        return 1

    task = asyncio.create_task(work())
    await clock.run(30)
    assert await task == 1
    assert task.cancelling() == 0
    assert clock.waiting == 0


async def test_who_is_cancelled_by_others_is_cancelled_even_when_the_time_is_over_too() -> None:
    clock = FakeClock()

    async def work() -> None:
        async with within(clock, 5, "x"):
            await clock.sleep(10)

    task = asyncio.create_task(work())
    await clock.run(1)
    clock.advance(4.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_that_comes_of_the_interruption_is_the_timeout() -> None:
    clock = FakeClock()

    async def work() -> None:
        async with within(clock, 5, "x"):
            try:
                await clock.sleep(10)
            except asyncio.CancelledError:
                raise RuntimeError("async generator is running") from None

    task = asyncio.create_task(work())
    await clock.run(6)
    with pytest.raises(TimeoutError):
        await task


async def test_an_error_of_the_block_itself_is_raised_as_it_is() -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="own"):
        async with within(clock, 5, "x"):
            raise ValueError("own")
    with pytest.raises(KeyError):
        async with noticing_silence(clock, 5, lambda: 0, "x"):
            raise KeyError("own")


async def test_silence_is_noticed_after_the_time_and_a_third_more_at_most() -> None:
    clock = FakeClock()
    heard = 0

    async def work() -> None:
        async with noticing_silence(clock, 10, lambda: heard, "watch of pods"):
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    for _ in range(5):
        await clock.run(9)
        heard += 1
    await clock.run(9.9)
    assert not task.done()
    await clock.run(3.5)
    with pytest.raises(TimeoutError, match="watch of pods: nothing was heard for 10 s"):
        await task


async def test_a_cancellation_is_told_from_something_that_was_cancelled() -> None:
    seen: list[bool] = []

    async def work(inner: asyncio.Future[None]) -> None:
        try:
            await inner
        except asyncio.CancelledError:
            seen.append(is_being_cancelled())

    inner = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work(inner))
    await asyncio.sleep(0)
    inner.cancel()
    await task
    task = asyncio.create_task(work(asyncio.get_running_loop().create_future()))
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert seen == [False, True]


async def test_limits_want_a_task() -> None:
    failed = asyncio.get_running_loop().create_future()

    def outside() -> None:
        context = within(FakeClock(), 1, "x")
        try:
            context.__aenter__().send(None)  # driven by hand
        except RuntimeError as error:
            failed.set_result(str(error))

    asyncio.get_running_loop().call_soon(outside)
    assert "wants a running task" in await failed
