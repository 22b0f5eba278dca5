"""Volumes that are directories of nodes: the class of them, the volume that a claim gets, and who removes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

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
    "REMOVED",
    "ROOT",
    "ROOT_OF_NODE",
    "TO_REMOVE",
    "folder_on",
    "host_of",
    "is_to_go",
    "local_class",
    "local_volume",
    "names_in",
    "node_for",
    "place_of",
    "to_remove",
]

PROVISIONER: Final = "pilothouse.dev/local-path"
FINALIZER: Final = "pilothouse.dev/local-path"
CLASS: Final = "local-path"
ROOT: Final = "/var/lib/pilothouse/volumes"
ROOT_OF_NODE: Final = "pilothouse.dev/local-volumes"
"""The annotation by which a node says where its directories are made."""
TO_REMOVE: Final = "pilothouse.dev/remove-local-volumes"
"""The annotation of a node by which its agent is told which directories are to go: names with commas between them."""
REMOVED: Final = "pilothouse.dev/removed-local-volumes"
"""The annotation by which the agent says which of those are gone."""
_MAX_AT_ONCE: Final = 64
_HOSTNAME: Final = "kubernetes.io/hostname"
_UNSAFE: Final = re.compile(r"[^a-zA-Z0-9._-]")


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
    """Return the volume for a claim on a node. Directories are made where the class says by `path`, else the node."""
    metadata = claim.metadata
    name = f"pvc-{metadata.uid}"
    root = found.parameters.get("path") or node.metadata.annotations.get(ROOT_OF_NODE) or ROOT
    folder = _UNSAFE.sub("_", f"{name}_{metadata.namespace}_{metadata.name}")
    host = host_of(node)
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


def host_of(node: Node) -> str:
    """Return what the volumes of a node call it."""
    return node.metadata.labels.get(_HOSTNAME) or node.metadata.name


def folder_on(volume: PersistentVolume, node: Node) -> str:
    """Return the name of a volume's directory right in the root of a node, empty where it is not there."""
    host, path = place_of(volume)
    root = node.metadata.annotations.get(ROOT_OF_NODE, "").rstrip("/")
    above, _, folder = path.rpartition("/")
    is_its_own = folder.startswith(f"{volume.metadata.name}_") and "," not in folder
    return folder if host == host_of(node) and root and above == root and is_its_own else ""


def is_to_go(volume: PersistentVolume) -> bool:
    """Return whether a volume's directory is to be removed, as nobody can have it any more."""
    return (
        FINALIZER in volume.metadata.finalizers
        and volume.metadata.deletion_timestamp is not None
        and volume.status.phase != "Bound"
        and volume.spec.persistent_volume_reclaim_policy == "Delete"
    )


def to_remove(node: Node, volumes: Iterable[PersistentVolume]) -> str:
    """Return what a node's annotation `TO_REMOVE` is to say; at most 64 directories, the others come later."""
    folders = sorted(folder for each in volumes if is_to_go(each) and (folder := folder_on(each, node)))
    return ",".join(folders[:_MAX_AT_ONCE])


def names_in(node: Node) -> list[str]:
    """Return the names of the volumes whose directories a node has removed."""
    folders = node.metadata.annotations.get(REMOVED, "").split(",")
    return [folder.partition("_")[0] for folder in folders if folder]
