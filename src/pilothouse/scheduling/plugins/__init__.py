"""The plugins of kube-scheduler, and the registry that configurations name them by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pilothouse.scheduling.config_args import (
    BalancedArgs,
    FitArgs,
    NodeAffinityArgs,
    PodAffinityArgs,
    PreemptionArgs,
    SpreadArgs,
)

from .balanced import NodeResourcesBalancedAllocation
from .fit import NodeResourcesFit
from .nodeaffinity import NodeAffinity
from .podaffinity import InterPodAffinity
from .preemption import DefaultPreemption
from .simple import DefaultBinder, ImageLocality, NodeName, NodePorts, PrioritySort, SchedulingGates
from .spread import PodTopologySpread
from .taints import NodeUnschedulable, TaintToleration
from .volumebinding import VolumeBinding
from .volumes import NodeVolumeLimits, VolumeRestrictions, VolumeZone

__all__ = ["DEFAULT_PLUGINS", "REGISTRY", "Factory"]

Factory = Callable[[Any], Any]
"""Makes a plugin from its arguments: those that its reader gives, or None where there are none."""

REGISTRY: Final[Mapping[str, Factory]] = {
    "DefaultBinder": lambda _: DefaultBinder(),
    "DefaultPreemption": lambda args: DefaultPreemption(args or PreemptionArgs()),
    "ImageLocality": lambda _: ImageLocality(),
    "InterPodAffinity": lambda args: InterPodAffinity(args or PodAffinityArgs()),
    "NodeAffinity": lambda args: NodeAffinity(args or NodeAffinityArgs()),
    "NodeName": lambda _: NodeName(),
    "NodePorts": lambda _: NodePorts(),
    "NodeResourcesBalancedAllocation": lambda args: NodeResourcesBalancedAllocation(args or BalancedArgs()),
    "NodeResourcesFit": lambda args: NodeResourcesFit(args or FitArgs()),
    "NodeUnschedulable": lambda _: NodeUnschedulable(),
    "NodeVolumeLimits": lambda _: NodeVolumeLimits(),
    "PodTopologySpread": lambda args: PodTopologySpread(args or SpreadArgs()),
    "PrioritySort": lambda _: PrioritySort(),
    "SchedulingGates": lambda _: SchedulingGates(),
    "TaintToleration": lambda _: TaintToleration(),
    "VolumeBinding": lambda _: VolumeBinding(),
    "VolumeRestrictions": lambda _: VolumeRestrictions(),
    "VolumeZone": lambda _: VolumeZone(),
}

DEFAULT_PLUGINS: Final[tuple[tuple[str, int], ...]] = (
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
)
"""What is enabled where a profile says nothing: names in their order, with the weights of their scores."""
