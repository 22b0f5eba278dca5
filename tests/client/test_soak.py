"""Churn, restarts, compactions, leader changes: in the end each cache is what the server has, and nothing has grown."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.errors import ClientError
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.leaderelection import LeaderElector, LeadershipLostError, LeaseLock
from pilothouse.client.objects import key_of
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.client.workqueue import QueueShutDownError, WorkQueue
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.testing import ControlPlane
from support.gate import Gate, compact

QUICK = Backoff(base=0.02, factor=2.0, jitter=0.5, cap=0.3, attempts=None)


class Controller:
    """An informer, a queue and two workers, behind a lease, as one replica of a controller has them."""

    def __init__(self, gate: Gate, name: str) -> None:
        assert gate.plane is not None
        self.client = Client.for_transport(gate, gate.plane.user, backoff=None)
        self.factory = SharedInformerFactory(
            self.client,
            namespace="default",
            options=InformerOptions(reflector=ReflectorOptions(backoff=QUICK), tune_collector=False),
            metrics=Metrics(),
        )
        self.informer: Informer[ConfigMap] = self.factory.informer(ConfigMap, managed_fields=False)
        self.queue: WorkQueue[str] = WorkQueue()
        self.informer.add_handler(
            on_add=lambda found, _: self.queue.add(key_of(found)),
            on_update=lambda _, found: self.queue.add(key_of(found)),
            on_delete=lambda found: self.queue.add(key_of(found)),
        )
        self.seen: dict[str, str | None] = {}
        self.leading = 0
        options = ElectionOptions(lease_seconds=1.5, renew_seconds=1.0, retry_seconds=0.2)
        self.elector = LeaderElector(LeaseLock(self.client, "default", "soak"), name, options)
        self.working: set[str] = set()

    async def lead(self) -> None:
        self.leading += 1
        await asyncio.Event().wait()

    async def elect(self) -> None:
        while True:
            try:
                await self.elector.run(self.lead)
            except LeadershipLostError:
                continue

    async def work(self) -> None:
        while True:
            try:
                key = await self.queue.get()
            except QueueShutDownError:
                return
            assert key not in self.working
            self.working.add(key)
            await asyncio.sleep(0)
            found = self.informer.indexer.get(key)
            self.seen[key] = None if found is None else found.metadata.resource_version
            self.working.discard(key)
            self.queue.done(key)


async def churn(gate: Gate, client: Client, source: random.Random, objects: int) -> None:
    """Change objects one after the other, whatever comes."""
    while True:
        name, value = f"m{source.randrange(objects)}", str(source.random())
        try:
            match source.randrange(4):
                case 0:
                    await client.create(
                        ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"v": value})
                    )
                case 1:
                    await client.delete(ConfigMap, name, "default")
                case _:
                    await client.patch(ConfigMap, name, {"data": {"v": value}}, "default")
        except (ApiStatus, ClientError, OSError):
            await asyncio.sleep(0.002)


async def soak(directory: Path, seconds: float, objects: int) -> None:
    source = random.Random(7)
    gate = Gate()
    plane = ControlPlane(data_dir=directory, lifecycle=False)
    await plane.__aenter__()
    gate.plane = plane
    client = Client.for_transport(gate, plane.user, backoff=None)
    controllers = [Controller(gate, name) for name in ("a", "b")]
    tasks = [asyncio.create_task(churn(gate, client, source, objects)) for _ in range(4)]
    for one in controllers:
        one.factory.start()
        tasks += [asyncio.create_task(one.work()) for _ in range(2)]
    electing = [asyncio.create_task(one.elect()) for one in controllers]
    try:
        end, turn = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            await asyncio.sleep(0.4)
            turn += 1
            if turn % 4 == 0:
                gate.fall_silent()
                await compact(plane)
                gate.cut_off()
            elif turn % 4 == 1:
                gate.plane = None
                await plane.__aexit__(None, None, None)
                plane = ControlPlane(data_dir=directory, lifecycle=False)
                await plane.__aenter__()
                gate.plane = plane
            elif turn % 4 == 2:
                place = next((place for place, one in enumerate(controllers) if one.elector.is_leader), 0)
                electing[place].cancel()
                await asyncio.wait([electing[place]])
                electing[place] = asyncio.create_task(controllers[place].elect())
            assert sum(one.elector.is_leader for one in controllers) <= 1
        for task in tasks[:4]:
            task.cancel()
        await asyncio.wait(tasks[:4])
        await settled(client, controllers)
        assert sum(one.leading for one in controllers) > 1
        assert all(one.informer.restarts == 0 for one in controllers)
        kinds = Counter(task.get_name().split()[0] for task in asyncio.all_tasks())
        assert (kinds["informer"], kinds["handler"]) == (2, 2)
        assert kinds["renew"] <= 1
    finally:
        for task in (*tasks, *electing):
            task.cancel()
        await asyncio.gather(*tasks, *electing, return_exceptions=True)
        for one in controllers:
            await one.factory.stop()
        await plane.__aexit__(None, None, None)


async def settled(client: Client, controllers: list[Controller]) -> None:
    """Wait until caches and workers know what the server has.

    The server is asked each time: a write whose caller was cancelled may still be carried out after a first look.
    """
    async with asyncio.timeout(20):
        for one in controllers:
            while True:
                truth = {
                    key_of(found): found.metadata.resource_version async for found in client.list(ConfigMap, "default")
                }
                cached = {key_of(found): found.metadata.resource_version for found in one.informer.indexer.list()}
                seen = {key: version for key, version in one.seen.items() if version is not None}
                if cached == seen == truth:
                    break
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_a_few_seconds(tmp_path: Path) -> None:
    await soak(tmp_path, 5, 60)


@pytest.mark.long
@pytest.mark.timeout(0)
async def test_as_long_as_asked(tmp_path: Path) -> None:
    """PILOTHOUSE_SOAK_SECONDS, two minutes by default."""
    await soak(tmp_path, float(os.environ.get("PILOTHOUSE_SOAK_SECONDS", "120")), 3_000)
