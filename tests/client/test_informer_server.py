"""Informers against the real API server: compaction, restarts, cut and half-open connections, slow handlers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pilothouse.client import Client
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.http import HttpTransport
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.reflector import Timeouts
from pilothouse.client.reflector_core import ReflectorOptions
from pilothouse.foundation.metrics import Metrics
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta
from pilothouse.testing import ControlPlane
from support.gate import Gate, compact
from support.informerkit import CallerListerWatcher
from support.proxy import proxy_to

QUICK = Backoff(base=0.02, factor=2.0, jitter=0.5, cap=0.2, attempts=None)


def options(**changes: Any) -> InformerOptions:
    timeouts = changes.pop("timeouts", Timeouts())
    return InformerOptions(reflector=ReflectorOptions(backoff=QUICK, **changes), timeouts=timeouts)


def config_map(name: str, value: str = "1", **labels: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels=labels), data={"value": value})


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.005)


async def agrees(informer: Informer[ConfigMap], client: Client) -> None:
    """Wait until the cache is what the server has."""
    async with asyncio.timeout(10):
        while True:
            there = {one.metadata.name: one async for one in client.list(ConfigMap, "default")}
            cached = {one.metadata.name: one for one in informer.lister().namespaced("default").list()}
            if there == cached:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def gated(plane: ControlPlane) -> AsyncIterator[tuple[Gate, Client]]:
    gate = Gate()
    gate.plane = plane
    async with Client.for_transport(gate, plane.user) as client:
        yield gate, client


@pytest.mark.parametrize("streams", [True, False])
async def test_a_cache_follows_in_process_and_survives_compaction(streams: bool) -> None:
    async with ControlPlane(lifecycle=False) as plane, gated(plane) as (gate, client):
        for number in range(5):
            await client.create(config_map(f"m{number}"))
        factory = SharedInformerFactory(
            client, namespace="default", options=options(stream_initial_list=streams), metrics=Metrics()
        )
        informer = factory.informer(ConfigMap)
        tombstones: list[str] = []
        informer.add_handler(
            on_delete=lambda gone: tombstones.append(gone.key) if isinstance(gone, DeletedFinalStateUnknown) else None
        )
        async with factory:
            await factory.wait_for_sync(10)
            assert len(informer.indexer) == 5
            lists = informer.core.counts.replaced
            gate.fall_silent()
            await client.delete(ConfigMap, "m0", "default")
            await client.update(config_map("m1", "2"))
            await compact(plane)
            gate.cut_off()
            await agrees(informer, client)
            assert informer.core.counts.replaced == lists + 1
            await until(lambda: tombstones)
            assert tombstones == ["default/m0"]
            assert factory.problems() == []


async def test_a_restarted_server_is_followed_on_without_a_list(tmp_path: Path) -> None:
    informer: Informer[ConfigMap]
    gate = Gate()
    async with ControlPlane(data_dir=tmp_path, lifecycle=False) as plane:
        gate.plane = plane
        client = Client.for_transport(gate, plane.user)
        await client.create(config_map("a"))
        informer = Informer(client.list_watch(ConfigMap, "default"), options=options(), metrics=Metrics())
        informer.start()
        async with asyncio.timeout(10):
            await informer.wait_synced()
        gate.plane = None
    await until(lambda: informer.core.failing)
    async with ControlPlane(data_dir=tmp_path, lifecycle=False) as plane:
        gate.plane = plane
        await client.create(config_map("b"))
        await client.update(config_map("a", "2"))
        await agrees(informer, client)
        await informer.stop()
    assert len(informer.indexer) == 2


async def test_a_server_that_lost_everything_is_noticed() -> None:
    """Its versions begin anew, so the last one seen lies in its future."""
    gate = Gate()
    async with ControlPlane(lifecycle=False) as plane:
        gate.plane = plane
        client = Client.for_transport(gate, plane.user)
        for number in range(20):
            await client.create(config_map(f"old{number}"))
        informer = Informer(client.list_watch(ConfigMap, "default"), options=options(), metrics=Metrics())
        informer.start()
        async with asyncio.timeout(10):
            await informer.wait_synced()
        gate.plane = None
    async with ControlPlane(lifecycle=False) as plane:
        gate.plane = plane
        await client.create(config_map("new"))
        await agrees(informer, client)
        await informer.stop()


async def test_a_half_open_stream_is_noticed_by_its_silence() -> None:
    async with ControlPlane(lifecycle=False) as plane, gated(plane) as (gate, client):
        informer = Informer(
            client.list_watch(ConfigMap, "default"),
            options=options(timeouts=Timeouts(silence_seconds=0.2)),
            metrics=Metrics(),
        )
        async with informer:
            async with asyncio.timeout(10):
                await informer.wait_synced()
            gate.fall_silent()
            await client.create(config_map("a"))
            await agrees(informer, client)
            assert informer.core.counts.replaced == 1


async def test_over_https_cut_and_mended_connections_lose_nothing() -> None:
    async with ControlPlane(lifecycle=False) as plane:
        config = load_kubeconfig(plane.kubeconfig)
        port = urlsplit(config.server).port
        assert port is not None
        async with proxy_to(port) as proxy:
            through = dataclasses.replace(config, server=f"https://127.0.0.1:{proxy.port}")
            async with Client(HttpTransport(through)) as client, Client(HttpTransport(config)) as direct:
                history: list[str] = []
                informer = Informer(client.list_watch(ConfigMap, "default"), options=options(), metrics=Metrics())
                informer.add_handler(
                    on_add=lambda one, _: history.append(f"+{one.metadata.name}"),
                    on_delete=lambda one: history.append(f"-{one.key if hasattr(one, 'key') else one.metadata.name}"),
                )
                async with informer:
                    async with asyncio.timeout(10):
                        await informer.wait_synced()
                    for number in range(4):
                        await direct.create(config_map(f"m{number}"))
                        await agrees(informer, direct)
                        proxy.cut()
                        await direct.create(config_map(f"n{number}"))
                        await direct.delete(ConfigMap, f"m{number}", "default")
                        await until(lambda: informer.core.failing)
                        await proxy.mend()
                        await agrees(informer, direct)
                    assert informer.core.counts.replaced == 1
                    await until(lambda: len(history) == 12)
                    assert history == [f"{sign}{number}" for number in range(4) for sign in ("+m", "+n", "-m")]


async def test_selectors_and_namespaces_narrow_what_is_seen_and_objects_come_and_go_by_them() -> None:
    async with ControlPlane(lifecycle=False) as plane, gated(plane) as (_, client):
        await client.create(Namespace(metadata=ObjectMeta(name="other")))
        await client.create(config_map("a", app="web"))
        await client.create(config_map("b", app="db"))
        factory = SharedInformerFactory(client, namespace="default", options=options(), metrics=Metrics())
        web = factory.informer(ConfigMap, labels="app=web")
        one = factory.informer(ConfigMap, fields="metadata.name=b")
        others = factory.informer(ConfigMap, namespace="other")
        async with factory:
            await factory.wait_for_sync(10)
            assert [found.metadata.name for found in web.indexer.list()] == ["a"]
            assert [found.metadata.name for found in one.indexer.list()] == ["b"]
            assert others.indexer.list() == []
            await client.update(config_map("b", app="web"))
            await client.update(config_map("a", app="db"))
            await until(lambda: [found.metadata.name for found in web.indexer.list()] == ["b"])


async def test_dictionaries_by_plain_calls_with_a_slow_handler_and_many_changes() -> None:
    async with ControlPlane(lifecycle=False) as plane:
        path = "/api/v1/namespaces/default/configmaps"
        informer = Informer(CallerListerWatcher(plane, path), options=options(), metrics=Metrics())
        seen: dict[str, str] = {}

        async def slow(_: Any, new: Any) -> None:
            await asyncio.sleep(0.02)
            seen[new["metadata"]["name"]] = new["data"]["n"]

        listener = informer.add_handler(on_update=slow)
        listener._bound = listener._limit = 10
        async with informer:
            async with asyncio.timeout(10):
                await informer.wait_synced()
            await plane.call("POST", path, {"metadata": {"name": "a"}})
            for number in range(200):
                await plane.call("PATCH", f"{path}/a", {"data": {"n": str(number)}})
            await until(lambda: seen.get("a") == "199")
            assert listener.merges
            assert listener.delivered < 200
