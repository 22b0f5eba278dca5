"""A stateful set's claims: which its pods need, and who owns them by the set's retention policy. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse.kinds.structs import ObjectMeta, PersistentVolumeClaim, Pod, Resource, StatefulSet, replace
from pilothouse.kinds.structs.meta import OwnerReference
from pilothouse.operator.owners import owner_reference

from .statefulsets_pods import claim_name, in_range, ordinal_of

__all__ = ["ClaimOf", "ClaimWork", "are_kept", "is_stale", "work_for"]

ClaimOf = Callable[[str], PersistentVolumeClaim | None]
"""Returns the claim of a name in the set's namespace, None where there is none."""

_RETAIN: Final = "Retain"
_DELETE: Final = "Delete"


@dataclass(frozen=True, slots=True)
class ClaimWork:
    """What is to be done about a pod's claims.

    create: those that are missing, with their owners. update: those whose owners are to be others. deleting: names of
    those that are going away, so that the pod has to wait. conflicting: names of those that another one controls.
    """

    create: Sequence[PersistentVolumeClaim] = ()
    update: Sequence[PersistentVolumeClaim] = ()
    deleting: Sequence[str] = ()
    conflicting: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.update or self.deleting)


def work_for(obj: StatefulSet, pod: Pod, claim_of: ClaimOf, *, create: bool = True) -> ClaimWork:
    """Return what is to be done about a pod's claims. create: whether missing ones are made."""
    missing, update, deleting, conflicting = [], [], [], []
    for template in obj.spec.volume_claim_templates:
        name = claim_name(obj, template.metadata.name, ordinal_of(pod))
        found = claim_of(name)
        if found is None:
            if create:
                missing.append(_new(obj, template, name, pod))
            continue
        if create and found.metadata.deletion_timestamp is not None:
            deleting.append(name)
        if _has_unexpected_controller(found, obj, pod):
            conflicting.append(name)
        if not _is_owned_as_wanted(found, obj, pod):
            update.append(replace(found, metadata__owner_references=_owners(found, obj, pod)))
    return ClaimWork(missing, update, deleting, conflicting)


def are_kept(obj: StatefulSet, pod: Pod, claim_of: ClaimOf) -> bool:
    """Whether the claims of a pod are owned as the retention policy says."""
    return not work_for(obj, pod, claim_of, create=False).update


def is_stale(obj: StatefulSet, pod: Pod, claim_of: ClaimOf) -> bool:
    """Whether a claim of a pod to be made belongs to the pod that had the name before, and so is to go first."""
    if _policy(obj)[1] == _RETAIN:
        return False
    names = [claim_name(obj, each.metadata.name, ordinal_of(pod)) for each in obj.spec.volume_claim_templates]
    claims = [claim_of(name) for name in names]
    return any(found is not None and _has_stale_reference(found, pod) for found in claims)


def _new(obj: StatefulSet, template: PersistentVolumeClaim, name: str, pod: Pod) -> PersistentVolumeClaim:
    given = template.metadata
    made = PersistentVolumeClaim(
        metadata=ObjectMeta(
            name=name,
            namespace=obj.metadata.namespace,
            labels={**given.labels, **obj.spec.selector.match_labels},
            annotations=given.annotations,
            finalizers=given.finalizers,
        ),
        spec=template.spec,
    )
    owners = _owners(made, obj, pod)
    return replace(made, metadata__owner_references=owners) if owners else made


def _policy(obj: StatefulSet) -> tuple[str, str]:
    """Return what becomes of claims when the set is deleted, and when it is scaled down."""
    policy = obj.spec.persistent_volume_claim_retention_policy
    return (_RETAIN, _RETAIN) if policy is None else (policy.when_deleted, policy.when_scaled)


def _refers(reference: OwnerReference, obj: Resource) -> bool:
    """Whether a reference is to an object of this kind and name, this very one or another."""
    wanted = (str(obj.api_version), str(obj.kind), obj.metadata.name)
    return (reference.api_version, reference.kind, reference.name) == wanted


def _has_stale_reference(claim: PersistentVolumeClaim, obj: Resource) -> bool:
    found = next((each for each in claim.metadata.owner_references if _refers(each, obj)), None)
    return found is not None and found.uid != obj.metadata.uid


def _is_owned_by(claim: PersistentVolumeClaim, obj: Resource) -> bool:
    return any(each.uid == obj.metadata.uid for each in claim.metadata.owner_references)


def _has_unexpected_controller(claim: PersistentVolumeClaim, obj: StatefulSet, pod: Pod) -> bool:
    if _policy(obj) == (_RETAIN, _RETAIN):
        return False
    for reference in claim.metadata.owner_references:
        ours = next((each for each in (obj, pod) if _refers(reference, each)), None)
        if reference.controller if ours is None else reference.uid != ours.metadata.uid:
            return True
    return False


def _is_owned_as_wanted(claim: PersistentVolumeClaim, obj: StatefulSet, pod: Pod) -> bool:
    if _has_stale_reference(claim, obj) or _has_stale_reference(claim, pod):
        return True  # left to the garbage collector
    by_set, by_pod = _is_owned_by(claim, obj), _is_owned_by(claim, pod)
    if _has_unexpected_controller(claim, obj, pod):
        return not (by_set or by_pod)
    for reference in claim.metadata.owner_references:
        if reference.uid in (obj.metadata.uid, pod.metadata.uid) and not reference.controller:
            return False
    return (by_set, by_pod) == _wanted(obj, pod)


def _wanted(obj: StatefulSet, pod: Pod) -> tuple[bool, bool]:
    """Return whether the set, and whether the pod, is to own the claims of a pod."""
    deleted, scaled = _policy(obj)
    goes = scaled == _DELETE and not in_range(obj, ordinal_of(pod))
    return deleted == _DELETE and not goes, goes


def _owners(claim: PersistentVolumeClaim, obj: StatefulSet, pod: Pod) -> Sequence[OwnerReference]:
    present = claim.metadata.owner_references
    others = [each for each in present if not _refers(each, obj) and not _refers(each, pod)]
    if _has_unexpected_controller(claim, obj, pod):
        return others
    by_set, by_pod = _wanted(obj, pod)
    ours = [each for each, owns in ((obj, by_set), (pod, by_pod)) if owns]
    return [*others, *map(owner_reference, ours)]
