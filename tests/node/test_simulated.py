"""Nodes without processes: a fleet's pods, nodes and leases, and an agent on the simulated runtime."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.node.agent import Agent, AgentOptions
from pilothouse.node.agent.ports import NoMounts, Ports
from pilothouse.node.simulated import Fleet, FleetOptions, Rules, SimulatedRuntime
from pilothouse.node.simulated.rules import PREFIX, rules_of
from pilothouse.testing import ControlPlane

PODS = "/api/v1/namespaces/default/pods"
QUICK = Rules(start_seconds=0.01, stop_seconds=0.01)


def body(name: str, node: str, restart: str = "Always", **annotations: str) -> dict[str, Any]:
    marks = {PREFIX + key.replace("_", "-"): value for key, value in annotations.items()}
    spec = {"nodeName": node, "restartPolicy": restart, "containers": [{"name": "main", "image": "app:1"}]}
    return {"metadata": {"name": name, "annotations": marks}, "spec": spec}


@asynccontextmanager
async def fleet(plane: ControlPlane, count: int = 5) -> AsyncIterator[Fleet]:
    async with Client.for_transport(plane.transport, plane.user) as client:
        made = Fleet(client, FleetOptions(count=count, renew_seconds=0.2, rules=QUICK), metrics=Metrics())
        running = asyncio.create_task(made.run())
        try:
            await made.wait_started()
            yield made
        finally:
            made.stop()
            await running


async def test_nodes_and_leases_are_there_and_go() -> None:
    async with ControlPlane() as plane:
        async with fleet(plane) as made:
            nodes = (await plane.call("GET", "/api/v1/nodes"))["items"]
            assert sorted(each["metadata"]["name"] for each in nodes) == [f"sim-{number}" for number in range(5)]
            assert {each["type"] for each in nodes[0]["status"]["conditions"] if each["status"] == "True"} == {"Ready"}
            assert nodes[0]["status"]["allocatable"]["pods"] == "110"
            leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
            first = (await plane.call("GET", f"{leases}/sim-3"))["spec"]["renewTime"]
            await plane.wait_for(f"{leases}/sim-3", lambda each: each["spec"]["renewTime"] > first)
            assert made.problems() == []
            assert made.late_leases == 0
            await made.remove()
        assert (await plane.call("GET", "/api/v1/nodes"))["items"] == []


async def test_pods_live_by_their_rules() -> None:
    async with ControlPlane() as plane, fleet(plane) as made:
        await plane.call("POST", PODS, body("web", "sim-0"))
        await plane.call("POST", PODS, body("job", "sim-1", "Never", run_seconds="0.01"))
        await plane.call("POST", PODS, body("bad", "sim-2", "Never", run_seconds="0.01", exit_code="3"))
        await plane.call("POST", PODS, body("loop", "sim-3", run_seconds="0.01", exit_code="1"))
        await plane.call("POST", PODS, body("other", "elsewhere"))
        web = await plane.wait_for(f"{PODS}/web", lambda each: each["status"]["phase"] == "Running")
        await plane.wait_for(f"{PODS}/job", lambda each: each["status"]["phase"] == "Succeeded")
        bad = await plane.wait_for(f"{PODS}/bad", lambda each: each["status"]["phase"] == "Failed")
        loop = await plane.wait_for(f"{PODS}/loop", lambda each: "waiting" in _state(each) and _restarts(each) == 1)
        assert {each["type"] for each in web["status"]["conditions"] if each["status"] == "True"} >= {"Ready"}
        assert web["status"]["podIP"].startswith("100.64.")
        assert web["status"]["hostIP"] == "198.18.0.0"
        assert _state(bad)["terminated"]["exitCode"] == 3
        assert _state(loop)["waiting"]["reason"] == "CrashLoopBackOff"
        assert (made.pods, made.running) == (4, 1)
        await plane.call("DELETE", f"{PODS}/web")
        await plane.wait_for(f"{PODS}/web", lambda each: each is None)
        assert (await plane.call("GET", f"{PODS}/other"))["status"]["phase"] == "Pending"


async def test_a_new_fleet_takes_over_pods_as_they_are() -> None:
    async with ControlPlane() as plane:
        async with fleet(plane):
            await plane.call("POST", PODS, body("web", "sim-0"))
            before = await plane.wait_for(f"{PODS}/web", lambda each: each["status"]["phase"] == "Running")
        async with fleet(plane) as made:
            assert (made.pods, made.running) == (1, 1)
            after = await plane.call("GET", f"{PODS}/web")
        assert before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]


async def test_an_agent_runs_pods_on_the_simulated_runtime(tmp_path: Path) -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        runtime = SimulatedRuntime(QUICK)
        options = AgentOptions(name="one", root=str(tmp_path), addresses=("192.0.2.1",))
        ports = Ports(str(tmp_path), mounts=NoMounts())
        agent = Agent(client, runtime, options, ports=ports, metrics=Metrics())
        running = asyncio.create_task(agent.run())
        await agent.wait_started()
        await plane.call("POST", PODS, body("web", "one"))
        await plane.call("POST", PODS, body("job", "one", "Never", run_seconds="0.01"))
        await plane.wait_for(f"{PODS}/web", lambda each: each["status"]["phase"] == "Running")
        await plane.wait_for(f"{PODS}/job", lambda each: each["status"]["phase"] == "Succeeded")
        assert agent.problems() == []
        for name in ("web", "job"):
            await plane.call("DELETE", f"{PODS}/{name}")
            await plane.wait_for(f"{PODS}/{name}", lambda each: each is None)
        agent.stop()
        await running
        await runtime.close()


def test_annotations_change_rules_and_say_when_they_are_wrong() -> None:
    assert rules_of({PREFIX + "run-seconds": "2.5", PREFIX + "exit-code": "7", "other": "x"}, Rules()) == Rules(
        run_seconds=2.5, exit_code=7
    )
    with pytest.raises(ValueError, match=r"annotation simulated\.pilothouse\.dev/run-seconds: 'soon' is no number"):
        rules_of({PREFIX + "run-seconds": "soon"}, Rules())


def _state(found: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = found["status"].get("containerStatuses", [{"state": {}}])[0]["state"]
    return state


def _restarts(found: dict[str, Any]) -> int:
    return int(found["status"].get("containerStatuses", [{"restartCount": 0}])[0]["restartCount"])
