"""Which volume a claim gets, and what both say once they belong together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.kinds.labels import from_label_selector
from pilothouse.kinds.quantity import ZERO, Quantity, parse_json
from pilothouse.kinds.structs import PersistentVolume, PersistentVolumeClaim, StorageClass, replace, to_dict
from pilothouse.kinds.structs.core_references import ObjectReference

__all__ = [
    "BOUND_BY_CONTROLLER",
    "PROVISIONED_BY",
    "PROVISIONERS",
    "SELECTED_NODE",
    "best_volume",
    "bound_claim",
    "bound_status",
    "bound_volume",
    "class_of",
    "default_class",
    "is_bind_completed",
    "is_bound_to",
    "is_delayed",
    "mismatch",
    "unbound_volume",
    "undeletable",
]

BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
PROVISIONERS: Final = ("volume.beta.kubernetes.io/storage-provisioner", "volume.kubernetes.io/storage-provisioner")
_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_DEFAULT: Final = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")


def class_of(obj: PersistentVolume | PersistentVolumeClaim) -> str:
    """Return the storage class that an object names, "" for none."""
    told = obj.metadata.annotations.get(_CLASS)
    return told if told is not None else obj.spec.storage_class_name or ""


def default_class(classes: Iterable[StorageClass]) -> StorageClass | None:
    """Return the default class: of several the newest, of equally old ones the first by name."""
    found = [each for each in classes if any(each.metadata.annotations.get(mark) == "true" for mark in _DEFAULT)]
    found.sort(key=lambda each: each.metadata.name)
    return max(found, key=lambda each: each.metadata.creation_timestamp or "", default=None)


def is_delayed(found: StorageClass | None) -> bool:
    """Whether claims of a class wait for a pod that uses them."""
    return found is not None and found.volume_binding_mode == "WaitForFirstConsumer"


def is_bind_completed(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim was bound before."""
    return BIND_COMPLETED in claim.metadata.annotations


