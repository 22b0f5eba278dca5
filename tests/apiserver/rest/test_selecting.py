"""Objects are selected by their bytes first and by their fields then, which must come to the same."""

from __future__ import annotations

from typing import Any

import pytest

from support.apiserverkit import Api, api_server, until

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "tugs.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "tugs", "singular": "tug", "kind": "Tug"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "selectableFields": [{"jsonPath": f".spec.{name}"} for name in ("count", "busy", "text")],
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "count": {"type": "integer"},
                                    "busy": {"type": "boolean"},
                                    "text": {"type": "string"},
                                },
                            }
                        },
                    }
                },
            }
        ],
    },
}
TUGS = "/apis/example.com/v1/namespaces/default/tugs"
SPECS: dict[str, dict[str, Any]] = {
    "a": {"count": -5, "busy": True, "text": "red"},
    "b": {"count": 5, "busy": False, "text": "5"},
    "c": {"count": 0, "text": "-5"},
    "d": {"text": "true"},
    "e": {"text": 'so "said"\\'},
    "f": {"text": "é"},
    "g": {},
}


async def names(api: Api, path: str, selector: str) -> str:
    from urllib.parse import quote

    reply = await api.get(f"{path}?fieldSelector={quote(selector)}")
    assert reply.status == 200, reply.raw
    return "".join(item["metadata"]["name"] for item in reply.body["items"])


@pytest.fixture
async def api() -> Any:
    async with api_server(ready=False) as found:
        yield found


async def test_fields_of_custom_resources(api: Api) -> None:
    await api.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    await until(lambda: api.server.catalogue.served("example.com", "v1", "tugs") is not None)
    for name, spec in SPECS.items():
        await api.made(TUGS, {"apiVersion": "example.com/v1", "kind": "Tug", "metadata": {"name": name}, "spec": spec})
    for selector, expected in {
        "spec.count=-5": "a",
        "spec.count=5": "b",
        "spec.busy=true": "a",
        "spec.text=red": "a",
        "spec.text=5": "b",
        "spec.text=-5": "c",
        "spec.text=true": "d",
        'spec.text=so "said"\\\\': "e",
        "spec.text=é": "f",
        "spec.text=red,spec.count=-5": "a",
        "spec.text=red,spec.count=5": "",
        "metadata.name=g": "g",
        "metadata.name=g,spec.text=red": "",
        "spec.text!=red,metadata.name!=g": "bcdef",
    }.items():
        assert await names(api, TUGS, selector) == expected, selector
    assert (await api.get(f"{TUGS}?fieldSelector=spec.other%3Dx")).status == 400


async def test_fields_of_nodes_and_secrets(api: Api) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}
    await api.made("/api/v1/nodes", node)
    await api.made("/api/v1/nodes", {**node, "metadata": {"name": "b"}, "spec": {"unschedulable": True}})
    assert await names(api, "/api/v1/nodes", "spec.unschedulable=true") == "b"
    assert await names(api, "/api/v1/nodes", "spec.unschedulable=false") == "a"
    secrets = "/api/v1/namespaces/default/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}
    await api.made(secrets, secret)
    await api.made(secrets, {**secret, "metadata": {"name": "b"}, "type": "example.com/own"})
    assert await names(api, secrets, "type=Opaque") == "a"
    assert await names(api, secrets, "type=example.com/own") == "b"
    assert await names(api, "/api/v1/namespaces", "status.phase=Active") != ""
    assert await names(api, "/api/v1/namespaces", "status.phase=Terminating") == ""
