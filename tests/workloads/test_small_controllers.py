"""Controllers that do one thing: annotations of nodes, statuses of admission policies, protection of classes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from pilothouse.client import Client
from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import (
    Node,
    PersistentVolumeClaim,
    ValidatingAdmissionPolicy,
    VolumeAttributesClass,
    from_dict,
    replace,
)
from pilothouse.operator import Manager
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.admissionpolicies import add_policy_status
from pilothouse.workloads.reconcilers.nodettl import ANNOTATION, add_node_ttl, step_of
from pilothouse.workloads.reconcilers.volumeattributes import add_attributes_protection
from pilothouse.workloads.reconcilers.volumes import add_claim_protection


@asynccontextmanager
async def running(add: Callable[[Manager], None]) -> AsyncIterator[tuple[Client, Harness]]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client)
        add(harness.manager)
        async with harness:
            yield client, harness


@pytest.mark.parametrize(
    ("nodes", "before", "after"),
    [(0, 0, 0), (100, 0, 0), (101, 0, 1), (95, 1, 1), (89, 1, 0), (3000, 0, 4), (10, 4, 0), (1800, 4, 4)],
)
def test_steps_of_a_clusters_size(nodes: int, before: int, after: int) -> None:
    assert step_of(nodes, before) == after


async def test_nodes_are_annotated_again() -> None:
    async with running(add_node_ttl) as (client, harness):
        made = await client.create(from_dict({"metadata": {"name": "n"}}, Node))
        await harness.settle()
        found = await client.get(Node, "n")
        assert found.metadata.annotations[ANNOTATION] == "0"
        await client.update(replace(found, metadata__annotations={ANNOTATION: "many"}))
        await harness.settle()
        assert (await client.get(Node, made.metadata.name)).metadata.annotations[ANNOTATION] == "0"


async def test_policies_say_which_generation_was_seen() -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "true"}]}
    async with running(add_policy_status) as (client, harness):
        body = {"metadata": {"name": "p.example.com"}, "spec": spec}
        await client.create(from_dict(body, ValidatingAdmissionPolicy))
        await harness.settle()
        found = await client.get(ValidatingAdmissionPolicy, "p.example.com")
        assert found.status.observed_generation == 1
        assert found.status.type_checking is not None
        await client.update(replace(found, spec__failure_policy="Ignore"))
        await harness.settle()
        assert (await client.get(ValidatingAdmissionPolicy, "p.example.com")).status.observed_generation == 2


async def test_a_class_that_a_claim_has_stays() -> None:
    claim_spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeAttributesClassName": "gold",
    }

    def add(manager: Manager) -> None:
        add_attributes_protection(manager)
        add_claim_protection(manager)

    async with running(add) as (client, harness):
        made = from_dict({"metadata": {"name": "gold"}, "driverName": "d.example.com"}, VolumeAttributesClass)
        await client.create(replace(made, parameters={"a": "b"}))
        claim = from_dict(
            {"metadata": {"name": "c", "namespace": "default"}, "spec": claim_spec}, PersistentVolumeClaim
        )
        await client.create(claim)
        await harness.settle()
        await client.delete(VolumeAttributesClass, "gold")
        await harness.settle()
        assert (await client.get(VolumeAttributesClass, "gold")).metadata.deletion_timestamp is not None
        await client.delete(PersistentVolumeClaim, "c", "default")
        await harness.settle()
        with pytest.raises(NotFound):
            await client.get(VolumeAttributesClass, "gold")
