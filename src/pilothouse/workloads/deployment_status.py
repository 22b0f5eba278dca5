"""A deployment's status: counts of its replica sets, and the conditions that say how a rollout goes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Deployment, ReplicaSet, replace
from pilothouse.kinds.structs.apps import DeploymentCondition, DeploymentStatus

from .deployment_sets import NO_LIMIT, max_unavailable, total_size, wanted_replicas

__all__ = [
    "Conditions",
    "counted",
    "has_deadline",
    "is_complete",
    "next_progress_check",
    "paused_or_resumed",
    "rollout_status",
]

Conditions = Sequence[DeploymentCondition]

_PROGRESSING: Final = "Progressing"
_AVAILABLE: Final = "Available"
_FAILURE: Final = "ReplicaFailure"
_TIMED_OUT: Final = "ProgressDeadlineExceeded"
_DONE: Final = "NewReplicaSetAvailable"
_PAUSED: Final = "DeploymentPaused"


def has_deadline(deployment: Deployment) -> bool:
    """Whether a rollout has to progress in a given time."""
    return deployment.spec.progress_deadline_seconds not in (None, NO_LIMIT)


def condition_of(conditions: Conditions, kind: str) -> DeploymentCondition | None:
    """Return the condition of a type, None where there is none."""
    return next((found for found in conditions if found.type == kind), None)


def with_condition(
    conditions: Conditions, kind: str, status: str, reason: str, message: str, now: datetime
) -> Conditions:
    """Return the conditions with one added or changed; one of the same status and reason stays as it is."""
    present = condition_of(conditions, kind)
    if present is not None and (present.status, present.reason) == (status, reason):
        return conditions
    moment = times.format_seconds(now)
    made = DeploymentCondition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_update_time=moment,
        last_transition_time=moment,
    )
    if present is not None and present.status == status:
        made = replace(made, last_transition_time=present.last_transition_time)
    return [*without_condition(conditions, kind), made]


def without_condition(conditions: Conditions, kind: str) -> Conditions:
    """Return the conditions but that of a type."""
    return [found for found in conditions if found.type != kind]


def paused_or_resumed(deployment: Deployment, now: datetime) -> Conditions:
    """Return the conditions of a deployment that may have just been paused or resumed, which stops the deadline."""
    conditions = deployment.status.conditions
    found = condition_of(conditions, _PROGRESSING)
    reason = "" if found is None else found.reason
    if not has_deadline(deployment) or reason == _TIMED_OUT:
        return conditions
    if deployment.spec.paused and reason != _PAUSED:
        return with_condition(conditions, _PROGRESSING, "Unknown", _PAUSED, "Deployment is paused", now)
    if not deployment.spec.paused and reason == _PAUSED:
        return with_condition(conditions, _PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", now)
    return conditions


def found_or_created(deployment: Deployment, new: ReplicaSet, *, created: bool, now: datetime) -> Conditions:
    """Return the conditions once the set of the present template is there."""
    conditions = deployment.status.conditions
    name = new.metadata.name
    if not has_deadline(deployment):
        return conditions
    if created:
        message = f'Created new replica set "{name}"'
        return with_condition(conditions, _PROGRESSING, "True", "NewReplicaSetCreated", message, now)
    if condition_of(conditions, _PROGRESSING) is None:
        message = f'Found new replica set "{name}"'
        return with_condition(conditions, _PROGRESSING, "True", "FoundNewReplicaSet", message, now)
    return conditions


def counted(
    deployment: Deployment, sets: Sequence[ReplicaSet], new: ReplicaSet | None, now: datetime
) -> DeploymentStatus:
    """Return the status with what the sets report, and whether enough pods are available."""
    available = sum(found.status.available_replicas for found in sets)
    status = replace(
        deployment.status,
        observed_generation=deployment.metadata.generation,
        replicas=sum(found.status.replicas for found in sets),
        updated_replicas=0 if new is None else new.status.replicas,
        ready_replicas=sum(found.status.ready_replicas for found in sets),
        available_replicas=available,
        unavailable_replicas=max(0, total_size(sets) - available),
        terminating_replicas=_terminating(sets),
    )
    if available >= wanted_replicas(deployment) - max_unavailable(deployment):
        told = "True", "MinimumReplicasAvailable", "Deployment has minimum availability."
    else:
        told = "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."
    return replace(status, conditions=with_condition(status.conditions, _AVAILABLE, *told, now))


def _terminating(sets: Iterable[ReplicaSet]) -> int | None:
    total = 0
    for found in sets:
        if found.status.terminating_replicas is not None:
            total += found.status.terminating_replicas
        elif found.status.observed_generation:
            return None  # its controller does not count them
    return total


def is_complete(deployment: Deployment, status: DeploymentStatus) -> bool:
    """Whether all pods are of the present template and available, and no others are left."""
    wanted = wanted_replicas(deployment)
    return (
        status.updated_replicas == status.replicas == status.available_replicas == wanted
        and status.observed_generation >= deployment.metadata.generation
    )


def rollout_status(
    deployment: Deployment, sets: Sequence[ReplicaSet], new: ReplicaSet | None, now: datetime
) -> DeploymentStatus:
    """Return the status of a deployment that is being rolled out, with how it progresses."""
    status = counted(deployment, sets, new, now)
    conditions = status.conditions
    if not has_deadline(deployment):
        conditions = without_condition(conditions, _PROGRESSING)
    else:
        found = condition_of(deployment.status.conditions, _PROGRESSING)
        done = found is not None and found.reason == _DONE and status.replicas == status.updated_replicas
        if not done:
            conditions = _progress(deployment, status, new, now)
    failure = _failure(sets, new)
    if failure is None:
        conditions = without_condition(conditions, _FAILURE)
    else:
        present = condition_of(conditions, _FAILURE)
        if present is None or (present.status, present.reason) != (failure.status, failure.reason):
            conditions = [*without_condition(conditions, _FAILURE), failure]
    return replace(status, conditions=conditions)


def _progress(deployment: Deployment, status: DeploymentStatus, new: ReplicaSet | None, now: datetime) -> Conditions:
    conditions = status.conditions
    who = f'Deployment "{deployment.metadata.name}"' if new is None else f'ReplicaSet "{new.metadata.name}"'
    if is_complete(deployment, status):
        message = f"{who} has successfully progressed."
        return with_condition(conditions, _PROGRESSING, "True", _DONE, message, now)
    if _has_progressed(deployment.status, status):
        present = condition_of(conditions, _PROGRESSING)
        made = with_condition((), _PROGRESSING, "True", "ReplicaSetUpdated", f"{who} is progressing.", now)[0]
        if present is not None and present.status == "True":
            made = replace(made, last_transition_time=present.last_transition_time)
        return [*without_condition(conditions, _PROGRESSING), made]
    if _is_late(deployment, conditions, now):
        message = f"{who} has timed out progressing."
        return with_condition(conditions, _PROGRESSING, "False", _TIMED_OUT, message, now)
    return conditions


def _has_progressed(before: DeploymentStatus, after: DeploymentStatus) -> bool:
    return (
        after.updated_replicas > before.updated_replicas
        or after.replicas - after.updated_replicas < before.replicas - before.updated_replicas
        or after.ready_replicas > before.ready_replicas
        or after.available_replicas > before.available_replicas
    )


def _is_late(deployment: Deployment, conditions: Conditions, now: datetime) -> bool:
    found = condition_of(conditions, _PROGRESSING)
    if found is None or found.reason == _DONE:
        return False
    return found.reason == _TIMED_OUT or _deadline(deployment, found) < now


def _deadline(deployment: Deployment, progressing: DeploymentCondition) -> datetime:
    seconds = deployment.spec.progress_deadline_seconds or 0
    return times.parse(progressing.last_update_time or "1970-01-01T00:00:00Z") + timedelta(seconds=seconds)


def next_progress_check(deployment: Deployment, status: DeploymentStatus, now: datetime) -> float | None:
    """Return in how many seconds a rollout that does not end is late, None where nothing is waited for."""
    found = condition_of(status.conditions, _PROGRESSING)
    waits = found is not None and found.reason not in {_TIMED_OUT, _DONE}
    if found is None or not waits or not has_deadline(deployment) or is_complete(deployment, status):
        return None
    return max(0.0, (_deadline(deployment, found) - now).total_seconds()) + 1.0


def _failure(sets: Sequence[ReplicaSet], new: ReplicaSet | None) -> DeploymentCondition | None:
    ordered = [*([] if new is None else [new]), *sets]
    found = next((one for each in ordered for one in each.status.conditions if one.type == _FAILURE), None)
    if found is None:
        return None
    return DeploymentCondition(
        type=found.type,
        status=found.status,
        reason=found.reason,
        message=found.message,
        last_update_time=found.last_transition_time,
        last_transition_time=found.last_transition_time,
    )
