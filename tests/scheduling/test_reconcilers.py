"""The scheduler against an API server: what it writes, and that it goes on when something is in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from pilothouse.apiserver.model import User
from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import (
    Event,
    Node,
    ObjectMeta,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PriorityClass,
    StorageClass,
    from_dict,
)
from pilothouse.operator import Manager
from pilothouse.scheduling.reconcilers import PodScheduler
from pilothouse.testing import ControlPlane


class Place(NamedTuple):
    client: Client
    scheduler: PodScheduler
    metrics: Metrics

    async def node(self, name: str, cpu: str = "4", **more: Any) -> None:
        tree = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, **more}
        await self.client.create(from_dict(tree, Node))
        status = {"status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}}
        await self.client.patch(Node, name, status, subresource="status")
        # Admission marks a new node as not ready; what takes that away is not here.
        await self.client.patch(Node, name, {"spec": {"taints": None}})

    async def pod(self, name: str, cpu: str = "1", **spec: Any) -> Pod:
        container = {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}
        tree = {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container], **spec}}
        return await self.client.create(from_dict(tree, Pod))

    async def until(self, name: str, takes: Callable[[Pod], bool]) -> Pod:
        """Wait until a pod is as it should be."""
        async with asyncio.timeout(10):
            while True:
                found = await self.client.get(Pod, name, "default")
                if takes(found):
                    return found
                await asyncio.sleep(0.01)

    async def event(self, reason: str, about: str) -> str:
        """Wait for an event about a pod; give its text."""
        async with asyncio.timeout(10):
            while True:
                for found in await self.client.list_all(Event, "default"):
                    if (found.reason, found.involved_object.name) == (reason, about):
                        return found.message
                await asyncio.sleep(0.01)


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    """The scheduler runs as the user that RBAC's default roles know, with no more rights than they give."""
    user = User("system:kube-scheduler", groups=("system:authenticated",))
    async with (
        ControlPlane() as plane,
        Client.for_transport(plane.transport, plane.user) as client,
        Client.for_transport(plane.transport, user) as limited,
    ):
        metrics = Metrics()
        manager = Manager(limited, metrics=metrics)
        scheduler = PodScheduler(manager, seed=1)
        async with manager:
            yield Place(client, scheduler, metrics)


def scheduled(pod: Pod) -> Any:
    return next((one for one in pod.status.conditions if one.type == "PodScheduled"), None)


async def test_a_pod_is_bound_and_that_is_told() -> None:
    async with place() as at:
        await at.node("n1")
        await at.pod("web")
        found = await at.until("web", lambda pod: bool(pod.spec.node_name))
        assert found.spec.node_name == "n1"
        assert scheduled(found).status == "True"
        assert await at.event("Scheduled", "web") == "Successfully assigned default/web to n1"
        shown = at.metrics.exposition().decode()
        assert 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1.0' in shown
        assert 'scheduler_pending_pods{queue="active"} 0.0' in shown


async def test_a_pod_that_fits_nowhere_says_why_and_is_bound_when_it_fits() -> None:
    async with place() as at:
        await at.node("n1")
        await at.pod("big", "8")
        found = await at.until("big", lambda pod: scheduled(pod) is not None)
        assert (scheduled(found).status, scheduled(found).reason) == ("False", "Unschedulable")
        assert scheduled(found).message == (
            "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
            "1 Preemption is not helpful for scheduling."
        )
        assert await at.event("FailedScheduling", "big") == scheduled(found).message
        await at.node("n2", "16")
        found = await at.until("big", lambda pod: bool(pod.spec.node_name))
        assert found.spec.node_name == "n2"


async def test_a_more_important_pod_takes_the_place_of_another() -> None:
    async with place() as at:
        await at.client.create(PriorityClass(metadata=ObjectMeta(name="high"), value=1000))
        await at.node("n1")
        low = await at.pod("low", "4")
        await at.until("low", lambda pod: bool(pod.spec.node_name))
        high = await at.pod("high", "4", priorityClassName="high")
        found = await at.until("high", lambda pod: pod.status.nominated_node_name == "n1")
        assert not found.spec.node_name
        gone = await at.until("low", lambda pod: pod.metadata.deletion_timestamp is not None)
        target = next(one for one in gone.status.conditions if one.type == "DisruptionTarget")
        assert (target.status, target.reason) == ("True", "PreemptionByScheduler")
        assert target.message == "default-scheduler: preempting to accommodate a higher priority pod"
        assert await at.event("Preempted", "low") == f"Preempted by pod {high.metadata.uid} on node n1"
        # Nobody runs on the node; its agent would end the pod so.
        await at.client.delete(Pod, "low", "default", grace_seconds=0, uid=low.metadata.uid)
        await at.until("high", lambda pod: pod.spec.node_name == "n1")


async def test_a_gated_pod_waits_until_its_gates_are_gone() -> None:
    async with place() as at:
        await at.node("n1")
        await at.pod("later", schedulingGates=[{"name": "example.com/wait"}])
        found = await at.until("later", lambda pod: scheduled(pod) is not None)
        assert scheduled(found).reason == "SchedulingGated"
        await at.client.patch(Pod, "later", {"spec": {"schedulingGates": None}}, "default")
        await at.until("later", lambda pod: bool(pod.spec.node_name))


