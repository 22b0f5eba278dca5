"""Leader election end to end: candidates, leases, clocks that are wrong, lost servers, and giving back."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions, LeaseRecord
from pilothouse.client.leaderelection import LeaderElector, LeadershipLostError, LeaseLock
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds import status
from pilothouse.kinds.structs import Lease
from pilothouse.testing import ControlPlane

METRICS = Metrics()


class Skewed:
    """A clock whose wall time is off."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self._clock = clock
        self._off = timedelta(seconds=seconds)

    def now(self) -> Any:
        return self._clock.now() + self._off

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


class MemoryLock:
    """One record that several candidates write, each through its own view."""

    description = "lock in memory"

    def __init__(self, shared: dict[str, Any]) -> None:
        self.shared = shared
        self.seen = 0
        self.broken: Exception | None = None
        self.hangs = False

    async def read(self) -> LeaseRecord | None:
        await self._reach()
        self.seen = self.shared.get("version", 0)
        found: LeaseRecord | None = self.shared.get("record")
        return found

    async def create(self, record: LeaseRecord) -> None:
        await self._reach()
        if "record" in self.shared:
            raise status.already_exists("coordination.k8s.io", "leases", "x")
        self._write(record)

    async def update(self, record: LeaseRecord) -> None:
        await self._reach()
        if self.seen != self.shared.get("version", 0):
            raise status.conflict("coordination.k8s.io", "leases", "x")
        self._write(record)

    def _write(self, record: LeaseRecord) -> None:
        self.shared["record"] = record
        self.shared["version"] = self.seen = self.shared.get("version", 0) + 1

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        while self.hangs:
            await asyncio.Event().wait()


class Candidate:
    def __init__(
        self, name: str, clock: FakeClock, shared: dict[str, Any], *, skew: float = 0.0, **options: Any
    ) -> None:
        self.lock = MemoryLock(shared)
        self.heard: list[str] = []
        self.elector = LeaderElector(
            self.lock,
            name,
            ElectionOptions(**options),
            clock=Skewed(clock, skew),
            source=random.Random(name),
            on_new_leader=self.heard.append,
            metrics=METRICS,
        )
        self.leading = False
        self.task = asyncio.create_task(self.elector.run(self.lead))

    async def lead(self) -> None:
        self.leading = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leading = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_one_of_three_leads_and_another_takes_over_at_once_when_it_gives_back() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    candidates = [Candidate(name, clock, shared, skew=skew) for name, skew in (("a", 0), ("b", 7_000), ("c", -7_000))]
    await clock.run(60)
    first = [candidate for candidate in candidates if candidate.leading]
    assert len(first) == 1
    assert first[0].elector.is_leader
    assert first[0].elector.problem() == ""
    leader = first[0].elector.core.identity
    assert all(candidate.heard == [leader] for candidate in candidates)
    await first[0].stop()
    assert shared["record"].holder == ""
    await clock.run(5)
    second = [candidate for candidate in candidates if candidate.leading]
    assert len(second) == 1
    assert second[0] is not first[0]
    assert shared["record"].transitions == 1
    for candidate in candidates:
        await candidate.stop()


@pytest.mark.parametrize("skew", [-100_000.0, 0.0, 100_000.0])
async def test_never_two_whatever_their_clocks_say_when_the_leader_is_cut_off(skew: float) -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    a = Candidate("a", clock, shared)
    await clock.run(1)
    b = Candidate("b", clock, shared, skew=skew)
    await clock.run(30)
    assert (a.leading, b.leading) == (True, False)
    a.lock.broken = ConnectionResetError("cut off")
    for _ in range(300):
        await clock.run(0.1)
        assert not (a.leading and b.leading)
    assert (a.leading, b.leading) == (False, True)
    with pytest.raises(LeadershipLostError, match="a could not renew it within 10 s"):
        await a.task
    await b.stop()


