"""VolumeRestrictions, VolumeZone and NodeVolumeLimits: volumes that are in use, elsewhere, or too many for the node."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Final

import numpy as np

from pilothouse.kinds.structs import CSINode, Pod, Volume
from pilothouse.scheduling.columns import Ints
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import SKIP, Cycle, Nodes, PreFiltered, Refusal, Reject, Scope
from pilothouse.scheduling.shapes import claims_of
from pilothouse.scheduling.storage import Claim, Storage, claim_class, claim_key

from .volumebinding import missing_claim

__all__ = ["NodeVolumeLimits", "VolumeRestrictions", "VolumeZone"]

_DISK: Final = 1
_IN_USE: Final = 2
_IN_USE_REASON: Final = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"
_STABLE: Final = {
    "failure-domain.beta.kubernetes.io/region": _REGION,
    "failure-domain.beta.kubernetes.io/zone": _ZONE,
}
_TOPOLOGY: Final = (*_STABLE, _ZONE, _REGION)
_ZONES_BETWEEN: Final = "__"


def _exclusive(volume: Volume) -> bool:
    return bool(
        volume.gce_persistent_disk.pd_name
        or volume.aws_elastic_block_store.volume_id
        or volume.iscsi.iqn
        or volume.rbd.image
    )


def _clash(one: Volume, other: Volume) -> bool:
    disk, its_disk = one.gce_persistent_disk, other.gce_persistent_disk
    if disk.pd_name and disk.pd_name == its_disk.pd_name and not (disk.read_only and its_disk.read_only):
        return True
    block = one.aws_elastic_block_store.volume_id
    if block and block == other.aws_elastic_block_store.volume_id:
        return True
    if one.iscsi.iqn and one.iscsi.iqn == other.iscsi.iqn:
        return not (one.iscsi.read_only and other.iscsi.read_only)
    rbd, its_rbd = one.rbd, other.rbd
    same = rbd.image and rbd.image == its_rbd.image and (rbd.pool or "rbd") == (its_rbd.pool or "rbd")
    return bool(same) and bool({*rbd.monitors} & {*its_rbd.monitors}) and not (rbd.read_only and its_rbd.read_only)


class VolumeRestrictions:
    """Filters by disks that only one node or pod may have."""

    name: ClassVar[str] = "VolumeRestrictions"
    scope: ClassVar[Scope] = Scope.CLUSTER

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        if not cycle.shape.has_volumes:
            return SKIP
        used, table = 0, cycle.table
        for volume in cycle.pod.spec.volumes:
            name = volume.persistent_volume_claim.claim_name
            if not name:
                continue
            claim = cycle.cluster.storage.claim(cycle.shape.namespace, name)
            if claim is None:
                return Reject(missing_claim(name))
            if "ReadWriteOncePod" in claim.spec.access_modes:
                used += (cycle.shape.namespace, name) in table.claim_users
        disks = [volume for volume in cycle.pod.spec.volumes if _exclusive(volume)]
        cycle.state[self.name] = (used, disks)
        return None if disks or used else SKIP

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        used, disks = cycle.state[self.name]
        codes = nodes.full(_IN_USE if used else 0)
        if disks:
            for position, row in enumerate(nodes.numbers.tolist()):
                for placed in nodes.table.pods[row].values():
                    if any(_clash(one, other) for one in disks for other in placed.pod.spec.volumes):
                        codes[position] = _DISK
        return codes

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle
        if code == _DISK:
            return Refusal(("node(s) had no available disk",))
        return Refusal((_IN_USE_REASON,))

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.POD, Action.DELETE), self._after_deletion),
            Interest(ClusterEvent(Kind.NODE, Action.ADD)),
            Interest(ClusterEvent(Kind.CLAIM, Action.ADD), _own_claim),
        )

    @staticmethod
    def _after_deletion(pod: Pod, old: Any, new: Any) -> Hint:
        del new
        if not old.spec.node_name and not old.status.nominated_node_name:
            return Hint.SKIP
        names = {name for name, ephemeral in claims_of(pod) if not ephemeral}
        shared = old.metadata.namespace == pod.metadata.namespace and any(
            name in names for name, ephemeral in claims_of(old) if not ephemeral
        )
        clash = any(_clash(one, other) for one in pod.spec.volumes for other in old.spec.volumes)
        return Hint.QUEUE if shared or clash else Hint.SKIP


class VolumeZone:
    """Filters out nodes outside the zone or region of a bound volume, as its labels tell it."""

    name: ClassVar[str] = "VolumeZone"
    scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def version(self, cycle: Cycle) -> object:
        """Storage changes without nodes."""
        return cycle.cluster.storage.version if cycle.shape.has_claims else None

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        if not cycle.shape.has_claims:
            return SKIP
        storage = cycle.cluster.storage
        found: list[tuple[str, tuple[str, ...]]] = []
        for volume in cycle.pod.spec.volumes:
            name = volume.persistent_volume_claim.claim_name
            claim = storage.claim(cycle.shape.namespace, name) if name else None
            if name and claim is None:
                return Reject(missing_claim(name))
            if claim is not None and not claim.spec.volume_name:
                problem = _unbound_problem(storage, claim)
                if problem:
                    return Reject(problem)
            elif claim is not None:
                bound = storage.volumes.get(claim.spec.volume_name)
                if bound is None:
                    return Reject(f'persistentvolume "{claim.spec.volume_name}" not found')
                labels = bound.metadata.labels
                found += [(key, tuple(labels[key].split(_ZONES_BETWEEN))) for key in _TOPOLOGY if key in labels]
        cycle.local[self.name] = found
        return None if found else SKIP

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        zoned = np.zeros(len(nodes), np.bool_)
        for key in _TOPOLOGY:
            zoned |= nodes.label(key) > 0
        outside = np.zeros(len(nodes), np.bool_)
        for key, zones in cycle.local[self.name]:
            met = np.zeros(len(nodes), np.bool_)
            has = np.zeros(len(nodes), np.bool_)
            for name in dict.fromkeys((key, _STABLE.get(key, key))):
                column = nodes.column(name)
                ids = column.ids[nodes.rows]
                met |= ~has & column.taking("In", zones)[ids]
                has |= ids > 0
            outside |= ~met
        return (zoned & outside).astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) had no available volume zone",), final=True)

    def events(self) -> Sequence[Interest]:
        changes = Action.ADD | Action.UPDATE
        return (
            Interest(ClusterEvent(Kind.STORAGE_CLASS, Action.ADD)),
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_LABEL)),
            Interest(ClusterEvent(Kind.CLAIM, changes), _own_claim),
            Interest(ClusterEvent(Kind.VOLUME, changes), self._after_volume),
        )

    @staticmethod
    def _after_volume(pod: Pod, old: Any, new: Any) -> Hint:
        del pod

        def zones(found: Any) -> dict[str, str]:
            labels = found.metadata.labels if found is not None else {}
            return {key: labels[key] for key in _TOPOLOGY if key in labels}

        return Hint.QUEUE if old is None or zones(old) != zones(new) else Hint.SKIP


class NodeVolumeLimits:
    """Filters out nodes whose CSI drivers can attach no more volumes."""

    name: ClassVar[str] = "NodeVolumeLimits"
    scope: ClassVar[Scope] = Scope.ROW
    nameless: ClassVar[bool] = True

    def version(self, cycle: Cycle) -> object:
        """Storage changes without nodes."""
        return cycle.cluster.storage.version if cycle.shape.has_claims else None

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        return None if cycle.shape.has_claims else SKIP

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        storage, pod = cycle.cluster.storage, cycle.pod
        new = dict(_csi_volumes(storage, pod))
        codes = nodes.full(0)
        if not new:
            return codes
        for position, row in enumerate(nodes.numbers.tolist()):
            found = storage.csi_nodes.get(nodes.table.name(row))
            limits = _limits(found) if found is not None else {}
            if limits:
                codes[position] = self._exceeds(nodes, row, new, limits, storage)
        return codes

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) exceed max volume count",))

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.CSI_NODE, Action.ADD | Action.UPDATE), self._after_csi_node),
            Interest(ClusterEvent(Kind.POD, Action.DELETE), self._after_deletion),
            Interest(ClusterEvent(Kind.CLAIM, Action.ADD), _own_claim),
            Interest(ClusterEvent(Kind.ATTACHMENT, Action.DELETE), self._after_attachment),
        )

    @staticmethod
    def _exceeds(nodes: Nodes, row: int, new: dict[str, str], limits: dict[str, int], storage: Storage) -> bool:
        attached: dict[str, str] = {}
        for placed in nodes.table.pods[row].values():
            attached.update(_csi_volumes(storage, placed.pod))
        name = nodes.table.name(row)
        attachments = (one for one in storage.attachments.values() if one.spec.node_name == name)
        for one in attachments:
            volume = storage.volumes.get(one.spec.source.persistent_volume_name or "")
            if one.spec.attacher and volume is not None and volume.spec.csi.driver:
                attached[f"{one.spec.attacher}/{volume.spec.csi.volume_handle}"] = one.spec.attacher
        more = [driver for volume, driver in new.items() if volume not in attached]
        there = [*attached.values()]
        return any(there.count(driver) + more.count(driver) > limits.get(driver, 1 << 62) for driver in set(more))

    @staticmethod
    def _after_csi_node(pod: Pod, old: Any, new: Any) -> Hint:
        del pod
        before = _limits(old) if old is not None else {}
        more = old is None or any(value > before.get(name, 0) for name, value in _limits(new).items())
        return Hint.QUEUE if more else Hint.SKIP

    @staticmethod
    def _after_deletion(pod: Pod, old: Any, new: Any) -> Hint:
        del pod, new
        placed = old.spec.node_name or old.status.nominated_node_name
        return Hint.QUEUE if placed and any(True for _ in claims_of(old)) else Hint.SKIP

    @staticmethod
    def _after_attachment(pod: Pod, old: Any, new: Any) -> Hint:
        del old, new
        return Hint.QUEUE if any(not ephemeral for _, ephemeral in claims_of(pod)) else Hint.SKIP


def _limits(found: CSINode) -> dict[str, int]:
    return {
        one.name: one.allocatable.count
        for one in found.spec.drivers
        if one.allocatable is not None and one.allocatable.count is not None
    }


def _csi_volumes(storage: Storage, pod: Pod) -> Iterator[tuple[str, str]]:
    """Give the volumes of a pod that a CSI driver attaches: a name of its own each, and the driver."""
    for name, _ in claims_of(pod):
        claim = storage.claim(pod.metadata.namespace, name)
        if claim is None:
            continue
        volume = storage.volumes.get(claim.spec.volume_name) if claim.spec.volume_name else None
        if volume is not None:
            if volume.spec.csi.driver:
                yield f"{volume.spec.csi.driver}/{volume.spec.csi.volume_handle}", volume.spec.csi.driver
            continue
        found = storage.classes.get(claim_class(claim))
        if found is not None and found.provisioner:
            yield f"{found.provisioner}/unbound {claim_key(claim)}", found.provisioner


def _unbound_problem(storage: Storage, claim: Claim) -> str | None:
    wanted = claim_class(claim)
    if not wanted:
        return "PersistentVolumeClaim had no pv name and storageClass name"
    found = storage.classes.get(wanted)
    if found is None:
        return f'storageclass.storage.k8s.io "{wanted}" not found'
    if found.volume_binding_mode is None:
        return f'VolumeBindingMode not set for StorageClass "{wanted}"'
    return None if found.volume_binding_mode == "WaitForFirstConsumer" else "PersistentVolume had no name"


def _own_claim(pod: Pod, old: Any, new: Any) -> Hint:
    del old
    meta = new.metadata
    own = meta.namespace == pod.metadata.namespace and any(name == meta.name for name, _ in claims_of(pod))
    return Hint.QUEUE if own else Hint.SKIP
