"""Which pods a term of pod affinity or topology spread means, compiled once: namespaces and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pilothouse.kinds.labels import NOTHING, Requirement, Selector, SelectorError, from_label_selector
from pilothouse.kinds.structs import LabelSelector, PodAffinityTerm

__all__ = [
    "NOTHING_SELECTED",
    "AllOf",
    "PodPredicate",
    "PodTerm",
    "Predicate",
    "compile_selector",
    "term_of",
    "with_label_keys",
]


NOTHING_SELECTED: Final = NOTHING
"""The selector that takes nothing."""


class PodPredicate(NamedTuple):
    """Pods that are meant. `namespaces` by name, or those whose labels `namespace_selector` takes."""

    namespaces: frozenset[str]
    namespace_selector: Selector
    selector: Selector
    terminating: bool = True
    """Whether pods that are being deleted count."""

    def takes(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Say whether a pod with these labels in this namespace is meant."""
        return (
            namespace in self.namespaces or self.namespace_selector.matches(namespace_labels)
        ) and self.selector.matches(labels)

    @property
    def selects_namespaces(self) -> bool:
        """Whether it depends on the labels of namespaces."""
        return bool(self.namespace_selector.requirements)


class AllOf(NamedTuple):
    """Pods that each of several predicates takes."""

    predicates: tuple[PodPredicate, ...]
    terminating: bool = True

    def takes(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        """Say whether a pod with these labels in this namespace is meant."""
        return all(one.takes(namespace, labels, namespace_labels) for one in self.predicates)

    @property
    def selects_namespaces(self) -> bool:
        """Whether it depends on the labels of namespaces."""
        return any(one.selects_namespaces for one in self.predicates)


Predicate = PodPredicate | AllOf


class PodTerm(NamedTuple):
    """A term of pod affinity: which pods, and the node label whose values are the domains."""

    predicate: PodPredicate
    topology_key: str


def compile_selector(selector: LabelSelector | None) -> Selector:
    """Compile a label selector: none takes nothing, an empty one everything; one that is invalid takes nothing."""
    if selector is None:
        return NOTHING
    tree: dict[str, Any] = {
        "matchLabels": dict(selector.match_labels),
        "matchExpressions": [
            {"key": one.key, "operator": one.operator, "values": list(one.values)} for one in selector.match_expressions
        ],
    }
    try:
        return from_label_selector(tree)
    except SelectorError:
        # The API server refuses these; one that slipped through selects no pod, as upstream's error would.
        return NOTHING


def with_label_keys(
    selector: Selector, labels: Mapping[str, str], match: Sequence[str], mismatch: Sequence[str] = ()
) -> Selector:
    """Narrow a selector by the pod's own values of `matchLabelKeys` and `mismatchLabelKeys`.

    The API server has done so for pods that it admitted; once more changes nothing.
    """
    added = [Requirement(key, "in", (labels[key],)) for key in match if key in labels]
    added += [Requirement(key, "notin", (labels[key],)) for key in mismatch if key in labels]
    if not added or not selector.selectable:
        return selector
    return Selector([*selector.requirements, *(one for one in added if one not in selector.requirements)])


def term_of(term: PodAffinityTerm, namespace: str, labels: Mapping[str, str]) -> PodTerm:
    """Compile a term of the pod in `namespace` with `labels`."""
    selector = with_label_keys(
        compile_selector(term.label_selector), labels, term.match_label_keys, term.mismatch_label_keys
    )
    # No namespaces and no selector of them at all mean the pod's own; a selector that is empty means all.
    own = not term.namespaces and term.namespace_selector is None
    namespaces = frozenset((namespace,) if own else term.namespaces)
    return PodTerm(PodPredicate(namespaces, compile_selector(term.namespace_selector), selector), term.topology_key)
