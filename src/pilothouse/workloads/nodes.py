"""What follows from a node's conditions: its taints, labels, the zone it is in, and when it is taken for lost. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

from pilothouse.kinds import times
from pilothouse.kinds.structs import Node, Pod, replace
from pilothouse.kinds.structs.core_nodes import NodeCondition, Taint

from .pods import is_ready

__all__ = [
    "GRACE_SECONDS",
    "NOT_READY",
    "STARTUP_GRACE_SECONDS",
    "UNREACHABLE",
    "counts_for_disruption",
    "evicting_taint",
    "is_healthy",
    "not_ready_pod",
    "ready_of",
    "settled",
    "with_evicting",
    "with_unknown",
    "zone_of",
]

GRACE_SECONDS: Final = 50.0
"""For how long a node may keep silent before it is taken for lost."""
STARTUP_GRACE_SECONDS: Final = 60.0
"""The same for one that has never said how it is."""
NOT_READY: Final = "node.kubernetes.io/not-ready"
UNREACHABLE: Final = "node.kubernetes.io/unreachable"
_UNSCHEDULABLE: Final = "node.kubernetes.io/unschedulable"
_EXCLUDED: Final = "node.kubernetes.io/exclude-disruption"
_TAINTS: Final[Mapping[str, Mapping[str, str]]] = {
    "Ready": {"False": NOT_READY, "Unknown": UNREACHABLE},
    "MemoryPressure": {"True": "node.kubernetes.io/memory-pressure"},
    "DiskPressure": {"True": "node.kubernetes.io/disk-pressure"},
    "NetworkUnavailable": {"True": "node.kubernetes.io/network-unavailable"},
    "PIDPressure": {"True": "node.kubernetes.io/pid-pressure"},
}
_OURS: Final = frozenset({_UNSCHEDULABLE, *(key for keys in _TAINTS.values() for key in keys.values())})
_LABELS: Final = {"kubernetes.io/os": "beta.kubernetes.io/os", "kubernetes.io/arch": "beta.kubernetes.io/arch"}
_REPORTED: Final = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_Effect = Literal["NoExecute", "NoSchedule"]
_EVICTING: Final = frozenset({NOT_READY, UNREACHABLE})


def ready_of(node: Node) -> NodeCondition | None:
    """Return the condition Ready, None where there is none."""
    return next((each for each in node.status.conditions if each.type == "Ready"), None)


def is_healthy(node: Node) -> bool:
    """Whether a node says that it is ready."""
    found = ready_of(node)
    return found is not None and found.status == "True"


def zone_of(node: Node) -> str:
    """Return the failure zone that a node is in, "" for none."""
    labels = node.metadata.labels
    region, zone = (
        labels.get(f"topology.kubernetes.io/{part}") or labels.get(f"failure-domain.beta.kubernetes.io/{part}") or ""
        for part in ("region", "zone")
    )
    return f"{region}:\x00:{zone}" if region or zone else ""


def counts_for_disruption(node: Node) -> bool:
    """Whether a node's state counts when its zone's is judged."""
    return _EXCLUDED not in node.metadata.labels


def settled(node: Node, now: datetime) -> Node:
    """Return a node with the taints against scheduling and the labels that follow from it; itself where all is so."""
    wanted = [
        _TAINTS[each.type][each.status] for each in node.status.conditions if each.status in _TAINTS.get(each.type, {})
    ]
    if node.spec.unschedulable:
        wanted.append(_UNSCHEDULABLE)
    taints = _tainted(node, wanted, lambda each: each.effect == "NoSchedule" and each.key in _OURS, "NoSchedule", now)
    labels = dict(node.metadata.labels)
    labels |= {beta: labels[stable] for stable, beta in _LABELS.items() if stable in labels}
    if taints is node.spec.taints and labels == node.metadata.labels:
        return node
    return replace(node, spec__taints=taints, metadata__labels=labels)


def evicting_taint(node: Node) -> str:
    """Return the taint that a node's state asks for, by which pods are evicted; "" for none."""
    found = ready_of(node)
    return "" if found is None else _TAINTS["Ready"].get(found.status, "")


def with_evicting(node: Node, key: str, now: datetime) -> Node:
    """Return a node with this taint, by which pods are evicted, or none, but not both; itself where it is so."""
    ours = [key] if key else []
    taints = _tainted(node, ours, lambda each: each.effect == "NoExecute" and each.key in _EVICTING, "NoExecute", now)
    return node if taints is node.spec.taints else replace(node, spec__taints=taints)


def _tainted(
    node: Node, wanted: Iterable[str], is_ours: Callable[[Taint], bool], effect: _Effect, now: datetime
) -> Sequence[Taint]:
    keys = dict.fromkeys(wanted)
    present = {each.key for each in node.spec.taints if is_ours(each)}
    if present == keys.keys():
        return node.spec.taints
    kept = [each for each in node.spec.taints if not is_ours(each) or each.key in keys]
    time = times.format_seconds(now)
    return [*kept, *(Taint(key=key, effect=effect, time_added=time) for key in keys if key not in present)]


def with_unknown(node: Node, now: datetime) -> Node:
    """Return a node of which nobody knows how it is; itself where that is said already."""
    time, found = times.format_seconds(now), {each.type: each for each in node.status.conditions}
    conditions = []
    for each in node.status.conditions:
        if each.type in _REPORTED and each.status != "Unknown":
            each = replace(  # noqa: PLW2901
                each,
                status="Unknown",
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
                last_transition_time=time,
            )
        conditions.append(each)
    conditions += [
        NodeCondition(
            type=kind,
            status="Unknown",
            reason="NodeStatusNeverUpdated",
            message="Kubelet never posted node status.",
            last_heartbeat_time=node.metadata.creation_timestamp,
            last_transition_time=time,
        )
        for kind in _REPORTED
        if kind not in found
    ]
    ready = found.get("Ready")
    if ready is not None and ready.status == "Unknown":
        return node
    return replace(node, status__conditions=conditions)


def not_ready_pod(pod: Pod, now: datetime) -> Pod | None:
    """Return a pod that is not ready as its node is lost, None where it is not anyway."""
    if not is_ready(pod):
        return None
    time = times.format_seconds(now)
    return replace(
        pod,
        status__conditions=[
            replace(each, status="False", last_transition_time=time) if each.type == "Ready" else each
            for each in pod.status.conditions
        ],
    )
