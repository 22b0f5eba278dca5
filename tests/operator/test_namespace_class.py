"""The example of a namespace-class operator: classes give, take back and repair, and a bad manifest says what it is."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta, ResourceQuota, ServiceAccount
from pilothouse.operator import Harness, install
from pilothouse.operator.crds import definition
from support.examples import example
from support.operatorkit import definition as site_definition
from support.operatorkit import plane_and_client

QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "limits"},
    "spec": {"hard": {"pods": "10"}},
}
POLICY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny", "labels": {"own": "label"}},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "builder"}}


def config(name: str, **data: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return example("namespace_class")


@asynccontextmanager
async def operated(module: ModuleType) -> AsyncIterator[tuple[Client, Harness]]:
    async with plane_and_client(crd=False) as (_, client):
        await install(client, definition(module.NamespaceClass))
        async with running(module, client) as harness:
            yield client, harness


@asynccontextmanager
async def running(module: ModuleType, client: Client) -> AsyncIterator[Harness]:
    harness = Harness(client)
    module.build(harness.manager)
    async with harness:
        yield harness


async def make_class(client: Client, name: str, *objects: dict[str, Any]) -> None:
    made = {"metadata": {"name": name}, "spec": {"objects": list(objects)}}
    handle = client.dynamic("example.com/v1", "NamespaceClass")
    await handle.apply({"apiVersion": "example.com/v1", "kind": "NamespaceClass", **made}, force=True)


async def make_namespace(client: Client, name: str, label: str | None) -> None:
    labels = {} if label is None else {"namespaceclass.example.com/name": label}
    await client.create(Namespace(metadata=ObjectMeta(name=name, labels=labels)))


async def reclass(client: Client, name: str, label: str | None) -> None:
    await client.patch(Namespace, name, {"metadata": {"labels": {"namespaceclass.example.com/name": label}}})


async def status_of(client: Client, name: str) -> tuple[int, str, str, str]:
    found = (await client.dynamic("example.com/v1", "NamespaceClass").get(name))["status"]
    (ready,) = found["conditions"]
    return found["namespaces"], ready["status"], ready["reason"], ready["message"]


async def names(client: Client, kind: Any, namespace: str) -> list[str]:
    found = await client.list_all(kind, namespace, labels="namespaceclass.example.com/name")
    return sorted(one.metadata.name for one in found)


async def test_a_namespace_gets_what_its_class_lists_and_others_nothing(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        await make_namespace(client, "early", "web")
        await make_class(client, "web", QUOTA, POLICY, ACCOUNT)
        await make_namespace(client, "late", "web")
        await make_namespace(client, "other", None)
        await harness.converge()
        for namespace in ("early", "late"):
            assert (await client.get(ResourceQuota, "limits", namespace)).spec.hard["pods"] == "10"
            policy = await client.dynamic("networking.k8s.io/v1", "NetworkPolicy").get("deny", namespace)
            assert policy["metadata"]["labels"] == {"own": "label", "namespaceclass.example.com/name": "web"}
            managers = {entry["manager"] for entry in policy["metadata"]["managedFields"]}
            assert managers == {"namespace-class"}
            assert await names(client, ServiceAccount, namespace) == ["builder"]
        assert await names(client, ServiceAccount, "other") == []
        before = await client.dynamic("example.com/v1", "NamespaceClass").get("web")
        await reclass(client, "other", "no-such")
        await harness.converge()
        assert before == await client.dynamic("example.com/v1", "NamespaceClass").get("web")
        assert await status_of(client, "web") == (2, "True", "Applied", "2 namespaces have its 3 objects")
        await harness.assert_stable()


async def test_a_change_of_class_prunes_what_the_old_one_gave(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        await make_class(client, "a", config("both", by="a"), config("only-a"), QUOTA)
        await make_class(client, "b", config("both", by="b"), ACCOUNT)
        await make_namespace(client, "team", "a")
        await client.create(ConfigMap(metadata=ObjectMeta(name="own", namespace="team")))
        await harness.converge()
        assert await names(client, ConfigMap, "team") == ["both", "only-a"]
        await reclass(client, "team", "b")
        await harness.converge()
        assert await names(client, ConfigMap, "team") == ["both"]
        assert (await client.get(ConfigMap, "both", "team")).data == {"by": "b"}
        assert await names(client, ResourceQuota, "team") == []
        assert await names(client, ServiceAccount, "team") == ["builder"]
        assert (await status_of(client, "a"))[0] == 0
        assert (await status_of(client, "b"))[0] == 1
        await harness.assert_stable()
        await reclass(client, "team", None)
        await harness.converge()
        assert await names(client, ConfigMap, "team") == []
        assert not (await client.get(ConfigMap, "own", "team")).data  # what no class gave stays


async def test_a_change_of_the_class_reaches_all_its_namespaces(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        await make_class(client, "web", config("page", size="1"), config("old"))
        for name in ("one", "two", "three"):
            await make_namespace(client, name, "web")
        await harness.converge()
        await make_class(client, "web", config("page", size="2"), ACCOUNT)
        await harness.converge()
        for name in ("one", "two", "three"):
            assert (await client.get(ConfigMap, "page", name)).data == {"size": "2"}
            assert await names(client, ConfigMap, name) == ["page"]
            assert await names(client, ServiceAccount, name) == ["builder"]
        await harness.assert_stable()


async def test_drift_is_repaired(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        await make_class(client, "web", config("page", size="1"), QUOTA)
        await make_namespace(client, "team", "web")
        await harness.converge()
        await client.delete(ResourceQuota, "limits", "team")
        await client.patch(ConfigMap, "page", {"data": {"size": "9", "more": "others'"}}, "team")
        await harness.converge()
        assert (await client.get(ResourceQuota, "limits", "team")).spec.hard["pods"] == "10"
        assert (await client.get(ConfigMap, "page", "team")).data == {"size": "1", "more": "others'"}
        await harness.assert_stable()


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (POLICY | {"spec": {"podSelector": {}, "ingress": 3}}, r"spec\.objects\[1\]: NetworkPolicy deny.*ingress"),
        (config("x") | {"metadata": {"name": "No Name"}}, r"spec\.objects\[1\]: ConfigMap No Name.*metadata\.name"),
        (config("x") | {"metadata": {"name": "x", "namespace": "y"}}, r"spec\.objects\[1\]: ConfigMap x: .*namespace"),
        (config("good"), r"spec\.objects\[1\]: ConfigMap good: .*name of its own"),
        ({"apiVersion": "v9", "kind": "Ship", "metadata": {"name": "x"}}, r"spec\.objects\[1\]: Ship x: .*v9"),
        ({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}}, r"Node x: .*whole cluster"),
    ],
    ids=["field", "name", "namespace", "twice", "kind", "scope"],
)
async def test_a_bad_manifest_is_a_condition_and_no_crash_loop(
    module: ModuleType, bad: dict[str, Any], said: str
) -> None:
    async with operated(module) as (client, harness):
        await make_namespace(client, "team", "web")
        await make_class(client, "web", config("good"), bad)
        await harness.converge()
        count, status, reason, message = await status_of(client, "web")
        assert (count, status, reason) == (1, "False", "Refused")
        assert re.search(said, message), message
        assert await names(client, ConfigMap, "team") == ["good"]
        before = harness.reconciles
        await harness.advance(30)
        assert harness.reconciles == before
        await make_class(client, "web", config("good"))
        await harness.converge()
        assert (await status_of(client, "web"))[1] == "True"


async def test_a_kind_whose_definition_comes_later_is_applied_then(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        site = {
            "apiVersion": "operator.example.com/v1",
            "kind": "Site",
            "metadata": {"name": "x"},
            "spec": {"page": "p"},
        }
        await make_namespace(client, "team", "web")
        await make_class(client, "web", site)
        await harness.converge()
        assert (await status_of(client, "web"))[1] == "False"
        await install(client, site_definition())
        await harness.advance(61)
        await harness.converge()
        assert (await status_of(client, "web"))[1] == "True"
        sites = client.dynamic("operator.example.com/v1", "Site")
        await sites.patch("x", {"spec": {"page": "changed"}}, "team")
        await harness.converge()
        assert (await sites.get("x", "team"))["spec"]["page"] == "p"


async def test_what_changes_while_it_is_away_is_done_when_it_comes_back(module: ModuleType) -> None:
    async with plane_and_client(crd=False) as (_, client):
        await install(client, definition(module.NamespaceClass))
        async with running(module, client) as harness:
            await make_class(client, "a", QUOTA, config("x"))
            await make_class(client, "b", ACCOUNT)
            await make_namespace(client, "moved", "a")
            await make_namespace(client, "stays", "a")
            await harness.converge()
        await reclass(client, "moved", "b")
        await make_class(client, "a", config("x"))  # no more quotas: only the status knows that there were some
        async with running(module, client) as harness:
            await harness.converge()
            assert await names(client, ConfigMap, "moved") == []
            assert await names(client, ServiceAccount, "moved") == ["builder"]
            assert await names(client, ConfigMap, "stays") == ["x"]
            for namespace in ("moved", "stays"):
                assert await names(client, ResourceQuota, namespace) == []
            await harness.assert_stable()


async def test_a_class_that_is_deleted_takes_along_what_it_gave(module: ModuleType) -> None:
    async with operated(module) as (client, harness):
        await make_class(client, "web", QUOTA, config("x"))
        await make_namespace(client, "team", "web")
        await harness.converge()
        classes = client.dynamic("example.com/v1", "NamespaceClass")
        await classes.delete("web")
        await harness.converge()
        with pytest.raises(NotFound):
            await classes.get("web")
        assert await names(client, ConfigMap, "team") == []
        assert await names(client, ResourceQuota, "team") == []
