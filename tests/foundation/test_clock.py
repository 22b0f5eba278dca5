from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pilothouse.foundation.clock import FakeClock, SystemClock


async def test_a_loop_that_sleeps_runs_at_every_instant() -> None:
    clock = FakeClock()
    seen: list[float] = []

    async def tick() -> None:
        while True:
            await clock.sleep(1)
            seen.append(clock.monotonic())

    task = asyncio.create_task(tick())
    await clock.run(3.5)
    assert seen == [1, 2, 3]
    assert clock.monotonic() == 3.5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert clock.waiting == 0


async def test_sleepers_wake_by_deadline_then_by_order() -> None:
    clock = FakeClock()
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(sleeper(*spec)) for spec in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("d", 9.0))]
    await clock.run(2)
    assert woken == ["a", "b", "c"]
    await clock.run(7)
    await asyncio.gather(*tasks)
    assert woken[-1] == "d"


def test_timers_of_a_plain_state_machine() -> None:
    clock = FakeClock(datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    calls: list[float] = []
    clock.call_later(2, lambda: calls.append(clock.monotonic()))
    clock.call_later(1, lambda: clock.call_later(0.5, lambda: calls.append(clock.monotonic())))
    clock.call_later(1, lambda: calls.append(-1)).cancel()
    clock.advance(1)
    assert calls == []
    clock.advance(10)
    assert calls == [1.5, 2]
    assert clock.now() == datetime(2030, 1, 1, 0, 0, 11, tzinfo=UTC)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        FakeClock(datetime(2025, 1, 1))  # noqa: DTZ001  # the very thing that is refused
    with pytest.raises(ValueError, match="negative"):
        FakeClock().advance(-1)


async def test_sleeping_no_time_lets_others_run() -> None:
    clock = FakeClock()
    ran = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(ran.set_result, None)
    await clock.sleep(0)
    assert ran.done()
    assert clock.waiting == 0


async def test_system_clock() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    before = clock.monotonic()
    called = asyncio.Event()
    clock.call_later(10, pytest.fail).cancel()
    clock.call_later(0, called.set)
    await called.wait()
    await clock.sleep(0)
    assert clock.monotonic() >= before
