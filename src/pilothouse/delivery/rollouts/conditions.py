"""Conditions, phase and counts of a rollout's status, and whether it makes progress."""

from __future__ import annotations

from typing import Final

from pilothouse.delivery.resources.rollouts import RolloutCondition, RolloutStatus
from pilothouse.kinds.structs import replace, to_dict

from .runs import pause_text
from .situation import Situation, available, deadline_of, size

__all__ = [
    "PROMOTION_WATCH",
    "condition",
    "counted",
    "has_timed_out",
    "phase_of",
    "progressed",
    "seconds_to_deadline",
    "with_condition",
    "with_conditions",
    "without_condition",
]

PROMOTION_WATCH: Final = "PromotionWatch"
"""The condition that says since when all traffic is at the new version while its analysis goes on. Ours."""
_DEADLINE_SECONDS: Final = 600
_IDLE_REASONS: Final = frozenset({"RolloutAborted", "RolloutPaused"})


def condition(status: RolloutStatus, kind: str) -> RolloutCondition | None:
    """Return a condition of a status."""
    return next((one for one in status.conditions if one.type == kind), None)


def with_condition(
    sit: Situation, status: RolloutStatus, kind: str, value: str, reason: str, message: str, *, renew: bool = False
) -> RolloutStatus:
    """Return a status with a condition; renew: it is as of now even where nothing else about it changes."""
    before = condition(status, kind)
    if before is not None and (before.status, before.reason, before.message) == (value, reason, message) and not renew:
        return status
    since = before.last_transition_time if before is not None and before.status == value else sit.stamp
    made = RolloutCondition(
        type=kind, status=value, last_update_time=sit.stamp, last_transition_time=since, reason=reason, message=message
    )
    if before is None:
        return replace(status, conditions=(*status.conditions, made))
    return replace(status, conditions=tuple(made if one.type == kind else one for one in status.conditions))


def without_condition(status: RolloutStatus, kind: str) -> RolloutStatus:
    """Return a status without a condition."""
    if condition(status, kind) is None:
        return status
    return replace(status, conditions=tuple(one for one in status.conditions if one.type != kind))


# Counts


def counted(sit: Situation, status: RolloutStatus) -> RolloutStatus:
    """Return a status with the pods that there are, those of the active set alone for blue-green."""
    sets, new = sit.sets, sit.new
    active = sit.set_of(sit.selected(sit.blue_green.active_service)) if sit.blue_green is not None else None
    counted_of = sets if active is None else [active]
    selector = sit.selector if active is None else active.spec.selector
    return replace(
        status,
        replicas=sum(found.status.replicas for found in sets),
        updated_replicas=0 if new is None else new.status.replicas,
        ready_replicas=sum(found.status.ready_replicas for found in counted_of),
        available_replicas=sum(map(available, counted_of)),
        hpa_replicas=sum(found.status.replicas for found in counted_of),
        selector=_text(to_dict(selector)),
        observed_generation=str(sit.rollout.metadata.generation or 0),
        workload_observed_generation=_workload_generation(sit),
    )


def _workload_generation(sit: Situation) -> str | None:
    if sit.spec.workload_ref is None or sit.view.workload is None:
        return None
    return str((sit.view.workload.get("metadata") or {}).get("generation") or 0)


def _text(selector: dict[str, object]) -> str:
    """Return a label selector as text, as autoscalers read it."""
    labels: dict[str, str] = selector.get("matchLabels") or {}  # type: ignore[assignment]  # plain JSON
    parts = [f"{name}={value}" for name, value in sorted(labels.items())]
    for one in selector.get("matchExpressions") or ():  # type: ignore[attr-defined]
        values = f" ({','.join(sorted(one.get('values') or ()))})"
        words = {"In": "in", "NotIn": "notin"}
        if one["operator"] in words:
            parts.append(f"{one['key']} {words[one['operator']]}{values}")
        else:
            parts.append(one["key"] if one["operator"] == "Exists" else f"!{one['key']}")
    return ",".join(parts)


# Progress


