"""metrics.k8s.io out of nodes' summaries: when it is there, what it says, and what happens where nodes are silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.http.server import HttpServer
from pilothouse.apiserver.model import Answer, Request, Response
from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.foundation import tls
from pilothouse.kinds.status import ApiStatus, Forbidden
from pilothouse.testing import ControlPlane

BASE = "/apis/metrics.k8s.io/v1beta1"
Object = dict[str, Any]


def usage(cores: int | None, memory: int) -> Object:
    cpu: Object = {"time": "2026-01-02T03:04:05Z", "usageCoreNanoSeconds": 1}
    return {
        "cpu": cpu | ({} if cores is None else {"usageNanoCores": cores}),
        "memory": {"workingSetBytes": memory},
    }


class Node:
    """A node's server with a summary made up here."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = 200
        self.summary: Object = {}

    async def __call__(self, request: Request) -> Answer:
        assert request.path == "/stats/summary"
        assert request.peer is not None
        assert request.peer.certificate is not None
        self.asked += 1
        return Response(self.status, json.dumps(self.summary).encode())


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as made:
        yield made


@pytest.fixture
async def node(plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Node]:
    authority = plane.server.pki.authority("ca")
    paths = {name: str(tmp_path / name) for name in ("ca.crt", "n.crt", "n.key", "api.crt", "api.key")}
    (tmp_path / "ca.crt").write_bytes(plane.ca)
    tls.write(tls.issue(authority, "n1", hosts=["127.0.0.1"], server=True), paths["n.crt"], paths["n.key"])
    tls.write(tls.issue(authority, "api", client=True), paths["api.crt"], paths["api.key"])
    made = Node()
    http = HttpServer(made, tls=tls.server_context(paths["n.crt"], paths["n.key"], client_ca=paths["ca.crt"]))
    _, port = await http.start("127.0.0.1", 0)
    plane.server.backends.use(NodeClient(paths["api.crt"], paths["api.key"], paths["ca.crt"]))
    made.port = port  # type: ignore[attr-defined]
    yield made
    await http.close(0)


async def join(plane: ControlPlane, node: Node) -> None:
    body = {
        "metadata": {"name": "n1", "labels": {"zone": "a"}},
        "status": {
            "addresses": [{"type": "Hostname", "address": "nowhere"}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": node.port}},  # type: ignore[attr-defined]
        },
    }
    made = await plane.call("POST", "/api/v1/nodes", body)
    await plane.call("PUT", "/api/v1/nodes/n1/status", {**made, "status": body["status"]})
    for _ in range(500):
        if "metrics.k8s.io" in await groups(plane):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("no metrics.k8s.io after five seconds")


async def pod(plane: ControlPlane, name: str, **labels: str) -> Object:
    spec = {"nodeName": "n1", "automountServiceAccountToken": False, "containers": [{"name": "c", "image": "i"}]}
    found: Object = await plane.call(
        "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": name, "labels": labels}, "spec": spec}
    )
    return found


async def groups(plane: ControlPlane) -> set[str]:
    found = await plane.call("GET", "/apis")
    return {each["name"] for each in found["groups"]}


async def refused(plane: Any, path: str, method: str = "GET") -> tuple[int, str]:
    with pytest.raises(ApiStatus) as caught:
        await plane.call(method, path)
    return caught.value.code, caught.value.message


async def test_without_nodes_there_is_no_such_api(plane: ControlPlane, node: Node) -> None:
    assert "metrics.k8s.io" not in await groups(plane)
    assert (await refused(plane, f"{BASE}/nodes"))[0] == 404
    await plane.call("POST", "/api/v1/nodes", {"metadata": {"name": "simulated"}})
    await join(plane, node)
    assert (await plane.call("GET", f"{BASE}/nodes"))["items"] == []
    assert node.asked == 1
    assert "metrics.k8s.io" in await groups(plane)
    listed = await plane.call("GET", BASE)
    assert [(each["name"], each["kind"], each["namespaced"]) for each in listed["resources"]] == [
        ("nodes", "NodeMetrics", False),
        ("pods", "PodMetrics", True),
    ]


async def test_nodes_and_pods_are_told(plane: ControlPlane, node: Node) -> None:
    await join(plane, node)
    web, fresh, _ = await pod(plane, "web", app="shop"), await pod(plane, "fresh"), await pod(plane, "silent")

    def told(one: Object, cores: int | None) -> Object:
        reference = {"name": one["metadata"]["name"], "namespace": "default", "uid": one["metadata"]["uid"]}
        return {"podRef": reference, "containers": [{"name": "c", **usage(cores, 3 << 20)}]}

    gone = {"podRef": {"name": "gone", "namespace": "default", "uid": "other"}, "containers": []}
    node.summary = {"node": usage(250_000_000, 1 << 30), "pods": [told(web, 1_500_000), told(fresh, None), gone]}
    assert (await plane.call("GET", f"{BASE}/nodes/n1"))["usage"] == {"cpu": "250000000n", "memory": "1048576Ki"}
    listed = await plane.call("GET", f"{BASE}/nodes")
    assert (listed["kind"], [each["metadata"]["name"] for each in listed["items"]]) == ("NodeMetricsList", ["n1"])
    found = await plane.call("GET", f"{BASE}/namespaces/default/pods")
    (one,) = found["items"]
    assert (one["metadata"]["name"], one["metadata"]["labels"], one["window"]) == ("web", {"app": "shop"}, "10s")
    assert one["containers"] == [{"name": "c", "usage": {"cpu": "1500000n", "memory": "3072Ki"}}]
    assert (await plane.call("GET", f"{BASE}/namespaces/default/pods/web"))["kind"] == "PodMetrics"
    assert (await plane.call("GET", f"{BASE}/pods"))["items"] == [one]
    assert (await plane.call("GET", f"{BASE}/pods?labelSelector=app%3Dshop"))["items"] == [one]
    assert (await plane.call("GET", f"{BASE}/pods?labelSelector=app%21%3Dshop"))["items"] == []
    assert (await plane.call("GET", f"{BASE}/pods?fieldSelector=metadata.name%3Dother"))["items"] == []
    assert node.asked == 1
    assert await refused(plane, f"{BASE}/namespaces/default/pods/none") == (
        404,
        'podmetrics.metrics.k8s.io "default/none" not found',
    )
    assert (await refused(plane, f"{BASE}/nodes/n9")) == (404, 'nodemetrics.metrics.k8s.io "n9" not found')
    assert (await refused(plane, f"{BASE}/nodes", "DELETE"))[0] == 405
    assert (await refused(plane, f"{BASE}/pods?labelSelector=%3D%3D"))[0] == 400


async def test_silent_nodes_hold_up_nobody(plane: ControlPlane, node: Node) -> None:
    await join(plane, node)
    node.status = 500
    await asyncio.gather(*(plane.call("GET", f"{BASE}/nodes") for _ in range(10)))
    assert (await plane.call("GET", f"{BASE}/nodes"))["items"] == []
    assert (await plane.call("GET", f"{BASE}/pods"))["items"] == []
    gathered = await asyncio.gather(*(plane.call("GET", f"{BASE}/nodes") for _ in range(10)))
    assert all(each["items"] == [] for each in gathered)
    assert node.asked == 1


async def test_rights_are_asked_for(plane: ControlPlane, node: Node) -> None:
    await join(plane, node)
    with pytest.raises(Forbidden, match=r'resource "nodes" in API group "metrics.k8s.io"'):
        await plane.as_user("jane").call("GET", f"{BASE}/nodes")
