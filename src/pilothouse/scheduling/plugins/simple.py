"""The small plugins: node name, host ports, image locality, scheduling gates, order of the queue, the binder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np

from pilothouse.kinds.structs import Pod
from pilothouse.scheduling.columns import NAME_FIELD, Ints
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import (
    MAX_NODE_SCORE,
    SKIP,
    Cycle,
    Nodes,
    PreFiltered,
    QueuedPod,
    Refusal,
    Reject,
    Scope,
)
from pilothouse.scheduling.shapes import HostPort, shape_of

__all__ = ["DefaultBinder", "ImageLocality", "NodeName", "NodePorts", "PrioritySort", "SchedulingGates"]

_ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104  the address as text, nothing is bound
_MEGABYTE: Final = 1024 * 1024
_LEAST_IMAGE: Final = 23 * _MEGABYTE
_MOST_IMAGE: Final = 1000 * _MEGABYTE


class NodeName:
    """Lets a pod that names its node run there only."""

    name: ClassVar[str] = "NodeName"
    scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        wanted = cycle.pod.spec.node_name
        if not wanted:
            return nodes.full(0)
        column = nodes.column(NAME_FIELD)
        return (~column.taking("In", (wanted,))[column.ids[nodes.rows]]).astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) didn't match the requested node name",), final=True)

    def events(self) -> Sequence[Interest]:
        return (Interest(ClusterEvent(Kind.NODE, Action.ADD)),)


def _conflict(wanted: HostPort, taken: Sequence[str]) -> bool:
    return bool(taken) and (wanted.ip == _ALL_ADDRESSES or _ALL_ADDRESSES in taken or wanted.ip in taken)


class NodePorts:
    """Filters out nodes on which a port that the pod wants is taken."""

    name: ClassVar[str] = "NodePorts"
    scope: ClassVar[Scope] = Scope.ROW
    nameless: ClassVar[bool] = True

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        return None if cycle.shape.ports else SKIP

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        conflicts = {
            row
            for wanted in cycle.shape.ports
            for row, taken in nodes.table.ports.get((wanted.protocol, wanted.port), {}).items()
            if _conflict(wanted, taken)
        }
        return nodes.mark(conflicts, 1)

    def filter_row(self, cycle: Cycle, row: int) -> int:
        ports = cycle.table.ports
        return int(
            any(_conflict(one, ports.get((one.protocol, one.port), {}).get(row, ())) for one in cycle.shape.ports)
        )

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) didn't have free ports for the requested pod ports",))

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.POD, Action.DELETE), self._after_deletion),
            Interest(ClusterEvent(Kind.NODE, Action.ADD)),
        )

    @staticmethod
    def _after_deletion(pod: Pod, old: Any, new: Any) -> Hint:
        del new
        if not old.spec.node_name and not old.status.nominated_node_name:
            return Hint.SKIP
        taken: dict[tuple[str, int], list[str]] = {}
        for port in shape_of(old).ports:
            taken.setdefault((port.protocol, port.port), []).append(port.ip)
        wanted = shape_of(pod).ports
        frees = any(_conflict(one, taken.get((one.protocol, one.port), ())) for one in wanted)
        return Hint.QUEUE if frees else Hint.SKIP


class ImageLocality:
    """Scores nodes that have the pod's images: larger ones count more, and those that many nodes have."""

    name: ClassVar[str] = "ImageLocality"
    score_scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def score_version(self, cycle: Cycle) -> object:
        """How widely images are spread is a matter of all nodes."""
        table = cycle.table
        if not any(one in table.images for one in cycle.shape.images):
            return None
        return table.images_version, len(table)

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        table = cycle.table
        total = np.zeros(table.capacity, np.int64)
        for image in cycle.shape.images:
            rows = table.images.get(image)
            if rows:
                share = len(rows) / len(table)
                numbers = np.fromiter(rows.keys(), np.intp, len(rows))
                sizes = np.fromiter(rows.values(), np.int64, len(rows))
                total[numbers] += (sizes * share).astype(np.int64)
        return self._rate(cycle, total[: table.size][nodes.rows])

    @staticmethod
    def _rate(cycle: Cycle, sizes: Ints) -> Ints:
        spec = cycle.shape.pod.spec
        most = _MOST_IMAGE * (len(spec.init_containers) + len(spec.containers))
        return MAX_NODE_SCORE * (np.clip(sizes, _LEAST_IMAGE, most) - _LEAST_IMAGE) // (most - _LEAST_IMAGE)


class SchedulingGates:
    """Keeps pods out of the queue for as long as they have gates."""

    name: ClassVar[str] = "SchedulingGates"

    def pre_enqueue(self, pod: Pod) -> Reject | None:
        if not pod.spec.scheduling_gates:
            return None
        gates = " ".join(gate.name for gate in pod.spec.scheduling_gates)
        return Reject(f"waiting for scheduling gates: [{gates}]")

    def events(self) -> Sequence[Interest]:
        return (Interest(ClusterEvent(Kind.POD, Action.UPDATE_POD_GATES_GONE), self._own),)

    @staticmethod
    def _own(pod: Pod, old: Any, new: Any) -> Hint:
        del old
        return Hint.QUEUE if new.metadata.uid == pod.metadata.uid else Hint.SKIP


class PrioritySort:
    """Orders the queue by priority, then by the time a pod came."""

    name: ClassVar[str] = "PrioritySort"

    def sort_key(self, queued: QueuedPod) -> tuple[Any, ...]:
        return -queued.priority, queued.timestamp


class DefaultBinder:
    """Has pods bound by a Binding."""

    name: ClassVar[str] = "DefaultBinder"

    def binds(self, pod: Pod) -> bool:
        del pod
        return True
