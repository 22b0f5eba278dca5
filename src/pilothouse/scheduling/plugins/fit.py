"""NodeResourcesFit: has the node what the pod asks for; and how full would it be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from pilothouse.kinds.structs import Node, Pod
from pilothouse.scheduling.columns import Ints
from pilothouse.scheduling.config_args import FitArgs
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import MAX_NODE_SCORE, Cycle, Nodes, Refusal, Scope
from pilothouse.scheduling.requests import (
    CPU,
    EPHEMERAL,
    MEMORY,
    PODS,
    allocatable_of,
    is_extended,
    is_scalar,
)
from pilothouse.scheduling.shapes import shape_of

__all__ = ["NodeResourcesFit", "ScoredResource", "resource_usage", "scored_resources"]

_TOO_MANY: Final = 1
_MOST_RESOURCES: Final = 30
"""Resources of one pod that are told apart in codes."""
_MAX_UTILIZATION: Final = 100
_SCORE_STEP: Final = 10
"""Scores of a shape are out of ten."""


class ScoredResource(NamedTuple):
    """A resource that counts in scores: its columns, the weight, and what the pod adds."""

    column: int
    weight: int
    adds: int
    scored_column: int = -1
    """The column in `table.scored`, where containers without a request count too."""


def scored_resources(
    cycle: Cycle, resources: Sequence[tuple[str, int]], *, defaults: bool
) -> tuple[ScoredResource, ...]:
    """Give the resources that scores look at; those of devices only if the pod wants some."""
    shape, table = cycle.shape, cycle.table
    found = []
    for name, weight in resources:
        adds = shape.demand.requests.get(name, 0)
        if is_scalar(name) and not adds:
            continue
        scored = -1
        if defaults and name == CPU:
            scored, adds = 0, shape.demand.scored_cpu
        elif defaults and name == MEMORY:
            scored, adds = 1, shape.demand.scored_memory
        found.append(ScoredResource(table.resource(name), weight, adds, scored))
    return tuple(found)


def resource_usage(nodes: Nodes, one: ScoredResource) -> tuple[Ints, Ints]:
    """Give what the nodes have of a resource and what is in use without the pod."""
    table, rows = nodes.table, nodes.rows
    used = table.requested[rows, one.column] if one.scored_column < 0 else table.scored[rows, one.scored_column]
    return table.allocatable[rows, one.column], used


class NodeResourcesFit:
    """Filters by free resources and scores by how full nodes would be: least, most, or along a shape."""

    name: ClassVar[str] = "NodeResourcesFit"
    scope: ClassVar[Scope] = Scope.ROW
    score_scope: ClassVar[Scope] = Scope.ROW
    nameless: ClassVar[bool] = True

    def __init__(self, args: FitArgs) -> None:
        self._ignored = frozenset(args.ignored_resources)
        self._ignored_groups = frozenset(args.ignored_resource_groups)
        self._resources = args.resources
        self._strategy: Final = args.strategy
        self._shape = tuple((point, score * _SCORE_STEP) for point, score in args.shape)
        rate: dict[str, Callable[[Ints, Ints], Ints]] = {
            "LeastAllocated": self._least,
            "MostAllocated": self._most,
            "RequestedToCapacityRatio": self._along_shape,
        }
        self._rate = rate[args.strategy]

    def wanted(self, cycle: Cycle) -> tuple[tuple[str, int, int], ...]:
        """Give what is checked: name, column and amount."""
        found: tuple[tuple[str, int, int], ...] | None = cycle.local.get(self.name)
        if found is None:
            found = tuple(
                (name, cycle.table.resource(name), value)
                for name, value in sorted(cycle.shape.requests.items(), key=_usual_order)
                if value and not self._is_ignored(name)
            )[:_MOST_RESOURCES]
            cycle.local[self.name] = found
        return found

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        wanted = self.wanted(cycle)
        table, rows = nodes.table, nodes.rows
        pods = table.resources[PODS]
        codes = (table.requested[rows, pods] + 1 > table.allocatable[rows, pods]).astype(np.int64)
        for position, (_, column, value) in enumerate(wanted):
            has = table.allocatable[rows, column]
            codes |= (value > has - table.requested[rows, column]).astype(np.int64) << (1 + 2 * position)
            codes |= (value > has).astype(np.int64) << (2 + 2 * position)
        return codes

    def filter_row(self, cycle: Cycle, row: int) -> int:
        table = cycle.table
        has, used = table.allocatable[row].tolist(), table.requested[row].tolist()
        pods = table.resources[PODS]
        code = _TOO_MANY if used[pods] + 1 > has[pods] else 0
        for position, (_, column, value) in enumerate(self.wanted(cycle)):
            if value > has[column] - used[column]:
                code |= 1 << (1 + 2 * position)
                if value > has[column]:
                    code |= 1 << (2 + 2 * position)
        return code

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        reasons = ["Too many pods"] if code & _TOO_MANY else []
        final = False
        for position, (name, _, _) in enumerate(self.wanted(cycle)):
            if code >> (1 + 2 * position) & 1:
                reasons.append(f"Insufficient {name}")
                final = final or bool(code >> (2 + 2 * position) & 1)
        return Refusal(tuple(reasons), final)

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        total, weights = nodes.full(0), nodes.full(0)
        for one in self._scored(cycle):
            has, used = resource_usage(nodes, one)
            there = has != 0
            score = self._rate(used + one.adds, np.where(there, has, 1))
            if self._strategy == "RequestedToCapacityRatio":
                there &= score > 0
            total += np.where(there, score * one.weight, 0)
            weights += np.where(there, one.weight, 0)
        if self._strategy == "RequestedToCapacityRatio":
            return np.where(weights > 0, np.floor(total / np.maximum(weights, 1) + 0.5).astype(np.int64), 0)
        return total // np.maximum(weights, 1)

    def score_row(self, cycle: Cycle, row: int) -> int:
        if self._strategy != "LeastAllocated":
            rows = np.array([row], np.intp)
            return int(self.score(cycle, Nodes(cycle.table, rows))[0])
        table = cycle.table
        total = weights = 0
        for column, weight, adds, scored in self._scored(cycle):
            has = table.allocatable.item(row, column)
            if has:
                used = adds + (table.requested.item(row, column) if scored < 0 else table.scored.item(row, scored))
                total += (has - used) * MAX_NODE_SCORE // has * weight if used <= has else 0
                weights += weight
        return total // weights if weights else 0

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.POD, Action.DELETE | Action.UPDATE_POD_SCALE_DOWN), self._after_pod),
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_ALLOCATABLE), self._after_node),
        )

    def _is_ignored(self, name: str) -> bool:
        return is_extended(name) and (name in self._ignored or name.split("/", maxsplit=1)[0] in self._ignored_groups)

    def _scored(self, cycle: Cycle) -> tuple[ScoredResource, ...]:
        key = f"{self.name}/score"
        found: tuple[ScoredResource, ...] | None = cycle.local.get(key)
        if found is None:
            found = cycle.local[key] = scored_resources(cycle, self._resources, defaults=True)
        return found

    @staticmethod
    def _least(used: Ints, has: Ints) -> Ints:
        return np.where(used > has, 0, (has - used) * MAX_NODE_SCORE // has)

    @staticmethod
    def _most(used: Ints, has: Ints) -> Ints:
        return np.minimum(used, has) * MAX_NODE_SCORE // has

    def _along_shape(self, used: Ints, has: Ints) -> Ints:
        part = np.where(used > has, _MAX_UTILIZATION, used * _MAX_UTILIZATION // has)
        score = np.full_like(part, self._shape[-1][1])
        for (low, from_score), (high, to_score) in reversed([*_pairs(self._shape)]):
            rise = (to_score - from_score) * (part - low)
            inner = from_score + np.sign(rise) * (np.abs(rise) // (high - low))
            score = np.where(part <= high, inner, score)
        return np.where(part <= self._shape[0][0], self._shape[0][1], score)

    @staticmethod
    def _after_pod(pod: Pod, old: Any, new: Any) -> Hint:
        if new is None:
            placed = bool(old.spec.node_name or old.status.nominated_node_name)
            return Hint.QUEUE if placed else Hint.SKIP
        if new.metadata.uid == pod.metadata.uid:
            return Hint.QUEUE
        if not new.spec.node_name:
            return Hint.SKIP
        before, now = shape_of(old).demand.requests, shape_of(new).demand.requests
        wanted = shape_of(pod).demand.requests
        fewer = any(value and before.get(name, 0) > now.get(name, 0) for name, value in wanted.items())
        return Hint.QUEUE if fewer else Hint.SKIP

    def _after_node(self, pod: Pod, old: Any, new: Any) -> Hint:
        wanted, has = shape_of(pod).requests, allocatable_of(new)
        if has.get(PODS, 0) < 1 or any(value > has.get(name, 0) for name, value in wanted.items()):
            return Hint.SKIP
        if old is None:
            return Hint.QUEUE
        had = allocatable_of(_as_node(old))
        more = has.get(PODS, 0) > had.get(PODS, 0)
        more = more or any(value and has.get(name, 0) > had.get(name, 0) for name, value in wanted.items())
        return Hint.QUEUE if more else Hint.SKIP


def _as_node(found: Any) -> Node:
    node: Node = found
    return node


def _usual_order(item: tuple[str, int]) -> tuple[int, str]:
    order = {CPU: 0, MEMORY: 1, EPHEMERAL: 2}
    return order.get(item[0], 3), item[0]


def _pairs(shape: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    return itertools.pairwise(shape)
