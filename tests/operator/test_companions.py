"""Companions of a manager: when they begin and end, what becomes of one that fails, and what is said of them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.operator import (
    BuildError,
    Companion,
    Context,
    Harness,
    LeaderElection,
    Manager,
    NotConverged,
    Reconciler,
    Result,
    Scheme,
    controller,
)
from support.operatorkit import Site, plane_and_client, site


class Lamp(Companion):
    """Notes when it is lit and when it is out."""

    def __init__(self, told: list[str], name: str = "lamp") -> None:
        self.name = name
        self.told = told
        self.lit = asyncio.Event()
        self.wrong = ""
        self.busy = False
        self.closed = asyncio.Event()
        self.closed.set()

    async def run(self) -> None:
        self.told.append(f"{self.name} on")
        self.lit.set()
        try:
            await asyncio.Event().wait()
        finally:
            await self.closed.wait()
            self.told.append(f"{self.name} off")

    def problem(self) -> str:
        return self.wrong

    @property
    def is_idle(self) -> bool:
        return not self.busy


class Failing(Companion):
    name = "failing"

    async def run(self) -> None:
        raise ValueError("no oil")


class Reads(Reconciler[Site]):
    """Waits to be let go, and notes its end."""

    def __init__(self, told: list[str]) -> None:
        self.told = told
        self.began = asyncio.Event()
        self.go_on = asyncio.Event()

    async def reconcile(self, obj: Site, context: Context) -> Result | None:
        self.told.append("reconcile begins")
        self.began.set()
        await self.go_on.wait()
        self.told.append("reconcile ends")
        return None


def manager_of(client: Client, *companions: Companion, **options: object) -> Manager:
    made = Manager(client, scheme=Scheme(Site), metrics=Metrics(), **options)  # type: ignore[arg-type]
    for each in companions:
        made.add_companion(each)
    return made


async def test_it_begins_before_the_controllers_and_ends_after_their_last_reconcile() -> None:
    told: list[str] = []
    async with plane_and_client() as (_, client):
        await client.create(site())
        reads = Reads(told)
        manager = manager_of(client, Lamp(told))
        controller(manager).for_(Site).build(reads)
        task = asyncio.ensure_future(manager.run())
        await asyncio.wait_for(reads.began.wait(), 20)
        manager.stop()
        await asyncio.sleep(0)
        reads.go_on.set()
        await asyncio.wait_for(task, 20)
    assert told == ["lamp on", "reconcile begins", "reconcile ends", "lamp off"]


async def test_it_runs_only_while_its_copy_leads() -> None:
    told: list[str] = []
    async with plane_and_client() as (_, client):
        clock = FakeClock()
        lamps = [Lamp(told, name) for name in ("first", "second")]
        first, second = (
            manager_of(client, lamp, clock=clock, leader_election=LeaderElection(name="lamps", identity=lamp.name))
            for lamp in lamps
        )
        leading = asyncio.ensure_future(first.run())
        await asyncio.wait_for(lamps[0].lit.wait(), 20)
        waiting = asyncio.ensure_future(second.run())
        for _ in range(5):
            await clock.run(1)
        assert told == ["first on"]
        first.stop()
        await asyncio.wait_for(leading, 20)
        async with asyncio.timeout(20):
            while not lamps[1].lit.is_set():
                await clock.run(1)
                await asyncio.sleep(0)
        assert told == ["first on", "first off", "second on"]
        second.stop()
        await asyncio.wait_for(waiting, 20)


async def test_one_that_fails_ends_the_manager_and_the_others() -> None:
    told: list[str] = []
    async with plane_and_client() as (_, client):
        manager = manager_of(client, Lamp(told), Failing())
        with pytest.raises(ValueError, match="no oil"):
            await asyncio.wait_for(manager.run(), 20)
        assert isinstance(manager.failure, ValueError)
    assert told == ["lamp on", "lamp off"]


async def test_one_that_does_not_end_is_cut_when_the_grace_is_over() -> None:
    told: list[str] = []
    async with plane_and_client() as (_, client):
        clock, lamp = FakeClock(), Lamp(told)
        manager = manager_of(client, lamp, clock=clock)
        task = asyncio.ensure_future(manager.run())
        await asyncio.wait_for(lamp.lit.wait(), 20)
        lamp.closed.clear()
        manager.stop()
        await clock.run(20)
        assert not task.done()
        await clock.run(5)
        await asyncio.wait_for(task, 20)
    assert told == ["lamp on"]


async def test_a_cancelled_manager_ends_its_companions() -> None:
    told: list[str] = []
    async with plane_and_client() as (_, client):
        lamp = Lamp(told)
        task = asyncio.ensure_future(manager_of(client, lamp).run())
        await asyncio.wait_for(lamp.lit.wait(), 20)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)
    assert told == ["lamp on", "lamp off"]


async def test_what_is_not_well_is_said_and_makes_it_not_ready() -> None:
    async with plane_and_client() as (_, client):
        lamp = Lamp([])
        manager = manager_of(client, lamp, health_address="127.0.0.1:0")
        async with manager:
            assert manager.problems() == []
            lamp.wrong = "it flickers"
            assert manager.problems() == ["companion lamp: it flickers"]
            checks = manager._ready_checks()
            assert checks["companion-lamp"]() == "it flickers"
            assert "companion-lamp" not in manager._health_checks()


async def test_a_harness_waits_for_it() -> None:
    async with plane_and_client() as (_, client):
        harness, lamp = Harness(client, scheme=Scheme(Site), patience_seconds=0.05), Lamp([])
        harness.manager.add_companion(lamp)
        async with harness:
            await harness.settle()
            lamp.busy = True
            with pytest.raises(NotConverged, match="companion lamp: at work"):
                await harness.settle()


async def test_names_are_taken_once_and_before_it_runs() -> None:
    async with plane_and_client() as (_, client):
        manager = manager_of(client, Lamp([]))
        with pytest.raises(BuildError, match="one of this name"):
            manager.add_companion(Lamp([]))
        async with manager:
            with pytest.raises(BuildError, match="runs already"):
                manager.add_companion(Lamp([], "other"))
