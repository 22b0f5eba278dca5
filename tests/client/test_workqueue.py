"""The work queue: its invariants under any sequence of calls, times, priorities, fairness, drains and bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pilothouse.client.ratelimit import ExponentialLimiter
from pilothouse.client.workqueue import LOW_PRIORITY, QueueFullError, QueueShutDownError, WorkQueue
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics


def drained(queue: WorkQueue[str]) -> list[str]:
    found = []
    while (key := queue.get_nowait()) is not None:
        found.append(key)
        queue.done(key)
    return found


def test_a_key_is_queued_once_however_often_it_is_added() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert len(queue) == 2
    assert drained(queue) == ["a", "b"]


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_when_that_is_done() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert queue.get_nowait() == "a"
    queue.add("a")
    queue.add("a")
    assert len(queue) == 0
    assert queue.get_nowait() is None
    queue.done("a")
    assert drained(queue) == ["a"]


def test_done_of_what_is_not_worked_on_is_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.done("a")
    assert len(queue) == 1


def test_of_several_times_the_earliest_counts() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    queue.add_after("b", 0)
    assert drained(queue) == ["b"]
    clock.advance(4.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert drained(queue) == ["a"]
    clock.advance(100)
    assert len(queue) == 0
    assert queue.waiting == 0


def test_an_add_now_does_not_take_back_one_for_later() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add_after("a", 10)
    queue.add("a")
    assert drained(queue) == ["a"]
    clock.advance(10)
    assert drained(queue) == ["a"]


def test_times_that_were_replaced_take_no_room() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    for number in range(1_000):
        queue.add_after("a", 2_000 - number)
    assert queue.waiting == 1
    assert len(queue._heap) <= 70
    clock.advance(1_001)
    assert drained(queue) == ["a"]


def test_failures_wait_five_milliseconds_doubled_and_success_forgets() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock, limiter=ExponentialLimiter())
    for wait in (0.005, 0.01, 0.02, 0.04):
        queue.add_rate_limited("a")
        clock.advance(wait - 0.001)
        assert len(queue) == 0
        clock.advance(0.002)
        assert drained(queue) == ["a"]
    assert queue.num_requeues("a") == 4
    queue.forget("a")
    assert queue.num_requeues("a") == 0
    queue.add_rate_limited("a")
    clock.advance(0.006)
    assert drained(queue) == ["a"]


def test_higher_priorities_go_first_and_a_key_takes_its_highest() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add("initial-1", priority=LOW_PRIORITY)
    queue.add("initial-2", priority=LOW_PRIORITY)
    queue.add("changed")
    queue.add("initial-2")
    queue.add("urgent", priority=5)
    queue.add("urgent", priority=-3)
    queue.add_after("late", 1, priority=9)
    queue.add_after("late", 2, priority=1)
    clock.advance(1)
    assert drained(queue) == ["late", "urgent", "changed", "initial-2", "initial-1"]
    assert set(queue._lines) == {0}


def test_a_key_comes_again_with_the_priority_it_was_added_with_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", priority=LOW_PRIORITY)
    assert queue.get_nowait() == "a"
    queue.add("a", priority=LOW_PRIORITY)
    queue.add("a", priority=7)
    queue.add("b")
    queue.done("a")
    assert drained(queue) == ["a", "b"]


def test_namespaces_take_turns_if_asked() -> None:
    queue: WorkQueue[str] = WorkQueue(group=lambda key: key.partition("/")[0])
    for number in range(5):
        queue.add(f"loud/{number}")
    queue.add("quiet/0")
    queue.add("loud/0", priority=1)
    assert drained(queue) == ["loud/0", "loud/1", "quiet/0", "loud/2", "loud/3", "loud/4"]


async def test_a_worker_waits_until_there_is_something() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [worker.done() for worker in workers] == [True, True, False]
    workers[2].cancel()
    await asyncio.wait(workers)
    queue.add("c")
    assert await queue.get() == "c"


async def test_a_cancelled_worker_passes_its_turn_on() -> None:
    queue: WorkQueue[str] = WorkQueue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")  # wakes the first
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_shutdown_hands_out_what_is_queued_and_then_ends_the_workers() -> None:
    clock = FakeClock()
    queue: WorkQueue[str] = WorkQueue(clock=clock)
    queue.add("a")
    queue.add_after("late", 1)
    queue.shut_down()
    queue.add("b")
    queue.add_after("c", 1)
    clock.advance(5)
    assert await queue.get() == "a"
    queue.done("a")
    with pytest.raises(QueueShutDownError):
        await queue.get()
    assert queue.shutting_down
    assert clock.waiting == 0


async def test_a_shutdown_ends_workers_that_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.shut_down()
    results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, QueueShutDownError) for result in results)


async def test_a_drain_waits_for_what_is_worked_on_and_for_what_comes_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("b")
    assert await queue.get() == "a"
    queue.add("a")
    draining = asyncio.create_task(queue.shut_down_with_drain())
    await asyncio.sleep(0)
    queue.done("a")
    for expected in ("b", "a"):
        await asyncio.sleep(0)
        assert not draining.done()
        assert await queue.get() == expected
        queue.done(expected)
    await asyncio.wait_for(draining, 1)
    await queue.shut_down_with_drain()


async def test_a_plain_shutdown_ends_a_drain() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await queue.get()
    draining = asyncio.create_task(queue.shut_down_with_drain())
    await asyncio.sleep(0)
    queue.shut_down()
    await asyncio.wait_for(draining, 1)


async def test_workers_never_work_on_one_key_together() -> None:
    queue: WorkQueue[int] = WorkQueue()
    running: Counter[int] = Counter()
    done: Counter[int] = Counter()

    async def work() -> None:
        while True:
            try:
                key = await queue.get()
            except QueueShutDownError:
                return
            running[key] += 1
            assert running[key] == 1
            await asyncio.sleep(0)
            running[key] -= 1
            done[key] += 1
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for number in range(2_000):
        queue.add(number % 7)
        if number % 3 == 0:
            await asyncio.sleep(0)
    await queue.shut_down_with_drain()
    await asyncio.gather(*workers)
    assert set(done) == set(range(7))


def test_a_full_queue_says_so() -> None:
    queue: WorkQueue[int] = WorkQueue("small", max_keys=2, metrics=Metrics(), clock=FakeClock())
    queue.add(1)
    queue.add(2)
    queue.add(2)
    with pytest.raises(QueueFullError, match="work queue small: it holds 2 keys"):
        queue.add(3)
    queue.add_after(3, 1)
    queue.add_after(4, 1)
    with pytest.raises(QueueFullError, match="to come later"):
        queue.add_after(5, 1)


async def test_what_comes_due_while_it_is_full_comes_a_second_later() -> None:
    clock = FakeClock()
    queue: WorkQueue[int] = WorkQueue(clock=clock, max_keys=1)
    queue.add_after(2, 1)
    queue.add(1)
    clock.advance(1)
    assert queue.waiting == 1
    assert queue.get_nowait() == 1
    clock.advance(1)
    assert queue.get_nowait() == 2


async def test_figures_are_shown() -> None:
    clock, metrics = FakeClock(), Metrics()
    queue: WorkQueue[str] = WorkQueue("pods", clock=clock, metrics=metrics)
    queue.add("a")
    queue.add("b")
    clock.advance(0.0625)
    assert await queue.get() == "a"
    clock.advance(2)
    text = metrics.exposition().decode()
    for line in (
        'pilothouse_client_workqueue_depth{name="pods"} 1.0',
        'pilothouse_client_workqueue_adds_total{name="pods"} 2.0',
        'pilothouse_client_workqueue_queue_seconds_bucket{le="0.1",name="pods"} 1.0',
        'pilothouse_client_workqueue_queue_seconds_bucket{le="0.01",name="pods"} 0.0',
        'pilothouse_client_workqueue_longest_running_seconds{name="pods"} 2.0',
    ):
        assert line in text
    queue.done("a")
    assert 'pilothouse_client_workqueue_work_seconds_count{name="pods"} 1.0' in metrics.exposition().decode()
    twin: WorkQueue[str] = WorkQueue("pods", clock=clock, metrics=metrics)
    twin.add("x")
    assert 'pilothouse_client_workqueue_depth{name="pods"} 2.0' in metrics.exposition().decode()


KEYS = st.sampled_from(["x/a", "x/b", "y/a", "z/a"])
PRIORITIES = st.sampled_from([LOW_PRIORITY, 0, 0, 5])


class QueueRules(RuleBasedStateMachine):
    """Any sequence of calls; what must hold is asked of the outside and of the inside after each."""

    group: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock, limiter=ExponentialLimiter(0.5, 4), group=self.group)
        self.working: set[str] = set()
        self.wanted: set[str] = set()
        self.later: dict[str, float] = {}

    @rule(key=KEYS, priority=PRIORITIES)
    def add(self, key: str, priority: int) -> None:
        self.queue.add(key, priority=priority)
        self.wanted.add(key)

    @rule(key=KEYS, seconds=st.sampled_from([0.0, 0.5, 1.0, 3.0]), priority=PRIORITIES)
    def add_after(self, key: str, seconds: float, priority: int) -> None:
        self.queue.add_after(key, seconds, priority=priority)
        if seconds:
            due = self.clock.monotonic() + seconds
            self.later[key] = min(due, self.later.get(key, due))
        else:
            self.wanted.add(key)

    @rule()
    def get(self) -> None:
        key = self.queue.get_nowait()
        if key is None:
            assert self.wanted <= self.working
            return
        assert key not in self.working
        assert key in self.wanted
        self.working.add(key)
        self.wanted.discard(key)

    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        if self.working:
            key = data.draw(st.sampled_from(sorted(self.working)))
            self.queue.done(key)
            self.working.discard(key)

    @rule(seconds=st.sampled_from([0.25, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.monotonic()
        due = {key for key, moment in self.later.items() if moment <= now}
        self.wanted |= due
        self.later = {key: moment for key, moment in self.later.items() if key not in due}

    @invariant()
    def queued_is_dirty_and_not_processing(self) -> None:
        lines = self.queue._lines.values()
        queued: list[str] = []
        for line in lines:
            inside: Any = line
            groups = [inside._keys] if hasattr(inside, "_keys") else inside._groups.values()
            found = [key for keys in groups for key in keys]
            assert len(found) == len(line)
            queued += found
        assert len(queued) == len(set(queued)) == len(self.queue)
        assert set(queued) <= set(self.queue._dirty)
        assert not set(queued) & set(self.queue._processing)
        assert set(self.queue._dirty) == self.wanted
        assert set(self.queue._processing) == self.working
        assert set(queued) == self.wanted - self.working
        assert self.queue.waiting == len(self.later)


class FairQueueRules(QueueRules):
    group = staticmethod(lambda key: key.partition("/")[0])


TestQueueRules = QueueRules.TestCase
TestQueueRules.settings = settings(max_examples=40, stateful_step_count=40)
TestFairQueueRules = FairQueueRules.TestCase
TestFairQueueRules.settings = TestQueueRules.settings