def is_bound_to(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume is meant for a claim, by its name, and this very one where the volume says its UID."""
    reference = volume.spec.claim_ref
    return (
        reference is not None
        and (reference.namespace, reference.name) == (claim.metadata.namespace, claim.metadata.name)
        and reference.uid in ("", claim.metadata.uid)
    )


def best_volume(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume], delayed: bool
) -> PersistentVolume | None:
    """Return the volume that a claim gets: the one meant for it, else the smallest that fits, of the fewest modes.

    delayed: whether the scheduler chooses, so that only one that is meant for the claim counts. Raises SelectorError.
    """
    selector = None if claim.spec.selector is None else from_label_selector(to_dict(claim.spec.selector))
    wanted, modes = _requested(claim), set(claim.spec.access_modes)
    fitting = []
    for volume in volumes:
        free = volume.spec.claim_ref is None or is_bound_to(volume, claim)
        if not free or not modes <= set(volume.spec.access_modes) or not _fits(volume, claim, wanted):
            continue
        if volume.spec.claim_ref is not None:
            return volume
        if (
            not delayed
            and volume.status.phase == "Available"
            and (selector is None or selector.matches(volume.metadata.labels))
            and class_of(volume) == class_of(claim)
        ):
            fitting.append(volume)
    return min(
        fitting, key=lambda each: (len(each.spec.access_modes), _capacity(each), each.metadata.name), default=None
    )


def _fits(volume: PersistentVolume, claim: PersistentVolumeClaim, wanted: Quantity) -> bool:
    return (
        volume.metadata.deletion_timestamp is None
        and _capacity(volume) >= wanted
        and _mode(volume.spec.volume_mode) == _mode(claim.spec.volume_mode)
        and (volume.spec.volume_attributes_class_name or "") == (claim.spec.volume_attributes_class_name or "")
    )


def mismatch(volume: PersistentVolume, claim: PersistentVolumeClaim) -> str:
    """Say why a claim cannot have the volume that it names, "" if it can."""
    if volume.metadata.deletion_timestamp is not None:
        return f'the volume is marked for deletion "{volume.metadata.name}"'
    if _capacity(volume) < _requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if (volume.spec.volume_attributes_class_name or "") != (claim.spec.volume_attributes_class_name or ""):
        return "volumeAttributesClassName does not match"
    if _mode(volume.spec.volume_mode) != _mode(claim.spec.volume_mode):
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes) <= set(volume.spec.access_modes):
        return "incompatible accessMode"
    return ""


def _mode(mode: str | None) -> str:
    return mode or "Filesystem"


def _requested(claim: PersistentVolumeClaim) -> Quantity:
    asked = claim.spec.resources.requests.get("storage")
    return ZERO if asked is None else parse_json(asked)


def _capacity(volume: PersistentVolume) -> Quantity:
    has = volume.spec.capacity.get("storage")
    return ZERO if has is None else parse_json(has)


# Belonging together


def bound_volume(volume: PersistentVolume, claim: PersistentVolumeClaim) -> PersistentVolume:
    """Return a volume that says whose it is; itself where it does."""
    reference, metadata = volume.spec.claim_ref, claim.metadata
    by_user = is_bound_to(volume, claim)
    if by_user and reference is not None and reference.uid == metadata.uid:
        return volume
    made = ObjectReference(
        kind="PersistentVolumeClaim",
        api_version="v1",
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )
    notes = volume.metadata.annotations if by_user else {**volume.metadata.annotations, BOUND_BY_CONTROLLER: "yes"}
    return replace(volume, spec__claim_ref=made, metadata__annotations=notes)


def bound_claim(claim: PersistentVolumeClaim, volume: PersistentVolume) -> PersistentVolumeClaim:
    """Return a claim that says which volume it has, for good; itself where it does."""
    notes: Mapping[str, str] = {**claim.metadata.annotations, BIND_COMPLETED: "yes"}
    if claim.spec.volume_name != volume.metadata.name:
        notes = {**notes, BOUND_BY_CONTROLLER: "yes"}
    elif is_bind_completed(claim):
        return claim
    return replace(claim, spec__volume_name=volume.metadata.name, metadata__annotations=notes)


def bound_status(claim: PersistentVolumeClaim, volume: PersistentVolume) -> PersistentVolumeClaim:
    """Return a claim whose status says that it is bound, and what it has; itself where it does."""
    status, modes = claim.status, [*volume.spec.access_modes]
    changes: dict[str, Any] = {}
    if status.phase != "Bound":
        changes["status__phase"] = "Bound"
    if [*status.access_modes] != modes:
        changes["status__access_modes"] = modes
    if status.phase != "Bound" or "storage" not in status.capacity:
        changes["status__capacity"] = dict(volume.spec.capacity)
    attributes = volume.spec.volume_attributes_class_name
    if attributes and status.current_volume_attributes_class_name != attributes:
        changes["status__current_volume_attributes_class_name"] = attributes
    return replace(claim, **changes) if changes else claim


def unbound_volume(volume: PersistentVolume) -> PersistentVolume:
    """Return a volume that is nobody's, or still meant for the claim that a user named, whichever that is."""
    if BOUND_BY_CONTROLLER in volume.metadata.annotations:
        notes = {key: value for key, value in volume.metadata.annotations.items() if key != BOUND_BY_CONTROLLER}
        return replace(volume, spec__claim_ref=None, metadata__annotations=notes)
    return replace(volume, spec__claim_ref__uid="", spec__claim_ref__resource_version="")


def undeletable(volume: PersistentVolume) -> str:
    """Return why a volume that nobody provisioned is not deleted with its claim."""
    path = volume.spec.host_path.path
    if path and "/tmp/" not in path:  # noqa: S108  # those Kubernetes deletes, ours does not
        return f"host_path deleter only supports /tmp/.+ but received provided {path}"
    return f'error getting deleter volume plugin for volume "{volume.metadata.name}": no volume plugin matched'
