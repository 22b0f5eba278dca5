"""A deployment's replica sets: revisions, annotations, bounds of a rolling update, proportions. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pilothouse.kinds import intstr
from pilothouse.kinds.structs import Deployment, LabelSelector, ObjectMeta, ReplicaSet, replace
from pilothouse.kinds.structs.apps import ReplicaSetSpec
from pilothouse.kinds.structs.core_pods import PodTemplateSpec
from pilothouse.operator.owners import owner_reference

from .templates import template_hash

__all__ = [
    "HASH_LABEL",
    "NO_LIMIT",
    "REVISION",
    "ROLLBACK_TO",
    "active",
    "annotated",
    "by_age",
    "copied_annotations",
    "desired_when_scaled",
    "is_saturated",
    "kept_annotations",
    "max_surge",
    "max_unavailable",
    "new_set",
    "proportion",
    "revision_of",
    "same_template",
    "size",
    "total_size",
    "wanted_annotations",
    "wanted_replicas",
    "without_hash",
]

REVISION: Final = "deployment.kubernetes.io/revision"
ROLLBACK_TO: Final = "deprecated.deployment.rollback.to"
HASH_LABEL: Final = "pod-template-hash"
_HISTORY: Final = "deployment.kubernetes.io/revision-history"
_DESIRED: Final = "deployment.kubernetes.io/desired-replicas"
_MAX: Final = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED: Final = frozenset(
    {"kubectl.kubernetes.io/last-applied-configuration", REVISION, _HISTORY, _DESIRED, _MAX, ROLLBACK_TO}
)
_MAX_HISTORY: Final = 2000
"""Characters of the list of former revisions."""
_MAX_NAME: Final = 253
NO_LIMIT: Final = 2**31 - 1
"""What stands for no bound where a field cannot be left out."""


def wanted_replicas(deployment: Deployment) -> int:
    """Return how many pods a deployment wants."""
    return 1 if deployment.spec.replicas is None else deployment.spec.replicas


def size(found: ReplicaSet) -> int:
    """Return how many pods a set is to have."""
    return 1 if found.spec.replicas is None else found.spec.replicas


def total_size(sets: Iterable[ReplicaSet]) -> int:
    """Return how many pods sets are to have together."""
    return sum(map(size, sets))


def by_age(found: ReplicaSet) -> tuple[str, str]:
    """Sort sets by it: the oldest first, by name where they are as old."""
    return found.metadata.creation_timestamp or "", found.metadata.name


def without_hash(template: PodTemplateSpec) -> PodTemplateSpec:
    """Return a set's template as the deployment had it."""
    labels = template.metadata.labels
    if HASH_LABEL not in labels:
        return template
    return replace(template, metadata__labels={name: labels[name] for name in labels if name != HASH_LABEL})


def same_template(deployment: Deployment, found: ReplicaSet) -> bool:
    """Whether a set was made from the template that the deployment has now."""
    return without_hash(found.spec.template) == without_hash(deployment.spec.template)


