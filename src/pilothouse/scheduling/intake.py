"""What objects of the cluster do to the scheduler's state: the table, the queue, storage, and who waits for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.kinds.structs import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    Resource,
    Service,
    StatefulSet,
    StorageClass,
    VolumeAttachment,
    replace,
)

from .cluster import Cluster
from .decisions import Decision, Gated
from .events import Action, ClusterEvent, Kind, node_changes, pod_changes
from .framework import Cycle
from .profile import Profile
from .queue import Queue, Queued
from .shapes import PodShape
from .storage import claim_key
from .trimming import trimmed, trimmed_node

__all__ = ["Assumed", "Intake", "placed_on"]

_DONE: Final = frozenset({"Succeeded", "Failed"})
_MAPS: Final[Mapping[type[Resource], tuple[str, Kind]]] = {
    StorageClass: ("classes", Kind.STORAGE_CLASS),
    CSINode: ("csi_nodes", Kind.CSI_NODE),
    CSIDriver: ("drivers", Kind.CSI_DRIVER),
    CSIStorageCapacity: ("capacities", Kind.CSI_CAPACITY),
    VolumeAttachment: ("attachments", Kind.ATTACHMENT),
}


@dataclass(slots=True)
class Assumed:
    """A pod that has its node and is not bound yet."""

    queued: Queued
    cycle: Cycle
    profile: Profile
    node: str
    deadline: float | None = None
    """Until when someone has to permit it."""
    waits_for: str = ""


class Intake:
    """Takes in objects. The base of the scheduler, which decides on what is here."""

    def __init__(self, profiles: Mapping[str, Profile], queue: Queue) -> None:
        self.profiles: Final = profiles
        self.queue: Final = queue
        self.cluster: Final = Cluster()
        self._pods: dict[str, Pod] = {}
        """Pods as they were last told, without what does not matter, by uid."""
        self._shapes: dict[str, PodShape] = {}
        """Their shapes."""
        self._assumed: dict[str, Assumed] = {}
        self._nominations: dict[str, str] = {}
        """Nodes nominated for pods, by uid."""
        self._ready: list[Decision] = []
        self._upserts: dict[type[Resource], Callable[[Any], None]] = {
            Pod: self._upsert_pod,
            Node: self._upsert_node,
            Namespace: self.cluster.set_namespace,
            PodDisruptionBudget: self.cluster.set_budget,
            PersistentVolumeClaim: self._upsert_claim,
            PersistentVolume: self._upsert_volume,
            **dict.fromkeys((Service, ReplicaSet, ReplicationController, StatefulSet), self.cluster.set_workload),
        }

    def upsert(self, found: Resource) -> None:
        """Tell of an object that is new or changed. Raises TypeError for kinds that do not matter to scheduling."""
        handler = self._upserts.get(type(found))
        if handler is not None:
            handler(found)
        elif type(found) in _MAPS:
            self._upsert_other(found)
        else:
            raise TypeError(f"{type(found).__name__}: the scheduler has no use for it")

    def remove(self, found: Resource) -> None:
        """Tell of an object that is gone, as it was last."""
        meta = found.metadata
        match found:
            case Pod():
                self._remove_pod(found)
            case Node():
                self.cluster.table.remove_node(meta.name)
                self.queue.event(ClusterEvent(Kind.NODE, Action.DELETE), found, None)
            case Namespace():
                self.cluster.remove_namespace(meta.name)
            case PodDisruptionBudget():
                self.cluster.remove_budget(meta.namespace, meta.name)
            case PersistentVolumeClaim():
                self.cluster.storage.claims.pop(claim_key(found), None)
                self._storage_event(Kind.CLAIM, Action.DELETE, found, None)
            case PersistentVolume():
                self.cluster.storage.volumes.pop(meta.name, None)
                self._storage_event(Kind.VOLUME, Action.DELETE, found, None)
            case Service() | ReplicaSet() | ReplicationController() | StatefulSet():
                self.cluster.remove_workload(found)
            case _ if type(found) in _MAPS:
                attribute, kind = _MAPS[type(found)]
                getattr(self.cluster.storage, attribute).pop(_name(found), None)
                self._storage_event(kind, Action.DELETE, found, None)
            case _:
                raise TypeError(f"{type(found).__name__}: the scheduler has no use for it")

    def _withdraw(self, uid: str) -> None:
        node = self._nominations.pop(uid, None)
        if node is not None:
            self.cluster.table.withdraw(uid, node)

    def _upsert_pod(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        old = self._pods.get(uid)
        if pod.status.phase in _DONE:
            if old is not None:
                self._remove_pod(pod)
            return
        shape = self._shapes[uid] = self.cluster.shapes.of(pod)
        self._pods[uid] = pod = trimmed(pod, shape)
        if pod.spec.node_name:
            self._assigned(old, pod)
        elif uid in self._assumed:
            self._assumed[uid].queued.pod = pod
        elif (pod.spec.scheduler_name or "default-scheduler") in self.profiles:
            self._pending(old, pod)

    def _assigned(self, old: Pod | None, pod: Pod) -> None:
        uid = pod.metadata.uid
        self._withdraw(uid)
        if uid in self.queue:
            self.queue.delete(uid)
        placed = self.cluster.table.placed.get(uid)
        known = old is not None and bool(old.spec.node_name)
        if placed is not None and placed.assumed and placed.node == pod.spec.node_name:
            # What was decided has come true; the shape of the pod as it was tried is its shape still.
            placed.pod, placed.assumed = pod, False
        else:
            self.cluster.table.place(pod, self._shapes[uid], pod.spec.node_name)
        if old is None or not known:
            self.queue.event(ClusterEvent(Kind.ASSIGNED_POD, Action.ADD), None, pod)
            return
        for event in pod_changes(old, pod):
            self.queue.event(event, old, pod)

    def _pending(self, old: Pod | None, pod: Pod) -> None:
        uid = pod.metadata.uid
        before = self.queue.get(uid)
        gate = before.gate if before is not None else ""
        queued = self.queue.add(pod) if before is None else self.queue.update(old or before.pod, pod)
        if queued.gate and queued.gate != gate:
            self._ready.append(Gated(pod, queued.gate_reason))
        nominated = pod.status.nominated_node_name
        if nominated and self._nominations.get(uid) != nominated:
            self._withdraw(uid)
            self._nominations[uid] = nominated
            self.cluster.table.nominate(uid, self._shapes[uid], nominated)

    def _remove_pod(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        old = self._pods.pop(uid, pod)
        self._shapes.pop(uid, None)
        nominated = self._nominations.get(uid)
        self._withdraw(uid)
        self.queue.delete(uid)
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            for plugin in reversed(assumed.profile.reserves):
                plugin.unreserve(assumed.cycle, assumed.node)
        placed = self.cluster.table.displace(uid)
        if placed is not None:
            gone = old if old.spec.node_name else placed_on(old, placed.node)
            self.queue.event(ClusterEvent(Kind.ASSIGNED_POD, Action.DELETE), gone, None)
        elif nominated:
            self.queue.event(ClusterEvent(Kind.UNSCHEDULED_POD, Action.DELETE), old, None)

    def _upsert_node(self, found: Node) -> None:
        node = trimmed_node(found)
        row = self.cluster.table.row_of.get(node.metadata.name)
        old = self.cluster.table.nodes[row] if row is not None else None
        self.cluster.table.upsert_node(node)
        if old is None:
            self.queue.event(ClusterEvent(Kind.NODE, Action.ADD), None, node)
            return
        for event in node_changes(old, node):
            self.queue.event(event, old, node)

    def _upsert_claim(self, claim: PersistentVolumeClaim) -> None:
        old = self.cluster.storage.claims.get(claim_key(claim))
        self.cluster.storage.set_claim(claim)
        self._storage_event(Kind.CLAIM, Action.ADD if old is None else Action.UPDATE_OTHER, old, claim)

    def _upsert_volume(self, volume: PersistentVolume) -> None:
        old = self.cluster.storage.volumes.get(volume.metadata.name)
        self.cluster.storage.set_volume(volume)
        self._storage_event(Kind.VOLUME, Action.ADD if old is None else Action.UPDATE_OTHER, old, volume)

    def _upsert_other(self, found: Resource) -> None:
        attribute, kind = _MAPS[type(found)]
        known: dict[str, Resource] = getattr(self.cluster.storage, attribute)
        old = known.get(_name(found))
        known[_name(found)] = found
        self._storage_event(kind, Action.ADD if old is None else Action.UPDATE_OTHER, old, found)

    def _storage_event(self, kind: Kind, action: Action, old: Any, new: Any) -> None:
        self.cluster.storage.changed()
        self.queue.event(ClusterEvent(kind, action), old, new)


def _name(found: Resource) -> str:
    meta = found.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


def placed_on(pod: Pod, node: str) -> Pod:
    """Give the pod as it would be on the node, for those who are told that it is not any more."""
    return replace(pod, spec__node_name=node)
