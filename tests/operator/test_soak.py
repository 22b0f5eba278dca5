"""Two copies of an operator, 30,000 objects, churn, restarts, compactions, leader changes: nothing is missed.

The caches are what the server has, every object was reconciled as it is, no task and no memory has grown. The server is
a process of its own, killed and begun anew; it and the operators take six tenths of a processor, so that other tests
have room. PILOTHOUSE_SOAK_SECONDS is the length of the long run, ten minutes by default; 3600 is an hour.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.errors import ClientError
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.informer import InformerOptions
from pilothouse.client.leaderelection import LeadershipLostError
from pilothouse.client.objects import key_of, resource_version_of
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.operator import Context, LeaderElection, Manager, Reconciler, Request, Result, controller
from support.proxy import Proxy, proxy_to
from support.serverprocess import ServerProcess, server_process

QUICK = Backoff(base=0.05, factor=2.0, jitter=0.5, cap=0.5, attempts=None)
ELECTION = ElectionOptions(lease_seconds=4, renew_seconds=3, retry_seconds=0.4)
SHARE = 0.5
"""Of a processor that this process may take, on the average."""
GROWTH = 1.10
"""How much more may be in use at the end than after the first round, which fills caches and pools."""
SLACK_BYTES = 8 << 20
RESIDENT_GROWTH = 1.30
"""The same of what is resident, which also depends on what happened at once."""


class Sample(NamedTuple):
    """What is in use at one moment."""

    resident: int
    in_use: int
    blocks: int
    tasks: Counter[str]


@dataclass
class World:
    """What all have to do with: the server, how it is reached, and what was reconciled."""

    server: ServerProcess
    proxy: Proxy
    seen: dict[str, str] = field(default_factory=dict)
    working: set[str] = field(default_factory=set)
    reconciles: int = 0
    writes: int = 0
    stopping: bool = False

    def client(self) -> Client:
        return Client.from_config(self.server.config(self.proxy.port), backoff=None)


class Notes(Reconciler[ConfigMap]):
    """Notes the version it was called with; nobody else may be called with the same object meanwhile."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        key = str(context.request)
        assert key not in self._world.working
        self._world.working.add(key)
        try:
            await asyncio.sleep(0)
        finally:
            self._world.working.discard(key)
        self._world.seen[key] = obj.metadata.resource_version
        self._world.reconciles += 1
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        self._world.seen.pop(str(request), None)
        return None


