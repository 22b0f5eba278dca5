"""Factories: informers that are shared, several clusters side by side, the watchdog, and syncing with a limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pilothouse.client import factory as factories
from pilothouse.client.factory import CacheSyncError, Clusters, SharedInformerFactory
from pilothouse.client.informer import InformerOptions
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds import status
from pilothouse.kinds.structs import ConfigMap, Namespace, Pod
from support.informerkit import FakeServer
from support.loglines import logged


class Lists:
    """Says what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, str]] = []

    def list_watch(self, kind: Any, namespace: str = "*", *, labels: str = "", fields: str = "") -> Any:
        self.asked.append((kind.__name__, namespace, labels, fields))
        return FakeServer()


def factory(server: FakeServer | None = None, **options: Any) -> tuple[SharedInformerFactory, FakeServer, FakeClock]:
    clock = FakeClock()
    server = server or FakeServer(clock=clock)
    server.clock = clock
    made = SharedInformerFactory(clock=clock, metrics=options.pop("metrics", Metrics()), **options)
    return made, server, clock


def test_one_informer_for_one_kind_namespace_and_selectors() -> None:
    lists = Lists()
    shared = SharedInformerFactory(lists, namespace="shop", metrics=Metrics())
    pods = shared.informer(Pod)
    assert shared.informer(Pod) is pods
    assert shared.informer(Pod, labels="app=web") is not pods
    assert shared.informer(Pod, namespace="*") is not pods
    shared.informer(Namespace)
    assert lists.asked == [
        ("Pod", "shop", "", ""),
        ("Pod", "shop", "app=web", ""),
        ("Pod", "*", "", ""),
        ("Namespace", "*", "", ""),
    ]
    assert len(shared.informers) == 4


def test_a_later_caller_may_bring_indexes_but_no_other_transform() -> None:
    def slim(found: ConfigMap) -> ConfigMap:
        return found

    shared = SharedInformerFactory(Lists(), metrics=Metrics())
    informer = shared.informer(ConfigMap, transform=slim)
    shared.informer(ConfigMap, indexers={"x": lambda _: ["1"]})
    shared.informer(ConfigMap, indexers={"x": lambda _: ["1"]}, transform=slim)
    assert "x" in informer.indexer.indexes
    with pytest.raises(ValueError, match="another transform"):
        shared.informer(ConfigMap, transform=lambda found: found)
    with pytest.raises(RuntimeError, match="has no client"):
        SharedInformerFactory(metrics=Metrics()).informer(Pod)


async def test_informers_start_together_and_late_ones_at_once() -> None:
    shared, server, clock = factory()
    server.put("a")
    first = shared.informer_of("first", server)
    async with shared:
        await shared.wait_for_sync()
        second = shared.informer_of("second", lambda: server)
        await clock.run(0)
        assert first.has_synced
        assert second.has_synced
        assert shared.informer_of("second", server) is second
    assert server.open_watches == 0
    assert clock.waiting == 0
    assert len(second.indexer) == 1


async def test_what_does_not_sync_in_time_is_named_with_the_reason() -> None:
    shared, server, clock = factory(options=InformerOptions())
    server.refuse = [status.forbidden("", "things", "", "no rights") for _ in range(90)]
    shared.informer_of("x", server)
    async with shared:
        waiting = asyncio.create_task(shared.wait_for_sync(120))
        await clock.run(121)
        with pytest.raises(CacheSyncError, match=r"within 120 s: things \(Forbidden: things is forbidden: no rights\)"):
            await waiting


async def test_the_watchdog_names_what_is_unwell_and_shows_it() -> None:
    metrics = Metrics()
    shared, server, clock = factory(metrics=metrics, cluster="east", check_seconds=10)
    informer = shared.informer_of("x", server)
    async with shared:
        await clock.run(1)
        task = informer._task
        assert task is not None
        task.cancel()
        await clock.run(10)
        assert 'pilothouse_client_unhealthy_informers{cluster="east"} 1.0' in metrics.exposition().decode()
        assert informer.restarts == 1
        server.put("a")
        await clock.run(10)
        assert 'pilothouse_client_unhealthy_informers{cluster="east"} 0.0' in metrics.exposition().decode()
        assert len(informer.indexer) == 1
        clock._elapsed += 30  # something blocked the loop
        await clock.run(1)
        assert shared.late_seconds > 20


async def test_what_stays_unwell_is_not_told_at_every_look_and_its_end_is() -> None:
    shared, server, clock = factory(check_seconds=10)
    shared.informer_of("x", server)
    server.refuse = [status.Forbidden("no rights")] * 200
    with logged(factories) as lines:
        async with shared:
            await clock.run(800)  # the alarm is after 120 s, and a look every 10 s; the next would be told at 970 s
            told = [line["problem"] for line in lines if line["event"] == "informer unwell"]
            assert len(told) == 3
            assert "its cache is not filled: no rights for" in told[0]
            server.refuse.clear()
            await clock.run(120)
            assert shared.problems() == []
            assert [line["event"] for line in lines[3:]] == ["informer well again"]
            assert shared._told == {}  # it would be told at once if it came again


async def test_a_dead_cluster_holds_up_no_other() -> None:
    clock = FakeClock()
    servers = {name: FakeServer(clock=clock) for name in ("east", "west")}
    servers["west"].refuse = [ConnectionRefusedError("west is down") for _ in range(99)]
    servers["east"].put("a")
    clusters = Clusters({name: SharedInformerFactory(cluster=name, clock=clock, metrics=Metrics()) for name in servers})
    informers = {name: clusters[name].informer_of("things", server) for name, server in servers.items()}
    assert sorted(clusters) == ["east", "west"]
    assert len(clusters) == 2
    with pytest.raises(KeyError, match="cluster north: there is none"):
        clusters["north"]
    async with clusters:
        waiting = asyncio.create_task(clusters.wait_for_sync(130))
        await clock.run(131)
        failed = await waiting
        assert list(failed) == ["west"]
        assert "west is down" in str(failed["west"])
        assert informers["east"].has_synced
        assert list(clusters.problems()) == ["west"]
    assert [server.open_watches for server in servers.values()] == [0, 0]