SELECTED = "volume.kubernetes.io/selected-node"
BOUND = {"pv.kubernetes.io/bind-completed": "yes"}


async def with_claim(at: Place, provisioner: str) -> None:
    slow = {"metadata": {"name": "slow"}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"}
    await at.client.create(from_dict(slow, StorageClass))
    spec = {
        "storageClassName": "slow",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    meta = {"name": "data", "namespace": "default"}
    await at.client.create(from_dict({"metadata": meta, "spec": spec}, PersistentVolumeClaim))
    await at.pod("db", volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}])


async def selected(at: Place) -> str:
    """Wait until a node was chosen for the claim."""
    async with asyncio.timeout(10):
        while True:
            found = await at.client.get(PersistentVolumeClaim, "data", "default")
            if SELECTED in found.metadata.annotations:
                return found.metadata.annotations[SELECTED]
            await asyncio.sleep(0.01)


async def finish_claim(at: Place, volume: str) -> None:
    """Do what a provisioner and the volume controller do."""
    bound = {"metadata": {"annotations": BOUND}, "spec": {"volumeName": volume}}
    await at.client.patch(PersistentVolumeClaim, "data", bound, "default")


async def test_a_claim_that_waits_gets_its_node_and_the_pod_is_bound_after_it() -> None:
    async with place() as at:
        await at.node("n1")
        await with_claim(at, "disk.example.com")
        assert await selected(at) == "n1"
        assert not (await at.client.get(Pod, "db", "default")).spec.node_name
        await finish_claim(at, "pv1")
        await at.until("db", lambda pod: pod.spec.node_name == "n1")


@pytest.mark.slow
async def test_a_node_that_a_volume_cannot_be_provided_for_is_chosen_anew() -> None:
    async with place() as at:
        await at.node("n1")
        await with_claim(at, "disk.example.com")
        await selected(at)
        await at.client.patch(PersistentVolumeClaim, "data", {"metadata": {"annotations": {SELECTED: None}}}, "default")
        found = await at.until("db", lambda pod: scheduled(pod) is not None)
        assert scheduled(found).reason == "SchedulerError"
        assert "selectedNode annotation reset" in scheduled(found).message
        assert await selected(at) == "n1"
        await finish_claim(at, "pv1")
        await at.until("db", lambda pod: pod.spec.node_name == "n1")


async def test_a_volume_that_is_there_is_given_to_the_claim_before_the_pod_is_bound() -> None:
    async with place() as at:
        await at.node("n1")
        local = {
            "metadata": {"name": "disk1"},
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "slow",
                "local": {"path": "/mnt/disk1"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}
                                ]
                            }
                        ]
                    }
                },
            },
        }
        await at.client.create(from_dict(local, PersistentVolume))
        await at.client.patch(PersistentVolume, "disk1", {"status": {"phase": "Available"}}, subresource="status")
        await with_claim(at, "kubernetes.io/no-provisioner")
        async with asyncio.timeout(10):
            while True:
                volume = await at.client.get(PersistentVolume, "disk1")
                if volume.spec.claim_ref is not None:
                    break
                await asyncio.sleep(0.01)
        assert (volume.spec.claim_ref.namespace, volume.spec.claim_ref.name) == ("default", "data")
        assert volume.metadata.annotations == {"pv.kubernetes.io/bound-by-controller": "yes"}
        await finish_claim(at, "disk1")
        await at.until("db", lambda pod: pod.spec.node_name == "n1")


async def test_pods_of_others_and_those_that_go_are_left_alone() -> None:
    async with place() as at:
        await at.node("n1")
        await at.pod("other", schedulerName="somebody-else")
        await at.pod("fixed", nodeName="n1")
        await at.pod("web")
        await at.until("web", lambda pod: bool(pod.spec.node_name))
        found = await at.client.get(Pod, "other", "default")
        assert (found.spec.node_name, scheduled(found)) == ("", None)
        await at.client.delete(Pod, "other", "default", grace_seconds=0)


@pytest.mark.slow
async def test_many_pods_fill_the_nodes_and_no_node_gets_too_many() -> None:
    async with place() as at:
        for number in range(5):
            await at.node(f"n{number}", "4")
        await asyncio.gather(*(at.pod(f"p{number}") for number in range(24)))
        async with asyncio.timeout(20):
            while True:
                pods = await at.client.list_all(Pod, "default")
                bound = [pod.spec.node_name for pod in pods if pod.spec.node_name]
                told = [pod for pod in pods if scheduled(pod) is not None]
                if len(bound) == 20 and len(told) == 24:
                    break
                await asyncio.sleep(0.02)
        assert {bound.count(f"n{number}") for number in range(5)} == {4}
        for pod in [one for one in pods if one.spec.node_name][:3]:
            await at.client.delete(Pod, pod.metadata.name, "default", grace_seconds=0)
        async with asyncio.timeout(20):
            while True:
                pods = await at.client.list_all(Pod, "default")
                if sum(bool(pod.spec.node_name) for pod in pods) == 20:
                    break
                await asyncio.sleep(0.02)
