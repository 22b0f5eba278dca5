"""TaintToleration and NodeUnschedulable: does the pod tolerate what the node is marked with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Final

import numpy as np

from pilothouse.kinds.structs import Pod, Toleration
from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import Cycle, Nodes, Refusal, Scope, spread_to_hundred
from pilothouse.scheduling.rows import NodeTaint

__all__ = ["NodeUnschedulable", "TaintToleration", "tolerated_sets", "tolerates"]

_PREFER: Final = "PreferNoSchedule"
_CORDONED: Final = NodeTaint("node.kubernetes.io/unschedulable", "", "NoSchedule")


def tolerates(tolerations: Iterable[Toleration], taint: NodeTaint) -> bool:
    """Say whether one of the tolerations is for a taint."""
    return any(
        (not one.effect or one.effect == taint.effect)
        and (not one.key or one.key == taint.key)
        and (one.operator == "Exists" or (one.operator in {None, "Equal"} and one.value == taint.value))
        for one in tolerations
    )


def untolerated(tolerations: Sequence[Toleration], taints: Iterable[NodeTaint]) -> int:
    """Count taints that keep a pod away."""
    return sum(one.effect != _PREFER and not tolerates(tolerations, one) for one in taints)


def _disliked(tolerations: Sequence[Toleration], taints: Iterable[NodeTaint]) -> int:
    soft = [one for one in tolerations if not one.effect or one.effect == _PREFER]
    return sum(one.effect == _PREFER and not tolerates(soft, one) for one in taints)


def _by_set(cycle: Cycle, key: str, count: Callable[[Sequence[Toleration], Iterable[NodeTaint]], int]) -> Ints:
    """Give a count for each set of taints that nodes have."""
    sets = cycle.table.taint_sets
    known: tuple[object, Ints] | None = cycle.local.get(key)
    if known is None or known[0] is not sets or len(known[1]) < len(sets):
        tolerations = cycle.shape.pod.spec.tolerations
        known = cycle.local[key] = (sets, np.array([count(tolerations, taints) for taints in sets], np.int64))
    return known[1]


def tolerated_sets(cycle: Cycle) -> Bools:
    """Say of each set of taints whether the pod may run in spite of it."""
    tolerated: Bools = _by_set(cycle, "TaintToleration/hard", untolerated) == 0
    return tolerated


class TaintToleration:
    """Filters by taints that forbid, scores by those that advise against."""

    name: ClassVar[str] = "TaintToleration"
    scope: ClassVar[Scope] = Scope.NODE
    score_scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        hard = _by_set(cycle, "TaintToleration/hard", untolerated)
        return (hard[nodes.table.taints[nodes.rows]] > 0).astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) had untolerated taint(s)",), final=True)

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        return _by_set(cycle, "TaintToleration/soft", _disliked)[nodes.table.taints[nodes.rows]]

    def normalize(self, cycle: Cycle, scores: Ints, feasible: Bools) -> Ints:
        del cycle
        return spread_to_hundred(scores, feasible, reverse=True)

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_TAINT), _taints_gone),
            Interest(ClusterEvent(Kind.POD, Action.UPDATE_POD_TOLERATION), _own),
        )


class NodeUnschedulable:
    """Filters out cordoned nodes, unless the pod tolerates that."""

    name: ClassVar[str] = "NodeUnschedulable"
    scope: ClassVar[Scope] = Scope.NODE
    nameless: ClassVar[bool] = True

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        if tolerates(cycle.shape.pod.spec.tolerations, _CORDONED):
            return nodes.full(0)
        return nodes.unschedulable.astype(np.int64)

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle, code
        return Refusal(("node(s) were unschedulable",), final=True)

    def events(self) -> Sequence[Interest]:
        return (
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_TAINT), _uncordoned),
            Interest(ClusterEvent(Kind.POD, Action.UPDATE_POD_TOLERATION), _own_for_cordoned),
        )


def _taints_gone(pod: Pod, old: Any, new: Any) -> Hint:
    def kept_away(node: Any) -> bool:
        taints = [NodeTaint(one.key, one.value, one.effect or "") for one in node.spec.taints]
        return untolerated(pod.spec.tolerations, taints) > 0

    return Hint.QUEUE if (old is None or kept_away(old)) and not kept_away(new) else Hint.SKIP


def _own(pod: Pod, old: Any, new: Any) -> Hint:
    del old
    return Hint.QUEUE if new.metadata.uid == pod.metadata.uid else Hint.SKIP


def _own_for_cordoned(pod: Pod, old: Any, new: Any) -> Hint:
    own = _own(pod, old, new) is Hint.QUEUE and tolerates(new.spec.tolerations, _CORDONED)
    return Hint.QUEUE if own else Hint.SKIP


def _uncordoned(pod: Pod, old: Any, new: Any) -> Hint:
    del pod
    open_now = not new.spec.unschedulable
    return Hint.QUEUE if open_now and (old is None or old.spec.unschedulable) else Hint.SKIP
