"""The typed calls against our server, within the process and over HTTPS."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar

import msgspec
import pytest

from pilothouse.client import (
    ALL_NAMESPACES,
    BadAnswer,
    Client,
    JsonPatch,
    MergePatch,
    StrategicPatch,
    TransportError,
    UnknownKind,
    ignore_not_found,
    load_kubeconfig,
)
from pilothouse.kinds.status import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    TooManyRequests,
    Unauthorized,
)
from pilothouse.kinds.structs import (
    ConfigMap,
    Container,
    Deployment,
    DeploymentSpec,
    LabelSelector,
    Namespace,
    ObjectMeta,
    Pod,
    PodSpec,
    PodTemplateSpec,
    Resource,
    Secret,
    Struct,
    TokenRequest,
    replace,
)
from pilothouse.testing import ControlPlane


class GadgetSpec(Struct):
    """What a gadget shall be."""

    size: int = 0
    replicas: int | None = None


class Gadget(Resource, group="example.com", version="v1", plural="gadgets"):
    """A custom resource."""

    spec: GadgetSpec = GadgetSpec()
    status: ClassVar[Any] = None


CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "gadgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "gadgets", "singular": "gadget", "kind": "Gadget", "listKind": "GadgetList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                },
            }
        ],
    },
}


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as found:
        yield found


@pytest.fixture(params=["in process", "https"])
async def client(request: pytest.FixtureRequest, plane: ControlPlane) -> AsyncIterator[Client]:
    if request.param == "https":
        made = Client.from_kubeconfig(plane.kubeconfig)
    else:
        made = Client.for_transport(plane.transport, plane.user)
    async with made as found:
        yield found


def config_map(name: str, namespace: str = "", **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace), data=data)


def deployment(name: str, replicas: int = 1) -> Deployment:
    labels = {"app": name}
    template = PodTemplateSpec(
        metadata=ObjectMeta(labels=labels), spec=PodSpec(containers=[Container(name="c", image="i")])
    )
    spec = DeploymentSpec(replicas=replicas, selector=LabelSelector(match_labels=labels), template=template)
    return Deployment(metadata=ObjectMeta(name=name), spec=spec)


def pod(name: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name), spec=PodSpec(containers=[Container(name="c", image="i")]))


async def test_the_life_of_an_object(client: Client) -> None:
    made = await client.create(config_map("a", x="1"))
    assert (made.metadata.namespace, made.data, bool(made.metadata.uid)) == ("default", {"x": "1"}, True)
    assert await client.get(ConfigMap, "a") == made
    changed = await client.update(replace(made, data={"x": "2"}))
    assert changed.data == {"x": "2"}
    with pytest.raises(Conflict):
        await client.update(replace(made, data={"x": "3"}))
    with pytest.raises(AlreadyExists):
        await client.create(config_map("a"))
    assert await client.delete(ConfigMap, "a") is None
    with pytest.raises(NotFound, match=r'configmaps "a" not found'):
        await client.get(ConfigMap, "a")
    assert await ignore_not_found(client.get(ConfigMap, "a")) is None


async def test_raw_bytes(client: Client) -> None:
    await client.create(config_map("a", x="1"))
    data: bytes = await client.get(ConfigMap, "a", raw=True)
    assert msgspec.json.decode(data)["data"] == {"x": "1"}
    assert b'"APIVersions"' in await client.request("GET", "/api")
    assert (await client.version())["minor"] == "36"


async def test_names_are_quoted_and_bad_ones_refused_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(NotFound, match="system:x"):
        await client.of(Secret).get("system:x y?z")
    for name in ("", ".", "..", "a/b"):
        with pytest.raises(ValueError, match="name"):
            await client.get(ConfigMap, name)


async def test_namespaces_of_calls(client: Client, plane: ControlPlane) -> None:
    await client.create(Namespace(metadata=ObjectMeta(name="other")))
    made = await client.create(config_map("a"), "other")
    assert made.metadata.namespace == "other"
    assert (await client.create(config_map("b", "other"))).metadata.namespace == "other"
    with pytest.raises(ValueError, match=r"metadata.namespace is 'other', but the call says 'default'"):
        await client.update(made, "default")
    with pytest.raises(ValueError, match="one object is in one namespace"):
        await client.get(ConfigMap, "a", ALL_NAMESPACES)
    names = [found.metadata.name async for found in client.list(ConfigMap, "other", fields={"metadata.name": "a"})]
    assert names == ["a"]
    mine = Client.for_transport(plane.transport, plane.user, namespace="other")
    assert (await mine.get(ConfigMap, "a")).metadata.uid == made.metadata.uid
    assert (await client.get(Namespace, "other")).metadata.namespace == ""


async def test_lists_come_in_pages(client: Client) -> None:
    await asyncio.gather(*(client.create(config_map(f"m{number}", n=str(number))) for number in range(7)))
    pages = [page async for page in client.of(ConfigMap).pages(limit=3)]
    assert [len(page.items) for page in pages] == [3, 3, 2]  # kube-root-ca.crt is one of them
    assert pages[0].metadata.remaining_item_count == 5
    assert len({page.metadata.resource_version for page in pages}) == 1
    names = [found.metadata.name async for found in client.list(ConfigMap, limit=2)]
    assert names == sorted(names)
    assert len(names) == len(await client.list_all(ConfigMap, limit=0)) == 8
    assert all(found.kind == "ConfigMap" for found in await client.list_all(ConfigMap))


async def test_selectors(client: Client) -> None:
    for name in ("a", "b"):
        labels = {"app": name, "tier": "x"}
        await client.create(ConfigMap(metadata=ObjectMeta(name=name, labels=labels)))
    assert [one.metadata.name for one in await client.list_all(ConfigMap, labels={"app": "a", "tier": "x"})] == ["a"]
    assert len(await client.list_all(ConfigMap, "*", labels="app in (a,b),!gone")) == 2
    await client.delete_collection(ConfigMap, labels={"app": "a"})
    assert [one.metadata.name for one in await client.list_all(ConfigMap, labels="tier")] == ["b"]


async def test_apply(client: Client) -> None:
    made = await client.apply(config_map("a", x="1"), field_manager="one")
    assert made.metadata.managed_fields[0].manager == "one"
    with pytest.raises(Conflict, match="conflict") as caught:
        await client.apply(config_map("a", x="2"), field_manager="two")
    assert caught.value.causes
    assert (await client.apply(config_map("a", x="2"), field_manager="two", force=True)).data == {"x": "2"}
    await client.apply(config_map("b", x="1"))
    dropped = await client.apply(config_map("b", y="1"))
    assert dropped.data == {"y": "1"}
    assert dropped.metadata.managed_fields[0].manager == "pilothouse"


async def test_patches(client: Client) -> None:
    await client.create(config_map("a", x="1", y="1"))
    assert (await client.patch(ConfigMap, "a", {"data": {"x": None, "z": "3"}})).data == {"y": "1", "z": "3"}
    done = await client.patch(ConfigMap, "a", [{"op": "replace", "path": "/data/y", "value": "2"}])
    assert done.data == {"y": "2", "z": "3"}
    done = await client.patch(ConfigMap, "a", JsonPatch([{"op": "remove", "path": "/data/y"}]))
    assert done.data == {"z": "3"}
    assert (await client.patch(ConfigMap, "a", MergePatch(ConfigMap(data={"q": "1"})))).data == {"q": "1", "z": "3"}
    await client.create(deployment("web"))
    container = {"name": "d", "image": "j"}
    patch = StrategicPatch({"spec": {"template": {"spec": {"containers": [container]}}}})
    done_too = await client.patch(Deployment, "web", patch)
    assert done_too.spec.template.spec is not None
    assert [one.name for one in done_too.spec.template.spec.containers] == ["d", "c"]
    with pytest.raises(TypeError, match="pass a dict"):
        await client.patch(ConfigMap, "a", "text")  # type: ignore[arg-type]


async def test_dry_runs_change_nothing(client: Client) -> None:
    await client.create(config_map("a", x="1"), dry_run=True)
    assert await ignore_not_found(client.get(ConfigMap, "a")) is None
    kept = await client.create(config_map("a", x="1"))
    await client.patch(ConfigMap, "a", {"data": {"x": "2"}}, dry_run=True)
    await client.apply(config_map("a", x="2"), force=True, dry_run=True)
    await client.update(replace(kept, data={"x": "2"}), dry_run=True)
    await client.delete(ConfigMap, "a", dry_run=True)
    assert await client.get(ConfigMap, "a") == kept


async def test_deletion_with_conditions(client: Client) -> None:
    made = await client.create(config_map("a"))
    with pytest.raises(Conflict):
        await client.delete(ConfigMap, "a", uid="11111111-1111-1111-1111-111111111111")
    with pytest.raises(Conflict):
        await client.delete(ConfigMap, "a", resource_version="1")
    held = await client.patch(ConfigMap, "a", {"metadata": {"finalizers": ["example.com/hold"]}})
    going = await client.delete(ConfigMap, "a", uid=made.metadata.uid, propagation="Background", grace_seconds=0)
    assert going is not None
    assert going.metadata.deletion_timestamp is not None
    assert held.metadata.deletion_timestamp is None


async def test_status_and_scale(client: Client) -> None:
    made = await client.create(deployment("web", 2))
    done = await client.update_status(replace(made, status__observed_generation=7, spec__replicas=9))
    assert done.status.observed_generation == 7
    assert done.spec.replicas == 2
    scale = await client.scale(Deployment, "web", 5)
    assert scale.spec.replicas == 5
    assert (await client.get(Deployment, "web")).spec.replicas == 5
    patched = await client.patch(Deployment, "web", {"status": {"observedGeneration": 8}}, subresource="status")
    assert patched.status.observed_generation == 8


async def test_tokens_evictions_and_bindings(client: Client) -> None:
    token = await client.create_token("default", audiences=["a"], seconds=600)
    assert isinstance(token, TokenRequest)
    assert token.status.token.count(".") == 2
    await client.create(pod("web"))
    await client.pods.bind("web", "n1")
    assert (await client.get(Pod, "web")).spec.node_name == "n1"
    with pytest.raises(Conflict):
        await client.pods.bind("web", "n2")
    await client.pods.evict("web", grace_seconds=0)
    assert await ignore_not_found(client.get(Pod, "web")) is None


async def test_what_the_server_refuses(client: Client) -> None:
    with pytest.raises(Invalid) as caught:
        await client.create(config_map("Not A Name"))
    assert caught.value.causes[0]["field"] == "metadata.name"
    with pytest.raises(Forbidden, match="pods is forbidden"):
        await client.as_user("jane").list_all(Pod)


async def test_acting_as_somebody_else(client: Client) -> None:
    jane = client.as_user("jane", ["devs"], extra={"example.com/why": ["test"]})
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    body = await jane.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", msgspec.json.encode(review))
    found = msgspec.json.decode(body)["status"]["userInfo"]
    assert found["username"] == "jane"
    assert set(found["groups"]) == {"devs", "system:authenticated"}
    assert found["extra"] == {"example.com/why": ["test"]}
    await jane.aclose()
    await client.get(Namespace, "default")  # the connections are ours


@pytest.mark.parametrize("kind", [dict, Struct, Resource, "Pod", ObjectMeta, 5])
async def test_a_type_that_is_none(kind: Any, client: Client) -> None:
    with pytest.raises(UnknownKind, match=r"is no type of resource; pass a class of .*client\.dynamic"):
        await client.get(kind, "x")


async def test_a_kind_that_is_only_sent_to_subresources(client: Client) -> None:
    with pytest.raises(UnknownKind, match="TokenRequest has no path of its own"):
        await client.create(TokenRequest())
    with pytest.raises(TypeError, match="want an object of type ConfigMap, got Secret"):
        await client.of(ConfigMap).create(Secret(metadata=ObjectMeta(name="x")))  # type: ignore[arg-type]


async def test_custom_resources_typed_and_as_dictionaries(client: Client) -> None:
    widgets = client.dynamic("example.com/v1", "Gadget")
    with pytest.raises(UnknownKind, match=r"the server has no kind Gadget of example.com/v1; .*established"):
        await widgets.get("a")
    await client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition").create(CRD)
    for _ in range(200):
        try:
            await widgets.mapping()
            break
        except UnknownKind:
            await asyncio.sleep(0.02)
    made = await widgets.create({"metadata": {"name": "a"}, "spec": {"size": 3, "odd": True}})
    assert (made["kind"], made["apiVersion"], made["spec"]) == ("Gadget", "example.com/v1", {"size": 3, "odd": True})
    typed = await client.get(Gadget, "a")
    assert typed.spec.size == 3
    kept = await client.update(replace(typed, spec__size=4))
    assert msgspec.json.decode(await client.get(Gadget, "a", raw=True))["spec"] == {"size": 4, "odd": True}
    assert kept.spec.carried == {"odd": True}
    listed = await widgets.list_all("*")
    assert [(one["kind"], one["spec"]["size"]) for one in listed] == [("Gadget", 4)]
    assert await widgets.patch("a", {"spec": {"size": 5}})
    assert await widgets.apply({"metadata": {"name": "b"}, "spec": {"size": 1}})
    with pytest.raises(TypeError, match=r"want an object of kind Gadget of example.com/v1, got Pod of v1"):
        await widgets.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}})
    await widgets.delete("a")


async def test_an_object_that_does_not_fit_its_type_is_named(client: Client) -> None:
    await client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition").create(CRD)
    widgets = client.dynamic("example.com/v1", "Gadget")
    for _ in range(200):
        try:
            await widgets.create({"metadata": {"name": "good"}, "spec": {"size": 3}})
            break
        except (UnknownKind, NotFound):
            await asyncio.sleep(0.02)
    await widgets.create({"metadata": {"name": "bad"}, "spec": {"size": "big"}})
    with pytest.raises(BadAnswer, match=r"default/bad: does not fit the type Gadget: .*spec.size"):
        await client.get(Gadget, "bad")
    with pytest.raises(BadAnswer, match="default/bad"):
        await client.list_all(Gadget)


async def test_metadata_alone(client: Client) -> None:
    await client.create(config_map("a", x="1" * 1000))
    found = await client.metadata_of(ConfigMap).get("a")
    assert (found.metadata.name, found.kind) == ("a", "PartialObjectMetadata")
    assert [one.metadata.name for one in await client.metadata_of(ConfigMap).list_all()] == ["a", "kube-root-ca.crt"]


async def test_objects_without_managed_fields_lose_nothing(plane: ControlPlane) -> None:
    async with Client.for_transport(plane.transport, plane.user, managed_fields=False) as client:
        made = await client.apply(config_map("a", x="1"))
        assert list(made.metadata.managed_fields) == []
        await client.update(replace(made, data={"x": "1", "y": "1"}))
        assert [list(one.metadata.managed_fields) for one in await client.list_all(ConfigMap)] == [[], []]
        kept = msgspec.json.decode(await client.get(ConfigMap, "a", raw=True))["metadata"]["managedFields"]
        assert [one["operation"] for one in kept] == ["Apply", "Update"]
        other = await client.as_user("kubernetes-admin", ["system:masters"]).get(ConfigMap, "a")
        assert list(other.metadata.managed_fields) == []


async def test_watching(client: Client) -> None:
    await client.create(config_map("a"))
    seen: list[tuple[str, str]] = []
    begun = asyncio.Event()

    async def watch() -> None:
        async with aclosing(client.watch(ConfigMap, fields="metadata.name=a")) as events:
            async for event in events:
                seen.append((event.type, event.object.data.get("x", "")))
                begun.set()
                if event.type == "DELETED":
                    return

    watching = asyncio.ensure_future(watch())
    await asyncio.wait_for(begun.wait(), 5)
    await client.patch(ConfigMap, "a", {"data": {"x": "1"}})
    await client.delete(ConfigMap, "a")
    await asyncio.wait_for(watching, 5)
    assert seen == [("ADDED", ""), ("MODIFIED", "1"), ("DELETED", "1")]


async def test_a_watch_ends_when_it_is_cancelled_and_when_the_client_closes(client: Client) -> None:
    async def watch() -> None:
        async for _ in client.watch(ConfigMap):
            pass

    watching = [asyncio.ensure_future(watch()) for _ in range(2)]
    await asyncio.sleep(0.05)
    watching[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(watching[0], 5)
    await client.aclose()
    with pytest.raises((TransportError, StopAsyncIteration)):
        await asyncio.wait_for(watching[1], 5)


async def test_a_watch_from_a_version(client: Client) -> None:
    first = await client.create(config_map("a"))
    await client.patch(ConfigMap, "a", {"data": {"x": "1"}})
    async with aclosing(client.watch(ConfigMap, since=first.metadata.resource_version)) as events:
        event = await anext(events)
    assert (event.type, event.object.data) == ("MODIFIED", {"x": "1"})


async def test_a_watch_that_is_resumed_goes_on_where_it_was(client: Client) -> None:
    seen: list[str] = []
    first = await client.create(config_map("first"))

    async def watch() -> None:
        options: Any = {"since": first.metadata.resource_version, "resume": True, "timeout_seconds": 1}
        async with aclosing(client.watch(ConfigMap, **options)) as events:
            async for event in events:
                seen.append(event.object.metadata.name)
                if event.object.metadata.name == "late":
                    return

    watching = asyncio.ensure_future(watch())
    await client.create(config_map("early"))
    await asyncio.sleep(1.2)
    await client.create(config_map("late"))
    await asyncio.wait_for(watching, 5)
    assert seen == ["early", "late"]


async def test_who_is_not_known(plane: ControlPlane) -> None:
    config = dataclasses.replace(load_kubeconfig(plane.kubeconfig), token="wrong")
    async with Client.from_config(config) as client:
        with pytest.raises(Unauthorized):
            await client.get(Namespace, "default")


async def test_an_eviction_that_a_budget_forbids(client: Client) -> None:
    budget = {
        "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}},
    }
    await client.dynamic("policy/v1", "PodDisruptionBudget").create(budget)
    made = await client.create(replace(pod("web"), metadata__labels={"app": "x"}))
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(Pod, made.metadata.name, {"status": ready}, subresource="status")
    with pytest.raises(TooManyRequests):
        await client.pods.evict("web")
