"""Time limits of many tasks by one timer."""

from __future__ import annotations

import asyncio

from pilothouse.foundation.clock import FakeClock
from pilothouse.operator.deadlines import Deadlines


async def test_who_is_late_is_cancelled_and_nobody_else() -> None:
    clock, late = FakeClock(), dict[str, bool]()
    deadlines = Deadlines(clock, 10)

    async def work(name: str, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        deadlines.begin(task)
        try:
            await clock.sleep(seconds)
        except asyncio.CancelledError:
            assert task.cancelling()
        late[name] = deadlines.end(task)
        assert not task.cancelling()

    first = asyncio.create_task(work("long", 30))
    await clock.run(4)
    others = [asyncio.create_task(work("short", 3)), asyncio.create_task(work("longer", 30))]
    await clock.run(5.5)
    assert late == {"short": False}
    await clock.run(1)
    assert late == {"short": False, "long": True}
    assert clock.waiting == 2
    await clock.run(4)
    assert late == {"short": False, "long": True, "longer": True}
    await asyncio.gather(first, *others)
    assert clock.waiting == 0


async def test_without_a_limit_there_is_no_timer_and_a_closed_one_cancels_nobody() -> None:
    clock = FakeClock()
    task = asyncio.current_task()
    assert task is not None
    Deadlines(clock, 0).begin(task)
    assert clock.waiting == 0
    deadlines = Deadlines(clock, 5)
    deadlines.begin(task)
    deadlines.close()
    await clock.run(10)
    assert not deadlines.end(task)
