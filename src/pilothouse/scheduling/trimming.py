"""Pods and nodes without what scheduling does not look at, so that a hundred thousand of them fit into memory.

A pod as the API server has it takes tens of kilobytes. What is the same for all pods of a shape is kept once, with the
shape; of each pod only its names, its node and when it started are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pilothouse.kinds.structs import (
    Container,
    ContainerStatus,
    Node,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
    Volume,
)

if TYPE_CHECKING:
    from .shapes import PodShape

__all__ = ["trimmed", "trimmed_node", "without_details"]

_CONDITIONS = frozenset({"DisruptionTarget", "PodResizePending"})


def without_details(pod: Pod) -> Pod:
    """Give a pod with only what decides where it may run, and nothing of its own."""
    spec, status, meta = pod.spec, pod.status, pod.metadata
    return Pod(
        metadata=ObjectMeta(
            name=meta.name,
            namespace=meta.namespace,
            uid=meta.uid,
            labels=meta.labels,
            owner_references=[owner for owner in meta.owner_references if owner.controller],
        ),
        spec=PodSpec(
            containers=[_container(one) for one in spec.containers],
            init_containers=[_container(one) for one in spec.init_containers],
            volumes=_volumes(pod),
            node_selector=spec.node_selector,
            affinity=spec.affinity,
            tolerations=spec.tolerations,
            topology_spread_constraints=spec.topology_spread_constraints,
            priority=spec.priority,
            preemption_policy=spec.preemption_policy,
            scheduler_name=spec.scheduler_name,
            overhead=spec.overhead,
            resources=spec.resources,
        ),
        status=PodStatus(
            container_statuses=[_status(one) for one in status.container_statuses],
            init_container_statuses=[_status(one) for one in status.init_container_statuses],
            resources=status.resources,
            allocated_resources=status.allocated_resources,
            conditions=_conditions(status),
        ),
    )


def trimmed(pod: Pod, shape: PodShape) -> Pod:
    """Give a pod of a shape, sharing all that it can with the others."""
    spec, status, meta, like = pod.spec, pod.status, pod.metadata, shape.pod
    own_meta = ObjectMeta(
        name=meta.name,
        namespace=meta.namespace,
        uid=meta.uid,
        generation=meta.generation,
        deletion_timestamp=meta.deletion_timestamp,
        labels=like.metadata.labels,
        owner_references=like.metadata.owner_references,
    )
    own_spec = like.spec
    if spec.node_name or spec.scheduling_gates or like.spec.volumes:
        own_spec = msgspec.structs.replace(
            like.spec, node_name=spec.node_name, scheduling_gates=spec.scheduling_gates, volumes=_volumes(pod)
        )
    own_status = msgspec.structs.replace(
        like.status,
        phase=status.phase,
        start_time=status.start_time,
        nominated_node_name=status.nominated_node_name,
        conditions=_conditions(status),
    )
    return Pod(metadata=own_meta, spec=own_spec, status=own_status)


def trimmed_node(node: Node) -> Node:
    """Give a node with what the table and hints look at."""
    status = node.status
    return Node(
        metadata=ObjectMeta(name=node.metadata.name, uid=node.metadata.uid, labels=node.metadata.labels),
        spec=NodeSpec(taints=node.spec.taints, unschedulable=node.spec.unschedulable),
        status=NodeStatus(
            allocatable=status.allocatable,
            conditions=[NodeCondition(type=one.type, status=one.status) for one in status.conditions],
            images=status.images,
        ),
    )


def _container(one: Container) -> Container:
    return Container(
        name=one.name,
        image=one.image,
        ports=[port for port in one.ports if port.host_port],
        resources=one.resources,
        restart_policy=one.restart_policy,
    )


def _status(one: ContainerStatus) -> ContainerStatus:
    return ContainerStatus(name=one.name, resources=one.resources, allocated_resources=one.allocated_resources)


def _conditions(status: PodStatus) -> list[PodCondition] | tuple[()]:
    return [one for one in status.conditions if one.type in _CONDITIONS] if status.conditions else ()


def _volumes(pod: Pod) -> list[Volume]:
    return [
        volume
        for volume in pod.spec.volumes
        if volume.persistent_volume_claim.claim_name
        or volume.ephemeral.volume_claim_template is not None
        or volume.gce_persistent_disk.pd_name
        or volume.aws_elastic_block_store.volume_id
        or volume.iscsi.iqn
        or volume.rbd.image
        or volume.image.reference
        or volume.csi.driver
    ]
