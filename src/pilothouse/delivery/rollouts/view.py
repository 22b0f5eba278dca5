"""What a decision is made from: the objects of one rollout, as caches have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateSpec
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import Pod, ReplicaSet, Service

__all__ = ["RouteKey", "TemplateKey", "View"]


class RouteKey(NamedTuple):
    """A route. kind: HTTPRoute, GRPCRoute, TCPRoute or TLSRoute."""

    kind: str
    namespace: str
    name: str


class TemplateKey(NamedTuple):
    """An analysis template, of the whole cluster or of the rollout's namespace."""

    cluster: bool
    name: str


@dataclass(frozen=True, slots=True)
class View:
    """The objects of one rollout. Some may be older than others; nothing is assumed of their order.

    sets, runs, experiments: those that it controls. orphans: sets of its namespace that nobody controls. services: by
    name, those it names. routes: Gateway API's, as JSON has them, those it names, or, where its strategy splits traffic
    by routes no more, those that still do. regions: the RegionWeights object, None where there is none. templates:
    analysis templates that its analyses name, without their nesting. workload: what workloadRef names. pods: of its
    sets; they are looked at only for restarts and for labels that come and go.
    """

    rollout: Rollout
    sets: Sequence[ReplicaSet] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    routes: Mapping[RouteKey, Mapping[str, Any]] = field(default_factory=dict)
    regions: Mapping[str, Any] | None = None
    runs: Sequence[AnalysisRun] = ()
    experiments: Sequence[Experiment] = ()
    templates: Mapping[TemplateKey, AnalysisTemplateSpec] = field(default_factory=dict)
    workload: Mapping[str, Any] | None = None
    pods: Sequence[Pod] = ()
    orphans: Sequence[ReplicaSet] = ()