def revision_of(found: ReplicaSet) -> int:
    """Return the revision of a set, 0 where it has none or one that is no number."""
    text = found.metadata.annotations.get(REVISION, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def max_surge(deployment: Deployment) -> int:
    """Return how many pods there may be above what is wanted."""
    return _bounds(deployment)[0]


def max_unavailable(deployment: Deployment) -> int:
    """Return how many pods may be missing of what is wanted."""
    wanted = wanted_replicas(deployment)
    return min(_bounds(deployment)[1], wanted)


def _bounds(deployment: Deployment) -> tuple[int, int]:
    strategy, wanted = deployment.spec.strategy, wanted_replicas(deployment)
    if strategy.type != "RollingUpdate":
        return 0, 0
    rolling = strategy.rolling_update
    surge = intstr.scaled((rolling and rolling.max_surge) or 0, wanted, round_up=True)
    unavailable = intstr.scaled((rolling and rolling.max_unavailable) or 0, wanted, round_up=False)
    # Without any room nothing could ever be replaced; percentages may both come to nothing.
    return (surge, unavailable) if surge or unavailable else (0, 1)


def new_set(deployment: Deployment) -> ReplicaSet:
    """Return the set for the present template, without pods and annotations."""
    template = deployment.spec.template
    digest = template_hash(template, deployment.status.collision_count)
    labels = {**template.metadata.labels, HASH_LABEL: digest}
    selector = deployment.spec.selector
    return ReplicaSet(
        metadata=ObjectMeta(
            name=f"{deployment.metadata.name[: _MAX_NAME - 1 - len(digest)]}-{digest}",
            namespace=deployment.metadata.namespace,
            labels=labels,
            owner_references=(owner_reference(deployment),),
        ),
        spec=ReplicaSetSpec(
            replicas=0,
            min_ready_seconds=deployment.spec.min_ready_seconds,
            selector=LabelSelector(
                match_labels={**selector.match_labels, HASH_LABEL: digest}, match_expressions=selector.match_expressions
            ),
            template=replace(template, metadata__labels=labels),
        ),
    )


def copied_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return those of a deployment's annotations that its sets have as well."""
    return {name: value for name, value in annotations.items() if name not in _NOT_COPIED}


def kept_annotations(annotations: Mapping[str, str]) -> dict[str, str]:
    """Return those of a deployment's annotations that a rollback leaves as they are."""
    return {name: value for name, value in annotations.items() if name in _NOT_COPIED}


def annotated(deployment: Deployment, found: ReplicaSet, revision: int) -> ReplicaSet:
    """Return the set of the present template with the deployment's annotations and its revision.

    A set that had an older revision remembers it.
    """
    present = found.metadata.annotations
    made = {**present, **copied_annotations(deployment.metadata.annotations)}
    old = present.get(REVISION, "")
    if (not old or old.isdigit()) and revision_of(found) < revision:
        made[REVISION] = str(revision)
        if old:
            made[_HISTORY] = _appended(present.get(_HISTORY, ""), old)
    return found if made == present else replace(found, metadata__annotations=made)


def _appended(history: str, old: str) -> str:
    entries = [*filter(None, history.split(",")), old]
    while len(entries) > 1 and len(",".join(entries)) > _MAX_HISTORY:
        entries.pop(0)
    return ",".join(entries)


def wanted_annotations(deployment: Deployment, found: ReplicaSet) -> ReplicaSet:
    """Return a set that knows how many pods the deployment wanted when it was scaled, and may have at most."""
    wanted = wanted_replicas(deployment)
    numbers = {_DESIRED: str(wanted), _MAX: str(wanted + max_surge(deployment))}
    present = found.metadata.annotations
    if all(present.get(name) == value for name, value in numbers.items()):
        return found
    return replace(found, metadata__annotations={**present, **numbers})


def desired_when_scaled(found: ReplicaSet) -> int | None:
    """Return how many pods the deployment wanted when a set was scaled last, None where that is not known."""
    return _annotated_number(found, _DESIRED)


def is_saturated(deployment: Deployment, found: ReplicaSet) -> bool:
    """Whether a set has all pods that the deployment wants now, and all are available."""
    wanted = wanted_replicas(deployment)
    return size(found) == wanted == desired_when_scaled(found) == found.status.available_replicas


def proportion(deployment: Deployment, found: ReplicaSet, to_add: int, added: int) -> int:
    """Return by how many pods a set grows (or shrinks) as its part of a deployment that grows during a rollout."""
    if not size(found) or not to_add or to_add == added:
        return 0
    part, allowed = _fraction(deployment, found), to_add - added
    return min(part, allowed) if to_add > 0 else max(part, allowed)


def _fraction(deployment: Deployment, found: ReplicaSet) -> int:
    wanted = wanted_replicas(deployment)
    if not wanted:
        return -size(found)
    before = _annotated_number(found, _MAX) or deployment.status.replicas
    if not before:
        return 0
    return _rounded(size(found) * (wanted + max_surge(deployment)) / before) - size(found)


def _rounded(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def _annotated_number(found: ReplicaSet, name: str) -> int | None:
    text = found.metadata.annotations.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) < 2**31 else None


def active(sets: Sequence[ReplicaSet]) -> list[ReplicaSet]:
    """Return the sets that are to have pods."""
    return [found for found in sets if size(found) > 0]
