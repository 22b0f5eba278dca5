"""Caches beyond a builder's sentence: indexes of a controller's own, and kinds that are known only while it runs."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.client import UnknownKind
from pilothouse.client.objects import labels_of
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Resource
from pilothouse.operator import BuildError, Context, Harness, NotRegistered, Request, controller
from support.operatorkit import Site, plane_and_client, site


def sites_of(obj: Any) -> list[Request]:
    return [Request("default", name) for name in tiers_of(obj)]


def tiers_of(obj: Any) -> list[str]:
    found = labels_of(obj).get("site")
    return [found] if found else []


async def test_an_index_finds_what_its_function_says() -> None:
    async with plane_and_client() as (_, client):
        harness, seen = Harness(client), []

        async def reconcile(obj: Site, context: Context) -> None:
            seen.append(sorted(one.metadata.name for one in context.indexed(ConfigMap, "site", obj.metadata.name)))

        harness.manager.scheme.register(Site)
        harness.manager.index(ConfigMap, "site", tiers_of)
        harness.manager.index(ConfigMap, "site", tiers_of)
        controller(harness.manager).for_(Site).watches(ConfigMap, sites_of).build(reconcile)
        for name, owner in (("a", "web"), ("b", "web"), ("c", "shop")):
            await client.create(ConfigMap(metadata=ObjectMeta(name=name, labels={"site": owner})))
        await client.create(site("web"))
        async with harness:
            await harness.converge()
            assert seen[-1] == ["a", "b"]
            await client.delete(ConfigMap, "a")
            await harness.converge()
            assert seen[-1] == ["b"]


async def test_an_index_wants_a_type_that_is_known() -> None:
    class Unknown(Resource, group="nowhere.example.com", version="v1", plural="unknowns"):
        """A kind that nobody registered."""

    async with plane_and_client(crd=False) as (_, client):
        with pytest.raises(NotRegistered):
            Harness(client).manager.index(Unknown, "site", tiers_of)


async def test_a_kind_is_watched_that_is_known_only_now() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client)
        counts: list[int] = []
        secrets = client.dynamic("v1", "Secret")

        async def reconcile(obj: Site, context: Context) -> None:
            cache = await built.watch(secrets, sites_of, labels="site")
            assert cache is await built.watch(client.dynamic("v1", "Secret"), sites_of, labels="site")
            await cache.wait_synced()
            counts.append(len(cache.indexer))

        harness.manager.scheme.register(Site)
        built = controller(harness.manager).for_(Site).build(reconcile)
        with pytest.raises(RuntimeError, match="it does not run"):
            await built.watch(secrets, sites_of)
        await client.create(site("web"))
        async with harness:
            await harness.converge()
            assert counts == [0]
            made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"site": "web"}}}
            await secrets.create(made)
            await secrets.create(made | {"metadata": {"name": "other"}})
            await harness.converge()
            assert counts == [0, 1]
            await secrets.delete("s")
            await harness.converge()
            assert counts == [0, 1, 0]
            with pytest.raises(UnknownKind):
                await built.watch(client.dynamic("v7", "Whale"), sites_of)
            assert len(harness.manager.followed()) == 1
        with pytest.raises(RuntimeError, match="it does not run"):
            await built.watch(secrets, sites_of)


async def test_an_index_of_a_kind_without_a_cache_says_what_to_do() -> None:
    async with plane_and_client() as (_, client):
        harness = Harness(client)
        failed: list[BaseException] = []

        async def reconcile(obj: Site, context: Context) -> None:
            try:
                context.indexed(ConfigMap, "site", "web")
            except BuildError as error:
                failed.append(error)

        harness.manager.scheme.register(Site)
        controller(harness.manager).for_(Site).build(reconcile)
        await client.create(site("web"))
        async with harness:
            await harness.converge()
        assert "there is no cache of ConfigMap" in str(failed[0])
