"""Nodes that fall silent, and what becomes of their pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.nodeipam import add_nodeipam
from pilothouse.workloads.reconcilers.nodelifecycle import add_nodelifecycle
from pilothouse.workloads.reconcilers.tainteviction import add_tainteviction


class World:
    """A server, nodes whose agents the test plays, and the controllers by a clock that the test moves."""

    def __init__(self, plane: ControlPlane, harness: Harness) -> None:
        self.plane, self.harness = plane, harness
        self.clock = harness.clock

    async def node(self, name: str, zone: str = "a") -> None:
        labels = {"kubernetes.io/os": "linux", "topology.kubernetes.io/zone": zone}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        await self.plane.call("POST", "/api/v1/nodes", node)
        await self.plane.call("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, content_type=MERGE)
        await self.ready(name)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
        await self.plane.call("POST", LEASES, lease | {"spec": {"holderIdentity": name}})

    async def ready(self, name: str, status: str = "True") -> None:
        time = times.format_seconds(self.clock.now())
        ready = {"type": "Ready", "status": status, "lastHeartbeatTime": time, "lastTransitionTime": time}
        body = {"status": {"conditions": [ready]}}
        await self.plane.call(
            "PATCH", f"/api/v1/nodes/{name}/status", body, content_type="application/strategic-merge-patch+json"
        )

    async def renew(self, *names: str) -> None:
        for name in names:
            body = {"spec": {"renewTime": times.format_micros(self.clock.now())}}
            await self.plane.call("PATCH", f"{LEASES}/{name}", body, content_type=MERGE)

    async def pod(self, name: str, node: str, **spec: Any) -> None:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "i"}],
                "terminationGracePeriodSeconds": 0,
                **spec,
            },
        }
        await self.plane.call("POST", "/api/v1/namespaces/default/pods", pod)
        body = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        path = f"/api/v1/namespaces/default/pods/{name}/status"
        await self.plane.call("PATCH", path, body, content_type=MERGE)

    async def live(self, seconds: int, *alive: str) -> None:
        """Let time pass while some nodes renew their leases."""
        for _ in range(0, seconds, 5):
            await self.renew(*alive)
            await self.harness.advance(5)

    async def taints(self, name: str) -> list[tuple[str, str]]:
        node = await self.plane.call("GET", f"/api/v1/nodes/{name}")
        return sorted((each["key"].rpartition("/")[2], each["effect"]) for each in node["spec"].get("taints") or ())

    async def status(self, name: str) -> tuple[str, str]:
        node = await self.plane.call("GET", f"/api/v1/nodes/{name}")
        ready = next(each for each in node["status"]["conditions"] if each["type"] == "Ready")
        return ready["status"], ready.get("reason", "")

    async def pods(self) -> list[str]:
        found = await self.plane.call("GET", "/api/v1/namespaces/default/pods")
        return sorted(each["metadata"]["name"] for each in found["items"])

    async def reasons(self) -> set[str]:
        found = await self.plane.call("GET", "/api/v1/namespaces/default/events")
        return {each["reason"] for each in found["items"]}


MERGE = "application/merge-patch+json"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


@asynccontextmanager
async def world(*nodes: str) -> AsyncIterator[World]:
    clock = FakeClock()
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=clock)
        add_nodelifecycle(harness.manager)
        add_tainteviction(harness.manager)
        add_nodeipam(harness.manager)
        made = World(plane, harness)
        for name in nodes:
            await made.node(name)
        async with harness:
            await harness.settle()
            yield made


async def test_a_silent_node_is_lost_and_its_pods_go_after_their_tolerations() -> None:
    async with world("n1", "n2") as made:
        await made.pod(
            "short", "n1", tolerations=[{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}]
        )
        await made.pod("default", "n1")
        await made.pod("forever", "n1", tolerations=[{"operator": "Exists"}])
        await made.live(35, "n1", "n2")
        assert await made.status("n1") == ("True", "")
        await made.live(40, "n2")
        assert await made.status("n1") == ("True", "")
        await made.live(15, "n2")
        assert await made.status("n1") == ("Unknown", "NodeStatusUnknown")
        assert await made.taints("n1") == [("unreachable", "NoExecute"), ("unreachable", "NoSchedule")]
        assert await made.taints("n2") == []
        pod = await made.plane.call("GET", "/api/v1/namespaces/default/pods/default")
        assert pod["status"]["conditions"][0]["status"] == "False"
        await made.live(10, "n2")
        assert await made.pods() == ["default", "forever"]
        await made.live(270, "n2")
        assert await made.pods() == ["default", "forever"]
        await made.live(20, "n2")
        assert await made.pods() == ["forever"]
        assert {"NodeNotReady", "TaintManagerEviction", "RegisteredNode"} <= await made.reasons()


@pytest.mark.parametrize("ready", ["Unknown", "False", "True"])
async def test_pods_of_nodes_that_were_lost_before_are_not_ready(ready: str) -> None:
    clock = FakeClock()
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=clock)
        add_nodelifecycle(harness.manager)
        made = World(plane, harness)
        await made.node("n1")
        await made.pod("here", "n1")
        await made.ready("n1", ready)
        async with harness:
            await harness.settle()
            pod = await plane.call("GET", "/api/v1/namespaces/default/pods/here")
            assert pod["status"]["conditions"][0]["status"] == ("True" if ready == "True" else "False")


async def test_a_node_without_an_agent_stays_as_somebody_said() -> None:
    async with world("n1") as made:
        await made.plane.call("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}})
        body = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
        path = "/api/v1/nodes/n2/status"
        await made.plane.call("PATCH", path, body, content_type="application/strategic-merge-patch+json")
        await made.pod("default", "n2")
        await made.live(60, "n1")
        assert await made.status("n2") == ("True", "")
        assert await made.taints("n2") == []
        pod = await made.plane.call("GET", "/api/v1/namespaces/default/pods/default")
        assert pod["status"]["conditions"][0]["status"] == "True"


async def test_a_node_that_comes_back_keeps_its_pods() -> None:
    async with world("n1", "n2") as made:
        await made.pod("default", "n1")
        await made.live(60, "n2")
        assert ("unreachable", "NoExecute") in await made.taints("n1")
        await made.ready("n1")
        await made.live(5, "n1", "n2")
        assert await made.taints("n1") == []
        await made.live(300, "n1", "n2")
        assert await made.pods() == ["default"]


async def test_a_node_that_says_it_is_not_ready_has_the_other_taint() -> None:
    async with world("n1", "n2") as made:
        await made.ready("n1", "False")
        await made.live(5, "n1", "n2")
        assert await made.taints("n1") == [("not-ready", "NoExecute"), ("not-ready", "NoSchedule")]


async def test_nobody_is_evicted_when_no_node_is_heard_of() -> None:
    async with world("n1", "n2") as made:
        await made.pod("default", "n1")
        await made.live(90)
        assert await made.taints("n1") == [("unreachable", "NoSchedule")]
        assert await made.taints("n2") == [("unreachable", "NoSchedule")]
        await made.live(400)
        assert await made.pods() == ["default"]


async def test_each_node_has_a_network_of_its_own_and_labels() -> None:
    async with world("n1", "n2") as made:
        nodes = (await made.plane.call("GET", "/api/v1/nodes"))["items"]
        assert sorted(each["spec"]["podCIDR"] for each in nodes) == ["10.244.0.0/24", "10.244.1.0/24"]
        assert {each["metadata"]["labels"]["beta.kubernetes.io/os"] for each in nodes} == {"linux"}
