"""The nodes as a table of columns, and the pods on them: what filters and scores work on.

Rows are numbered; a node that goes frees its row for the next. Arrays double when they are full. Each change is one
row's: nothing is rebuilt from all nodes or all pods. `changes` tells those who keep results which rows to redo.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np

from pilothouse.kinds.structs import Node, Pod

from .columns import NAME_FIELD, Bools, Column, Columns, Ids, Ints
from .counters import Counters
from .requests import CPU, EPHEMERAL, MEMORY, PODS, allocatable_of
from .rows import ChangeLog, NodeTaint, Placed
from .shapes import HostPort, PodShape, claims_of, image_name

__all__ = ["NodeTable"]

_FIRST: Final = 64
_FIXED: Final = (CPU, MEMORY, EPHEMERAL, PODS)
_PODS_COLUMN: Final = 3
_SPARE_SETS: Final = 4
_MANY_SETS: Final = 1024
"""Sets of taints that are known: so many for each row, and so many more."""


class _Sums(NamedTuple):
    """What one pod adds to a row."""

    requests: Ints
    scored: Ints


class NodeTable:
    """All nodes and the pods on them.

    Arrays have `capacity` rows of which the first `size` were ever used; `valid` says which are nodes. `allocatable`
    and `requested` have a column for each resource (`resources`), `scored` has CPU and memory as they count in scores.
    """

    def __init__(self, namespace_labels: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.capacity = _FIRST
        self.size = 0
        self.epoch = 0
        """Changes when arrays were exchanged for larger ones."""
        self.layout = 0
        """Changes when nodes come and go or change their labels or taints."""
        self.resources: Final[dict[str, int]] = {name: column for column, name in enumerate(_FIXED)}
        self.allocatable: Ints = np.zeros((_FIRST, len(_FIXED)), np.int64)
        self.requested: Ints = np.zeros((_FIRST, len(_FIXED)), np.int64)
        self.scored: Ints = np.zeros((_FIRST, 2), np.int64)
        self.valid: Bools = np.zeros(_FIRST, np.bool_)
        self.unschedulable: Bools = np.zeros(_FIRST, np.bool_)
        self.taints: Ids = np.zeros(_FIRST, np.int32)
        """The number of the row's set of taints in `taint_sets`; 0 is the empty one."""
        self.taint_sets: dict[tuple[NodeTaint, ...], int] = {(): 0}
        self.versions: Final = [0] * _FIRST
        """Changes with each change of a row."""
        self.nodes: Final[list[Node | None]] = [None] * _FIRST
        self.row_of: Final[dict[str, int]] = {}
        self.pods: Final[list[dict[str, Placed]]] = [{} for _ in range(_FIRST)]
        self.placed: Final[dict[str, Placed]] = {}
        self.nominated: Final[dict[int, dict[str, PodShape]]] = {}
        """Pods that wait for room made on a row, by uid."""
        self.ports: Final[dict[tuple[str, int], dict[int, list[str]]]] = {}
        """Rows on which a port is taken, with the addresses, by protocol and port."""
        self.claim_users: Final[dict[tuple[str, str], int]] = {}
        self.images: Final[dict[str, dict[int, int]]] = {}
        """Rows that have an image, with its size in bytes."""
        self.images_version = 0
        self.changes: Final = ChangeLog()
        self._namespaces: Mapping[str, Mapping[str, str]] = {} if namespace_labels is None else namespace_labels
        self._free: list[int] = []
        self._orphans: dict[str, dict[str, Placed]] = {}
        self.columns: Final = Columns(_FIRST, self._labels_of)
        self.counters: Final = Counters(
            _FIRST, self.column, lambda: (one for one in self.placed.values() if one.row >= 0), self._namespace
        )

    def __len__(self) -> int:
        return len(self.row_of)

    def column(self, key: str) -> Column:
        """Give the column of a label; of the nodes' names under `NAME_FIELD`."""
        return self.columns.of(key, self.size)

    def name(self, row: int) -> str:
        """Give the name of a row's node."""
        node = self.nodes[row]
        return node.metadata.name if node is not None else ""

    def resource(self, name: str) -> int:
        """Give the column of a resource, a new one where it was not seen before."""
        found = self.resources.get(name)
        if found is None:
            found = self.resources[name] = len(self.resources)
            if found >= self.allocatable.shape[1]:
                wider = np.zeros((self.capacity, found), np.int64)
                self.allocatable = np.concatenate([self.allocatable, wider], axis=1)
                self.requested = np.concatenate([self.requested, wider], axis=1)
                self.epoch += 1
        return found

    def upsert_node(self, node: Node) -> int:
        """Add a node or take over what changed of it; give its row."""
        name = node.metadata.name
        row = self.row_of.get(name)
        if row is not None and _same(self.nodes[row], node):
            self.nodes[row] = node
            return row
        if row is None:
            row = self._new_row()
            self.row_of[name] = row
            self.valid[row] = True
        old = self.nodes[row]
        self.nodes[row] = node
        # Columns first: a resource not seen before may exchange the array.
        has = {self.resource(resource): value for resource, value in allocatable_of(node).items()}
        self.allocatable[row] = 0
        for column, value in has.items():
            self.allocatable[row, column] = value
        self.unschedulable[row] = bool(node.spec.unschedulable)
        taints = self._taint_set(tuple(NodeTaint(one.key, one.value, one.effect or "") for one in node.spec.taints))
        if old is None or self.taints[row] != taints:
            self.taints[row] = taints
            self.layout += 1
        if old is None or old.metadata.labels != node.metadata.labels:
            self._relabel(row, {**node.metadata.labels, NAME_FIELD: name})
            self.layout += 1
        if old is None or old.status.images != node.status.images:
            self._set_images(row, node)
        self._changed(row, node=True)
        for placed in self._orphans.pop(name, {}).values():
            placed.row = row
            self._account(placed, 1)
        return row

    def remove_node(self, name: str) -> None:
        """Take a node out. Pods that are still on it count again when it returns."""
        row = self.row_of.pop(name, None)
        if row is None:
            return
        left = self.pods[row]
        for placed in [*left.values()]:
            self._account(placed, -1)
            placed.row = -1
            self._orphans.setdefault(name, {})[placed.uid] = placed
        self._relabel(row, {})
        self._set_images(row, None)
        self.nodes[row] = None
        self.valid[row] = False
        self.allocatable[row] = 0
        self.taints[row] = 0
        self.unschedulable[row] = False
        self.nominated.pop(row, None)
        self._free.append(row)
        self.layout += 1
        self._changed(row, node=True)

    def place(self, pod: Pod, shape: PodShape, node: str, *, assumed: bool = False) -> Placed:
        """Put a pod on a node, which need not be known yet. One that is there already is exchanged."""
        uid = pod.metadata.uid
        old = self.placed.get(uid)
        terminating = pod.metadata.deletion_timestamp is not None
        if old is not None:
            if old.shape is shape and old.node == node and old.terminating == terminating:
                old.pod, old.assumed = pod, assumed
                return old
            self.displace(uid)
        placed = Placed(uid, pod, shape, node, self.row_of.get(node, -1), terminating, assumed)
        self.placed[uid] = placed
        if placed.row < 0:
            self._orphans.setdefault(node, {})[uid] = placed
        else:
            self._account(placed, 1)
            self._changed(placed.row, node=False)
        return placed

    def displace(self, uid: str) -> Placed | None:
        """Take a pod off its node; give what was there."""
        placed = self.placed.pop(uid, None)
        if placed is None:
            return None
        if placed.row < 0:
            waiting = self._orphans.get(placed.node, {})
            waiting.pop(uid, None)
            if not waiting:
                self._orphans.pop(placed.node, None)
        else:
            self._account(placed, -1)
            self._changed(placed.row, node=False)
        return placed

    def nominate(self, uid: str, shape: PodShape, node: str) -> None:
        """Keep room on a node in mind for a pod."""
        row = self.row_of.get(node)
        if row is not None:
            self.nominated.setdefault(row, {})[uid] = shape
            self._changed(row, node=False)

    def withdraw(self, uid: str, node: str) -> None:
        """Forget a nomination."""
        row = self.row_of.get(node)
        waiting = self.nominated.get(row, {}) if row is not None else {}
        if row is not None and waiting.pop(uid, None) is not None:
            self._changed(row, node=False)
            if not waiting:
                del self.nominated[row]

    @contextmanager
    def supposing(self, added: list[Placed], removed: list[Placed]) -> Iterator[None]:
        """Have the table be as if pods had come and gone, for a while. Nobody is told of a change."""
        for placed in removed:
            self._account(placed, -1)
        for placed in added:
            self._account(placed, 1)
        try:
            yield
        finally:
            for placed in added:
                self._account(placed, -1)
            for placed in removed:
                self._account(placed, 1)

    def uses(self, shape: PodShape) -> list[int]:
        """Give what a pod of a shape uses, by the columns of `requested`; what is beyond the last is none."""
        found: list[int] = self._sums(shape).requests.tolist()
        return found

    def namespaces_changed(self) -> None:
        """Count anew what depends on the labels of namespaces."""
        self.counters.namespaces_changed()

    def _changed(self, row: int, *, node: bool) -> None:
        self.versions[row] += 1
        self.changes.note(row, node)

    def _namespace(self, name: str) -> Mapping[str, str]:
        return self._namespaces.get(name, {})

    def _labels_of(self, row: int) -> Mapping[str, str] | None:
        node = self.nodes[row]
        return None if node is None else {**node.metadata.labels, NAME_FIELD: node.metadata.name}

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if self.size == self.capacity:
            self._grow()
        self.size += 1
        return self.size - 1

    def _grow(self) -> None:
        more = self.capacity
        for name in ("allocatable", "requested", "scored", "valid", "unschedulable", "taints"):
            array = getattr(self, name)
            added = np.zeros((more, *array.shape[1:]), array.dtype)
            setattr(self, name, np.concatenate([array, added]))
        self.nodes.extend([None] * more)
        self.versions.extend([0] * more)
        self.pods.extend({} for _ in range(more))
        self.capacity += more
        self.columns.grow(self.capacity)
        self.counters.grow(self.capacity)
        self.epoch += 1

    def _taint_set(self, taints: tuple[NodeTaint, ...]) -> int:
        known = self.taint_sets.get(taints)
        if known is None:
            if len(self.taint_sets) > _SPARE_SETS * self.size + _MANY_SETS:
                self._forget_taint_sets()
            known = self.taint_sets[taints] = len(self.taint_sets)
        return known

    def _forget_taint_sets(self) -> None:
        """Give new numbers to the sets of taints that nodes have, and forget the others."""
        used = {*np.unique(self.taints[: self.size]).tolist(), 0}
        kept = [taints for taints, number in self.taint_sets.items() if number in used]
        numbers = np.zeros(len(self.taint_sets), np.int32)
        for new, taints in enumerate(kept):
            numbers[self.taint_sets[taints]] = new
        self.taints = numbers[self.taints]
        self.taint_sets = {taints: number for number, taints in enumerate(kept)}
        self.layout += 1

    def _relabel(self, row: int, labels: Mapping[str, str]) -> None:
        for key in self.columns.tidy(self.size):
            self.counters.forget_key(key)
        for key, old, new in self.columns.fill(row, labels):
            self.counters.relabel(row, key, old, new)

    def _set_images(self, row: int, node: Node | None) -> None:
        before = {name for name, rows in self.images.items() if row in rows} if self.images else set()
        now = {
            image_name(name): image.size_bytes for image in (node.status.images if node else ()) for name in image.names
        }
        if not before and not now:
            return
        for name in before - now.keys():
            del self.images[name][row]
            if not self.images[name]:
                del self.images[name]
        for name, size in now.items():
            self.images.setdefault(name, {})[row] = size
        self.images_version += 1

    def _account(self, placed: Placed, sign: int) -> None:
        row, shape = placed.row, placed.shape
        sums = self._sums(shape)
        width = len(sums.requests)
        if sign > 0:
            self.requested[row, :width] += sums.requests
            self.scored[row] += sums.scored
            self.pods[row][placed.uid] = placed
        else:
            self.requested[row, :width] -= sums.requests
            self.scored[row] -= sums.scored
            self.pods[row].pop(placed.uid, None)
        self.counters.place(placed, sign)
        for port in shape.ports:
            self._take_port(row, port, sign)
        if shape.has_claims:
            for claim, _ in claims_of(placed.pod):
                key = (shape.namespace, claim)
                self.claim_users[key] = self.claim_users.get(key, 0) + sign
                if not self.claim_users[key]:
                    del self.claim_users[key]

    def _take_port(self, row: int, port: HostPort, sign: int) -> None:
        key = (port.protocol, port.port)
        taken = self.ports.setdefault(key, {}).setdefault(row, [])
        if sign > 0:
            taken.append(port.ip)
            return
        taken.remove(port.ip)
        if not taken:
            del self.ports[key][row]
        if not self.ports[key]:
            del self.ports[key]

    def _sums(self, shape: PodShape) -> _Sums:
        found: _Sums | None = shape.memo.get(self)
        if found is None:
            # Columns first: a resource not seen before makes the row wider.
            amounts = {self.resource(name): value for name, value in shape.requests.items()}
            amounts[_PODS_COLUMN] = 1
            requests = np.zeros(max(amounts) + 1, np.int64)
            for column, value in amounts.items():
                requests[column] = value
            scored = np.array([shape.demand.scored_cpu, shape.demand.scored_memory], np.int64)
            found = shape.memo[self] = _Sums(requests, scored)
        return found


def _same(old: Node | None, new: Node) -> bool:
    """Whether an update, as each heartbeat is one, changes nothing that the table has."""
    return (
        old is not None
        and old.metadata.labels == new.metadata.labels
        and old.spec.taints == new.spec.taints
        and old.spec.unschedulable == new.spec.unschedulable
        and old.status.allocatable == new.status.allocatable
        and old.status.images == new.status.images
    )