class Replica:
    """One copy of the operator: run again whenever it lost the lease or was told to stop."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.turns = 0
        self.failures: list[str] = []
        self.restarts = 0
        self.world = world
        self.manager: Manager | None = None
        self.task = asyncio.create_task(self.run(), name=f"replica {name}")

    @property
    def is_leading(self) -> bool:
        return self.manager is not None and self.manager.is_leading

    async def run(self) -> None:
        while not self.world.stopping:
            async with self.world.client() as client:
                manager = self.manager = Manager(
                    client,
                    namespace="default",
                    leader_election=LeaderElection(name="soak", identity=self.name, options=ELECTION),
                    informers=InformerOptions(reflector=ReflectorOptions(backoff=QUICK)),
                    grace_seconds=5,
                    metrics=Metrics(),
                )
                controller(manager, "soak").for_(ConfigMap).with_options(concurrency=2).build(
                    Notes(self.world, self.name)
                )
                try:
                    await manager.run()
                except (LeadershipLostError, CacheSyncError) as error:
                    self.failures.append(str(error))
                self.restarts += sum(each.restarts for each in manager.factory.informers)
                self.turns += 1
                self.manager = None

    async def hand_over(self) -> None:
        """Stop leading, and stand as a candidate again."""
        if self.manager is not None:
            self.manager.stop()

    async def end(self) -> None:
        await self.hand_over()
        await asyncio.wait([self.task])


class Pace:
    """Keeps what is optional from taking more of the processor than its share."""

    def __init__(self) -> None:
        self._began, self._used = time.monotonic(), time.process_time()

    @property
    def share(self) -> float:
        """What was taken so far."""
        return (time.process_time() - self._used) / (time.monotonic() - self._began)

    async def rest(self) -> None:
        spare = (time.process_time() - self._used) / SHARE - (time.monotonic() - self._began)
        await asyncio.sleep(max(spare, 0.01))


async def churn(world: World, source: random.Random, objects: int, pace: Pace) -> None:
    """Change objects one after the other, whatever comes."""
    async with world.client() as client:
        while not world.stopping:
            name, value = f"m{source.randrange(objects)}", str(source.random())
            made = ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data={"v": value})
            try:
                match source.randrange(6):
                    case 0:
                        await client.delete(ConfigMap, name, "default")
                        if source.random() < 0.9:  # else there were fewer and fewer
                            await client.create(made)
                    case 1:
                        await client.apply(made, force=True)
                    case _:
                        await client.patch(ConfigMap, name, {"data": {"v": value}}, "default")
                world.writes += 1
            except (ApiStatus, ClientError, OSError):
                await asyncio.sleep(0.05)
            await pace.rest()


async def restarted(world: World, _: list[Replica]) -> None:
    """The server dies and comes again."""
    await world.server.kill()
    await asyncio.sleep(0.3)
    await world.server.start()


async def forgotten(world: World, _: list[Replica]) -> None:
    """All are cut off, and the versions that they know are compacted away."""
    world.proxy.cut()
    async with Client.from_config(world.server.config()) as direct:
        mark = ConfigMap(metadata=ObjectMeta(name="mark", namespace="default"), data={"v": str(time.monotonic())})
        await direct.apply(mark, force=True)
    await world.server.command("compact")
    await world.proxy.mend()


async def handed_over(_: World, replicas: list[Replica]) -> None:
    """Whoever leads gives it up."""
    for one in replicas:
        if one.is_leading:
            await one.hand_over()


async def cut(world: World, _: list[Replica]) -> None:
    """All connections break."""
    world.proxy.cut()
    await asyncio.sleep(0.1)
    await world.proxy.mend()


EVENTS: list[Callable[[World, list[Replica]], Awaitable[None]]] = [restarted, handed_over, forgotten, cut]


async def settled(world: World, replicas: list[Replica], seconds: float = 60.0) -> int:
    """Wait until caches are what the server has and each object was reconciled as it is; return their number."""
    async with Client.from_config(world.server.config()) as direct, asyncio.timeout(seconds):
        while True:
            heads = direct.metadata_of(ConfigMap)
            truth = {key_of(one): resource_version_of(one) async for one in heads.list("default")}
            managers = [one.manager for one in replicas]
            if all(manager is not None and cached(manager) == truth for manager in managers) and all(
                world.seen.get(key) == version for key, version in truth.items()
            ):
                return len(truth)
            await asyncio.sleep(1)


def cached(manager: Manager) -> dict[str, str]:
    informer = manager.known(ConfigMap)
    assert informer is not None
    return {key: resource_version_of(one) for key, one in informer.indexer.entries.items()}


async def sampled(replicas: list[Replica]) -> Sample:
    """Measure when the caches are filled and the queues are short."""
    await settled_under_churn(replicas)
    async with asyncio.timeout(60):
        while not all(map(idle, replicas)):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)
    return Sample(*memory(), tasks())


def idle(replica: Replica) -> bool:
    return replica.manager is None or all(len(each.queue) < 100 for each in replica.manager.controllers)


def tasks() -> Counter[str]:
    """Count the tasks by what they are; those that come and go with each request are left out."""
    kinds = Counter(task.get_name().split()[0] for task in asyncio.all_tasks())
    return Counter({kind: count for kind, count in kinds.items() if not kind.startswith("Task-")})


_MALLINFO = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "used", "free", "keep")


class _Malloc(ctypes.Structure):
    """What mallinfo2 of glibc returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]


def memory() -> tuple[int, int, int]:
    """Return the bytes that are resident, those that C code has in use, and the blocks that Python has in use.

    What is resident depends on the largest heap there ever was and on how it is strewn; the others are exact.
    """
    gc.unfreeze()
    gc.collect()
    library = ctypes.CDLL(None)
    in_use = 0
    with suppress(AttributeError):  # where the C library has no such thing
        library.malloc_trim(0)
        library.mallinfo2.restype = _Malloc
        told = library.mallinfo2()
        in_use = told.used + told.hblkhd
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, in_use, sys.getallocatedblocks()


