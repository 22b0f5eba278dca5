"""NodeAffinity: the pod's node selector and node affinity, and what the profile adds to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np

from pilothouse.kinds.structs import Node, Pod
from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.config_args import NodeAffinityArgs
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import (
    SKIP,
    Cycle,
    Narrow,
    Nodes,
    PreFiltered,
    Refusal,
    Reject,
    Scope,
    Skip,
    spread_to_hundred,
)
from pilothouse.scheduling.nodeselectors import matching_selector, preference, required_by
from pilothouse.scheduling.shapes import PodShape, shape_of
from pilothouse.scheduling.table import NodeTable

__all__ = ["NodeAffinity"]

_ENFORCED: Final = 1
_OWN: Final = 2


class NodeAffinity:
    """Filters by required terms and scores by preferred ones."""

    name: ClassVar[str] = "NodeAffinity"
    scope: ClassVar[Scope] = Scope.NODE
    score_scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def __init__(self, args: NodeAffinityArgs) -> None:
        added = args.added_affinity
        self._added = added.required_during_scheduling_ignored_during_execution if added else None
        self._added_preferred = added.preferred_during_scheduling_ignored_during_execution if added else ()

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        spec = cycle.shape.pod.spec
        affinity = spec.affinity and spec.affinity.node_affinity
        required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
        if required is None:
            return SKIP if self._added is None and not spec.node_selector else None
        names: set[str] = set()
        for term in required.node_selector_terms:
            fields = [
                set(one.values) for one in term.match_fields if one.key == "metadata.name" and one.operator == "In"
            ]
            if not fields:
                return None
            names |= set.intersection(*fields)
        if not names and required.node_selector_terms:
            return Reject("pod affinity terms conflict")
        return Narrow(frozenset(names)) if names else None

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        codes = np.where(required_by(cycle.shape, nodes), 0, _OWN)
        if self._added is not None:
            codes = np.where(matching_selector(nodes, self._added), codes, _ENFORCED)
        return codes.astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle
        enforced = code == _ENFORCED
        what = "scheduler-enforced node affinity" if enforced else "Pod's node affinity/selector"
        return Refusal((f"node(s) didn't match {what}",), final=True)

    def pre_score(self, cycle: Cycle, feasible: Bools) -> Skip | None:
        del feasible
        return None if self._preferred(cycle.shape) or self._added_preferred else SKIP

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        return preference(nodes, [*self._added_preferred, *self._preferred(cycle.shape)])

    def normalize(self, cycle: Cycle, scores: Ints, feasible: Bools) -> Ints:
        del cycle
        return spread_to_hundred(scores, feasible)

    def events(self) -> Sequence[Interest]:
        return (Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_LABEL), self._after_node),)

    @staticmethod
    def _preferred(shape: PodShape) -> Sequence[Any]:
        affinity = shape.pod.spec.affinity and shape.pod.spec.affinity.node_affinity
        return affinity.preferred_during_scheduling_ignored_during_execution if affinity else ()

    def _after_node(self, pod: Pod, old: Any, new: Any) -> Hint:
        if not self._takes(pod, new):
            return Hint.SKIP
        return Hint.SKIP if old is not None and self._takes(pod, old) else Hint.QUEUE

    def _takes(self, pod: Pod, node: Node) -> bool:
        table = NodeTable()
        row = table.upsert_node(node)
        nodes = Nodes(table, slice(row, row + 1))
        met = required_by(shape_of(pod), nodes)
        return bool(met[0]) and (self._added is None or bool(matching_selector(nodes, self._added)[0]))
