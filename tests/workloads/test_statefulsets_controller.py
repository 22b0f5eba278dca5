"""The controller of stateful sets on a control plane: claims that go, names that are taken, waits, refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ControllerRevision, Event, PersistentVolumeClaim, Pod, StatefulSet, from_dict
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.statefulset import add_statefulsets
from pilothouse.workloads.revisions import HASH_LABEL, data_hash, data_of, revision_name

FINALIZER = "example.com/kept"


def stateful(image: str = "one", **spec: Any) -> StatefulSet:
    labels = {"app": "db"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    made = {"serviceName": "db", "selector": {"matchLabels": labels}, "template": template, **spec}
    return from_dict({"metadata": {"name": "db", "namespace": "default"}, "spec": made}, StatefulSet)


def claimed(**spec: Any) -> StatefulSet:
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return stateful(volumeClaimTemplates=[{"metadata": {"name": "data"}, "spec": wanted}], **spec)


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Client, Harness]]:
    clock = FakeClock()
    async with ControlPlane(clock=clock) as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=clock)
        add_statefulsets(harness.manager)
        async with harness:
            yield client, harness


async def names(client: Client) -> list[str]:
    return sorted(pod.metadata.name for pod in await client.list_all(Pod, "default"))


async def be_ready(client: Client, harness: Harness, name: str) -> None:
    since = harness.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": since}
    changes = {"status": {"phase": "Running", "conditions": [condition]}}
    await client.patch(Pod, name, changes, "default", subresource="status")
    await harness.settle()


async def messages(client: Client) -> set[str]:
    return {str(event.message) for event in await client.list_all(Event, "default")}


async def test_pods_follow_one_another_as_they_become_available() -> None:
    async with running() as (client, harness):
        await client.create(stateful(replicas=2, minReadySeconds=30))
        await harness.converge()
        await be_ready(client, harness, "db-0")
        assert await names(client) == ["db-0"]
        await harness.advance(28)
        assert await names(client) == ["db-0"]
        await harness.advance(3)
        assert await names(client) == ["db-0", "db-1"]
        await be_ready(client, harness, "db-1")
        await harness.advance(31)
        status = (await client.get(StatefulSet, "db", "default")).status
        assert (status.ready_replicas, status.available_replicas) == (2, 2)
        await harness.assert_stable()


async def test_a_pod_waits_for_its_claim_to_go() -> None:
    async with running() as (client, harness):
        old = {"metadata": {"name": "data-db-0", "namespace": "default", "finalizers": [FINALIZER]}}
        await client.create(
            from_dict({**old, "spec": claimed().spec.volume_claim_templates[0].spec}, PersistentVolumeClaim)
        )
        await client.delete(PersistentVolumeClaim, "data-db-0", "default")
        await client.create(claimed(replicas=1))
        await harness.advance(2)
        assert await names(client) == []
        told = "Create Pod db-0 in StatefulSet db failed error: pvc data-db-0 is being deleted"
        assert told in await messages(client)
        await client.patch(PersistentVolumeClaim, "data-db-0", {"metadata": {"finalizers": None}}, "default")
        await harness.converge()
        assert await names(client) == ["db-0"]
        claim = await client.get(PersistentVolumeClaim, "data-db-0", "default")
        assert claim.metadata.deletion_timestamp is None


async def test_a_pod_waits_for_the_claim_of_the_one_before() -> None:
    async with running() as (client, harness):
        owner = {"apiVersion": "v1", "kind": "Pod", "name": "db-0", "uid": "before", "controller": True}
        metadata = {"name": "data-db-0", "namespace": "default", "ownerReferences": [owner]}
        spec = claimed().spec.volume_claim_templates[0].spec
        await client.create(from_dict({"metadata": metadata, "spec": spec}, PersistentVolumeClaim))
        policy = {"whenScaled": "Delete", "whenDeleted": "Retain"}
        await client.create(claimed(replicas=1, persistentVolumeClaimRetentionPolicy=policy))
        await harness.converge()
        assert await names(client) == []
        await client.delete(PersistentVolumeClaim, "data-db-0", "default")
        await client.patch(PersistentVolumeClaim, "data-db-0", {"metadata": {"finalizers": None}}, "default")
        await harness.converge()
        assert await names(client) == ["db-0"]


async def test_a_name_that_is_taken_counts_as_a_collision() -> None:
    async with running() as (client, harness):
        data = data_of((await client.create(stateful(), dry_run=True)).spec.template)
        first, second = (revision_name("db", data_hash(data, count)) for count in (0, 1))
        taken = {"metadata": {"name": first, "namespace": "default"}, "data": {"a": 1}, "revision": 1}
        await client.create(from_dict(taken, ControllerRevision))
        await client.create(stateful(replicas=1))
        await harness.converge()
        made = await client.get(ControllerRevision, second, "default")
        assert made.metadata.labels[HASH_LABEL] == data_hash(data, 0)
        status = (await client.get(StatefulSet, "db", "default")).status
        assert (status.collision_count, status.update_revision) == (1, second)
        await harness.assert_stable()


async def test_a_set_that_is_rolled_back_gives_its_old_revision_a_new_number() -> None:
    async with running() as (client, harness):
        await client.create(stateful("one", replicas=0))
        for image in ("two", "one"):
            await harness.converge()
            container = {"name": "c", "image": image}
            template = {"spec": {"containers": [container]}}
            await client.patch(StatefulSet, "db", {"spec": {"template": template}}, "default")
        await harness.converge()
        found = await client.list_all(ControllerRevision, "default")
        images = {one.data["spec"]["template"]["spec"]["containers"][0]["image"]: one.revision for one in found}
        assert images == {"two": 2, "one": 3}
