"""Several API servers on one etcd: each sees what the others write, and no two give out the same thing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.store.etcd.backend import EtcdStore, open_etcd
from support.apiserverkit import Api, api_server, config_map, until
from support.etcd import EtcdCluster, etcd_cluster

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(120)]

MAPS = "/api/v1/namespaces/default/configmaps"
SERVICES = "/api/v1/namespaces/default/services"


@contextlib.asynccontextmanager
async def another(cluster: EtcdCluster) -> AsyncIterator[Api]:
    store = await open_etcd("etcd://" + ",".join(each.partition("://")[2] for each in cluster.endpoints))
    try:
        async with api_server(store, compact_seconds=0) as api:
            yield api
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def two_servers(cluster: EtcdCluster) -> AsyncIterator[tuple[Api, Api]]:
    async with another(cluster) as one, another(cluster) as two:
        yield one, two


def service(name: str, **spec: Any) -> dict[str, Any]:
    whole = {"ports": [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": whole}


async def test_two_servers_on_one_etcd(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path) as cluster, two_servers(cluster) as (one, two):
        await reads_are_of_now(one, two)
        await writes_do_not_get_lost(one, two)
        await watches_see_both(one, two)
        await addresses_are_unique(one, two)
        await a_lost_watch_comes_back(one, two)
        # The past is compacted now: a server that starts has less to offer, and starts all the same.
        async with another(cluster) as third:
            assert (await third.get(f"{MAPS}/shared")).body == (await one.get(f"{MAPS}/shared")).body


async def reads_are_of_now(one: Api, two: Api) -> None:
    """What one has answered, the other shows at once, in gets and lists alike."""
    for number in range(20):
        writer, reader = (one, two) if number % 2 else (two, one)
        made = await writer.made(MAPS, config_map(f"c{number}"))
        found = await reader.get(f"{MAPS}/c{number}")
        assert found.body == made
        listed = (await reader.get(MAPS)).body
        assert any(item["metadata"]["name"] == f"c{number}" for item in listed["items"])
        changed = await writer.merge(f"{MAPS}/c{number}", {"data": {"x": str(number)}})
        assert (await reader.get(f"{MAPS}/c{number}")).version == changed.version
        await writer.delete(f"{MAPS}/c{number}")
        assert (await reader.get(f"{MAPS}/c{number}")).status == 404


async def writes_do_not_get_lost(one: Api, two: Api) -> None:
    await one.made(MAPS, config_map("shared"))
    replies = await asyncio.gather(
        *((one, two)[n % 2].merge(f"{MAPS}/shared", {"data": {f"k{n}": "v"}}) for n in range(40))
    )
    assert [reply.status for reply in replies] == [200] * 40
    for api in (one, two):
        assert set((await api.get(f"{MAPS}/shared")).body["data"]) == {f"k{n}" for n in range(40)}
    replies = await asyncio.gather(*((one, two)[n % 2].post(MAPS, config_map("only")) for n in range(10)))
    assert sorted(reply.status for reply in replies) == [201] + [409] * 9


async def watches_see_both(one: Api, two: Api) -> None:
    version = (await one.get(MAPS)).version
    watchers = [await api.watch(f"{MAPS}?resourceVersion={version}") for api in (one, two)]
    for number in range(6):
        await (one, two)[number % 2].made(MAPS, config_map(f"w{number}"))
    told = [await watcher.take(6) for watcher in watchers]
    assert told[0] == told[1]
    assert [event["object"]["metadata"]["name"] for event in told[0]] == [f"w{n}" for n in range(6)]
    for watcher in watchers:
        await watcher.close()


async def addresses_are_unique(one: Api, two: Api) -> None:
    made = await asyncio.gather(
        *((one, two)[n % 2].made(SERVICES, service(f"s{n}", type="NodePort")) for n in range(30))
    )
    assert len({each["spec"]["clusterIP"] for each in made}) == 30
    assert len({each["spec"]["ports"][0]["nodePort"] for each in made}) == 30
    wanted = made[0]["spec"]["clusterIP"]
    reply = await two.post(SERVICES, service("wants", clusterIP=wanted))
    assert reply.status == 422
    await one.delete(f"{SERVICES}/s0")
    await one.server.storage.close()
    assert (await two.post(SERVICES, service("wants", clusterIP=wanted))).status == 201


async def a_lost_watch_comes_back(one: Api, two: Api) -> None:
    """After the watch of the store breaks off and history is compacted, the cache is loaded anew and all is told."""
    await one.made(MAPS, config_map("goes"))
    await two.get(MAPS)
    version = (await two.get(MAPS)).version
    watcher = await two.watch(f"{MAPS}?resourceVersion={version}")
    await until(lambda: two.server.watching.running == 1)
    cacher, store = two.server.cacher, two.server.store
    assert isinstance(store, EtcdStore)
    original, blocked = cacher._again, asyncio.Event()

    async def held() -> None:
        await blocked.wait()
        await original()

    cacher._again = held  # type: ignore[method-assign]
    await cacher._watch.cancel()
    await one.delete(f"{MAPS}/goes")
    await one.made(MAPS, config_map("comes"))
    changed = await one.merge(f"{MAPS}/shared", {"data": {"late": "yes"}})
    await one.server.store.compact(one.server.cacher.revision)
    told: dict[str, str] = {}
    two.server.view.subscribe("configmaps", lambda old, new: told.update({named(old, new): verb(old, new)}))
    blocked.set()
    assert await watcher.next() is None, "who watched across the gap is ended, and starts anew"
    assert (await two.get(f"{MAPS}/shared")).version == changed.version
    assert not cacher.behind
    assert told == {"goes": "DELETED", "comes": "ADDED", "shared": "MODIFIED"}
    anew = await two.watch(f"{MAPS}?resourceVersion={version}")
    event = await anew.next()
    assert event is not None
    assert event["object"]["code"] == 410
    await watcher.close()


def named(old: Any, new: Any) -> str:
    found: str = (new or old)["metadata"]["name"]
    return found


def verb(old: Any, new: Any) -> str:
    return "DELETED" if new is None else "ADDED" if old is None else "MODIFIED"
