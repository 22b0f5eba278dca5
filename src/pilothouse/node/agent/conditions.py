"""A pod's conditions as a kubelet derives them; a condition's time moves only with its status. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pilothouse.kinds.structs.core_pod_status import PodCondition
from pilothouse.kinds.times import format_seconds

from .slot import Slot

if TYPE_CHECKING:
    from .statuses import View

__all__ = ["OWN_CONDITIONS", "pod_conditions"]

OWN_CONDITIONS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "DisruptionTarget",
)
"""What a node writes; all other conditions are somebody else's."""

_Short = tuple[str, str, str]


def pod_conditions(view: View, phase: str, now: float) -> list[PodCondition]:
    """Return the node's conditions of a pod."""
    containers = _containers_ready(view, phase)
    found: list[tuple[str, _Short]] = [
        ("PodReadyToStartContainers", (_word(view.sandbox_ready), "", "")),
        ("Initialized", _initialized(view, phase)),
        ("Ready", _ready(view, containers)),
        ("ContainersReady", containers),
        ("PodScheduled", ("True", "", "")),
    ]
    if view.kill is not None and view.kill.condition:
        found.append(("DisruptionTarget", ("True", view.kill.condition, view.kill.message)))
    before = {each.type: each for each in (*view.pod.status.conditions, *view.before.conditions)}
    moment = format_seconds(datetime.fromtimestamp(now, UTC))
    generation = view.pod.metadata.generation
    return [_condition(before.get(kind), kind, short, moment, generation) for kind, short in found]


def _condition(known: PodCondition | None, kind: str, short: _Short, moment: str, generation: int) -> PodCondition:
    status, reason, message = short
    same = known is not None and known.status == status
    return PodCondition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=known.last_transition_time if known is not None and same else moment,
        observed_generation=generation,
    )


def _initialized(view: View, phase: str) -> _Short:
    if phase == "Succeeded":
        return "True", "PodCompleted", ""
    begun = any(slot.current is not None and slot.epoch == view.epoch for slot in view.of("main"))
    unready = [slot.name for slot in view.of("init", "sidecar") if not begun and not _is_through(slot, view.epoch)]
    if not unready:
        return "True", "", ""
    return "False", "ContainersNotInitialized", f"containers with incomplete status: {_names(unready)}"


def _is_through(slot: Slot, epoch: int) -> bool:
    if slot.role == "sidecar":
        return slot.is_started
    record = slot.current
    return record is not None and record.state == "Exited" and record.exit_code == 0 and slot.epoch == epoch


def _containers_ready(view: View, phase: str) -> _Short:
    if phase == "Succeeded":
        return "False", "PodCompleted", ""
    if phase == "Failed":
        return "False", "PodFailed", ""
    unready = [slot.name for slot in view.of("sidecar", "main") if not slot.is_ready]
    if not unready:
        return "True", "", ""
    return "False", "ContainersNotReady", f"containers with unready status: {_names(unready)}"


def _ready(view: View, containers: _Short) -> _Short:
    if containers[0] != "True":
        return containers
    given = {each.type: each.status for each in view.pod.status.conditions}
    missing: list[str] = []
    for gate in view.pod.spec.readiness_gates:
        kind = gate.condition_type
        if kind not in given:
            missing.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif given[kind] != "True":
            missing.append(f'the status of pod readiness gate "{kind}" is not "True", but {given[kind]}')
    if missing:
        return "False", "ReadinessGatesNotReady", ", ".join(missing)
    return "True", "", ""


def _names(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def _word(true: bool) -> str:
    return "True" if true else "False"