async def soak(directory: Path, seconds: float, objects: int, pause: float) -> dict[str, object]:
    """Go through all of it; return the figures."""
    source, pace, began = random.Random(7), Pace(), time.monotonic()
    async with server_process(directory / "server") as server, proxy_to(server.port) as proxy:
        await server.command(f"fill {objects}")
        world = World(server, proxy)
        replicas = [Replica(world, name) for name in ("a", "b")]
        writers = [asyncio.create_task(churn(world, source, objects, pace)) for _ in range(4)]
        filled, turn = time.monotonic() - began, 0
        samples: list[Sample] = []
        try:
            await settled_under_churn(replicas)
            while time.monotonic() - began < seconds or turn <= len(EVENTS):
                if turn % len(EVENTS) == 0:
                    samples.append(await sampled(replicas))
                await EVENTS[turn % len(EVENTS)](world, replicas)
                turn += 1
                await asyncio.sleep(pause)
                await pace.rest()
                assert sum(one.is_leading for one in replicas) <= 1
            world.stopping = True
            await asyncio.wait(writers)
            world.stopping = False
            await settled_under_churn(replicas)
            count = await settled(world, replicas)
            samples.append(await sampled(replicas))
        finally:
            world.stopping = True
            for task in writers:
                task.cancel()
            for one in replicas:
                await one.end()
            await asyncio.gather(*writers, return_exceptions=True)
        figures = {
            "seconds": round(time.monotonic() - began),
            "filled_in": round(filled),
            "objects": count,
            "writes": world.writes,
            "reconciles": world.reconciles,
            "server_starts": server.starts,
            "turns": sum(one.turns for one in replicas),
            "lost_leases": sum(len(one.failures) for one in replicas),
            "share": round(pace.share, 2),
            "resident_mb": [round(sample.resident / 1e6) for sample in samples],
            "in_use_mb": [round(sample.in_use / 1e6) for sample in samples],
            "kilo_blocks": [round(sample.blocks / 1e3) for sample in samples],
        }
        print(f"\nsoak: {figures}")
        check(replicas, samples)
        return figures


async def settled_under_churn(replicas: list[Replica]) -> None:
    """Wait until one leads and both have their caches, whatever is being written."""
    async with asyncio.timeout(60):
        while not (any(one.is_leading for one in replicas) and all(map(well, replicas))):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.1)


def well(replica: Replica) -> bool:
    informer = None if replica.manager is None else replica.manager.known(ConfigMap)
    return informer is not None and informer.has_synced and informer.core.phase == "watching"


def check(replicas: list[Replica], samples: list[Sample]) -> None:
    """Check that nothing has grown, and that no watcher had to be begun anew."""
    early, last = samples[1], samples[-1]
    assert last.blocks <= early.blocks * GROWTH
    assert last.in_use <= early.in_use * GROWTH + SLACK_BYTES
    assert last.resident <= max(sample.resident for sample in samples[: max(2, len(samples) // 2)]) * RESIDENT_GROWTH
    assert last.tasks["informer"] == early.tasks["informer"] == 2
    assert last.tasks["handler"] == early.tasks["handler"]
    assert last.tasks["controller"] == early.tasks["controller"] == 2
    assert sum(last.tasks.values()) <= sum(early.tasks.values()) + 2, (early.tasks, last.tasks)
    assert [one.restarts for one in replicas] == [0, 0]


@pytest.mark.slow
@pytest.mark.no_cover  # tracing would take most of the time
@pytest.mark.timeout(240)
async def test_two_minutes(tmp_path: Path) -> None:
    await soak(tmp_path, 90, 30_000, 1.5)


@pytest.mark.long
@pytest.mark.no_cover
@pytest.mark.timeout(0)
async def test_as_long_as_asked(tmp_path: Path) -> None:
    await soak(tmp_path, float(os.environ.get("PILOTHOUSE_SOAK_SECONDS", "600")), 30_000, 1.5)
