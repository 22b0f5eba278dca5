"""What was recorded of a real kube-controller-manager's garbage collection and namespaces comes out alike here.

The deployment's controllers are no part of the server: the test makes what they had made.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.apiserverkit import Api, api_server, until
from support.golden import GOLDEN

Object = dict[str, Any]
PATHS = {
    "Deployment": "/apis/apps/v1/{ns}/deployments",
    "ReplicaSet": "/apis/apps/v1/{ns}/replicasets",
    "Pod": "/api/v1/{ns}/pods",
    "ConfigMap": "/api/v1/{ns}/configmaps",
    "ServiceAccount": "/api/v1/{ns}/serviceaccounts",
}
COMPARED = ("name", "owners", "keys", "deleting", "finalizers")
NAMES = {"ReplicaSet": "web-5d4f8c7b9d", "Pod": "web-5d4f8c7b9d-x7k2q"}
RANDOM = re.compile(r"-[a-z0-9]{5}$")
HASH = re.compile(r"\b[a-z0-9]{10}\b")


def reduced(kind: str, obj: Object) -> Object:
    """Return what the recordings keep of an object and its lifecycle decides."""
    metadata = obj["metadata"]
    name = RANDOM.sub("-<id>", metadata["name"]) if kind == "Pod" else metadata["name"]
    row: Object = {"name": HASH.sub("<hash>", name)}
    if metadata.get("finalizers"):
        row["finalizers"] = metadata["finalizers"]
    if metadata.get("deletionTimestamp"):
        row["deleting"] = True
    if owners := metadata.get("ownerReferences"):
        fields = ("apiVersion", "kind", "name", "controller", "blockOwnerDeletion")
        row["owners"] = [{**{field: each.get(field) for field in fields}} for each in owners]
        for owner in row["owners"]:
            owner["name"] = HASH.sub("<hash>", owner["name"])
    if kind == "ConfigMap":
        row["keys"] = sorted(obj.get("data", {}))
    return row


async def snapshot(api: Api, namespace: str, kinds: list[str]) -> dict[str, list[Object]]:
    found = {}
    for kind in kinds:
        reply = await api.get(PATHS[kind].replace("{ns}", f"namespaces/{namespace}"))
        rows = [reduced(kind, obj) for obj in reply.body["items"]]
        found[kind] = sorted(rows, key=json.dumps)
    return found


async def play_controllers(api: Api, namespace: str, deployment: Object) -> None:
    """Make the replica set and the pod that a deployment's controllers make."""
    template, owner = deployment["spec"]["template"], deployment
    selector = deployment["spec"]["selector"]
    for kind, name in NAMES.items():
        reference = {field: owner["metadata"][field] for field in ("name", "uid")}
        reference |= {"apiVersion": "apps/v1", "kind": owner["kind"], "controller": True, "blockOwnerDeletion": True}
        metadata = {"name": name, "ownerReferences": [reference], **template["metadata"]}
        spec = template["spec"] if kind == "Pod" else {"replicas": 1, "selector": selector, "template": template}
        version = "v1" if kind == "Pod" else "apps/v1"
        made = {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        owner = await api.made(PATHS[kind].replace("{ns}", f"namespaces/{namespace}"), made)
        owner["kind"] = kind


async def settles_as(api: Api, namespace: str, step: Object) -> None:
    wanted = {
        kind: sorted(({name: row[name] for name in COMPARED if name in row} for row in rows), key=json.dumps)
        for kind, rows in step["snapshot"].items()
    }
    found: dict[str, list[Object]] = {}
    for _ in range(200):
        found = await snapshot(api, namespace, step["settle"])
        if found == wanted:
            return
        await api.server.options.clock.sleep(0.01)
    assert found == wanted, step["label"]


@pytest.mark.parametrize("scenario", ["garbage", "namespace"])
async def test_settles_as_recorded(scenario: str) -> None:
    recorded = json.loads((GOLDEN / "controllers" / f"{scenario}.json").read_text())
    namespace = recorded["namespace"]
    async with api_server(lifecycle=True) as api:
        await api.made("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        view = api.server.view
        await until(lambda: view.get("serviceaccounts", namespace, "default") is not None)
        for step in recorded["steps"]:
            if "method" in step:
                path = step["path"].replace("{ns}", f"namespaces/{namespace}")
                reply = await api.call(step["method"], path, step.get("body"))
                assert reply.status < 400, reply.raw
                if step["label"] == "dep":
                    await play_controllers(api, namespace, {**reply.body, "kind": "Deployment"})
            if "settle" in step:
                await settles_as(api, namespace, step)
        if scenario == "namespace":
            await until(lambda: view.get("namespaces", "", namespace) is None)
