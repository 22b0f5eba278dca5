"""Pods that nobody else would remove: which, and when."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Node, Pod, ServiceAccount, from_dict
from pilothouse.operator import Harness
from pilothouse.workloads.podgc import QUARANTINE_SECONDS, Quarantine, failed_status, is_lost, surplus
from pilothouse.workloads.reconcilers.podgc import add_podgc
from support.operatorkit import plane_and_client


def pod(name: str = "p", phase: str = "Running", **more: Any) -> Pod:
    metadata = {
        "name": name,
        "namespace": "default",
        "creationTimestamp": more.get("created", "2025-01-01T00:00:00Z"),
        "deletionTimestamp": "2025-01-01T00:00:00Z" if more.get("deleting") else None,
        "finalizers": ["example.com/keep"],
    }
    containers = [{"name": "c", "image": "i"}]
    status = {"phase": phase, "reason": more.get("reason", "")}
    return from_dict(
        {"metadata": metadata, "spec": {"nodeName": more.get("node", ""), "containers": containers}, "status": status},
        Pod,
    )


def node(name: str, *, ready: bool, out_of_service: bool) -> Node:
    taints = [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}] if out_of_service else []
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    return from_dict({"metadata": {"name": name}, "spec": {"taints": taints}, "status": status}, Node)


def test_evicted_ones_go_first_then_the_oldest() -> None:
    pods = [
        pod("young", "Succeeded", created="2025-01-01T03:00:00Z"),
        pod("old", "Failed", created="2025-01-01T01:00:00Z"),
        pod("evicted", "Failed", created="2025-01-01T04:00:00Z", reason="Evicted"),
        pod("running"),
    ]
    assert [one.metadata.name for one in surplus(pods, 1)] == ["evicted", "old"]
    assert surplus(pods, 3) == surplus(pods, 0) == []


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (pod(deleting=True), True),
        (pod(), False),
        (pod(deleting=True, node="well"), False),
        (pod(deleting=True, node="out"), True),
        (pod(node="out"), False),
        (pod(deleting=True, node="tainted"), False),
        (pod(deleting=True, node="unready"), False),
        (pod(deleting=True, node="gone"), False),
    ],
)
def test_which_are_lost(found: Pod, lost: bool) -> None:
    nodes = [
        node("well", ready=True, out_of_service=False),
        node("out", ready=False, out_of_service=True),
        node("tainted", ready=True, out_of_service=True),
        node("unready", ready=False, out_of_service=False),
    ]
    assert is_lost(found, {one.metadata.name: one for one in nodes}) is lost


def test_a_node_is_gone_when_it_was_missing_for_a_while() -> None:
    quarantine = Quarantine({})
    assert quarantine.gone(["a"], 0.0) == []
    assert quarantine.gone(["a", "b"], QUARANTINE_SECONDS - 1) == []
    assert quarantine.gone(["a", "b"], QUARANTINE_SECONDS) == ["a"]
    assert quarantine.gone([], QUARANTINE_SECONDS + 1) == []
    assert quarantine.gone(["a"], QUARANTINE_SECONDS + 2) == []


def test_what_has_ended_stays_as_it_ended() -> None:
    assert failed_status(pod(phase="Succeeded"), "t", orphaned=True) is None
    found = failed_status(pod(), "t", orphaned=True)
    assert found is not None
    assert found["status"]["phase"] == "Failed"
    assert found["status"]["conditions"][0]["reason"] == "DeletionByPodGC"


@asynccontextmanager
async def world() -> AsyncIterator[tuple[Client, Harness]]:
    clock = FakeClock()
    async with plane_and_client(clock=clock, crd=False) as (_, client):
        await client.create(from_dict({"metadata": {"name": "default", "namespace": "default"}}, ServiceAccount))
        harness = Harness(client, clock=clock)
        add_podgc(harness.manager)
        async with harness:
            yield client, harness


async def test_pods_of_a_node_that_is_gone_fail_and_go() -> None:
    async with world() as (client, harness):
        await client.create(pod("orphan", node="gone"))
        await harness.advance(35)
        assert (await client.get(Pod, "orphan", "default")).metadata.deletion_timestamp is None
        await harness.advance(60)
        found = await client.get(Pod, "orphan", "default")
        assert found.metadata.deletion_timestamp is not None
        assert found.status.phase == "Failed"
        (condition,) = [one for one in found.status.conditions if one.type == "DisruptionTarget"]
        assert (condition.status, condition.reason) == ("True", "DeletionByPodGC")
        assert condition.message == "PodGC: node no longer exists"


async def test_pods_of_a_node_that_is_there_stay() -> None:
    async with world() as (client, harness):
        await client.create(node("here", ready=False, out_of_service=False))
        await client.create(pod("stays", node="here"))
        await harness.advance(100)
        found = await client.get(Pod, "stays", "default")
        assert found.metadata.deletion_timestamp is None
        assert found.status.phase == "Pending"
