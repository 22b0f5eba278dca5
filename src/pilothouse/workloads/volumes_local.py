"""Volumes that are directories of nodes: the class of them, the volume that a claim gets, and who removes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Protocol

from pilothouse.kinds.structs import Node, ObjectMeta, PersistentVolume, PersistentVolumeClaim, StorageClass
from pilothouse.kinds.structs.core_references import ObjectReference
from pilothouse.kinds.structs.core_scheduling import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm
from pilothouse.kinds.structs.core_storage import PersistentVolumeSpec, VolumeNodeAffinity
from pilothouse.kinds.structs.core_volumes import HostPathVolumeSource

from .nodes import is_healthy
from .volumes import BOUND_BY_CONTROLLER, PROVISIONED_BY

__all__ = [
    "CLASS",
    "FINALIZER",
    "PROVISIONER",
    "ROOT",
    "ROOT_OF_NODE",
    "Directories",
    "local_class",
    "local_volume",
    "node_for",
    "place_of",
]

PROVISIONER: Final = "pilothouse.dev/local-path"
FINALIZER: Final = "pilothouse.dev/local-path"
CLASS: Final = "local-path"
ROOT: Final = "/var/lib/pilothouse/volumes"
ROOT_OF_NODE: Final = "pilothouse.dev/local-volumes"
"""The annotation by which a node says where its directories are made."""
_HOSTNAME: Final = "kubernetes.io/hostname"
_UNSAFE: Final = re.compile(r"[^a-zA-Z0-9._-]")


class Directories(Protocol):
    """What removes directories of nodes."""

    async def remove(self, node: str, path: str) -> None:
        """Remove a directory and all that is in it; one that is gone is fine. Raises OSError to be called again."""


def local_class() -> StorageClass:
    """Return the class of these volumes, the default of a cluster."""
    return StorageClass(
        metadata=ObjectMeta(name=CLASS, annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
        provisioner=PROVISIONER,
        reclaim_policy="Delete",
        volume_binding_mode="WaitForFirstConsumer",
    )


def node_for(nodes: Iterable[Node], claims: int) -> Node | None:
    """Return a node for a volume that no pod waits for: one after the other of those that are ready, None for none."""
    fit = [each for each in nodes if is_healthy(each) and not each.spec.unschedulable]
    fit.sort(key=lambda each: each.metadata.name)
    return fit[claims % len(fit)] if fit else None


def local_volume(claim: PersistentVolumeClaim, found: StorageClass, node: Node) -> PersistentVolume:
    """Return the volume for a claim on a node. The class's parameter `path` says where directories are made, else the node."""
    metadata = claim.metadata
    name = f"pvc-{metadata.uid}"
    root = found.parameters.get("path") or node.metadata.annotations.get(ROOT_OF_NODE) or ROOT
    folder = _UNSAFE.sub("_", f"{name}_{metadata.namespace}_{metadata.name}")
    host = node.metadata.labels.get(_HOSTNAME) or node.metadata.name
    policy = found.reclaim_policy or "Delete"
    term = NodeSelectorTerm(match_expressions=(NodeSelectorRequirement(key=_HOSTNAME, operator="In", values=(host,)),))
    return PersistentVolume(
        metadata=ObjectMeta(
            name=name,
            annotations={PROVISIONED_BY: PROVISIONER, BOUND_BY_CONTROLLER: "yes"},
            finalizers=(FINALIZER,) if policy == "Delete" else (),
        ),
        spec=PersistentVolumeSpec(
            capacity={"storage": claim.spec.resources.requests.get("storage", "0")},
            access_modes=claim.spec.access_modes,
            claim_ref=ObjectReference(
                kind="PersistentVolumeClaim",
                api_version="v1",
                namespace=metadata.namespace,
                name=metadata.name,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
            ),
            persistent_volume_reclaim_policy=policy,
            storage_class_name=found.metadata.name,
            mount_options=found.mount_options,
            volume_mode="Filesystem",
            host_path=HostPathVolumeSource(path=f"{root.rstrip('/')}/{folder}", type="DirectoryOrCreate"),
            node_affinity=VolumeNodeAffinity(required=NodeSelector(node_selector_terms=(term,))),
        ),
    )


def place_of(volume: PersistentVolume) -> tuple[str, str]:
    """Return the host and the path of a volume's directory."""
    affinity = volume.spec.node_affinity
    terms = () if affinity is None or affinity.required is None else affinity.required.node_selector_terms
    hosts = [
        value for term in terms for each in term.match_expressions if each.key == _HOSTNAME for value in each.values
    ]
    return (hosts[0] if hosts else ""), volume.spec.host_path.path
