"""What users' verbs change: patches of a rollout and of its status, the same fields that Argo's plugin sets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds import times
from pilothouse.kinds.structs import ReplicaSet, to_dict

from .names import HASH
from .runs import STEP, current
from .situation import by_age, revision_of
from .templates import without_injected

__all__ = ["Change", "VerbError", "abort", "pause", "promote", "restart", "resume", "retry", "set_image", "undo"]

_Patch = Mapping[str, Any]


class VerbError(DeliveryError):
    """A verb that makes no sense for a rollout as it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """Merge patches, empty where there is nothing to change: first of the status subresource, then of the object.

    json: a JSON patch of the object instead. workload: the object that workloadRef names is meant, not the rollout.
    """

    status: _Patch = field(default_factory=dict)
    spec: _Patch = field(default_factory=dict)
    json: tuple[_Patch, ...] = ()
    workload: bool = False


_UNPAUSE: Final[_Patch] = {"spec": {"paused": False}}


def pause(rollout: Rollout) -> Change:
    """Pause a rollout: nothing is scaled or switched until it is promoted or resumed."""
    del rollout
    return Change(spec={"spec": {"paused": True}})


def resume(rollout: Rollout) -> Change:
    """Go on after `pause`; pauses of steps go on, which `promote` ends."""
    return Change(spec=_UNPAUSE if rollout.spec.paused else {})


def promote(rollout: Rollout, *, full: bool = False, skip_current_step: bool = False) -> Change:
    """End a pause, or skip what a step waits for; full: skip all steps, pauses and analyses.

    Raises VerbError for skipping a step of a rollout without steps.
    """
    spec, status = (_UNPAUSE if rollout.spec.paused else {}), rollout.status
    if full:
        is_done = bool(status.stable_rs) and status.current_pod_hash == status.stable_rs
        return Change(spec=spec, status={} if is_done else {"status": {"promoteFull": True}})
    steps = () if rollout.spec.strategy.canary is None else rollout.spec.strategy.canary.steps
    following = min((status.current_step_index or 0) + 1, len(steps))
    if skip_current_step:
        if not steps:
            raise VerbError(f"rollout {rollout.metadata.name}: it has no steps to skip; promote it without that")
        return Change(status={"status": {"currentStepIndex": following}})
    run = current(status, STEP)
    if status.pause_conditions and status.controller_pause and run is not None and run.status == "Inconclusive":
        change = {"pauseConditions": None, "controllerPause": False, "currentStepIndex": following}
        return Change(spec=spec, status={"status": change})
    if status.pause_conditions:
        return Change(spec=spec, status={"status": {"pauseConditions": None}})
    if steps:
        return Change(spec=spec, status={"status": {"pauseConditions": None, "currentStepIndex": following}})
    return Change(spec=spec)


def abort(rollout: Rollout) -> Change:
    """Take the new version back."""
    del rollout
    return Change(status={"status": {"abort": True}})


def retry(rollout: Rollout) -> Change:
    """Try an aborted version again. Raises VerbError for one that is not aborted."""
    if not rollout.status.abort:
        raise VerbError(f"rollout {rollout.metadata.name}: it is not aborted, so there is nothing to try again")
    return Change(status={"status": {"abort": False}})


def restart(rollout: Rollout, at: datetime) -> Change:
    """Have pods that are older than a moment evicted, a few at a time."""
    del rollout
    return Change(spec={"spec": {"restartAt": times.format_seconds(at)}})


def undo(rollout: Rollout, sets: Iterable[ReplicaSet], revision: int = 0) -> Change:
    """Set the template of an earlier revision again. sets: those of the rollout. revision: 0 is the one before.

    Raises VerbError for a revision that is not there, or that is the present one.
    """
    name, ordered = rollout.metadata.name, sorted(sets, key=lambda found: (revision_of(found), by_age(found)))
    if revision:
        found = next((each for each in ordered if revision_of(each) == revision), None)
    else:
        found = ordered[-2] if len(ordered) > 1 else None
    if found is None:
        there = ", ".join(str(revision_of(each)) for each in ordered) or "none"
        raise VerbError(
            f"rollout {name}: there is no revision {revision or 'before the present one'}; there is {there}"
        )
    template: dict[str, Any] = to_dict(without_injected(found))
    labels = {key: value for key, value in template.get("metadata", {}).get("labels", {}).items() if key != HASH}
    template["metadata"] = {**template.get("metadata", {}), "labels": labels}
    path = {"op": "replace", "path": "/spec/template", "value": template}
    return Change(json=(path,), workload=rollout.spec.workload_ref is not None)


def set_image(rollout: Rollout, images: Mapping[str, str], template: Mapping[str, Any] | None = None) -> Change:
    """Set images by container; `*` means all. template: that of the workload, where workloadRef names one.

    Raises VerbError for a container that is not there.
    """
    tree = dict(template) if template is not None else to_dict(rollout.spec).get("template") or {}
    containers = [
        (f"/spec/template/spec/{word}/{place}/image", str(one.get("name")))
        for word in ("initContainers", "containers", "ephemeralContainers")
        for place, one in enumerate((tree.get("spec") or {}).get(word) or ())
    ]
    names = {name for _, name in containers}
    shown = ", ".join(sorted(names)) or "none"
    for wanted in images:
        if wanted != "*" and wanted not in names:
            raise VerbError(f"rollout {rollout.metadata.name}: there is no container '{wanted}'; there is {shown}")
    changes = [(path, images.get(name, images.get("*"))) for path, name in containers]
    made = tuple({"op": "add", "path": path, "value": image} for path, image in changes if image is not None)
    return Change(json=made, workload=rollout.spec.workload_ref is not None)
