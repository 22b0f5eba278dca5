"""What plugins can be told: the `args` of a profile's `pluginConfig`, checked and with their defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from pilothouse.kinds import names
from pilothouse.kinds.structs import NodeAffinity, StructError, TopologySpreadConstraint, from_dict

from .errors import ConfigurationError

__all__ = [
    "READERS",
    "BalancedArgs",
    "FitArgs",
    "NodeAffinityArgs",
    "PodAffinityArgs",
    "PreemptionArgs",
    "SpreadArgs",
    "VolumeBindingArgs",
]

_DEFAULT_RESOURCES: Final = (("cpu", 1), ("memory", 1))
_STRATEGIES: Final = ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio")
_HIGHEST: Final = 100
_HIGHEST_SHAPE: Final = 10
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class FitArgs:
    """Of NodeResourcesFit. `shape` has pairs of utilization and score."""

    ignored_resources: tuple[str, ...] = ()
    ignored_resource_groups: tuple[str, ...] = ()
    strategy: str = "LeastAllocated"
    resources: tuple[tuple[str, int], ...] = _DEFAULT_RESOURCES
    shape: tuple[tuple[int, int], ...] = ((0, 0), (100, 10))


@dataclass(frozen=True, slots=True)
class BalancedArgs:
    """Of NodeResourcesBalancedAllocation."""

    resources: tuple[tuple[str, int], ...] = _DEFAULT_RESOURCES


@dataclass(frozen=True, slots=True)
class NodeAffinityArgs:
    """Of NodeAffinity."""

    added_affinity: NodeAffinity | None = None


@dataclass(frozen=True, slots=True)
class PodAffinityArgs:
    """Of InterPodAffinity."""

    hard_pod_affinity_weight: int = 1
    ignore_preferred_terms_of_existing_pods: bool = False


@dataclass(frozen=True, slots=True)
class SpreadArgs:
    """Of PodTopologySpread."""

    constraints: tuple[TopologySpreadConstraint, ...] = (
        TopologySpreadConstraint(
            topology_key="kubernetes.io/hostname", when_unsatisfiable="ScheduleAnyway", max_skew=3
        ),
        TopologySpreadConstraint(
            topology_key="topology.kubernetes.io/zone", when_unsatisfiable="ScheduleAnyway", max_skew=5
        ),
    )
    system_defaulting: bool = True


@dataclass(frozen=True, slots=True)
class PreemptionArgs:
    """Of DefaultPreemption: on how many nodes victims are looked for."""

    min_candidate_nodes_percentage: int = 10
    min_candidate_nodes_absolute: int = 100


@dataclass(frozen=True, slots=True)
class VolumeBindingArgs:
    """Of VolumeBinding."""

    bind_timeout_seconds: int = 600


class _Args:
    """The arguments of one plugin, read field by field; one that nobody asked for is an error."""

    def __init__(self, tree: Mapping[str, Any], path: str, kind: str) -> None:
        self.path = path
        self._tree = dict(tree)
        self._tree.pop("apiVersion", None)
        found = self._tree.pop("kind", kind)
        if found != kind:
            raise ConfigurationError(f"{path}.kind", f"is {found!r}; write {kind!r}")

    def take(self, name: str, kind: Any, default: _T) -> Any | _T:
        if name not in self._tree or self._tree[name] is None:
            self._tree.pop(name, None)
            return default
        try:
            return msgspec.convert(self._tree.pop(name), kind)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{self.path}.{name}", str(error)) from error

    def number(self, name: str, default: int, low: int, high: int | None = None) -> int:
        found: int = self.take(name, int, default)
        if found < low or (high is not None and found > high):
            limits = f"{low} to {high}" if high is not None else f"{low} and more"
            raise ConfigurationError(f"{self.path}.{name}", f"is {found}; {limits} is possible")
        return found

    def end(self) -> None:
        for name in self._tree:
            raise ConfigurationError(f"{self.path}.{name}", "no such argument of this plugin; remove it")


def _resources(found: Sequence[Mapping[str, Any]], path: str) -> tuple[tuple[str, int], ...]:
    resources: list[tuple[str, int]] = []
    for position, one in enumerate(found):
        where = f"{path}[{position}]"
        name, weight = one.get("name"), one.get("weight") or 1
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{where}.name", "is missing; name a resource, such as cpu")
        if not isinstance(weight, int) or not 1 <= weight <= _HIGHEST:
            raise ConfigurationError(f"{where}.weight", f"is {weight!r}; 1 to {_HIGHEST} is possible")
        if name in dict(resources):
            raise ConfigurationError(f"{where}.name", f"{name!r} is there twice")
        resources.append((name, weight))
    return tuple(resources) or _DEFAULT_RESOURCES


def _shape(found: Sequence[Mapping[str, Any]], path: str) -> tuple[tuple[int, int], ...]:
    if not found:
        raise ConfigurationError(path, "at least one point must be specified")
    points: list[tuple[int, int]] = []
    for position, one in enumerate(found):
        use, score = one.get("utilization", 0), one.get("score", 0)
        where = f"{path}[{position}]"
        if not isinstance(use, int) or not 0 <= use <= _HIGHEST:
            raise ConfigurationError(f"{where}.utilization", f"is {use!r}; 0 to {_HIGHEST} is possible")
        if not isinstance(score, int) or not 0 <= score <= _HIGHEST_SHAPE:
            raise ConfigurationError(f"{where}.score", f"is {score!r}; 0 to {_HIGHEST_SHAPE} is possible")
        if points and use <= points[-1][0]:
            raise ConfigurationError(f"{where}.utilization", "values must be sorted in increasing order")
        points.append((use, score))
    return tuple(points)


def _fit(tree: Mapping[str, Any], path: str) -> FitArgs:
    args = _Args(tree, path, "NodeResourcesFitArgs")
    ignored = tuple(args.take("ignoredResources", list[str], []))
    groups = tuple(args.take("ignoredResourceGroups", list[str], []))
    for position, group in enumerate(groups):
        if "/" in group:
            raise ConfigurationError(f"{path}.ignoredResourceGroups[{position}]", "has a '/'; name the part before it")
    strategy = _Args(args.take("scoringStrategy", dict[str, Any], {}), f"{path}.scoringStrategy", "")
    kind = strategy.take("type", str, "LeastAllocated")
    if kind not in _STRATEGIES:
        raise ConfigurationError(f"{strategy.path}.type", f"is {kind!r}; possible are {', '.join(_STRATEGIES)}")
    resources = _resources(strategy.take("resources", list[dict[str, Any]], []), f"{strategy.path}.resources")
    ratio = strategy.take("requestedToCapacityRatio", dict[str, Any], None)
    where = f"{strategy.path}.requestedToCapacityRatio"
    if (ratio is not None) != (kind == "RequestedToCapacityRatio"):
        raise ConfigurationError(where, f"belongs to the type RequestedToCapacityRatio; the type is {kind}")
    shape = FitArgs().shape if ratio is None else _shape(ratio.get("shape") or (), f"{where}.shape")
    strategy.end()
    args.end()
    return FitArgs(ignored, groups, kind, resources, shape)


def _balanced(tree: Mapping[str, Any], path: str) -> BalancedArgs:
    args = _Args(tree, path, "NodeResourcesBalancedAllocationArgs")
    resources = _resources(args.take("resources", list[dict[str, Any]], []), f"{path}.resources")
    for position, (_, weight) in enumerate(resources):
        if weight != 1:
            raise ConfigurationError(f"{path}.resources[{position}].weight", f"is {weight}; must be 1")
    args.end()
    return BalancedArgs(resources)


def _node_affinity(tree: Mapping[str, Any], path: str) -> NodeAffinityArgs:
    args = _Args(tree, path, "NodeAffinityArgs")
    added = args.take("addedAffinity", dict[str, Any], None)
    args.end()
    try:
        return NodeAffinityArgs(None if added is None else from_dict(added, NodeAffinity))
    except StructError as error:
        raise ConfigurationError(f"{path}.addedAffinity", str(error)) from error


def _pod_affinity(tree: Mapping[str, Any], path: str) -> PodAffinityArgs:
    args = _Args(tree, path, "InterPodAffinityArgs")
    weight = args.number("hardPodAffinityWeight", 1, 0, _HIGHEST)
    ignore = args.take("ignorePreferredTermsOfExistingPods", bool, False)
    args.end()
    return PodAffinityArgs(weight, ignore)


def _spread(tree: Mapping[str, Any], path: str) -> SpreadArgs:
    args = _Args(tree, path, "PodTopologySpreadArgs")
    kind = args.take("defaultingType", str, "System")
    listed: list[dict[str, Any]] = args.take("defaultConstraints", list[dict[str, Any]], [])
    args.end()
    if kind not in {"System", "List"}:
        raise ConfigurationError(f"{path}.defaultingType", f"is {kind!r}; possible are System, List")
    if kind == "System":
        if listed:
            raise ConfigurationError(f"{path}.defaultingType", "must be List where there are defaultConstraints")
        return SpreadArgs()
    return SpreadArgs(tuple(_constraint(one, f"{path}.defaultConstraints[{i}]") for i, one in enumerate(listed)), False)


def _constraint(tree: Mapping[str, Any], path: str) -> TopologySpreadConstraint:
    try:
        found = from_dict(tree, TopologySpreadConstraint)
    except StructError as error:
        raise ConfigurationError(path, str(error)) from error
    if found.max_skew <= 0:
        raise ConfigurationError(f"{path}.maxSkew", f"is {found.max_skew}; not in valid range (0, inf)")
    if problems := names.label_key(found.topology_key):
        raise ConfigurationError(f"{path}.topologyKey", "; ".join(problems))
    if found.when_unsatisfiable is None:
        raise ConfigurationError(f"{path}.whenUnsatisfiable", "possible are DoNotSchedule, ScheduleAnyway")
    if found.label_selector is not None:
        raise ConfigurationError(f"{path}.labelSelector", "must not be there: it is deduced for each pod")
    return found


def _preemption(tree: Mapping[str, Any], path: str) -> PreemptionArgs:
    args = _Args(tree, path, "DefaultPreemptionArgs")
    percentage = args.number("minCandidateNodesPercentage", 10, 0, _HIGHEST)
    absolute = args.number("minCandidateNodesAbsolute", 100, 0)
    args.end()
    if not percentage and not absolute:
        raise ConfigurationError(
            f"{path}.minCandidateNodesPercentage", "cannot be zero at the same time as minCandidateNodesAbsolute"
        )
    return PreemptionArgs(percentage, absolute)


def _volume_binding(tree: Mapping[str, Any], path: str) -> VolumeBindingArgs:
    args = _Args(tree, path, "VolumeBindingArgs")
    seconds = args.number("bindTimeoutSeconds", 600, 0)
    args.end()
    return VolumeBindingArgs(seconds)


READERS: Final[Mapping[str, Callable[[Mapping[str, Any], str], Any]]] = {
    "DefaultPreemption": _preemption,
    "InterPodAffinity": _pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced,
    "NodeResourcesFit": _fit,
    "PodTopologySpread": _spread,
    "VolumeBinding": _volume_binding,
}
"""What reads the arguments of the plugins that have any, given the tree and the path for errors."""
