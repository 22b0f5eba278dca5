"""InterPodAffinity: pods that want to be, or not to be, in one domain with others.

Terms of the pod meet counts of the pods that they select, terms of pods on nodes meet counts of the pods that carry
them, each by domain: no pod is looked at while nodes are filtered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from pilothouse.kinds.structs import Pod
from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.config_args import PodAffinityArgs
from pilothouse.scheduling.counters import Carried, Count
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
from pilothouse.scheduling.podterms import AllOf, PodTerm
from pilothouse.scheduling.shapes import shape_of

__all__ = ["InterPodAffinity"]

_AFFINITY: Final = 1
_ANTI: Final = 2
_EXISTING: Final = 3
_REASONS: Final = {
    _AFFINITY: "node(s) didn't match pod affinity rules",
    _ANTI: "node(s) didn't match pod anti-affinity rules",
    _EXISTING: "node(s) didn't satisfy existing pods anti-affinity rules",
}


class _Terms(NamedTuple):
    """Terms of pods on nodes that take the pod."""

    generation: int
    anti: tuple[tuple[str, Count], ...]
    weighted: tuple[tuple[str, Count, int], ...]


class InterPodAffinity:
    """Filters by required terms, the pod's own and those of pods on nodes; scores by preferred ones."""

    name: ClassVar[str] = "InterPodAffinity"
    scope: ClassVar[Scope] = Scope.CLUSTER
    score_scope: ClassVar[Scope] = Scope.CLUSTER

    def __init__(self, args: PodAffinityArgs) -> None:
        self._hard_weight = args.hard_pod_affinity_weight
        self._ignore_preferred = args.ignore_preferred_terms_of_existing_pods

    def pre_filter(self, cycle: Cycle) -> PreFiltered:
        shape = cycle.shape
        if not shape.affinity and not shape.anti_affinity and not self._carried(cycle).anti:
            return SKIP
        return None

    def filter(self, cycle: Cycle, nodes: Nodes) -> Ints:
        shape, counters = cycle.shape, cycle.table.counters
        codes = nodes.full(0)
        # The later a reason is told by, the earlier it is put in: the first takes its place.
        for key, count in self._carried(cycle).anti:
            codes[_occupied(nodes, key, count)] = _EXISTING
        for term in shape.anti_affinity:
            codes[_occupied(nodes, term.topology_key, counters.matching(term.predicate))] = _ANTI
        if shape.affinity:
            codes[~self._together(cycle, nodes)] = _AFFINITY
        return codes

    def explain(self, cycle: Cycle, code: int) -> Refusal:
        del cycle
        return Refusal((_REASONS[code],), final=code == _AFFINITY)

    def pre_score(self, cycle: Cycle, feasible: Bools) -> Skip | None:
        del feasible
        if cycle.shape.preferred:
            return None
        return SKIP if self._ignore_preferred or not self._carried(cycle).weighted else None

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        total = nodes.full(0)
        counters = cycle.table.counters
        for one in cycle.shape.preferred:
            total += _weighted(nodes, one.term.topology_key, counters.matching(one.term.predicate), one.weight)
        for key, count, weight in self._carried(cycle).weighted:
            total += _weighted(nodes, key, count, weight)
        return total

    def normalize(self, cycle: Cycle, scores: Ints, feasible: Bools) -> Ints:
        del cycle
        low, high = extremes(scores, feasible)
        if low == high:
            return np.zeros_like(scores)
        return (MAX_NODE_SCORE * ((scores - low) / (high - low))).astype(np.int64)

    def events(self) -> Sequence[Interest]:
        changes = Action.ADD | Action.UPDATE_POD_LABEL | Action.DELETE
        return (
            Interest(ClusterEvent(Kind.POD, changes), self._after_pod),
            Interest(ClusterEvent(Kind.NODE, Action.ADD | Action.UPDATE_LABEL), self._after_node),
        )

    def _together(self, cycle: Cycle, nodes: Nodes) -> Bools:
        """Say which nodes are in domains with a pod that all terms take."""
        terms, counters = cycle.shape.affinity, cycle.table.counters
        first = terms[0].predicate
        all_of = first if len(terms) == 1 else AllOf(tuple(term.predicate for term in terms))
        count = counters.matching(all_of)
        domains = [(term.topology_key, count.domains(term.topology_key) > 0) for term in terms]
        if not any(found[1:].any() for _, found in domains) and counters.takes(all_of, cycle.shape):
            # The first of a group that wants to be together may be anywhere.
            domains = [(key, np.ones_like(found)) for key, found in domains]
        together: Bools | None = None
        for key, found in domains:
            found[0] = False
            here: Bools = found[nodes.label(key)]
            together = here if together is None else together & here
        return np.zeros(len(nodes), np.bool_) if together is None else together

    def _carried(self, cycle: Cycle) -> _Terms:
        counters = cycle.table.counters
        known: _Terms | None = cycle.state.get(self.name)
        if known is not None and known.generation == counters.carried_generation:
            return known
        anti: list[tuple[str, Count]] = []
        weighted: list[tuple[str, Count, int]] = []
        for carried, count in counters.carried().items():
            if not counters.takes(carried.term.predicate, cycle.shape):
                continue
            weight = self._weight(carried)
            if carried.kind == "anti-affinity":
                anti.append((carried.term.topology_key, count))
            elif weight:
                weighted.append((carried.term.topology_key, count, weight))
        found = cycle.state[self.name] = _Terms(counters.carried_generation, tuple(anti), tuple(weighted))
        return found

    def _weight(self, carried: Carried) -> int:
        return self._hard_weight if carried.kind == "affinity" else carried.weight

    @staticmethod
    def _after_pod(pod: Pod, old: Any, new: Any) -> Hint:
        if old is not None and new is not None and new.metadata.uid == pod.metadata.uid:
            return Hint.QUEUE
        if any(one is not None and not _on_node(one) for one in (old, new)):
            return Hint.SKIP
        shape = shape_of(pod)
        if new is not None and _all_take(shape.affinity, new):
            return Hint.QUEUE if old is None or not _all_take(shape.affinity, old) else Hint.SKIP
        if old is not None and _all_take(shape.anti_affinity, old):
            return Hint.QUEUE if new is None or not _all_take(shape.anti_affinity, new) else Hint.SKIP
        if new is None and _all_take(shape_of(old).anti_affinity, pod):
            return Hint.QUEUE
        return Hint.SKIP

    @staticmethod
    def _after_node(pod: Pod, old: Any, new: Any) -> Hint:
        shape = shape_of(pod)
        now = new.metadata.labels
        if old is None:
            together = any(term.topology_key in now for term in shape.affinity)
            return Hint.QUEUE if together or shape.anti_affinity else Hint.SKIP
        before = old.metadata.labels
        keys = [(term.topology_key, True) for term in shape.affinity]
        keys += [(term.topology_key, False) for term in shape.anti_affinity]
        for key, together in keys:
            had, has = key in before, key in now
            moved = had and has and before[key] != now[key]
            if moved or (together and has and not had) or (not together and had and not has):
                return Hint.QUEUE
        return Hint.SKIP


def _occupied(nodes: Nodes, key: str, count: Count) -> Bools:
    occupied = count.domains(key) > 0
    occupied[0] = False
    there: Bools = occupied[nodes.label(key)]
    return there


def _weighted(nodes: Nodes, key: str, count: Count, weight: int) -> Ints:
    scores = count.domains(key) * weight
    scores[0] = 0
    return scores[nodes.label(key)]


def _on_node(pod: Pod) -> bool:
    return bool(pod.spec.node_name or pod.status.nominated_node_name)


def _all_take(terms: Sequence[PodTerm], pod: Pod) -> bool:
    meta = pod.metadata
    # As upstream, namespaces that are selected by labels are not known here.
    return bool(terms) and all(term.predicate.takes(meta.namespace, meta.labels, {}) for term in terms)
