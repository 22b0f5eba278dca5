"""What happens in a cluster, as it matters to pods that wait: which kind of object, and what was done to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, Flag, auto
from typing import Any, Final, NamedTuple

from pilothouse.kinds.structs import Node, Pod

from .requests import demand_of

__all__ = [
    "FORCE_ACTIVATE",
    "NODE_CHANGES",
    "UNSCHEDULABLE_TIMEOUT",
    "Action",
    "ClusterEvent",
    "Hint",
    "HintFunction",
    "Interest",
    "Kind",
    "node_changes",
    "pod_changes",
]


class Kind(Enum):
    """The kinds of objects whose changes can make a pod schedulable."""

    ANY = "*"
    POD = "Pod"
    """Any pod."""
    ASSIGNED_POD = "AssignedPod"
    UNSCHEDULED_POD = "UnschedulablePod"
    NODE = "Node"
    CLAIM = "PersistentVolumeClaim"
    VOLUME = "PersistentVolume"
    STORAGE_CLASS = "storage.k8s.io/StorageClass"
    CSI_NODE = "storage.k8s.io/CSINode"
    CSI_DRIVER = "storage.k8s.io/CSIDriver"
    CSI_CAPACITY = "storage.k8s.io/CSIStorageCapacity"
    ATTACHMENT = "storage.k8s.io/VolumeAttachment"


class Action(Flag):
    """What was done. A node's or pod's update is told by what changed."""

    ADD = auto()
    DELETE = auto()
    UPDATE_ALLOCATABLE = auto()
    UPDATE_LABEL = auto()
    UPDATE_TAINT = auto()
    UPDATE_CONDITION = auto()
    UPDATE_POD_LABEL = auto()
    UPDATE_POD_SCALE_DOWN = auto()
    UPDATE_POD_TOLERATION = auto()
    UPDATE_POD_GATES_GONE = auto()
    UPDATE_OTHER = auto()
    UPDATE = (
        UPDATE_ALLOCATABLE
        | UPDATE_LABEL
        | UPDATE_TAINT
        | UPDATE_CONDITION
        | UPDATE_POD_LABEL
        | UPDATE_POD_SCALE_DOWN
        | UPDATE_POD_TOLERATION
        | UPDATE_POD_GATES_GONE
        | UPDATE_OTHER
    )
    ALL = ADD | DELETE | UPDATE


class ClusterEvent(NamedTuple):
    """Something that happened to an object of a kind."""

    kind: Kind
    action: Action

    def concerns(self, other: ClusterEvent) -> bool:
        """Say whether this, as what someone waits for, is met by `other`."""
        if self.kind is Kind.ANY or other.kind is Kind.ANY:
            return bool(self.action & other.action)
        kinds = self.kind is other.kind or (
            self.kind is Kind.POD and other.kind in {Kind.ASSIGNED_POD, Kind.UNSCHEDULED_POD}
        )
        return kinds and bool(self.action & other.action)


class Hint(Enum):
    """Whether a pod is worth another try."""

    SKIP = "skip"
    QUEUE = "queue"


HintFunction = Callable[[Pod, Any, Any], Hint]
"""Given the pod that waits, the object before and the object now (None where there was or is none)."""


class Interest(NamedTuple):
    """An event after which a plugin may let a pod pass that it refused. Without a function it always may."""

    event: ClusterEvent
    hint: HintFunction | None = None


UNSCHEDULABLE_TIMEOUT: Final = ClusterEvent(Kind.ANY, Action.ALL)
"""The pod has waited for too long without any event."""
FORCE_ACTIVATE: Final = UNSCHEDULABLE_TIMEOUT
"""Someone asks for a try."""
NODE_CHANGES: Final = Action.UPDATE


def node_changes(old: Node, new: Node) -> Iterator[ClusterEvent]:
    """Tell a node's update by what changed; nothing if nothing of interest did."""
    if (
        (old.spec.unschedulable or False) != (new.spec.unschedulable or False) and not new.spec.unschedulable
    ) or old.spec.taints != new.spec.taints:
        yield ClusterEvent(Kind.NODE, Action.UPDATE_TAINT)
    if old.status.allocatable != new.status.allocatable:
        yield ClusterEvent(Kind.NODE, Action.UPDATE_ALLOCATABLE)
    if old.metadata.labels != new.metadata.labels:
        yield ClusterEvent(Kind.NODE, Action.UPDATE_LABEL)
    before = {one.type: one.status for one in old.status.conditions}
    if before != {one.type: one.status for one in new.status.conditions}:
        yield ClusterEvent(Kind.NODE, Action.UPDATE_CONDITION)


def pod_changes(old: Pod, new: Pod) -> list[ClusterEvent]:
    """Tell a pod's update by what changed of interest to scheduling."""
    kind = Kind.ASSIGNED_POD if new.spec.node_name else Kind.UNSCHEDULED_POD
    found = []
    if old.metadata.labels != new.metadata.labels:
        found.append(Action.UPDATE_POD_LABEL)
    if _scaled_down(old, new):
        found.append(Action.UPDATE_POD_SCALE_DOWN)
    if old.spec.scheduling_gates and not new.spec.scheduling_gates:
        found.append(Action.UPDATE_POD_GATES_GONE)
    if len(old.spec.tolerations) != len(new.spec.tolerations):
        found.append(Action.UPDATE_POD_TOLERATION)
    return [ClusterEvent(kind, action) for action in found or [Action.UPDATE_OTHER]]


def _scaled_down(old: Pod, new: Pod) -> bool:
    if old.spec is new.spec and old.status is new.status:
        return False
    before, now = demand_of(old).requests, demand_of(new).requests
    return any(value > now.get(name, 0) for name, value in before.items())
