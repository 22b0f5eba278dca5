"""On which nodes a daemon set's pods belong: node name, selector, affinity, taints and tolerations. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pilothouse.kinds.labels import Operator, Requirement, from_labels
from pilothouse.kinds.structs import (
    Affinity,
    DaemonSet,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    Taint,
    Toleration,
    replace,
)
from pilothouse.kinds.structs.core_pods import PodSpec

__all__ = ["Fit", "Placement", "Site", "bound_to", "target_node", "with_tolerations"]

_NAME: Final = "metadata.name"
_EXISTS: Final = "Exists"
_EXECUTE: Final = "NoExecute"
_SCHEDULE: Final = "NoSchedule"
_TAINT: Final = "node.kubernetes.io/"
_TOLERATED: Final[tuple[tuple[str, Literal["NoExecute", "NoSchedule"]], ...]] = (
    ("not-ready", _EXECUTE),
    ("unreachable", _EXECUTE),
    ("disk-pressure", _SCHEDULE),
    ("memory-pressure", _SCHEDULE),
    ("pid-pressure", _SCHEDULE),
    ("unschedulable", _SCHEDULE),
)
_OPERATORS: Final[Mapping[str, Operator]] = {
    "In": "in",
    "NotIn": "notin",
    "Exists": "exists",
    "DoesNotExist": "!",
    "Gt": "gt",
    "Lt": "lt",
}

_Match = Callable[["Site"], bool]


class Site(NamedTuple):
    """What matters of a node."""

    name: str
    labels: Mapping[str, str]
    taints: Sequence[Taint]

    @classmethod
    def of(cls, node: Node) -> Site:
        """Take from a node what matters."""
        return cls(node.metadata.name, node.metadata.labels, node.spec.taints)


@dataclass(frozen=True, slots=True)
class Fit:
    """Whether a node is to get a pod, and whether one that is there may stay."""

    should_run: bool
    should_continue: bool


_NEVER: Final = Fit(should_run=False, should_continue=False)
_STAYS: Final = Fit(should_run=False, should_continue=True)
_RUNS: Final = Fit(should_run=True, should_continue=True)


class Placement:
    """A daemon set's template as far as it says where pods belong; remembers what it found of each node."""

    def __init__(self, obj: DaemonSet) -> None:
        spec = obj.spec.template.spec
        self._node_name = spec.node_name
        self._tolerations = with_tolerations(spec).tolerations
        self._selector = from_labels(spec.node_selector)
        required = _required(spec)
        self._terms = None if required is None else [*filter(None, map(_compile, required.node_selector_terms))]
        self._found: dict[str, tuple[Site, Fit]] = {}

    def fit(self, site: Site) -> Fit:
        """Say whether a node gets a pod."""
        known = self._found.get(site.name)
        return known[1] if known is not None and known[0] is site else self._fit(site)

    def fits(self, sites: Mapping[str, Site]) -> dict[str, Fit]:
        """Say of each of all nodes whether it gets a pod; remembered for as long as the node is the same object."""
        found = {name: self.fit(site) for name, site in sites.items()}
        self._found = {name: (site, found[name]) for name, site in sites.items()}
        return found

    def _fit(self, site: Site) -> Fit:
        if self._node_name not in ("", site.name) or not self._takes(site):
            return _NEVER
        untolerated = {taint.effect for taint in site.taints if not _is_tolerated(taint, self._tolerations)}
        if _EXECUTE in untolerated:
            return _NEVER
        return _STAYS if _SCHEDULE in untolerated else _RUNS

    def _takes(self, site: Site) -> bool:
        if not self._selector.matches(site.labels):
            return False
        return self._terms is None or any(term(site) for term in self._terms)


def _required(spec: PodSpec) -> NodeSelector | None:
    to_nodes = spec.affinity.node_affinity if spec.affinity is not None else None
    return None if to_nodes is None else to_nodes.required_during_scheduling_ignored_during_execution


def _is_tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    return any(
        (not one.effect or one.effect == taint.effect)
        and (not one.key or one.key == taint.key)
        and (one.operator == _EXISTS or (one.operator in (None, "Equal") and one.value == taint.value))
        for one in tolerations
    )


def _compile(term: NodeSelectorTerm) -> _Match | None:
    """Return what says whether a term takes a node, None for one that takes none: it is empty or makes no sense."""
    if not term.match_expressions and not term.match_fields:
        return None
    matches = [_by_label(one) for one in term.match_expressions] + [_by_field(one) for one in term.match_fields]
    known = [match for match in matches if match is not None]
    if len(known) < len(matches):
        return None
    return lambda site: all(match(site) for match in known)


def _by_label(one: NodeSelectorRequirement) -> _Match | None:
    operator = _OPERATORS.get(one.operator or "")
    requirement = None if operator is None else Requirement(one.key, operator, tuple(one.values))
    if requirement is None or requirement.check():
        return None
    match = requirement.compile()
    return lambda site: match(site.labels)


def _by_field(one: NodeSelectorRequirement) -> _Match | None:
    if one.operator not in ("In", "NotIn") or len(one.values) != 1:
        return None
    wanted, equal = one.values[0], one.operator == "In"
    return lambda site: ((site.name if one.key == _NAME else "") == wanted) is equal


def with_tolerations(spec: PodSpec) -> PodSpec:
    """Return a pod's specification that tolerates what befalls nodes: daemons stay where others have to go."""
    wanted = [Toleration(key=_TAINT + name, operator=_EXISTS, effect=effect) for name, effect in _TOLERATED]
    if spec.host_network:
        wanted.append(Toleration(key=_TAINT + "network-unavailable", operator=_EXISTS, effect=_SCHEDULE))
    tolerations = [*spec.tolerations]
    for one in wanted:
        alike = [place for place, each in enumerate(tolerations) if _is_alike(each, one)]
        for place in alike:
            tolerations[place] = one
        if not alike:
            tolerations.append(one)
    return replace(spec, tolerations=tolerations)


def _is_alike(one: Toleration, other: Toleration) -> bool:
    """Whether two tolerations differ in their seconds at most."""
    return (one.key, one.operator, one.effect, one.value) == (other.key, other.operator, other.effect, other.value)


def bound_to(affinity: Affinity | None, node: str) -> Affinity:
    """Return an affinity that takes this node alone; what is only preferred, and that to other pods, stays."""
    term = NodeSelectorTerm(match_fields=[NodeSelectorRequirement(key=_NAME, operator="In", values=[node])])
    selector = NodeSelector(node_selector_terms=[term])
    present = affinity if affinity is not None else Affinity()
    to_nodes = present.node_affinity if present.node_affinity is not None else NodeAffinity()
    to_nodes = replace(to_nodes, required_during_scheduling_ignored_during_execution=selector)
    return replace(present, node_affinity=to_nodes)


def target_node(pod: Pod) -> str:
    """Return the node that a pod is on or is meant for, empty where it does not say."""
    if pod.spec.node_name:
        return pod.spec.node_name
    required = _required(pod.spec)
    for term in required.node_selector_terms if required is not None else ():
        for one in term.match_fields:
            if one.key == _NAME and one.operator == "In":
                return one.values[0] if len(one.values) == 1 else ""
    return ""
