"""Node selectors and node affinity over all nodes at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pilothouse.kinds.structs import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PreferredSchedulingTerm

from .columns import NAME_FIELD, Bools, Ints
from .framework import Nodes
from .shapes import PodShape

__all__ = ["matching_labels", "matching_selector", "preference", "required_by"]


def _meets(nodes: Nodes, key: str, operator: str, values: Sequence[str]) -> Bools:
    column = nodes.column(key)
    met: Bools = column.taking(operator, values)[column.ids[nodes.rows]]
    return met


def matching_labels(nodes: Nodes, labels: Mapping[str, str]) -> Bools:
    """Say which nodes have all of these labels."""
    met = np.ones(len(nodes), np.bool_)
    for key, value in labels.items():
        met &= _meets(nodes, key, "In", (value,))
    return met


def _matching_term(nodes: Nodes, term: NodeSelectorTerm) -> Bools:
    met = np.ones(len(nodes), np.bool_)
    parts: Iterable[tuple[str, NodeSelectorRequirement]] = (
        *((one.key, one) for one in term.match_expressions),
        *((f"\0{one.key}", one) for one in term.match_fields),
    )
    any_part = False
    for key, one in parts:
        any_part = True
        met &= _meets(nodes, key, one.operator or "", one.values) if _valid(key, one) else False
    # A term without requirements takes no node.
    return met if any_part else ~met


def _valid(key: str, one: NodeSelectorRequirement) -> bool:
    if not key.startswith("\0"):
        return True
    return key == NAME_FIELD and one.operator in {"In", "NotIn"} and len(one.values) == 1


def matching_selector(nodes: Nodes, selector: NodeSelector) -> Bools:
    """Say which nodes one of a selector's terms takes."""
    met = np.zeros(len(nodes), np.bool_)
    for term in selector.node_selector_terms:
        met |= _matching_term(nodes, term)
    return met


def required_by(shape: PodShape, nodes: Nodes) -> Bools:
    """Say which nodes a pod's node selector and required node affinity take."""
    spec = shape.pod.spec
    met = matching_labels(nodes, spec.node_selector)
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return met if required is None else met & matching_selector(nodes, required)


def preference(nodes: Nodes, terms: Sequence[PreferredSchedulingTerm]) -> Ints:
    """Give the sum of the weights of the terms that take each node."""
    total = nodes.full(0)
    for one in terms:
        if one.weight:
            total += one.weight * _matching_term(nodes, one.preference)
    return total