def progressed(sit: Situation, status: RolloutStatus) -> bool:
    """Whether a status is further than the one that is written."""
    before = sit.rollout.status
    old = (before.replicas or 0) - (before.updated_replicas or 0)
    new = (status.replicas or 0) - (status.updated_replicas or 0)
    fields = ("current_step_index", "stable_rs", "current_step_hash")
    selectors = ("active_selector", "preview_selector")
    return (
        status.updated_replicas != before.updated_replicas
        or new < old
        or (status.ready_replicas or 0) > (before.ready_replicas or 0)
        or (status.available_replicas or 0) > (before.available_replicas or 0)
        or any(getattr(status, name) != getattr(before, name) for name in fields)
        or any(getattr(status.blue_green, name) != getattr(before.blue_green, name) for name in selectors)
    )


def _waits(sit: Situation, status: RolloutStatus) -> bool:
    """Whether it is at something that takes as long as it takes."""
    step = sit.at(status).step
    endless = step is not None and (step.experiment or step.analysis or step.pause)
    paused = bool(status.pause_conditions or sit.spec.paused)
    return bool(endless) or paused or any(deadline_of(found) is not None for found in sit.others)


def seconds_to_deadline(sit: Situation, status: RolloutStatus) -> float | None:
    """Return the seconds until lack of progress counts as a failure; None where it does not."""
    progressing = condition(status, "Progressing")
    if progressing is None or progressing.reason in _IDLE_REASONS or _waits(sit, status) or is_healthy(sit, status):
        return None
    if status.abort or progressing.reason == "ProgressDeadlineExceeded":
        return None
    limit = sit.spec.progress_deadline_seconds
    return (_DEADLINE_SECONDS if limit is None else limit) - sit.since(progressing.last_update_time)


def has_timed_out(sit: Situation, status: RolloutStatus) -> bool:
    """Whether there was no progress for too long."""
    left = seconds_to_deadline(sit, status)
    return left is not None and left <= 0 and not progressed(sit, status)


def is_healthy(sit: Situation, status: RolloutStatus) -> bool:
    """Whether the present template is all that there is, and all of it is available."""
    if (status.updated_replicas or 0) != sit.replicas or (status.available_replicas or 0) != sit.replicas:
        return False
    if sit.blue_green is not None:
        there = status.blue_green
        preview = not sit.blue_green.preview_service or there.preview_selector == status.current_pod_hash
        return preview and there.active_selector == status.current_pod_hash == status.stable_rs
    done = not sit.steps or status.current_step_index == len(sit.steps)
    return (
        done
        and bool(status.stable_rs)
        and status.stable_rs == status.current_pod_hash
        and (status.replicas == sit.replicas)
    )


# Conditions


def with_conditions(sit: Situation, status: RolloutStatus, abort_message: str = "") -> RolloutStatus:
    """Return a status with the conditions that follow from the rest of it, and its phase."""
    paused = bool(status.pause_conditions or sit.spec.paused)
    healthy = not paused and is_healthy(sit, status)
    was = condition(status, "Healthy")
    if healthy:
        status = with_condition(sit, status, "Healthy", "True", "RolloutHealthy", "Rollout is healthy")
    elif was is not None:
        status = with_condition(sit, status, "Healthy", "False", "RolloutHealthy", "Rollout is not healthy")
    if not status.abort or paused:
        value = "True" if paused else "False"
        if paused or condition(status, "Paused") is not None:
            status = with_condition(sit, status, "Paused", value, "RolloutPaused", "Rollout is paused")
    lost = not healthy and was is not None and was.status == "True"
    status = _progressing(sit, status, abort_message, paused=paused, lost=lost)
    status = _available(sit, status)
    completed = bool(status.stable_rs) and status.stable_rs == status.current_pod_hash
    value = "True" if completed else "False"
    status = with_condition(sit, status, "Completed", value, "RolloutCompleted", "RolloutCompleted")
    status = _failures(sit, status)
    phase, message = phase_of(sit, status)
    return replace(status, phase=phase, message=message or None)


