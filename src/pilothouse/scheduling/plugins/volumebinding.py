"""VolumeBinding: are the pod's volumes reachable from the node, or can they be, and which become its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np

from pilothouse.kinds.structs import CSIStorageCapacity, PersistentVolume, Pod, StorageClass, TopologySelectorTerm
from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import SKIP, Cycle, Nodes, PreFiltered, Refusal, Reject, Scope, Volumes
from pilothouse.scheduling.nodeselectors import matching_labels, matching_selector
from pilothouse.scheduling.podterms import compile_selector
from pilothouse.scheduling.requests import amount
from pilothouse.scheduling.shapes import claims_of
from pilothouse.scheduling.storage import Claim, Storage, claim_class, claim_key, is_bound, storage_request

__all__ = ["VolumeBinding", "missing_claim"]

_NODE_CONFLICT: Final = 1
_BIND_CONFLICT: Final = 2
_NO_SPACE: Final = 4
_NO_VOLUME: Final = 8
_REASONS: Final = (
    (_NODE_CONFLICT, "node(s) didn't match PersistentVolume's node affinity"),
    (_BIND_CONFLICT, "node(s) didn't find available persistent volumes to bind"),
    (_NO_SPACE, "node(s) did not have enough free storage"),
    (_NO_VOLUME, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
)
_NOT_SUPPORTED: Final = "kubernetes.io/no-provisioner"
_MIGRATED: Final = "storage.alpha.kubernetes.io/migrated-plugins"


@dataclass(slots=True)
class _Claims:
    bound: list[Claim] = field(default_factory=list)
    delayed: list[Claim] = field(default_factory=list)


def missing_claim(name: str) -> str:
    """Put in words that there is no such claim."""
    return f'persistentvolumeclaim "{name}" not found'


class VolumeBinding:
    """Filters by volumes, gives volumes to claims that waited for their pod, and has the others provided."""

    name: ClassVar[str] = "VolumeBinding"
    scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def version(self, cycle: Cycle) -> object:
        """Storage changes without nodes."""
        return cycle.cluster.storage.version if cycle.shape.has_claims else None

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        claims, storage = _Claims(), cycle.cluster.storage
        immediate = any_claim = False
        for name, ephemeral in claims_of(cycle.pod):
            any_claim = True
            claim = storage.claim(cycle.shape.namespace, name)
            if claim is None:
                waiting = f"waiting for ephemeral volume controller to create the persistentvolumeclaim {_quoted(name)}"
                return Reject(waiting if ephemeral else missing_claim(name))
            if problem := _problem(claim, cycle.pod if ephemeral else None):
                return Reject(problem)
            if is_bound(claim):
                claims.bound.append(claim)
            elif storage.delayed(claim) and not claim.spec.volume_name:
                claims.delayed.append(claim)
            else:
                immediate = True
        if immediate:
            return Reject("pod has unbound immediate PersistentVolumeClaims")
        cycle.local[self.name] = claims
        return None if any_claim else SKIP

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        claims: _Claims = cycle.local[self.name]
        storage = cycle.cluster.storage
        codes = nodes.full(0)
        for claim in claims.bound:
            volume = storage.volumes.get(claim.spec.volume_name)
            if volume is None:
                codes = np.where(codes == 0, _NO_VOLUME, codes)
            else:
                codes = np.where((codes == 0) & ~_reaches(volume, nodes), _NODE_CONFLICT, codes)
        if claims.delayed:
            codes |= self._delayed(storage, claims.delayed, nodes)
        return codes

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle
        return Refusal(tuple(reason for bit, reason in _REASONS if code & bit), final=True)

    def reserve(self, cycle: Cycle, node: str) -> Reject | None:
        claims: _Claims | None = cycle.local.get(self.name)
        if claims is None or not cycle.shape.has_claims or not claims.delayed:
            return None
        storage = cycle.cluster.storage
        nodes = Nodes(cycle.table, np.array([cycle.table.row_of[node]], np.intp))
        chosen = self._match(storage, self._unplaced(storage, claims.delayed), nodes)
        for claim in claims.delayed:
            volume = chosen.get(claim_key(claim))
            if volume is not None:
                storage.assumed_volumes[volume.metadata.name] = claim_key(claim)
            elif storage.selected_node(claim) != node:
                storage.assumed_claims[claim_key(claim)] = node
        storage.changed()
        return None

    def unreserve(self, cycle: Cycle, node: str) -> None:
        del node
        claims: _Claims | None = cycle.local.get(self.name)
        if claims is None or not cycle.shape.has_claims:
            return
        storage = cycle.cluster.storage
        keys = {claim_key(claim) for claim in claims.delayed}
        for key in keys:
            storage.assumed_claims.pop(key, None)
        for volume in [name for name, key in storage.assumed_volumes.items() if key in keys]:
            del storage.assumed_volumes[volume]
        storage.changed()

    def pre_bind(self, cycle: Cycle, node: str) -> Volumes | None:
        del node
        claims: _Claims | None = cycle.local.get(self.name)
        if claims is None or not cycle.shape.has_claims or not claims.delayed:
            return None
        storage = cycle.cluster.storage
        keys = [claim_key(claim) for claim in claims.delayed]
        bindings = tuple((name, key) for name, key in sorted(storage.assumed_volumes.items()) if key in keys)
        given = {key for _, key in bindings}
        return Volumes(bindings, tuple(key for key in keys if key not in given))

    def events(self) -> Sequence[Interest]:
        changes = Action.ADD | Action.UPDATE
        return (
            Interest(ClusterEvent(Kind.STORAGE_CLASS, changes), _after_class),
            Interest(ClusterEvent(Kind.CLAIM, changes), _after_claim),
            Interest(ClusterEvent(Kind.VOLUME, changes)),
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_LABEL)),
            Interest(ClusterEvent(Kind.CSI_NODE, changes), _after_csi_node),
            Interest(ClusterEvent(Kind.CSI_DRIVER, Action.UPDATE), _after_driver),
            Interest(ClusterEvent(Kind.CSI_CAPACITY, changes), _after_capacity),
        )

    @staticmethod
    def _unplaced(storage: Storage, claims: Sequence[Claim]) -> list[Claim]:
        return [claim for claim in claims if not storage.selected_node(claim)]

    def _delayed(self, storage: Storage, claims: Sequence[Claim], nodes: Nodes) -> Ints:
        elsewhere = np.zeros(len(nodes), np.bool_)
        provide: list[Claim] = []
        match: list[Claim] = []
        for claim in claims:
            selected = storage.selected_node(claim)
            if selected is None:
                match.append(claim)
                continue
            row = nodes.table.row_of.get(selected, -1)
            elsewhere |= nodes.mark([row] if row >= 0 else [], 1) == 0
            provide.append(claim)
        candidates = any(True for claim in match for _ in storage.volumes_of_class(claim_class(claim)))
        if not candidates:
            codes = self._provision(storage, [*provide, *match], nodes)
            return np.where(elsewhere, _BIND_CONFLICT, codes)
        codes = nodes.full(0)
        for position, row in enumerate(nodes.numbers.tolist()):
            one = Nodes(nodes.table, np.array([row], np.intp))
            chosen = self._match(storage, match, one) if match else {}
            left = [claim for claim in match if claim_key(claim) not in chosen]
            codes[position] = self._provision(storage, [*provide, *left], one)[0]
        return np.where(elsewhere, _BIND_CONFLICT, codes)

    @staticmethod
    def _provision(storage: Storage, claims: Sequence[Claim], nodes: Nodes) -> Ints:
        """Say where these claims can be provided; the first that cannot decides what is told."""
        codes = nodes.full(0)
        for claim in claims:
            found = storage.classes.get(claim_class(claim))
            if found is None or found.provisioner in {"", _NOT_SUPPORTED}:
                return np.where(codes == 0, _BIND_CONFLICT, codes)
            codes = np.where((codes == 0) & ~_allowed(found, nodes), _BIND_CONFLICT, codes)
            codes = np.where((codes == 0) & ~_enough(storage, claim, found, nodes), _NO_SPACE, codes)
        return codes

    @staticmethod
    def _match(storage: Storage, claims: Sequence[Claim], node: Nodes) -> dict[str, PersistentVolume]:
        """Choose volumes on one node for claims, the smallest claim first, each the smallest volume that does."""
        chosen: dict[str, PersistentVolume] = {}
        taken: set[str] = set()
        for claim in sorted(claims, key=storage_request):
            volume = _best(storage, claim, node, taken)
            if volume is not None:
                chosen[claim_key(claim)] = volume
                taken.add(volume.metadata.name)
        return chosen


def _quoted(name: str) -> str:
    return f'"{name}"'


def _problem(claim: Claim, owner: Pod | None) -> str | None:
    name = _quoted(claim.metadata.name)
    if claim.status.phase == "Lost":
        return f"persistentvolumeclaim {name} bound to non-existent persistentvolume {_quoted(claim.spec.volume_name)}"
    if claim.metadata.deletion_timestamp is not None:
        return f"persistentvolumeclaim {name} is being deleted"
    if owner is not None and not any(
        one.controller and one.uid == owner.metadata.uid for one in claim.metadata.owner_references
    ):
        key, pod = claim_key(claim), f"{owner.metadata.namespace}/{owner.metadata.name}"
        return f"PVC {key} was not created for pod {pod} (pod is not owner)"
    return None


def _reaches(volume: PersistentVolume, nodes: Nodes) -> Bools:
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None:
        return np.ones(len(nodes), np.bool_)
    return matching_selector(nodes, affinity.required)


def _allowed(found: StorageClass, nodes: Nodes) -> Bools:
    if not found.allowed_topologies:
        return np.ones(len(nodes), np.bool_)
    allowed = np.zeros(len(nodes), np.bool_)
    for term in found.allowed_topologies:
        allowed |= _matches_topology(term, nodes)
    return allowed


def _matches_topology(term: TopologySelectorTerm, nodes: Nodes) -> Bools:
    met = np.ones(len(nodes), np.bool_)
    for one in term.match_label_expressions:
        column = nodes.column(one.key)
        met &= column.taking("In", one.values)[column.ids[nodes.rows]]
    return met if term.match_label_expressions else ~met


def _limit(capacity: CSIStorageCapacity) -> int | None:
    found = capacity.capacity if capacity.maximum_volume_size is None else capacity.maximum_volume_size
    return None if found is None else amount("storage", found)


def _enough(storage: Storage, claim: Claim, found: StorageClass, nodes: Nodes) -> Bools:
    driver = storage.drivers.get(found.provisioner)
    if driver is None or not driver.spec.storage_capacity or "storage" not in claim.spec.resources.requests:
        return np.ones(len(nodes), np.bool_)
    wanted = storage_request(claim)
    enough = np.zeros(len(nodes), np.bool_)
    for capacity in storage.capacities.values():
        limit, topology = _limit(capacity), capacity.node_topology
        if capacity.storage_class_name != found.metadata.name or limit is None or limit < wanted or topology is None:
            continue
        selector = compile_selector(topology)
        if not selector.selectable:
            continue
        here = matching_labels(nodes, topology.match_labels)
        for one in topology.match_expressions:
            column = nodes.column(one.key)
            here &= column.taking(one.operator, one.values)[column.ids[nodes.rows]]
        enough |= here
    return enough


def _best(storage: Storage, claim: Claim, node: Nodes, taken: set[str]) -> PersistentVolume | None:
    wanted, selector = storage_request(claim), claim.spec.selector
    best: tuple[int, PersistentVolume] | None = None
    for volume in storage.volumes_of_class(claim_class(claim)):
        spec = volume.spec
        holder = storage.holder(volume)
        size = amount("storage", spec.capacity["storage"]) if "storage" in spec.capacity else 0
        if volume.metadata.name in taken or size < wanted or not _alike(claim, volume):
            continue
        reached = bool(_reaches(volume, node)[0])
        if holder is not None:
            if storage.holds(volume, claim):
                return volume if reached else None
            continue
        if volume.status.phase != "Available" or not reached:
            continue
        selected = selector is None or compile_selector(selector).matches(volume.metadata.labels)
        if selected and set(claim.spec.access_modes) <= set(spec.access_modes) and (best is None or size < best[0]):
            best = size, volume
    return best[1] if best else None


def _alike(claim: Claim, volume: PersistentVolume) -> bool:
    """Whether a volume is there to stay and of the claim's mode and attributes."""
    spec = volume.spec
    return (
        volume.metadata.deletion_timestamp is None
        and (claim.spec.volume_mode or "Filesystem") == (spec.volume_mode or "Filesystem")
        and (claim.spec.volume_attributes_class_name or "") == (spec.volume_attributes_class_name or "")
    )


