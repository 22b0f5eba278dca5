"""An operator and a server that is a process of its own, with all that can happen between; it converges after each.

In each case no watcher has died, what went wrong is told by name and counted, and what was wanted comes about.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pilothouse.client import Client
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.http import HttpTransport
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.reflector import Timeouts
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.operator import Context, Manager, Reconciler, Result, controller
from support.faultyproxy import FaultyProxy, faulty_proxy_to
from support.serverprocess import ServerProcess, server_process

pytestmark = pytest.mark.slow

QUICK = Backoff(base=0.05, factor=2.0, jitter=0.5, cap=0.3, attempts=None)
OPTIONS = InformerOptions(
    reflector=ReflectorOptions(backoff=QUICK),
    timeouts=Timeouts(list_seconds=2, silence_seconds=1.5),
    sync_alarm_seconds=0.5,
)


class Pages(Reconciler[ConfigMap]):
    """Each site gets a page that says the same."""

    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        if obj.metadata.labels.get("is") == "site":
            page = ConfigMap(metadata=ObjectMeta(name=f"{obj.metadata.name}-page"), data=obj.data)
            await context.apply(page, owner=obj)
        return None


@dataclass
class World:
    """An operator behind a relay to a server; `direct` leads past the relay."""

    server: ServerProcess
    proxy: FaultyProxy
    direct: Client
    manager: Manager
    metrics: Metrics

    @property
    def informer(self) -> Informer[ConfigMap]:
        found = self.manager.known(ConfigMap)
        assert found is not None
        return found

    async def want(self, value: str, names: Iterable[str] = "abc") -> None:
        """Say anew what is wanted."""
        for name in names:
            metadata = ObjectMeta(name=name, namespace="default", labels={"is": "site"})
            await self.direct.apply(ConfigMap(metadata=metadata, data={"v": value}), force=True)

    async def converged(self, value: str, names: Iterable[str] = "abc") -> None:
        """Wait until each site has its page, and all is well."""
        async with asyncio.timeout(20):
            while True:
                there = {
                    one.metadata.name: one.data.get("v") for one in await self.direct.list_all(ConfigMap, "default")
                }
                if all(there.get(f"{name}-page") == value for name in names) and not self.manager.problems():
                    return
                await asyncio.sleep(0.05)

    def alive(self) -> None:
        """Check that nothing had to be begun anew, and everything runs."""
        assert self.informer.restarts == 0
        names = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
        assert len([name for name in names if name.startswith("informer ")]) == 1
        assert len([name for name in names if name.startswith("handler ")]) == 1
        assert len([name for name in names if "worker" in name]) == 1

    def figure(self, name: str) -> float:
        """Return a value that is shown, all of its labels together."""
        lines = self.metrics.exposition().decode().splitlines()
        found = [line for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        assert found, name
        return sum(float(line.rpartition(" ")[2]) for line in found)


@asynccontextmanager
async def world_of(server: ServerProcess, options: InformerOptions = OPTIONS) -> AsyncIterator[World]:
    async with (
        faulty_proxy_to(server.port) as proxy,
        Client.from_config(server.config()) as direct,
        Client(HttpTransport(server.config(proxy.port), seconds=1, connect_seconds=1), backoff=None) as client,
    ):
        metrics = Metrics()
        manager = Manager(client, namespace="default", informers=options, metrics=metrics, grace_seconds=1)
        controller(manager, "pages").for_(ConfigMap).with_options(timeout_seconds=3).build(Pages())
        world = World(server, proxy, direct, manager, metrics)
        async with manager:
            yield world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with server_process(tmp_path / "server") as server, world_of(server) as made:
        await made.want("0")
        await made.converged("0")
        yield made


async def until(holds: Callable[[], object], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.02)


async def test_a_server_that_is_killed_and_comes_again(world: World) -> None:
    lists = world.informer.core.counts.replaced
    for turn in ("1", "2"):
        await world.server.kill()
        await until(lambda: "list and watch fail" in " ".join(world.manager.problems()))
        (problem,) = world.manager.problems()
        assert problem.startswith("informer configmaps in default: list and watch fail, ")
        assert "times in a row: " in problem
        await world.server.start()
        await world.want(turn)
        await world.converged(turn)
    world.alive()
    assert world.informer.core.counts.replaced == lists  # it was followed on, without a list
    assert world.figure("pilothouse_client_reflector_failures_total") >= 2


async def test_a_server_that_stands_still_and_goes_on(world: World) -> None:
    world.server.freeze()
    try:
        await until(lambda: world.informer._reflector.silences > 0)
        await until(lambda: "list and watch fail" in " ".join(world.manager.problems()))
        (problem,) = world.manager.problems()
        assert re.search(r"times in a row: https://127\.0\.0\.1.*: no connection within 1 s for \d+ s$", problem)
    finally:
        world.server.thaw()
    await world.want("1")
    await world.converged("1")
    world.alive()


async def test_connections_that_are_half_open(world: World) -> None:
    world.proxy.half_open()
    await world.want("1")
    await until(lambda: world.informer._reflector.silences > 0)
    await until(lambda: "no connection within 1 s" in " ".join(world.manager.problems()))
    await world.proxy.mend()
    await world.converged("1")
    world.alive()
    assert world.proxy.stalls > 0
    assert world.figure("pilothouse_client_silent_watches_total") >= 1


async def test_connections_that_are_cut_while_much_is_written(world: World) -> None:
    for turn in range(1, 6):
        writing = asyncio.create_task(world.want(str(turn), "abcdefgh"))
        await asyncio.sleep(0.02 * turn)
        world.proxy.cut()
        await asyncio.sleep(0.1)
        await world.proxy.mend()
        await writing
    await world.converged("5", "abcdefgh")
    world.alive()


async def test_bytes_that_are_lost(world: World) -> None:
    world.proxy.losing = True
    await world.want("1")
    await until(lambda: world.proxy.lost > 2)
    await until(lambda: world.informer.core.last_error is not None)
    await world.proxy.mend()
    await world.converged("1")
    world.alive()


async def test_a_network_that_takes_its_time(world: World) -> None:
    world.proxy.delay = 0.05
    await world.want("1")
    await world.converged("1")
    world.alive()


async def test_versions_that_are_compacted_away_meanwhile(world: World) -> None:
    lists = world.informer.core.counts.replaced
    world.proxy.cut()
    await world.want("1", "abd")
    await world.direct.delete(ConfigMap, "c", "default")
    await world.direct.delete(ConfigMap, "c-page", "default")
    await world.server.command("compact")
    await world.proxy.mend()
    await world.converged("1", "abd")
    await until(lambda: world.informer.indexer.get("default/c") is None)
    world.alive()
    assert world.informer.core.counts.replaced == lists + 1


async def test_a_consumer_so_slow_that_the_server_gives_it_up(tmp_path: Path) -> None:
    """More waits for it than a server keeps for one client; it watches anew, and nothing is lost."""
    patient = InformerOptions(reflector=ReflectorOptions(backoff=QUICK), timeouts=Timeouts(silence_seconds=60))
    async with server_process(tmp_path / "server") as server, world_of(server, patient) as world:
        await world.want("0")
        await world.converged("0")
        watches, big = world.informer.core.counts.watches, "x" * 400_000
        world.proxy.half_open()
        for turn in range(60):
            metadata = ObjectMeta(name=f"big{turn % 5}", namespace="default")
            await world.direct.apply(ConfigMap(metadata=metadata, data={"v": big, "n": str(turn)}), force=True)
        await world.want("1")
        await world.proxy.mend()
        await world.converged("1")
        await until(lambda: shown(world, "big4") == "59")
        assert world.informer.core.counts.watches > watches
        assert world.informer.core.counts.replaced == 1
        world.alive()


def shown(world: World, name: str) -> str:
    found = world.informer.indexer.get(f"default/{name}")
    return "" if found is None else found.data["n"]


async def test_a_server_that_is_not_there_at_the_start_and_comes_later(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server")
    await server.start()
    config = server.config()
    await server.kill()
    metrics = Metrics()
    async with Client.from_config(config, backoff=None) as client:
        manager = Manager(client, namespace="default", informers=OPTIONS, metrics=metrics)
        controller(manager, "pages").for_(ConfigMap).build(Pages())
        running = asyncio.create_task(manager.run())
        try:
            await until(lambda: "its cache is not filled" in " ".join(manager.problems()))
            (problem,) = manager.problems()
            assert f"127.0.0.1:{server.port}" in problem
            assert "cannot be reached" in problem
            await server.start()
            world = World(server, FaultyProxy(0), client, manager, metrics)
            await manager.wait_started()
            await world.want("1")
            await world.converged("1")
            world.alive()
        finally:
            manager.stop()
            await running
            await server.kill()


async def test_a_server_that_is_never_there_ends_the_operator_with_its_name(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path / "server")
    await server.start()
    config = server.config()
    await server.kill()
    async with Client.from_config(config, backoff=None) as client:
        manager = Manager(client, namespace="default", informers=OPTIONS, metrics=Metrics(), sync_seconds=1)
        controller(manager, "pages").for_(ConfigMap).build(Pages())
        with pytest.raises(CacheSyncError, match=rf"configmaps in default .*:{server.port}.*cannot be reached"):
            await manager.run()
