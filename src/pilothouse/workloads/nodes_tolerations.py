"""For how long a pod stays on a node with taints that evict. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Node, Pod, replace
from pilothouse.kinds.structs.core_nodes import Taint
from pilothouse.kinds.structs.core_pod_status import PodCondition
from pilothouse.kinds.structs.core_scheduling import Toleration

from .pods import condition_of

__all__ = ["evicting_taints", "marked_for_eviction", "stay_seconds", "tolerates"]

_TARGET: Final = "DisruptionTarget"


def evicting_taints(node: Node) -> list[Taint]:
    """Return those of a node's taints that evict pods."""
    return [each for each in node.spec.taints if each.effect == "NoExecute"]


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Whether a pod with this toleration puts up with a taint."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator:
        case "Exists":
            return True
        case "Gt" | "Lt":
            try:
                ours, theirs = int(toleration.value), int(taint.value)
            except ValueError:
                return False
            return theirs > ours if toleration.operator == "Gt" else theirs < ours
    return toleration.value == taint.value


def stay_seconds(pod: Pod, taints: Sequence[Taint]) -> float:
    """Return for how many seconds a pod stays: none if it does not tolerate a taint, else the least of tolerations."""
    least = math.inf
    for taint in taints:
        found = next((each for each in pod.spec.tolerations if tolerates(each, taint)), None)
        if found is None:
            return 0.0
        if found.toleration_seconds is not None:
            least = min(least, max(0, found.toleration_seconds))
    return least


def marked_for_eviction(pod: Pod, now: datetime) -> Pod | None:
    """Return a pod that says why it is deleted, None where it says so."""
    found = condition_of(pod, _TARGET)
    reason, message = "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
    if found is not None and (found.status, found.reason, found.message) == ("True", reason, message):
        return None
    made = PodCondition(
        type=_TARGET,
        status="True",
        reason=reason,
        message=message,
        observed_generation=pod.metadata.generation,
        last_transition_time=(
            found.last_transition_time if found is not None and found.status == "True" else times.format_seconds(now)
        ),
    )
    others = [each for each in pod.status.conditions if each.type != _TARGET]
    return replace(pod, status__conditions=[*others, made])