async def test_a_call_that_hangs_costs_the_lease_in_time() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    a, b = Candidate("a", clock, shared), Candidate("b", clock, shared)
    await clock.run(10)
    leader, other = (a, b) if a.leading else (b, a)
    leader.lock.hangs = True
    for _ in range(300):
        await clock.run(0.1)
        assert not (a.leading and b.leading)
    assert other.leading
    assert isinstance(leader.task.exception(), LeadershipLostError)
    await other.stop()


async def test_the_work_has_ended_before_the_lease_is_given_back() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    order: list[str] = []
    candidate = Candidate("a", clock, shared)

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await clock.sleep(3)
            order.append(f"ended while held by {shared['record'].holder}")

    candidate.task.cancel()
    task = asyncio.create_task(candidate.elector.run(slow_to_end))
    await clock.run(1)
    task.cancel()
    await clock.run(2)
    assert not task.done()
    await clock.run(2)
    assert order == ["ended while held by a"]
    assert shared["record"].holder == ""
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_returns_or_raises_gives_the_lease_back_and_says_so() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    lock = MemoryLock(shared)

    async def answer() -> int:
        return 42

    async def fail() -> int:
        raise ValueError("bug")

    assert await LeaderElector(lock, "a", clock=clock).run(answer) == 42
    assert shared["record"].holder == ""
    with pytest.raises(ValueError, match="bug"):
        await LeaderElector(lock, "b", clock=clock).run(fail)
    assert shared["record"].holder == ""
    assert shared["record"].transitions == 1


async def test_it_may_be_told_to_keep_the_lease() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    candidate = Candidate("a", clock, shared, release=False)
    await clock.run(1)
    await candidate.stop()
    assert shared["record"].holder == "a"


async def test_giving_back_tries_again_where_somebody_wrote_meanwhile_and_never_hangs() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    candidate = Candidate("a", clock, shared)
    await clock.run(1)
    conflicts = 2
    update = candidate.lock.update

    async def update_late(record: LeaseRecord) -> None:
        nonlocal conflicts
        if conflicts:
            conflicts -= 1
            shared["version"] += 1
            shared["record"] = replace(shared["record"], transitions=9)
        await update(record)

    candidate.lock.update = update_late  # type: ignore[method-assign]
    await candidate.stop()
    assert shared["record"].holder == ""
    assert shared["record"].transitions == 9
    other = Candidate("b", clock, shared)
    await clock.run(5)
    other.lock.hangs = True
    other.task.cancel()
    await clock.run(11)
    assert other.task.done()


async def test_a_process_that_stood_still_does_not_think_that_it_leads() -> None:
    clock, shared = FakeClock(), dict[str, Any]()
    candidate = Candidate("a", clock, shared)
    await clock.run(1)
    assert 'pilothouse_client_leader_leads{lock="lock in memory"} 1.0' in METRICS.exposition().decode()
    clock._elapsed += 60  # the process was stopped
    assert 'pilothouse_client_leader_lease_overdue{lock="lock in memory"} 1.0' in METRICS.exposition().decode()
    states = [candidate.elector.is_leader]
    assert "could not renew" in candidate.elector.problem()
    await clock.run(3)
    states.append(candidate.elector.is_leader)
    assert states == [False, True]
    await candidate.stop()


async def test_a_lease_of_a_real_api() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        lock = LeaseLock(client, "default", "my-controller")
        elector = LeaderElector(lock, "a")
        leading = asyncio.Event()

        async def lead() -> None:
            leading.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(elector.run(lead))
        async with asyncio.timeout(5):
            await leading.wait()
        lease = await client.get(Lease, "my-controller", "default")
        assert lease.spec.holder_identity == "a"
        assert lease.spec.lease_duration_seconds == 15
        task.cancel()
        await asyncio.wait([task])
        lease = await client.get(Lease, "my-controller", "default")
        assert not lease.spec.holder_identity
        async with asyncio.timeout(5):
            await LeaderElector(LeaseLock(client, "default", "my-controller"), "b").run(lambda: asyncio.sleep(0))
        lease = await client.get(Lease, "my-controller", "default")
        assert lease.spec.lease_transitions == 1
