"""The garbage collector on a whole server: what it deletes, lets go, warns of, and when it rests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilothouse.apiserver.lifecycle.collector import GarbageCollector
from pilothouse.apiserver.lifecycle.resources import Resources
from pilothouse.kinds.status import ApiStatus, Conflict
from support.apiserverkit import Api, api_server, config_map, until

Object = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
FOREIGN = "example.com/held"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(lifecycle=True) as found:
        yield found


def reference(obj: Object, *, kind: str = "ConfigMap", version: str = "v1", blocks: bool = True) -> Object:
    metadata = obj["metadata"]
    return {
        "apiVersion": version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": blocks,
    }


async def settled(api: Api) -> None:
    lifecycle = api.server.background.lifecycle
    assert lifecycle is not None
    await asyncio.sleep(0)
    await until(lambda: not lifecycle.collector.queue.busy and not lifecycle.collector.queue.waiting)


def names(api: Api, resource: str = "configmaps", namespace: str = "default") -> set[str]:
    found = {obj["metadata"]["name"] for obj in api.server.view.list(resource, namespace)}
    return found - {"kube-root-ca.crt"}


async def family(api: Api, *, finalizers: tuple[str, ...] = ()) -> Object:
    owner = await api.made(MAPS, config_map("owner"))
    child = config_map("child", ownerReferences=[reference(owner)], finalizers=list(finalizers))
    made = await api.made(MAPS, child)
    await api.made(MAPS, config_map("grandchild", ownerReferences=[reference(made)]))
    return owner


async def test_dependents_go_after_their_owner(api: Api) -> None:
    await family(api)
    await settled(api)
    assert names(api) == {"owner", "child", "grandchild"}
    await api.delete(f"{MAPS}/owner")
    await settled(api)
    assert names(api) == set()


async def test_foreground_deletion_shows_the_owner_until_the_last_dependent_is_gone(api: Api) -> None:
    await family(api, finalizers=(FOREIGN,))
    await api.delete(f"{MAPS}/owner?propagationPolicy=Foreground")
    await settled(api)
    assert names(api) == {"owner", "child"}
    assert (await api.get(f"{MAPS}/owner")).body["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.merge(f"{MAPS}/child", {"metadata": {"finalizers": None}})
    await settled(api)
    assert names(api) == set()


async def test_orphans_stay_without_their_owner(api: Api) -> None:
    await family(api)
    await api.delete(f"{MAPS}/owner?propagationPolicy=Orphan")
    await settled(api)
    assert names(api) == {"child", "grandchild"}
    assert "ownerReferences" not in (await api.get(f"{MAPS}/child")).body["metadata"]
    assert (await api.get(f"{MAPS}/grandchild")).body["metadata"]["ownerReferences"]


async def test_dependent_with_two_owners_loses_the_reference_that_is_gone(api: Api) -> None:
    one = await api.made(MAPS, config_map("one"))
    other = await api.made(MAPS, config_map("other"))
    await api.made(MAPS, config_map("child", ownerReferences=[reference(one), reference(other)]))
    await api.delete(f"{MAPS}/one")
    await settled(api)
    (left,) = (await api.get(f"{MAPS}/child")).body["metadata"]["ownerReferences"]
    assert left["uid"] == other["metadata"]["uid"]
    assert left["blockOwnerDeletion"] is True


async def test_owner_that_never_was_is_absent(api: Api) -> None:
    ghost = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000001"}}
    await api.made(MAPS, config_map("child", ownerReferences=[reference(ghost)]))
    await settled(api)
    assert names(api) == set()
    assert not api.server.view.list("events", "default")


async def test_owner_of_another_namespace_is_absent_and_told_of(api: Api) -> None:
    far = await api.made("/api/v1/namespaces/kube-public/configmaps", config_map("far"))
    child = await api.made(MAPS, config_map("child", ownerReferences=[reference(far)]))
    await settled(api)
    assert names(api) == set()
    (event,) = api.server.view.list("events", "default")
    assert (event["type"], event["reason"]) == ("Warning", "OwnerRefInvalidNamespace")
    assert event["involvedObject"]["uid"] == child["metadata"]["uid"]
    assert event["message"] == (
        f"ownerRef [v1/ConfigMap, namespace: default, name: far, uid: {far['metadata']['uid']}]"
        ' does not exist in namespace "default"'
    )


async def test_object_of_the_cluster_with_an_owner_in_a_namespace_is_told_of_once(api: Api) -> None:
    owner = await api.made(MAPS, config_map("owner"))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "ownerReferences": [reference(owner)]}}
    await api.made("/api/v1/nodes", node)
    await settled(api)
    await api.merge("/api/v1/nodes/n", {"metadata": {"finalizers": [FOREIGN]}})
    await settled(api)
    (event,) = api.server.view.list("events", "default")
    assert event["involvedObject"]["kind"] == "Node"
    assert event["message"].endswith('does not exist in namespace ""')
    await api.delete(f"{MAPS}/owner")
    await settled(api)
    assert (await api.get("/api/v1/nodes/n")).status == 200


async def test_owner_of_the_cluster_has_dependents_in_namespaces(api: Api) -> None:
    node = await api.made("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    await api.made(MAPS, config_map("child", ownerReferences=[reference(node, kind="Node")]))
    await settled(api)
    assert names(api) == {"child"}
    await api.delete("/api/v1/nodes/n")
    await settled(api)
    assert names(api) == set()


async def test_owner_of_an_unknown_kind_keeps_its_dependents(api: Api) -> None:
    ghost = {"metadata": {"name": "w", "uid": "00000000-0000-0000-0000-000000000001"}}
    await api.made(MAPS, config_map("child", ownerReferences=[reference(ghost, kind="Widget", version="x.io/v1")]))
    await settled(api)
    assert names(api) == {"child"}


def definition(group: str = "x.io", plural: str = "widgets", kind: str = "Widget") -> Object:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }


async def test_custom_resources_own_and_are_owned_once_they_are_served(api: Api) -> None:
    ghost = {"metadata": {"name": "w", "uid": "00000000-0000-0000-0000-000000000001"}}
    await api.made(MAPS, config_map("early", ownerReferences=[reference(ghost, kind="Widget", version="x.io/v1")]))
    await settled(api)
    await api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
    await until(lambda: "early" not in names(api))
    path = "/apis/x.io/v1/namespaces/default/widgets"
    owner = await api.made(MAPS, config_map("owner"))
    widget = {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "w"}}
    widget["metadata"]["ownerReferences"] = [reference(owner)]  # type: ignore[index]
    made = await api.made(path, widget)
    await api.made(MAPS, config_map("child", ownerReferences=[reference(made, kind="Widget", version="x.io/v1")]))
    await settled(api)
    assert names(api) == {"owner", "child"}
    await api.delete(f"{MAPS}/owner")
    await settled(api)
    assert names(api) == set()
    assert (await api.get(f"{path}/w")).status == 404


async def test_definition_whose_kept_version_is_not_served_harms_nobody(api: Api) -> None:
    made = definition()
    (version,) = made["spec"]["versions"]
    made["spec"]["versions"] = [{**version, "storage": False}, {**version, "name": "v2", "served": False}]
    await api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", made)
    await until(lambda: api.server.catalogue.registry.get("x.io", "v1", "widgets") is not None)
    await family(api)
    await api.delete(f"{MAPS}/owner")
    await settled(api)
    assert names(api) == set()


async def test_starts_with_what_is_there_and_ends_at_rest() -> None:
    async with api_server(lifecycle=False) as api:
        owner = await api.made(MAPS, config_map("owner"))
        for number in range(50):
            await api.made(MAPS, config_map(f"child-{number}", ownerReferences=[reference(owner)]))
        await api.delete(f"{MAPS}/owner")
        async with api_server(api.server.store, lifecycle=True) as second:
            await until(lambda: names(second) == set())
            await settled(second)
            lifecycle = second.server.background.lifecycle
            assert lifecycle is not None
            assert len(lifecycle.collector.graph) == 0


class Recorder:
    """A server that only notes what it is asked, and refuses first what it is told to."""

    def __init__(self, *errors: ApiStatus) -> None:
        self.calls: list[tuple[str, str, Object]] = []
        self.errors = list(errors)

    async def call(
        self, method: str, path: str, body: Object | None = None, *, content_type: str = "application/json"
    ) -> Object:
        self.calls.append((method, path, body or {}))
        if self.errors:
            raise self.errors.pop(0)
        return {}


async def collected(api: Api, recorder: Recorder, calls: int) -> list[tuple[str, str, Object]]:
    options = api.server.options
    collector = GarbageCollector(Resources(api.server.catalogue), recorder, options.clock, options.ids)
    collector.start()
    try:
        await until(lambda: len(recorder.calls) >= calls)
        await asyncio.sleep(0)
    finally:
        await collector.close()
    assert len(recorder.calls) == calls
    return recorder.calls


async def test_deletes_only_what_it_has_judged() -> None:
    async with api_server(lifecycle=False) as api:
        ghost = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000001"}}
        child = await api.made(MAPS, config_map("child", ownerReferences=[reference(ghost)]))
        refused = Conflict("it has changed")
        calls = await collected(api, Recorder(refused), 2)
        assert calls[0] == calls[1]
        method, path, options = calls[0]
        assert (method, path) == ("DELETE", f"{MAPS}/child")
        metadata = child["metadata"]
        assert options["preconditions"] == {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        assert options["propagationPolicy"] == "Background"


async def test_changes_only_what_it_has_judged() -> None:
    async with api_server(lifecycle=False) as api:
        ghost = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000001"}}
        owner = await api.made(MAPS, config_map("owner"))
        owners = [reference(ghost), {**reference(owner), "controller": True}]
        child = await api.made(MAPS, config_map("child", ownerReferences=owners))
        ((method, path, patch),) = await collected(api, Recorder(), 1)
        assert (method, path) == ("PATCH", f"{MAPS}/child")
        assert patch["metadata"] == {
            "uid": child["metadata"]["uid"],
            "resourceVersion": child["metadata"]["resourceVersion"],
            "ownerReferences": owners[1:],
        }


async def test_events_are_nobody_s_garbage(api: Api) -> None:
    ghost = {"metadata": {"name": "nobody", "uid": "00000000-0000-0000-0000-000000000001"}}
    metadata = {"name": "e", "ownerReferences": [reference(ghost)]}
    event = {"apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": {"namespace": "default"}}
    await api.made("/api/v1/namespaces/default/events", event)
    await settled(api)
    assert names(api, "events") == {"e"}
