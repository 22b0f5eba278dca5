"""The controller of daemon sets on a control plane: waits, names that are taken, revisions that are there twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ControllerRevision, DaemonSet, Node, Pod, from_dict
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.daemonset import add_daemonsets
from pilothouse.workloads.revisions import POD_LABEL
from pilothouse.workloads.templates import template_hash

LABELS = {"app": "d"}


def daemon(image: str = "one") -> DaemonSet:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": image}]}}
    spec = {"selector": {"matchLabels": LABELS}, "template": template}
    return from_dict({"metadata": {"name": "d", "namespace": "default"}, "spec": spec}, DaemonSet)


@asynccontextmanager
async def running(*nodes: str) -> AsyncIterator[tuple[Client, Harness]]:
    clock = FakeClock()
    async with ControlPlane(clock=clock) as plane, Client.for_transport(plane.transport, plane.user) as client:
        for name in nodes:
            await client.create(from_dict({"metadata": {"name": name}}, Node))
            await client.patch(Node, name, {"spec": {"taints": None}})
        harness = Harness(client, clock=clock)
        add_daemonsets(harness.manager)
        async with harness:
            yield client, harness


async def pods(client: Client) -> list[Pod]:
    return [pod for pod in await client.list_all(Pod, "default") if pod.metadata.deletion_timestamp is None]


async def test_pods_that_fail_again_and_again_are_replaced_ever_more_slowly() -> None:
    async with running("a") as (client, harness):
        await client.create(daemon())
        await harness.converge()
        (first,) = await pods(client)
        await client.patch(Pod, first.metadata.name, {"status": {"phase": "Failed"}}, "default", subresource="status")
        await harness.converge()
        (second,) = await pods(client)
        assert second.metadata.name != first.metadata.name
        await client.patch(Pod, second.metadata.name, {"status": {"phase": "Failed"}}, "default", subresource="status")
        await harness.settle()
        assert [pod.metadata.name for pod in await pods(client)] == [second.metadata.name]
        await harness.advance(3)
        (third,) = await pods(client)
        assert third.metadata.name != second.metadata.name


async def test_a_node_that_comes_gets_its_pod() -> None:
    async with running("a") as (client, harness):
        await client.create(daemon())
        await harness.converge()
        assert len(await pods(client)) == 1
        await client.create(from_dict({"metadata": {"name": "b"}}, Node))
        await client.patch(Node, "b", {"spec": {"taints": None}})
        await harness.converge()
        assert len(await pods(client)) == 2
        await harness.assert_stable()


async def test_a_name_that_is_taken_counts_as_a_collision() -> None:
    async with running() as (client, harness):
        made = await client.create(daemon(), dry_run=True)
        digest = template_hash(made.spec.template)
        taken = {"metadata": {"name": f"d-{digest}", "namespace": "default"}, "data": {"a": 1}, "revision": 1}
        await client.create(from_dict(taken, ControllerRevision))
        await client.create(daemon())
        await harness.converge()
        found = {one.metadata.name: one for one in await client.list_all(ControllerRevision, "default")}
        assert (await client.get(DaemonSet, "d", "default")).status.collision_count == 1
        assert found.keys() == {f"d-{digest}", f"d-{template_hash(made.spec.template, 1)}"}


async def test_a_revision_that_is_there_twice_is_there_once_and_its_pods_are_given_over() -> None:
    async with running("a") as (client, harness):
        await client.create(daemon())
        await harness.converge()
        (first,) = await client.list_all(ControllerRevision, "default")
        metadata = {"name": "d-copy", "namespace": "default", "labels": {**LABELS, POD_LABEL: "copy"}}
        copy = from_dict({"metadata": metadata, "data": first.data, "revision": first.revision + 1}, ControllerRevision)
        await client.create(copy)
        await harness.converge()
        assert [one.metadata.name for one in await client.list_all(ControllerRevision, "default")] == ["d-copy"]
        assert [pod.metadata.labels[POD_LABEL] for pod in await pods(client)] == ["copy"]
