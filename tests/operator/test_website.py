"""The example of a website operator, run by the harness: it converges, stays stable, and repairs what is changed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.kinds.status import Invalid
from pilothouse.kinds.structs import ConfigMap, Deployment, Service
from pilothouse.operator import Harness, install
from pilothouse.operator.crds import definition
from support.operatorkit import plane_and_client

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "website.py"


@pytest.fixture(scope="module")
def website() -> ModuleType:
    spec = importlib.util.spec_from_file_location("website_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def website_of(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Website",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


async def ready_of(client: Client, name: str) -> list[tuple[str, str]]:
    found = await client.dynamic("example.com/v1", "Website").get(name)
    return [(each["type"], each["status"]) for each in found["status"]["conditions"]]


async def test_the_website_operator(website: ModuleType) -> None:
    async with plane_and_client(crd=False) as (_, client):
        await install(client, definition(website.Website))
        sites = client.dynamic("example.com/v1", "Website")
        with pytest.raises(Invalid, match=r"spec.html: Required value"):
            await sites.create(website_of("no"))
        harness = Harness(client)
        website.build(harness.manager)
        async with harness:
            await sites.create(website_of("a", html="<p>a"))
            await sites.create(website_of("b", html="<p>b", replicas=3))
            await harness.converge()
            assert {found.metadata.name for found in await client.list_all(Service, "default")} >= {"a", "b"}
            assert await ready_of(client, "a") == [("Ready", "False")]
            there = {
                "observedGeneration": 1,
                "replicas": 1,
                "updatedReplicas": 1,
                "readyReplicas": 1,
                "availableReplicas": 1,
            }
            await client.patch(Deployment, "a", {"status": there}, subresource="status")
            await harness.converge()
            assert await ready_of(client, "a") == [("Ready", "True")]
            assert (await sites.get("a"))["status"]["readyReplicas"] == 1
            await harness.assert_stable()

            await client.delete(Service, "b")
            await client.patch(Deployment, "b", {"spec": {"replicas": 0}})
            await client.patch(ConfigMap, "b", {"data": {"index.html": "defaced"}})
            await harness.converge()
            assert (await client.get(Deployment, "b")).spec.replicas == 3
            assert (await client.get(ConfigMap, "b")).data == {"index.html": "<p>b"}
            assert (await client.get(Service, "b")).spec.selector == {"app": "b"}
            await harness.assert_stable()
