"""Claims, volumes and storage classes as the scheduler sees them: what was read, and what it has decided since.

A decision (this volume for that claim, this node for that claim) counts from the moment it is made; it is dropped when
the object comes back with it, or when the pod does not get to its node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pilothouse.kinds.structs import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    VolumeAttachment,
)

from .requests import amount

__all__ = ["SELECTED_NODE", "Claim", "Storage", "claim_class", "claim_key", "is_bound", "storage_request"]

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
_BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
_CLASS_ANNOTATION: Final = "volume.beta.kubernetes.io/storage-class"

Claim = PersistentVolumeClaim


def claim_key(claim: Claim) -> str:
    """Give `namespace/name` of a claim."""
    return f"{claim.metadata.namespace}/{claim.metadata.name}"


def claim_class(claim: Claim) -> str:
    """Give the name of the storage class that a claim wants; empty where it wants none."""
    return claim.metadata.annotations.get(_CLASS_ANNOTATION) or claim.spec.storage_class_name or ""


def is_bound(claim: Claim) -> bool:
    """Whether a claim has its volume for good."""
    return bool(claim.spec.volume_name) and _BIND_COMPLETED in claim.metadata.annotations


def storage_request(claim: Claim) -> int:
    """Give the bytes that a claim asks for; 0 where it does not say."""
    requests = claim.spec.resources.requests
    return amount("storage", requests["storage"]) if "storage" in requests else 0


class Storage:
    """The cluster's storage. `version` changes with each change of it."""

    def __init__(self) -> None:
        self.claims: Final[dict[str, Claim]] = {}
        self.volumes: Final[dict[str, PersistentVolume]] = {}
        self.classes: Final[dict[str, StorageClass]] = {}
        self.csi_nodes: Final[dict[str, CSINode]] = {}
        self.drivers: Final[dict[str, CSIDriver]] = {}
        self.capacities: Final[dict[str, CSIStorageCapacity]] = {}
        self.attachments: Final[dict[str, VolumeAttachment]] = {}
        self.assumed_volumes: Final[dict[str, str]] = {}
        """Claims to which volumes were given, by the volumes' names."""
        self.assumed_claims: Final[dict[str, str]] = {}
        """Nodes chosen for claims that are to be provided, by the claims' keys."""
        self.version = 0

    def changed(self) -> None:
        """Note that something changed."""
        self.version += 1

    def set_claim(self, claim: Claim) -> None:
        """Take over a claim."""
        key = claim_key(claim)
        self.claims[key] = claim
        if SELECTED_NODE in claim.metadata.annotations or claim.spec.volume_name:
            self.assumed_claims.pop(key, None)
        self.changed()

    def set_volume(self, volume: PersistentVolume) -> None:
        """Take over a volume."""
        self.volumes[volume.metadata.name] = volume
        if volume.spec.claim_ref is not None:
            self.assumed_volumes.pop(volume.metadata.name, None)
        self.changed()

    def claim(self, namespace: str, name: str) -> Claim | None:
        """Give a claim, if there is one."""
        return self.claims.get(f"{namespace}/{name}")

    def selected_node(self, claim: Claim) -> str | None:
        """Give the node for which a claim is to be provided, if one was chosen."""
        return self.assumed_claims.get(claim_key(claim)) or claim.metadata.annotations.get(SELECTED_NODE)

    def holder(self, volume: PersistentVolume) -> str | None:
        """Give the key of the claim that a volume was given to or is kept for, if any."""
        assumed = self.assumed_volumes.get(volume.metadata.name)
        if assumed is not None:
            return assumed
        reference = volume.spec.claim_ref
        return None if reference is None else f"{reference.namespace}/{reference.name}"

    def holds(self, volume: PersistentVolume, claim: Claim) -> bool:
        """Whether a volume was given to this very claim."""
        if self.holder(volume) != claim_key(claim):
            return False
        reference = volume.spec.claim_ref
        return reference is None or not reference.uid or reference.uid == claim.metadata.uid

    def volumes_of_class(self, name: str) -> Iterator[PersistentVolume]:
        """Give the volumes of a storage class by name."""
        for key in sorted(self.volumes):
            if self.volumes[key].spec.storage_class_name == name:
                yield self.volumes[key]

    def delayed(self, claim: Claim) -> bool:
        """Whether a claim waits for its first consumer."""
        found = self.classes.get(claim_class(claim))
        return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"
