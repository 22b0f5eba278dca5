"""Which pods nobody else will ever remove: too many that ended, those of nodes that are gone, and the like. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.kinds.structs import Node, Pod

__all__ = [
    "MAX_TERMINATED",
    "PERIOD_SECONDS",
    "QUARANTINE_SECONDS",
    "Quarantine",
    "failed_status",
    "is_lost",
    "surplus",
]

MAX_TERMINATED: Final = 12_500
PERIOD_SECONDS: Final = 20.0
QUARANTINE_SECONDS: Final = 40.0
"""For how long a node has to be gone: its pods may have been seen before it."""
_OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
_FINISHED: Final = ("Succeeded", "Failed")
_ORPHANED: Final = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByPodGC",
    "message": "PodGC: node no longer exists",
}


def surplus(pods: Iterable[Pod], limit: int) -> list[Pod]:
    """Return the pods that ended beyond a number: evicted ones first, then the oldest. limit: 0 for no limit."""
    ended = [pod for pod in pods if pod.status.phase in _FINISHED]
    if limit <= 0 or len(ended) <= limit:
        return []
    return sorted(ended, key=_order)[: len(ended) - limit]


def _order(pod: Pod) -> tuple[bool, str, str]:
    evicted = pod.status.phase == "Failed" and pod.status.reason == "Evicted"
    return not evicted, pod.metadata.creation_timestamp or "", pod.metadata.name


def is_lost(pod: Pod, nodes: Mapping[str, Node]) -> bool:
    """Whether a pod is being deleted, but no node agent will end it: it has no node, or that is out of service."""
    if pod.metadata.deletion_timestamp is None:
        return False
    if not pod.spec.node_name:
        return True
    node = nodes.get(pod.spec.node_name)
    return node is not None and not _is_ready(node) and any(taint.key == _OUT_OF_SERVICE for taint in node.spec.taints)


def _is_ready(node: Node) -> bool:
    return any(found.type == "Ready" and found.status == "True" for found in node.status.conditions)


@dataclass(slots=True)
class Quarantine:
    """Since when nodes are missing."""

    since: dict[str, float]

    def gone(self, missing: Collection[str], now: float) -> list[str]:
        """Return the nodes that have been missing long enough. missing: those that are now; others are forgotten."""
        self.since = {name: self.since.get(name, now) for name in missing}
        return [name for name, began in self.since.items() if now - began >= QUARANTINE_SECONDS]


def failed_status(pod: Pod, moment: str, *, orphaned: bool) -> dict[str, Any] | None:
    """Return the status patch that has a pod fail before it goes, None for one that has ended.

    moment: now, as a timestamp. orphaned: its node is gone, which a condition tells.
    """
    if pod.status.phase in _FINISHED:
        return None
    status: dict[str, Any] = {"phase": "Failed", "observedGeneration": pod.metadata.generation}
    if orphaned:
        condition = {**_ORPHANED, "lastTransitionTime": moment, "observedGeneration": pod.metadata.generation}
        status["conditions"] = [condition]
    return {"status": status}
