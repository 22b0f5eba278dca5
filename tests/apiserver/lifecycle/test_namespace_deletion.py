"""Deleted namespaces on a whole server: what goes when, what the conditions say, and what stays until it may go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.apiserverkit import Api, api_server, config_map, until

Object = dict[str, Any]
SPACE = "/api/v1/namespaces/doomed"
FOREIGN = "example.com/held"
TYPES = {
    "NamespaceDeletionDiscoveryFailure",
    "NamespaceDeletionGroupVersionParsingFailure",
    "NamespaceDeletionContentFailure",
    "NamespaceContentRemaining",
    "NamespaceFinalizersRemaining",
}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(lifecycle=True) as found:
        await found.made(
            "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"}}
        )
        await until(lambda: found.server.view.get("serviceaccounts", "doomed", "default") is not None)
        yield found


def namespace(api: Api) -> Object | None:
    return api.server.view.get("namespaces", "", "doomed")


def conditions(api: Api) -> dict[str, Object]:
    found = namespace(api)
    return {} if found is None else {each["type"]: each for each in found["status"].get("conditions") or ()}


async def gone(api: Api) -> None:
    await until(lambda: namespace(api) is None)
    for cache in api.server.cacher.caches():
        assert not cache.entries("doomed"), cache.name


def pod(name: str, **spec: Any) -> Object:
    container = {"name": "c", "image": "img:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container], **spec},
    }


async def test_all_content_goes_with_the_namespace(api: Api) -> None:
    for number in range(20):
        await api.made(f"{SPACE}/configmaps", config_map(f"c{number}"))
    await api.made(f"{SPACE}/pods", pod("p"))
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}}
    await api.made("/apis/coordination.k8s.io/v1/namespaces/doomed/leases", lease)
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"namespace": "doomed"}}
    await api.made(f"{SPACE}/events", event)
    reply = await api.delete(SPACE)
    assert reply.body["status"]["phase"] == "Terminating"
    await gone(api)
    await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"}})
    await until(lambda: api.server.view.get("serviceaccounts", "doomed", "default") is not None)


async def test_conditions_tell_what_remains(api: Api) -> None:
    await api.made(f"{SPACE}/configmaps", config_map("held", finalizers=[FOREIGN]))
    await api.made(f"{SPACE}/configmaps", config_map("free"))
    await api.delete(SPACE)
    await until(lambda: len(conditions(api)) == len(TYPES))
    found = conditions(api)
    assert set(found) == TYPES
    texts = {kind: (each["status"], each["reason"], each["message"]) for kind, each in found.items()}
    assert texts["NamespaceContentRemaining"] == (
        "True",
        "SomeResourcesRemain",
        "Some resources are remaining: configmaps. has 1 resource instances",
    )
    assert texts["NamespaceFinalizersRemaining"] == (
        "True",
        "SomeFinalizersRemain",
        f"Some content in the namespace has finalizers remaining: {FOREIGN} in 1 resource instances",
    )
    assert texts["NamespaceDeletionContentFailure"] == (
        "False",
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    )
    refused = await api.post(f"{SPACE}/configmaps", config_map("late"))
    assert refused.status == 403
    await api.merge(f"{SPACE}/configmaps/held", {"metadata": {"finalizers": None}})
    await gone(api)


async def test_pods_go_before_all_else(api: Api) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    await api.made("/api/v1/nodes", node)
    await api.made(f"{SPACE}/pods", pod("p", nodeName="n", terminationGracePeriodSeconds=30))
    await api.made(f"{SPACE}/configmaps", config_map("needed"))
    await api.delete(SPACE)
    await until(lambda: bool(conditions(api)))
    assert conditions(api)["NamespaceContentRemaining"]["message"].startswith(
        "Some resources are remaining: pods. has 1"
    )
    found = (await api.get(f"{SPACE}/pods/p")).body["metadata"]
    assert found["deletionGracePeriodSeconds"] == 30
    assert (await api.get(f"{SPACE}/configmaps/needed")).status == 200
    await api.delete(f"{SPACE}/pods/p?gracePeriodSeconds=0")
    await gone(api)


async def test_finalizers_of_others_keep_the_namespace_itself(api: Api) -> None:
    await api.merge(SPACE, {"metadata": {"finalizers": [FOREIGN]}})
    await api.delete(SPACE)
    await until(lambda: not (namespace(api) or {"spec": {"finalizers": []}})["spec"].get("finalizers"))
    assert namespace(api) is not None
    await api.merge(SPACE, {"metadata": {"finalizers": None}})
    await gone(api)


async def test_custom_objects_go_too(api: Api) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    await until(lambda: api.server.catalogue.registry.get("x.io", "v1", "widgets") is not None)
    widget = {"apiVersion": "x.io/v1", "kind": "Widget", "metadata": {"name": "w"}}
    await api.made("/apis/x.io/v1/namespaces/doomed/widgets", widget)
    await api.delete(SPACE)
    await gone(api)


async def test_apis_that_do_not_answer_hold_the_namespace(api: Api) -> None:
    service = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.away.example"},
        "spec": {
            "group": "away.example",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "default", "name": "away"},
            "insecureSkipTLSVerify": True,
        },
    }
    await api.made("/apis/apiregistration.k8s.io/v1/apiservices", service)
    await api.delete(SPACE)
    await until(lambda: bool(conditions(api)))
    failed = conditions(api)["NamespaceDeletionDiscoveryFailure"]
    assert (failed["status"], failed["reason"]) == ("True", "DiscoveryFailed")
    assert failed["message"] == (
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        "away.example/v1: stale GroupVersion discovery: away.example/v1"
    )
    await api.delete("/apis/apiregistration.k8s.io/v1/apiservices/v1.away.example")
    await gone(api)


async def test_what_comes_too_late_is_swept_away(api: Api) -> None:
    await api.delete(SPACE)
    await gone(api)
    server = api.server
    served = server.catalogue.served("", "v1", "configmaps")
    assert served is not None
    metadata = {"name": "late", "namespace": "doomed", "uid": "u"}
    late = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await server.storage.create(served.cache, "doomed/late", late, served.stored_form)
    lifecycle = server.background.lifecycle
    assert lifecycle is not None
    lifecycle.namespaces.queue.add("doomed")
    await until(lambda: served.cache.get("doomed/late") is None)


async def test_deletion_begun_before_the_start_is_carried_out() -> None:
    async with api_server(lifecycle=False) as api:
        await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"}})
        await api.made(f"{SPACE}/configmaps", config_map("c"))
        await api.delete(SPACE)
        async with api_server(api.server.store, lifecycle=True) as second:
            await gone(second)
