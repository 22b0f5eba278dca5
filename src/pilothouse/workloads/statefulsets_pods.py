"""A stateful set's pods: their ordinals, names and identities, and the pod for an ordinal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from pilothouse.kinds.structs import PersistentVolumeClaimVolumeSource, Pod, StatefulSet, Volume, replace
from pilothouse.kinds.structs.core_pods import PodTemplateSpec

from .pods import is_available, is_ready
from .revisions import POD_LABEL
from .templates import pod_of, pods_prefix

__all__ = [
    "INDEX_LABEL",
    "NAME_LABEL",
    "claim_name",
    "first_ordinal",
    "has_identity",
    "has_storage",
    "in_range",
    "is_member",
    "is_running_and_ready",
    "is_unavailable",
    "needs_claim",
    "new_pod",
    "ordinal_of",
    "revision_of",
    "wanted_replicas",
    "with_identity",
    "with_storage",
]

NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
_NAME: Final = re.compile(r"(.*)-([0-9]+)", re.DOTALL).fullmatch
_INT32: Final = range(2**31)
_DIGITS: Final = 20


def ordinal_of(pod: Pod) -> int:
    """Return the number at the end of a pod's name, -1 where there is none."""
    found = _NAME(pod.metadata.name)
    if found is None or len(found[2]) > _DIGITS or int(found[2]) not in _INT32:
        return -1
    return int(found[2])


def is_member(obj: StatefulSet, pod: Pod) -> bool:
    """Whether a pod has the name of one of the set's."""
    found = _NAME(pod.metadata.name)
    return found is not None and found[1] == obj.metadata.name


def first_ordinal(obj: StatefulSet) -> int:
    """Return the ordinal of the first pod."""
    return obj.spec.ordinals.start if obj.spec.ordinals is not None else 0


def wanted_replicas(obj: StatefulSet) -> int:
    """Return how many pods a set wants."""
    return 1 if obj.spec.replicas is None else obj.spec.replicas


def in_range(obj: StatefulSet, ordinal: int) -> bool:
    """Whether a set wants the pod of an ordinal."""
    first = first_ordinal(obj)
    return first <= ordinal < first + wanted_replicas(obj)


def claim_name(obj: StatefulSet, template: str, ordinal: int) -> str:
    """Return the name of the claim of a pod. template: the name in the set's claim templates."""
    return f"{template}-{obj.metadata.name}-{ordinal}"


def needs_claim(obj: StatefulSet, claim: str) -> bool:
    """Whether a claim of this name may be one of the set's."""
    names = [claim_name(obj, template.metadata.name, 0)[:-1] for template in obj.spec.volume_claim_templates]
    return claim.startswith(tuple(names))


def revision_of(pod: Pod) -> str:
    """Return the name of the revision that a pod is of, empty where it does not say."""
    return pod.metadata.labels.get(POD_LABEL, "")


def is_running_and_ready(pod: Pod) -> bool:
    """Whether a pod runs and its condition Ready is true."""
    return pod.status.phase == "Running" and is_ready(pod)


def is_unavailable(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Whether a pod has not been ready for as long as it has to, or is being deleted."""
    return pod.metadata.deletion_timestamp is not None or not is_available(pod, min_ready_seconds, now)


def has_identity(obj: StatefulSet, pod: Pod) -> bool:
    """Whether a pod has the name and the labels of one of the set's."""
    ordinal = ordinal_of(pod)
    name = pod.metadata.name
    return ordinal >= 0 and name == f"{obj.metadata.name}-{ordinal}" == pod.metadata.labels.get(NAME_LABEL)


def has_storage(obj: StatefulSet, pod: Pod) -> bool:
    """Whether a pod has a volume for each claim template, with the claim of its ordinal."""
    ordinal = ordinal_of(pod)
    claims = {one.name: one.persistent_volume_claim for one in pod.spec.volumes}
    for template in obj.spec.volume_claim_templates:
        found = claims.get(template.metadata.name)
        if found is None or found.claim_name != claim_name(obj, template.metadata.name, ordinal):
            return False
    return ordinal >= 0


def with_identity(pod: Pod) -> Pod:
    """Return a pod with the labels that its name asks for."""
    labels = {NAME_LABEL: pod.metadata.name, INDEX_LABEL: str(ordinal_of(pod))}
    return replace(pod, metadata__labels={**pod.metadata.labels, **labels})


def with_storage(obj: StatefulSet, pod: Pod) -> Pod:
    """Return a pod with a volume for each claim template; they take the place of others with their names."""
    ordinal = ordinal_of(pod)
    names = [template.metadata.name for template in obj.spec.volume_claim_templates]
    others: Iterable[Volume] = [one for one in pod.spec.volumes if one.name not in names]
    made = [
        Volume(
            name=name,
            persistent_volume_claim=PersistentVolumeClaimVolumeSource(claim_name=claim_name(obj, name, ordinal)),
        )
        for name in names
    ]
    return replace(pod, spec__volumes=[*made, *others]) if made else pod


def new_pod(obj: StatefulSet, template: PodTemplateSpec, revision: str, ordinal: int) -> Pod:
    """Return the pod for an ordinal, of a revision's template."""
    pod = pod_of(template, obj, name=f"{obj.metadata.name}-{ordinal}", labels={POD_LABEL: revision})
    prefix = pods_prefix(obj.metadata.name)
    pod = replace(with_identity(pod), metadata__generate_name=prefix, spec__hostname=pod.metadata.name)
    if obj.spec.service_name:
        pod = replace(pod, spec__subdomain=obj.spec.service_name)
    return with_storage(obj, pod)