def _after_class(pod: Pod, old: Any, new: Any) -> Hint:
    del pod
    return Hint.QUEUE if old is None or old.allowed_topologies != new.allowed_topologies else Hint.SKIP


def _after_claim(pod: Pod, old: Any, new: Any) -> Hint:
    del old
    meta = new.metadata
    wanted = meta.namespace == pod.metadata.namespace and any(name == meta.name for name, _ in claims_of(pod))
    return Hint.QUEUE if wanted else Hint.SKIP


def _after_csi_node(pod: Pod, old: Any, new: Any) -> Hint:
    del pod
    changed = old is None or old.metadata.annotations.get(_MIGRATED) != new.metadata.annotations.get(_MIGRATED)
    return Hint.QUEUE if changed else Hint.SKIP


def _after_driver(pod: Pod, old: Any, new: Any) -> Hint:
    uses = any(volume.csi.driver == new.metadata.name for volume in pod.spec.volumes)
    return Hint.QUEUE if uses and old.spec.storage_capacity and not new.spec.storage_capacity else Hint.SKIP


def _after_capacity(pod: Pod, old: Any, new: Any) -> Hint:
    del pod
    if old is None:
        return Hint.QUEUE
    before, now = _limit(old), _limit(new)
    return Hint.QUEUE if now is not None and (before is None or now > before) else Hint.SKIP
