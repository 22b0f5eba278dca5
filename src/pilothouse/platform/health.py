"""How a cluster is, from what its nodes, pods and parts say: what is wrong, in sentences that name it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

__all__ = [
    "ListMeta",
    "Node",
    "NodeList",
    "NodeRow",
    "Pod",
    "PodList",
    "node_problems",
    "node_rows",
    "phases",
    "pod_problems",
]

_WAITING_IS_FINE: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_PENDING_SECONDS: Final = 30.0
"""How long a pod may be without a node, or with one and not ready, before that is worth a word."""
_PRESSURES: Final = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
_NODE_READY: Final = "Ready"


class _Struct(msgspec.Struct, rename="camel"):
    pass


class _Meta(_Struct):
    name: str = ""
    namespace: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class _Condition(_Struct):
    type: str
    status: str = ""
    reason: str = ""
    message: str = ""


class _Waiting(_Struct):
    reason: str = ""
    message: str = ""


class _State(_Struct):
    waiting: _Waiting | None = None


class _Container(_Struct):
    name: str = ""
    restart_count: int = 0
    state: _State = msgspec.field(default_factory=_State)


class _PodSpec(_Struct):
    node_name: str = ""


class _PodStatus(_Struct):
    phase: str = ""
    reason: str = ""
    conditions: tuple[_Condition, ...] = ()
    init_container_statuses: tuple[_Container, ...] = ()
    container_statuses: tuple[_Container, ...] = ()


class Pod(_Struct):
    """What a status wants to know of a pod."""

    metadata: _Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class ListMeta(_Struct):
    """Where a list goes on."""

    continue_: str = msgspec.field(default="", name="continue")


class PodList(_Struct):
    """A page of pods."""

    items: list[Pod]
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class _Address(_Struct):
    type: str
    address: str


class _NodeInfo(_Struct):
    kubelet_version: str = ""


class _NodeStatus(_Struct):
    conditions: tuple[_Condition, ...] = ()
    addresses: tuple[_Address, ...] = ()
    node_info: _NodeInfo = msgspec.field(default_factory=_NodeInfo)


class _NodeSpec(_Struct):
    unschedulable: bool = False


class Node(_Struct):
    """What a status wants to know of a node."""

    metadata: _Meta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class NodeList(_Struct):
    """All nodes."""

    items: list[Node]


class NodeRow(msgspec.Struct, frozen=True):
    """A node as people see it. state: as kubectl shows it."""

    name: str
    state: str
    address: str
    pods: int
    version: str


def phases(pods: Iterable[Pod]) -> dict[str, int]:
    """Return how many pods are in each phase; those that are being deleted are Terminating."""
    counted = Counter("Terminating" if each.metadata.deletion_timestamp else each.status.phase for each in pods)
    return dict(sorted(counted.items()))


def node_rows(nodes: Iterable[Node], pods: Iterable[Pod]) -> list[NodeRow]:
    """Return the nodes in the order of their names."""
    placed = Counter(each.spec.node_name for each in pods if each.status.phase not in {"Succeeded", "Failed"})
    rows = []
    for node in sorted(nodes, key=lambda each: each.metadata.name):
        name, status = node.metadata.name, node.status
        state = {"True": "Ready", "False": "NotReady"}.get(_condition(status.conditions, _NODE_READY).status, "Unknown")
        state += ",SchedulingDisabled" if node.spec.unschedulable else ""
        address = next((each.address for each in status.addresses if each.type == "InternalIP"), "")
        rows.append(NodeRow(name, state, address, placed[name], status.node_info.kubelet_version))
    return rows


def node_problems(nodes: Iterable[Node]) -> list[str]:
    """Return what is wrong with nodes."""
    found = []
    for node in nodes:
        ready = _condition(node.status.conditions, _NODE_READY)
        if ready.status != "True":
            found.append(f"node {node.metadata.name} is not ready{_why(ready.reason, ready.message)}")
        found += [
            f"node {node.metadata.name} has {each.type}{_why(each.reason, each.message)}"
            for each in node.status.conditions
            if each.type in _PRESSURES and each.status == "True"
        ]
    return found


def pod_problems(pods: Iterable[Pod], now: datetime) -> list[str]:
    """Return what keeps pods from running that should."""
    return [problem for pod in pods for problem in _pod_problem(pod, now)][:_MOST]


_MOST: Final = 50
"""Sentences about pods; a cluster where more is wrong is looked at with kubectl."""


def _pod_problem(pod: Pod, now: datetime) -> Sequence[str]:
    metadata, status = pod.metadata, pod.status
    if metadata.deletion_timestamp or status.phase in {"Succeeded", "Failed"}:
        return ()
    name = f"pod {metadata.namespace}/{metadata.name}"
    for container in (*status.init_container_statuses, *status.container_statuses):
        waiting = container.state.waiting
        if waiting is not None and waiting.reason not in _WAITING_IS_FINE:
            restarts = f", {container.restart_count} restarts" if container.restart_count else ""
            return (f"{name}: {container.name}: {waiting.reason}{restarts}{_why('', waiting.message)}",)
    created = metadata.creation_timestamp or datetime.fromtimestamp(0, UTC)
    if (now - created).total_seconds() < _PENDING_SECONDS:
        return ()
    scheduled = _condition(status.conditions, "PodScheduled")
    if not pod.spec.node_name:
        return (f"{name} has no node{_why(scheduled.reason, scheduled.message)}",)
    return (f"{name} does not start",) if status.phase == "Pending" else ()


def _condition(conditions: Iterable[_Condition], kind: str) -> _Condition:
    return next((each for each in conditions if each.type == kind), _Condition(kind))


def _why(reason: str, message: str) -> str:
    said = ": ".join(filter(None, (reason, message.strip().split("\n")[0])))
    return f": {said}" if said else ""
