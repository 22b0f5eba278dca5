"""Work by key: once at a time, together what is asked for twice, later what failed, nothing at rest."""

from __future__ import annotations

import asyncio

from pilothouse.apiserver.lifecycle.workqueue import WorkQueue
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import Conflict

PLAIN = Backoff(base=1.0, factor=2.0, jitter=0.0, cap=4.0, attempts=None)


class Work:
    """Notes what is done, and does it when it may."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.done: list[str] = []
        self.at_once = 0
        self.most = 0
        self.errors: list[Exception] = []
        self.again: float | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, key: str) -> float | None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await self.gate.wait()
            self.done.append(key)
            if self.errors:
                raise self.errors.pop(0)
            again, self.again = self.again, None
            return again
        finally:
            self.at_once -= 1

    def queue(self, workers: int = 3) -> WorkQueue[str]:
        return WorkQueue("test", self, self.clock, workers=workers, backoff=PLAIN)


async def test_what_is_asked_for_twice_is_done_once() -> None:
    work = Work()
    queue = work.queue()
    queue.add_all(["a", "b", "a", "a"])
    await work.clock.run(0)
    assert sorted(work.done) == ["a", "b"]
    assert not queue.busy


async def test_what_is_asked_for_meanwhile_is_done_once_more_and_never_beside_itself() -> None:
    work = Work()
    queue = work.queue()
    work.gate.clear()
    queue.add("a")
    await work.clock.run(0)
    queue.add_all(["a", "a"])
    await work.clock.run(0)
    assert work.at_once == 1
    work.gate.set()
    await work.clock.run(0)
    assert work.done == ["a", "a"]
    assert work.most == 1


async def test_workers_are_bounded_and_none_is_left_at_rest() -> None:
    work = Work()
    queue = work.queue(workers=3)
    work.gate.clear()
    queue.add_all(map(str, range(100)))
    await work.clock.run(0)
    assert work.most == 3
    work.gate.set()
    for _ in range(10):
        await work.clock.run(0)
    assert len(work.done) == 100
    assert not queue._tasks
    assert work.clock.waiting == 0


async def test_what_is_asked_for_as_a_worker_ends_is_not_forgotten() -> None:
    done: list[str] = []

    async def work(key: str) -> None:
        done.append(key)
        if key == "a":
            # Called after this worker has ended and before the loop has told anybody.
            asyncio.get_running_loop().call_soon(queue.add, "b")

    clock = FakeClock()
    queue = WorkQueue[str]("test", work, clock)
    queue.add("a")
    await clock.run(0)
    assert done == ["a", "b"]


async def test_failures_are_tried_again_with_growing_waits() -> None:
    work = Work()
    queue = work.queue()
    work.errors = [Conflict("changed"), ValueError("odd"), Conflict("changed")]
    queue.add("a")
    times = []
    for second in range(12):
        before = len(work.done)
        await work.clock.run(0 if second == 0 else 1)
        times += [second] * (len(work.done) - before)
    assert times == [0, 1, 3, 7]
    assert queue.waiting == 0
    work.errors = [Conflict("changed")]
    queue.add("a")
    await work.clock.run(1)
    assert len(work.done) == 6


async def test_failure_of_one_key_does_not_hold_up_others() -> None:
    work = Work()
    queue = work.queue(workers=1)
    work.errors = [ValueError("odd")]
    queue.add_all(["bad", "good"])
    await work.clock.run(0)
    assert work.done == ["bad", "good"]


async def test_work_may_ask_to_be_looked_at_later() -> None:
    work = Work()
    queue = work.queue()
    work.again = 10.0
    queue.add("a")
    await work.clock.run(9)
    assert work.done == ["a"]
    await work.clock.run(1)
    assert work.done == ["a", "a"]


async def test_asking_now_takes_the_place_of_later() -> None:
    work = Work()
    queue = work.queue()
    queue.add_later("a", 10)
    queue.add("a")
    await work.clock.run(20)
    assert work.done == ["a"]


async def test_close_ends_all() -> None:
    work = Work()
    queue = work.queue()
    work.gate.clear()
    queue.add("a")
    queue.add_later("b", 5)
    await work.clock.run(0)
    await queue.close()
    queue.add("c")
    queue.add_later("c", 1)
    work.gate.set()
    await work.clock.run(10)
    assert work.done == []
    assert work.clock.waiting == 0