def _progressing(
    sit: Situation, status: RolloutStatus, abort_message: str, *, paused: bool, lost: bool
) -> RolloutStatus:
    there = condition(status, "Progressing")
    reason = "" if there is None else there.reason
    name = sit.name if sit.new is None else sit.new.metadata.name
    if status.abort:
        if reason == "RolloutAborted" and not abort_message:
            return status
        message = f"Rollout aborted update to revision {sit.revision}"
        message += f": {abort_message}" if abort_message else ""
        return with_condition(sit, status, "Progressing", "False", "RolloutAborted", message)
    if is_healthy(sit, status) and not paused:
        message = f'ReplicaSet "{name}" has successfully progressed.'
        return with_condition(sit, status, "Progressing", "True", "NewReplicaSetAvailable", message)
    if paused:
        return with_condition(sit, status, "Progressing", "Unknown", "RolloutPaused", "Rollout is paused")
    if reason == "RolloutPaused":
        return with_condition(sit, status, "Progressing", "Unknown", "RolloutResumed", "Rollout is resumed")
    if reason == "RolloutAborted":
        return with_condition(sit, status, "Progressing", "Unknown", "RolloutRetry", "Retrying Rollout after abort")
    if has_timed_out(sit, status):
        message = f'ReplicaSet "{name}" has timed out progressing.'
        return with_condition(sit, status, "Progressing", "False", "ProgressDeadlineExceeded", message)
    if lost and status.stable_rs == status.current_pod_hash:
        message = "Rollout does not have minimum availability"
        return with_condition(sit, status, "Progressing", "True", "ReplicaSetNotAvailable", message, renew=True)
    if there is None or progressed(sit, status) or lost:
        message = f'ReplicaSet "{name}" is progressing.'
        return with_condition(sit, status, "Progressing", "True", "ReplicaSetUpdated", message, renew=True)
    return status


def _available(sit: Situation, status: RolloutStatus) -> RolloutStatus:
    if sit.blue_green is not None:
        active = sit.set_of(status.blue_green.active_selector or "")
        there = active is not None and size(active) == sit.replicas == available(active)
    else:
        there = (status.available_replicas or 0) >= sit.replicas
    value, words = ("True", "has") if there else ("False", "does not have")
    return with_condition(sit, status, "Available", value, "AvailableReason", f"Rollout {words} minimum availability")


def _failures(sit: Situation, status: RolloutStatus) -> RolloutStatus:
    sets = [found for found in (sit.new, *sit.sets) if found is not None]
    failed = [one for found in sets for one in found.status.conditions if one.type == "ReplicaFailure"]
    if not failed:
        return without_condition(status, "ReplicaFailure")
    return with_condition(sit, status, "ReplicaFailure", failed[0].status, failed[0].reason, failed[0].message)


def phase_of(sit: Situation, status: RolloutStatus) -> tuple[str, str]:
    """Return the phase and why."""
    for one in status.conditions:
        if one.type == "InvalidSpec":
            return "Degraded", f"InvalidSpec: {one.message}"
        if one.reason in {"RolloutAborted", "ProgressDeadlineExceeded"}:
            return "Degraded", f"{one.reason}: {one.message}"
    if sit.spec.paused:
        return "Paused", "manually paused"
    if status.pause_conditions:
        return "Paused", pause_text(status)
    if (why := _pending(sit, status)) is not None:
        return "Progressing", why
    return "Healthy", ""


def _pending(sit: Situation, status: RolloutStatus) -> str | None:
    """Return what is waited for, None where nothing is."""
    promoted = bool(status.stable_rs) and status.stable_rs == status.current_pod_hash
    if sit.spec.restart_at is not None and sit.spec.restart_at != status.restarted_at:
        return "rollout is restarting"
    if (status.updated_replicas or 0) < sit.replicas:
        return "more replicas need to be updated"
    if (status.available_replicas or 0) < (status.updated_replicas or 0):
        return "updated replicas are still becoming available"
    if sit.blue_green is not None:
        if not status.blue_green.active_selector or status.blue_green.active_selector != status.current_pod_hash:
            return "active service cutover pending"
        if not promoted:
            run = status.blue_green.post_promotion_analysis_run_status
            waits = sit.blue_green.post_promotion_analysis and (run is None or run.status in {"", "Pending", "Running"})
            return f"waiting for {'analysis' if waits else 'post-promotion verification'} to complete"
        return None
    if not sit.is_routed and (status.replicas or 0) > (status.updated_replicas or 0):
        return "old replicas are pending termination"
    if promoted:
        return None
    watch = condition(status, PROMOTION_WATCH)
    watching = watch is not None and watch.status == "True"
    return "watching the new version with all traffic" if watching else "waiting for all steps to complete"
