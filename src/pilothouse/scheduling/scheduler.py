"""The scheduler: objects of the cluster go in, decisions come out. No IO, no clock of its own, no thread.

`upsert` and `remove` tell it of objects, `schedule` takes one pod from the queue and decides. What was decided is taken
as done until `bind_failed` says otherwise, so the next decision need not wait for the first to be written.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pilothouse.foundation.clock import Clock, SystemClock
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
from .configuration import Configuration
from .decisions import Bind, Decision, Failed, Gated, Skipped
from .errors import ConfigurationError
from .evaluation import Evaluation
from .events import Action, ClusterEvent, Kind, node_changes, pod_changes
from .framework import Cycle, Reject, Volumes, Wait
from .messages import diagnose
from .plugins import REGISTRY, Factory
from .profile import Profile
from .queue import Queue, Queued
from .shapes import PodShape
from .storage import claim_key

__all__ = ["Scheduler"]

_EVALUATIONS: Final = 64
"""Shapes of pods whose answers are kept; for 5,000 nodes, each takes about half a megabyte."""
_NO_NODES: Final = "no nodes available to schedule pods"
_DONE: Final = frozenset({"Succeeded", "Failed"})
_MAPS: Final[Mapping[type[Resource], tuple[str, Kind]]] = {
    StorageClass: ("classes", Kind.STORAGE_CLASS),
    CSINode: ("csi_nodes", Kind.CSI_NODE),
    CSIDriver: ("drivers", Kind.CSI_DRIVER),
    CSIStorageCapacity: ("capacities", Kind.CSI_CAPACITY),
    VolumeAttachment: ("attachments", Kind.ATTACHMENT),
}


@dataclass(slots=True)
class _Assumed:
    """A pod that has its node and is not bound yet."""

    queued: Queued
    cycle: Cycle
    profile: Profile
    node: str
    deadline: float | None = None
    """Until when someone has to permit it."""
    waits_for: str = ""


class Scheduler:
    """Decides where pods run.

    configuration: what to do as `configuration.load` read it. clock: for back-off and the age of pods in the queue.
    seed: of the choice among nodes that are equally good; with the same seed and the same calls the same decisions
    come out. registry: the plugins by name; add your own to `REGISTRY`.
    """

    def __init__(
        self,
        configuration: Configuration | None = None,
        *,
        clock: Clock | None = None,
        seed: int | None = None,
        registry: Mapping[str, Factory] = REGISTRY,
    ) -> None:
        found = Configuration() if configuration is None else configuration
        self._clock = SystemClock() if clock is None else clock
        self._random = random.Random(seed)  # noqa: S311  nothing secret is chosen
        self.profiles: Final = {one.scheduler_name: Profile(one, registry) for one in found.profiles}
        if not self.profiles:
            raise ConfigurationError("profiles", "there are none; leave the field out to have the default one")
        sort = next(iter(self.profiles.values())).queue_sort
        self.cluster: Final = Cluster()
        self.queue: Final = Queue(
            self._clock.monotonic,
            sort.sort_key,
            hints={name: profile.hints() for name, profile in self.profiles.items()},
            gates={name: profile.pre_enqueue for name, profile in self.profiles.items()},
            initial_backoff=found.pod_initial_backoff_seconds,
            max_backoff=found.pod_max_backoff_seconds,
        )
        self._pods: dict[str, Pod] = {}
        """Pods as they were last told, by uid."""
        self._assumed: dict[str, _Assumed] = {}
        self._nominations: dict[str, str] = {}
        """Nodes nominated for pods, by uid."""
        self._ready: list[Decision] = []
        self._evaluations: OrderedDict[tuple[str, PodShape], Evaluation] = OrderedDict()
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

    def schedule(self) -> Decision | None:
        """Take the pod whose turn it is and decide; None if there is none to try now."""
        if self._ready:
            return self._ready.pop(0)
        while (queued := self.queue.pop()) is not None:
            decision = self._try(queued)
            if decision is not None:
                return decision
            if self._ready:
                return self._ready.pop(0)
        return None

    def tick(self) -> None:
        """Do what is due: ends of back-offs, pods that waited for too long, permits that did not come."""
        self.queue.flush()
        now = self._clock.monotonic()
        for uid, assumed in [*self._assumed.items()]:
            if assumed.deadline is not None and assumed.deadline <= now:
                self.refuse(uid, "rejected due to timeout after waiting at plugin " + assumed.waits_for)

    def next_tick(self) -> float | None:
        """Give the seconds until `tick` may have something to do; None if never."""
        now = self._clock.monotonic()
        times = [one.deadline - now for one in self._assumed.values() if one.deadline is not None]
        if (flush := self.queue.next_flush()) is not None:
            times.append(flush)
        return max(min(times), 0.0) if times else None

    def bound(self, uid: str) -> None:
        """Note that a pod was bound."""
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            for plugin in assumed.profile.post_binds:
                plugin.post_bind(assumed.queued.pod, assumed.node)

    def bind_failed(self, uid: str, message: str) -> Failed | None:
        """Note that a pod could not be bound: give back what it took and try it again later."""
        assumed = self._assumed.pop(uid, None)
        if assumed is None:
            return None
        self._give_back(assumed)
        if uid not in self._pods:
            return None
        self.queue.requeue(assumed.queued, pod=self._pods[uid])
        return Failed(self._pods[uid], message, reason="SchedulerError", nominated="")

    def allow(self, uid: str) -> bool:
        """Let a pod be bound that a plugin has had wait; say whether there was one."""
        assumed = self._assumed.get(uid)
        if assumed is None or assumed.deadline is None:
            return False
        assumed.deadline = None
        self._ready.append(self._binding(assumed))
        return True

    def refuse(self, uid: str, message: str) -> bool:
        """Do not let a pod be bound that a plugin has had wait; say whether there was one."""
        assumed = self._assumed.get(uid)
        if assumed is None or assumed.deadline is None:
            return False
        del self._assumed[uid]
        self._ready.append(self._permit_refused(assumed, message))
        return True

    def waiting(self) -> Mapping[str, str]:
        """Give the nodes of the pods that wait for a permit, by uid."""
        return {uid: one.node for uid, one in self._assumed.items() if one.deadline is not None}

    def _try(self, queued: Queued) -> Decision | None:
        pod = queued.pod
        meta = pod.metadata
        profile = self.profiles[pod.spec.scheduler_name or "default-scheduler"]
        if meta.deletion_timestamp is not None:
            self.queue.done(queued.uid)
            return Skipped(pod, f"skip schedule deleting pod: {meta.namespace}/{meta.name}")
        if not len(self.cluster.table):
            self.queue.requeue(queued)
            return Failed(pod, _NO_NODES)
        shape = self.cluster.shapes.of(pod)
        evaluation = self._evaluation(profile, shape)
        cycle = Cycle(pod, shape, self.cluster, self._random, evaluation.state)
        row = self._own_node(cycle, evaluation)
        if row is None:
            found = evaluation.run(cycle)
            row = self._pick(found.total)
            if row is None:
                return self._no_node(cycle, queued, profile, evaluation, found)
        return self._take(cycle, queued, profile, self.cluster.table.name(row))

    def _evaluation(self, profile: Profile, shape: PodShape) -> Evaluation:
        key = (profile.name, shape)
        found = self._evaluations.get(key)
        if found is None:
            found = self._evaluations[key] = profile.evaluation()
            if len(self._evaluations) > _EVALUATIONS:
                self._evaluations.popitem(last=False)
        else:
            self._evaluations.move_to_end(key)
        return found

    def _own_node(self, cycle: Cycle, evaluation: Evaluation) -> int | None:
        """Give the row on which room was made for the pod, if it fits there."""
        nominated = cycle.pod.status.nominated_node_name or self._nominations.get(cycle.pod.metadata.uid)
        row = self.cluster.table.row_of.get(nominated, -1) if nominated else -1
        if row < 0 or evaluation.run(cycle).reject is not None:
            return None
        return row if evaluation.check_row(cycle, row) is None else None

    def _pick(self, total: Any) -> int | None:
        """Choose at random among the best nodes."""
        if not len(total):
            return None
        best = total.max()
        if best < 0:
            return None
        ties = np.flatnonzero(total == best)
        return int(ties[self._random.randrange(len(ties)) if len(ties) > 1 else 0])

    def _no_node(self, cycle: Cycle, queued: Queued, profile: Profile, evaluation: Evaluation, found: Any) -> Failed:
        diagnosis = diagnose(cycle, evaluation, found)
        message, nominated = diagnosis.message, None
        victims: tuple[Pod, ...] = ()
        cleared: tuple[Pod, ...] = ()
        for plugin in profile.post_filters:
            result = plugin.post_filter(cycle, diagnosis.open_rows, evaluation)
            if result.message:
                message = f"{message} {result.message}"
            if not result.keep_nomination:
                nominated = result.nominated
            if result.nominated:
                victims = result.victims
                cleared = self._clear_lower(cycle.shape, result.nominated)
                break
        uid = queued.uid
        if nominated is not None:
            self._withdraw(uid)
            if nominated:
                self._nominations[uid] = nominated
                self.cluster.table.nominate(uid, cycle.shape, nominated)
        self.queue.requeue(queued, diagnosis.plugins)
        return Failed(cycle.pod, message, "Unschedulable", nominated, victims, cleared, frozenset(diagnosis.plugins))

    def _clear_lower(self, shape: PodShape, node: str) -> tuple[Pod, ...]:
        """Void the nominations of less important pods for a node: their room is gone."""
        row = self.cluster.table.row_of[node]
        waiting = self.cluster.table.nominated.get(row, {})
        uids = [uid for uid, other in waiting.items() if other.priority < shape.priority]
        for uid in uids:
            self._withdraw(uid)
        return tuple(self._pods[uid] for uid in uids if uid in self._pods)

    def _take(self, cycle: Cycle, queued: Queued, profile: Profile, node: str) -> Decision | None:
        """Reserve what the pod needs on its node, and bind it unless someone objects."""
        uid = queued.uid
        self._withdraw(uid)
        self.cluster.table.place(cycle.pod, cycle.shape, node, assumed=True)
        assumed = _Assumed(queued, cycle, profile, node)
        for reserve in profile.reserves:
            refused = reserve.reserve(cycle, node)
            if refused is not None:
                return self._permit_refused(assumed, refused.reason, reserve.name)
        for permit in profile.permits:
            answer = permit.permit(cycle, node)
            if isinstance(answer, Reject):
                return self._permit_refused(assumed, answer.reason, permit.name)
            if isinstance(answer, Wait):
                deadline = self._clock.monotonic() + answer.seconds
                assumed.deadline = deadline if assumed.deadline is None else min(assumed.deadline, deadline)
                assumed.waits_for = permit.name
        self._assumed[uid] = assumed
        return self._binding(assumed) if assumed.deadline is None else None

    def _binding(self, assumed: _Assumed) -> Bind:
        bindings: list[tuple[str, str]] = []
        provisions: list[str] = []
        for plugin in assumed.profile.pre_binds:
            volumes = plugin.pre_bind(assumed.cycle, assumed.node)
            if volumes is not None:
                bindings += volumes.bindings
                provisions += volumes.provisions
        self.queue.done(assumed.queued.uid)
        found = Volumes(tuple(bindings), tuple(provisions)) if bindings or provisions else None
        return Bind(assumed.queued.pod, assumed.node, found)

    def _permit_refused(self, assumed: _Assumed, message: str, plugin: str = "") -> Failed:
        self._give_back(assumed)
        name = plugin or assumed.waits_for
        self.queue.requeue(assumed.queued, {name})
        told = f"0/1 nodes are available: 1 {message}."
        return Failed(assumed.queued.pod, told, nominated="", plugins=frozenset({name}))

    def _give_back(self, assumed: _Assumed) -> None:
        for plugin in reversed(assumed.profile.reserves):
            plugin.unreserve(assumed.cycle, assumed.node)
        uid = assumed.queued.uid
        placed = self.cluster.table.placed.get(uid)
        if placed is not None and placed.assumed:
            self.cluster.table.displace(uid)
        self.queue.event(ClusterEvent(Kind.ASSIGNED_POD, Action.DELETE), _placed_on(assumed.queued.pod, assumed.node))

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
        self._pods[uid] = pod
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
            self.cluster.table.place(pod, self.cluster.shapes.of(pod), pod.spec.node_name)
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
            self.cluster.table.nominate(uid, self.cluster.shapes.of(pod), nominated)

    def _remove_pod(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        old = self._pods.pop(uid, pod)
        nominated = self._nominations.get(uid)
        self._withdraw(uid)
        self.queue.delete(uid)
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            for plugin in reversed(assumed.profile.reserves):
                plugin.unreserve(assumed.cycle, assumed.node)
        placed = self.cluster.table.displace(uid)
        if placed is not None:
            gone = old if old.spec.node_name else _placed_on(old, placed.node)
            self.queue.event(ClusterEvent(Kind.ASSIGNED_POD, Action.DELETE), gone, None)
        elif nominated:
            self.queue.event(ClusterEvent(Kind.UNSCHEDULED_POD, Action.DELETE), old, None)

    def _upsert_node(self, node: Node) -> None:
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


def _placed_on(pod: Pod, node: str) -> Pod:
    """Give the pod as it would be on the node, for those who are told that it is not any more."""
    return replace(pod, spec__node_name=node)
