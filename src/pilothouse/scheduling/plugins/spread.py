"""PodTopologySpread: pods of one kind evenly over zones, nodes or whatever label parts the nodes into domains."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from pilothouse.kinds.labels import Selector
from pilothouse.kinds.structs import Pod, TopologySpreadConstraint
from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.config_args import SpreadArgs
from pilothouse.scheduling.counters import Count
from pilothouse.scheduling.events import Action, ClusterEvent, Hint, Interest, Kind
from pilothouse.scheduling.framework import (
    MAX_NODE_SCORE,
    SKIP,
    Cycle,
    Nodes,
    PreFiltered,
    Refusal,
    Scope,
    Skip,
    extremes,
)
from pilothouse.scheduling.nodeselectors import required_by
from pilothouse.scheduling.podterms import NOTHING_SELECTED, PodPredicate, compile_selector, with_label_keys

from .taints import tolerated_sets

__all__ = ["Constraint", "PodTopologySpread"]

_SKEWED: Final = 1
_UNLABELLED: Final = 2
_HOSTNAME: Final = "kubernetes.io/hostname"
_UNEVEN: Final = "node(s) didn't match pod topology spread constraints"


class Constraint(NamedTuple):
    """A constraint of a pod, compiled."""

    key: str
    predicate: PodPredicate
    max_skew: int
    min_domains: int
    honor_affinity: bool
    honor_taints: bool
    counts_itself: bool


class _Domains:
    """How many pods a constraint counts in each domain of the nodes that count, kept from try to try."""

    def __init__(self, constraint: Constraint) -> None:
        self.constraint = constraint
        self.numbers: Ints = np.zeros(1, np.int64)
        self.eligible: Bools = np.zeros(0, np.bool_)
        self.present: Bools = np.zeros(0, np.bool_)
        self._count: Count | None = None
        self._position = 0
        self._layout: object = None

    def sync(self, cycle: Cycle, keys: Sequence[str]) -> None:
        """Bring the numbers up to date; `keys` are the labels without which a node does not count."""
        table = cycle.table
        count = table.counters.matching(self.constraint.predicate)
        layout = (table.layout, table.size)
        if count is not self._count or layout != self._layout or self._position < count.base:
            self._rebuild(cycle, keys, count)
            self._count, self._layout = count, layout
        else:
            ids = table.column(self.constraint.key).ids
            for row, number in count.log[self._position - count.base :]:
                if self.eligible[row]:
                    self.numbers[ids[row]] += number
        self._position = count.position

    def _rebuild(self, cycle: Cycle, keys: Sequence[str], count: Count) -> None:
        nodes, one = cycle.nodes, self.constraint
        eligible = cycle.table.valid[nodes.rows].copy()
        for key in keys:
            eligible &= nodes.label(key) > 0
        if one.honor_affinity:
            eligible &= required_by(cycle.shape, nodes)
        if one.honor_taints:
            eligible &= tolerated_sets(cycle)[cycle.table.taints[nodes.rows]]
        column = nodes.column(one.key)
        ids = column.ids[nodes.rows][eligible]
        weights = count.rows[: len(eligible)][eligible]
        self.eligible = eligible
        self.numbers = np.bincount(ids, weights=weights, minlength=column.width).astype(np.int64)
        self.present = np.bincount(ids, minlength=column.width) > 0

    def least(self) -> int:
        """Give the number of the domain with the fewest pods; 0 where there are fewer domains than wanted."""
        there = self.numbers[self.present]
        return int(there.min()) if len(there) >= max(self.constraint.min_domains, 1) else 0


class PodTopologySpread:
    """Filters by constraints that have to be met, scores by those that should be."""

    name: ClassVar[str] = "PodTopologySpread"
    scope: ClassVar[Scope] = Scope.CLUSTER
    score_scope: ClassVar[Scope] = Scope.CLUSTER

    def __init__(self, args: SpreadArgs) -> None:
        self._defaults = args.constraints
        self._system = args.system_defaulting

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        constraints = self._constraints(cycle, "DoNotSchedule")
        if not constraints:
            return SKIP
        self._sync(cycle, "hard", constraints, [one.key for one in constraints])
        return None

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        codes = np.zeros(0, np.int64)
        for position, domains in enumerate(cycle.state[f"{self.name}/hard"]):
            one: Constraint = domains.constraint
            skew = domains.numbers + int(one.counts_itself) - domains.least()
            found = np.where(skew > one.max_skew, _SKEWED, 0)
            found[0] = _UNLABELLED
            here = found[nodes.label(one.key)]
            codes = np.where(codes == 0, here, codes) if position else here
        return codes

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle
        if code == _UNLABELLED:
            return Refusal((f"{_UNEVEN} (missing required label)",), final=True)
        return Refusal((_UNEVEN,))

    def pre_score(self, cycle: Cycle, feasible: Bools) -> Skip | None:
        constraints = self._constraints(cycle, "ScheduleAnyway")
        if not constraints:
            return SKIP
        nodes = cycle.nodes
        # Defaults that nobody chose do not rule out nodes that lack a label.
        strict = bool(cycle.shape.pod.spec.topology_spread_constraints) or not self._system
        keys = [one.key for one in constraints] if strict else []
        scored = feasible.copy()
        for key in keys:
            scored &= nodes.label(key) > 0
        self._sync(cycle, "soft", constraints, keys)
        cycle.state[f"{self.name}/scored"] = scored
        return None

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        scored: Bools = cycle.state[f"{self.name}/scored"]
        total = np.zeros(len(scored))
        everything = cycle.nodes
        for domains in cycle.state[f"{self.name}/soft"]:
            one: Constraint = domains.constraint
            column = everything.column(one.key)
            ids = column.ids[everything.rows]
            if one.key == _HOSTNAME:
                size = int(np.count_nonzero(scored))
                number = cycle.table.counters.matching(one.predicate).rows[everything.rows]
            else:
                size = int(np.count_nonzero(np.bincount(ids[scored], minlength=column.width)))
                number = domains.numbers[ids]
            total += np.where(ids > 0, number * math.log(size + 2) + (one.max_skew - 1), 0.0)
        return np.where(scored, np.floor(total + 0.5).astype(np.int64), 0)[nodes.rows]

    def normalize(self, cycle: Cycle, scores: Ints, feasible: Bools) -> Ints:
        del feasible
        scored: Bools = cycle.state[f"{self.name}/scored"]
        low, high = extremes(scores, scored)
        if not high:
            return np.where(scored, MAX_NODE_SCORE, 0)
        return np.where(scored, MAX_NODE_SCORE * (high + low - scores) // high, 0)

    def events(self) -> Sequence[Interest]:
        pods = Action.ADD | Action.UPDATE_POD_LABEL | Action.UPDATE_POD_TOLERATION | Action.DELETE
        nodes = Action.ADD | Action.DELETE | Action.UPDATE_LABEL | Action.UPDATE_TAINT
        return (
            Interest(ClusterEvent(Kind.POD, pods), self._after_pod),
            Interest(ClusterEvent(Kind.NODE, nodes), self._after_node),
        )

    def _sync(self, cycle: Cycle, what: str, constraints: tuple[Constraint, ...], keys: Sequence[str]) -> None:
        key = f"{self.name}/{what}"
        known: list[_Domains] | None = cycle.state.get(key)
        if known is None or [one.constraint for one in known] != [*constraints]:
            known = cycle.state[key] = [_Domains(one) for one in constraints]
        for domains in known:
            domains.sync(cycle, keys)

    def _constraints(self, cycle: Cycle, action: str) -> tuple[Constraint, ...]:
        own = cycle.shape.pod.spec.topology_spread_constraints
        version = None if own else cycle.cluster.workloads_version
        key = f"{self.name}/{action}"
        known: tuple[object, tuple[Constraint, ...]] | None = cycle.state.get(key)
        if known is not None and known[0] == version:
            return known[1]
        if own:
            found = tuple(_compile(cycle.pod, one, None) for one in own if one.when_unsatisfiable == action)
        else:
            wanted = [one for one in self._defaults if one.when_unsatisfiable == action]
            selector = cycle.cluster.default_selector(cycle.shape) if wanted else NOTHING_SELECTED
            found = () if selector.empty else tuple(_compile(cycle.pod, one, selector) for one in wanted)
        cycle.state[key] = (version, found)
        return found

    def _after_pod(self, pod: Pod, old: Any, new: Any) -> Hint:
        for one in (old, new):
            if one is not None and one.metadata.uid != pod.metadata.uid:
                placed = one.spec.node_name or one.status.nominated_node_name
                if not placed or one.metadata.namespace != pod.metadata.namespace:
                    return Hint.SKIP
        constraints = _hard(pod)
        if constraints is None:
            return Hint.QUEUE
        if old is not None and new is not None:
            own = new.metadata.uid == pod.metadata.uid and old.spec.tolerations != new.spec.tolerations
            if own and any(one.honor_taints for one in constraints):
                return Hint.QUEUE
            changed = any(_counts(one, old) != _counts(one, new) for one in constraints)
            return Hint.QUEUE if changed else Hint.SKIP
        return Hint.QUEUE if any(_counts(one, new or old) for one in constraints) else Hint.SKIP

    def _after_node(self, pod: Pod, old: Any, new: Any) -> Hint:
        constraints = _hard(pod)
        if constraints is None:
            return Hint.QUEUE
        keys = [one.key for one in constraints]
        had = old is not None and all(key in old.metadata.labels for key in keys)
        has = new is not None and all(key in new.metadata.labels for key in keys)
        if old is None or new is None:
            return Hint.QUEUE if had or has else Hint.SKIP
        if had != has:
            return Hint.QUEUE
        moved = any(old.metadata.labels.get(key) != new.metadata.labels.get(key) for key in keys)
        return Hint.QUEUE if has and (moved or old.spec.taints != new.spec.taints) else Hint.SKIP


def _hard(pod: Pod) -> list[Constraint] | None:
    """Give the pod's constraints that have to be met; None where they are defaults."""
    own = pod.spec.topology_spread_constraints
    return [_compile(pod, one, None) for one in own if one.when_unsatisfiable == "DoNotSchedule"] if own else None


def _counts(constraint: Constraint, pod: Pod) -> bool:
    return constraint.predicate.selector.matches(pod.metadata.labels)


def _compile(pod: Pod, one: TopologySpreadConstraint, selector: Selector | None) -> Constraint:
    labels = pod.metadata.labels
    if selector is None:
        selector = with_label_keys(compile_selector(one.label_selector), labels, one.match_label_keys)
    # A selector that takes everything counts nothing: so it is upstream.
    counted = NOTHING_SELECTED if selector.empty else selector
    predicate = PodPredicate(frozenset((pod.metadata.namespace,)), NOTHING_SELECTED, counted, terminating=False)
    return Constraint(
        one.topology_key,
        predicate,
        one.max_skew,
        1 if one.min_domains is None else one.min_domains,
        one.node_affinity_policy != "Ignore",
        one.node_taints_policy == "Honor",
        selector.matches(labels),
    )
