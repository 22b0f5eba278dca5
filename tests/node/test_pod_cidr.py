"""A node's range of pods: its own, the one that it prefers, or the one that the controller gives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.node.agent.podcidr import pod_cidr
from pilothouse.node.errors import RuntimeUnavailable
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.nodeipam import add_nodeipam

NODES = "/api/v1/nodes"
FIRST = "10.244.0.0/24"


@asynccontextmanager
async def plane(*, controller: bool) -> AsyncIterator[tuple[ControlPlane, Client]]:
    async with ControlPlane() as made, Client.for_transport(made.transport, made.user) as client:
        if not controller:
            yield made, client
            return
        manager = Manager(client)
        add_nodeipam(manager)
        async with manager:
            yield made, client


def node(name: str, **spec: Any) -> dict[str, Any]:
    return {"kind": "Node", "metadata": {"name": name}, "spec": spec}


async def test_the_first_node_takes_what_it_prefers_and_the_next_ones_get_others() -> None:
    async with plane(controller=True) as (made, client):
        assert await pod_cidr(client, "one", FIRST) == FIRST
        found = await made.call("GET", f"{NODES}/one")
        assert found["spec"]["podCIDRs"] == [FIRST]
        assert found["metadata"]["labels"] == {"kubernetes.io/hostname": "one"}
        assert await pod_cidr(client, "two", seconds=30) == "10.244.1.0/24"
        assert await pod_cidr(client, "three", FIRST, seconds=30) == "10.244.2.0/24"
        assert await pod_cidr(client, "one", "10.244.9.0/24") == FIRST


async def test_a_node_without_a_range_takes_what_it_prefers_too() -> None:
    async with plane(controller=False) as (made, client):
        await made.call("POST", NODES, node("one"))
        await made.call("POST", NODES, node("two", podCIDR="10.244.4.0/22", podCIDRs=["10.244.4.0/22"]))
        assert await pod_cidr(client, "one", FIRST) == FIRST
        with pytest.raises(RuntimeUnavailable, match=r"node three: spec.podCIDR is not set .* node-ipam-controller"):
            await pod_cidr(client, "three", "10.244.5.0/24", seconds=0.3)


async def test_a_range_that_comes_late_is_waited_for() -> None:
    async with plane(controller=False) as (made, client):
        manager = Manager(client)
        add_nodeipam(manager)
        await made.call("POST", NODES, node("one"))
        waiting = asyncio.create_task(pod_cidr(client, "one", seconds=30))
        async with manager:
            assert await waiting == FIRST
