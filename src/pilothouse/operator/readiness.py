"""Whether an object has become what it says, read from its status: the rules of the built-in kinds, and conditions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from pilothouse.kinds.conditions import find
from pilothouse.kinds.structs import Resource, to_dict

__all__ = ["Readiness", "readiness_of"]


class Readiness(NamedTuple):
    """Whether an object is ready, and what it waits for if not. failed: it will not get ready by itself."""

    ready: bool
    message: str = ""
    failed: bool = False


_READY = Readiness(True)


def readiness_of(obj: Resource) -> Readiness:
    """Judge an object by its status.

    Workloads are ready when the last specification is rolled out and all replicas are available, jobs when they are
    complete, pods and others when their condition Ready (or Available, Established) is true, volume claims when bound;
    what has none of these is ready when it is there.
    """
    tree = to_dict(obj)
    status: Mapping[str, Any] = tree.get("status") or {}
    generation, observed = obj.metadata.generation, status.get("observedGeneration")
    if observed is not None and generation and observed < generation:
        return Readiness(False, "its last change is not observed yet")
    judge = _RULES.get(type(obj).gvk[::2])
    return judge(tree, status) if judge is not None else _by_conditions(status)


def _replicas(tree: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    stuck = find(status.get("conditions"), "Progressing")
    if stuck is not None and stuck.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(False, str(stuck.get("message") or "its progress deadline is exceeded"), failed=True)
    if not status.get("observedGeneration") and tree["metadata"].get("generation"):
        return Readiness(False, "its last change is not observed yet")
    wanted = tree.get("spec", {}).get("replicas", 1)
    counts = [("updatedReplicas", "updated"), ("availableReplicas", "available")]
    return _counted(status, wanted, counts, status.get("replicas", 0))


def _daemons(tree: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    if not status.get("observedGeneration") and tree["metadata"].get("generation"):
        return Readiness(False, "its last change is not observed yet")
    wanted = status.get("desiredNumberScheduled", 0)
    counts = [("updatedNumberScheduled", "updated"), ("numberAvailable", "available")]
    return _counted(status, wanted, counts, wanted)


def _counted(status: Mapping[str, Any], wanted: int, counts: Iterable[tuple[str, str]], total: int) -> Readiness:
    for field, word in counts:
        if status.get(field, 0) < wanted:
            return Readiness(False, f"{status.get(field, 0)} of {wanted} replicas are {word}")
    if total > wanted:
        return Readiness(False, f"{total - wanted} old replicas are still there")
    return _READY


def _job(_: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    for found in status.get("conditions") or ():
        if found.get("status") == "True" and found.get("type") == "Complete":
            return _READY
        if found.get("status") == "True" and found.get("type") == "Failed":
            return Readiness(False, str(found.get("message") or "it failed"), failed=True)
    return Readiness(False, "it is not complete yet")


def _claim(_: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    phase = status.get("phase") or "Pending"
    return _READY if phase == "Bound" else Readiness(False, f"it is {phase}", failed=phase == "Lost")


def _pod(_: Mapping[str, Any], status: Mapping[str, Any]) -> Readiness:
    phase = status.get("phase") or "Pending"
    if phase in {"Succeeded", "Failed"}:
        return Readiness(phase == "Succeeded", f"it has {phase.lower()}", failed=phase == "Failed")
    ready = find(status.get("conditions"), "Ready")
    if ready is not None and ready.get("status") == "True":
        return _READY
    return Readiness(False, str((ready or {}).get("message") or f"it is {phase}"))


def _by_conditions(status: Mapping[str, Any]) -> Readiness:
    for kind in ("Ready", "Available", "Established"):
        found = find(status.get("conditions"), kind)
        if found is not None:
            ready = found.get("status") == "True"
            return _READY if ready else Readiness(False, str(found.get("message") or f"it is not {kind.lower()}"))
    return _READY


_RULES = {
    ("apps", "Deployment"): _replicas,
    ("apps", "StatefulSet"): _replicas,
    ("apps", "ReplicaSet"): _replicas,
    ("apps", "DaemonSet"): _daemons,
    ("batch", "Job"): _job,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
}
