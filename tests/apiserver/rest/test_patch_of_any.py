"""Fields of custom resources that may hold any value: a patch of one that Python takes for equal is a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.apiserverkit import Api, api_server, until

DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.org"},
    "spec": {
        "group": "example.org",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}
WIDGETS = "/apis/example.org/v1/namespaces/default/widgets"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(ready=False) as found:
        await found.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", DEFINITION)
        await until(lambda: found.server.definitions.idle)
        widget = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"any": 1}}
        await found.made(WIDGETS, widget)
        yield found


async def test_a_merge_patch_changes_it(api: Api) -> None:
    reply = await api.merge(f"{WIDGETS}/w", {"spec": {"any": True}})
    assert (reply.body["metadata"]["generation"], reply.body["spec"]["any"]) == (2, True)
    assert reply.body["spec"]["any"] is True
    again = await api.merge(f"{WIDGETS}/w", {"spec": {"any": True}})
    assert again.version == reply.version


async def test_what_is_applied_changes_it(api: Api) -> None:
    body = {"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"any": True}}
    reply = await api.apply(f"{WIDGETS}/w", body, "m", force=True)
    assert (reply.status, reply.body["metadata"]["generation"], reply.body["spec"]["any"] is True) == (200, 2, True)


async def test_a_version_of_a_definition_may_not_lose_its_name(api: Api) -> None:
    nameless = {name: value for name, value in DEFINITION["spec"]["versions"][0].items() if name != "name"}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.org"
    reply = await api.merge(path, {"spec": {"versions": [nameless]}})
    assert reply.status == 422
    assert 'spec.versions[0].name: Invalid value: "": a DNS-1035 label' in reply.message


@pytest.mark.parametrize("media", ["strategic-merge-patch+json", "apply-patch+yaml"])
async def test_a_schema_of_a_definition_that_is_none_is_refused(api: Api, media: str) -> None:
    props = {"spec": {"type": "object", "properties": {"a": {"required": {"b": 1}}}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": props}}
    body = {**DEFINITION, "spec": {**DEFINITION["spec"]}}
    body["spec"]["versions"] = [{**DEFINITION["spec"]["versions"][0], "schema": schema}]
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.org"
    path += "?fieldManager=m&force=true" if "apply" in media else ""
    reply = await api.call("PATCH", path, body, content_type=f"application/{media}")
    assert reply.status == (500 if "apply" in media else 422)
    assert "Internal error" not in reply.message
