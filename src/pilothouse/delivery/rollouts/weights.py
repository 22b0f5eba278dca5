"""How traffic is to be split now, and which routes steps have made: a fold over the steps done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import (
    CanaryStep,
    SetHeaderRoute,
    SetMirrorRoute,
    TrafficWeights,
    WeightDestination,
)

from .names import REGIONS_PLUGIN
from .situation import Situation, available, hash_label, size

__all__ = ["ALL_REGIONS", "Managed", "Split", "abort_weight", "region_config", "split_at", "weights_of"]

ALL_REGIONS: Final = "*"
Managed = SetHeaderRoute | SetMirrorRoute


@dataclass(frozen=True, slots=True)
class Split:
    """Shares of the traffic, of `total` in all.

    canary: its weight. regions: its weight for clients of some regions, where it is another. additional: shares of an
    experiment. managed: routes that steps have made.
    """

    total: int = 100
    canary: int = 0
    regions: Mapping[str, int] = field(default_factory=dict)
    additional: tuple[WeightDestination, ...] = ()
    managed: tuple[Managed, ...] = ()

    @property
    def stable(self) -> int:
        """The weight of the stable set."""
        return self.total - self.canary - sum(one.weight for one in self.additional)

    @property
    def most(self) -> int:
        """The greatest weight that the canary has anywhere."""
        return max([self.canary, *self.regions.values()])

    @property
    def shows_canary(self) -> bool:
        """Whether anything at all goes to the canary."""
        return self.most > 0 or bool(self.managed)


def region_config(step: CanaryStep) -> tuple[tuple[str, ...], int] | None:
    """Return the regions and the weight of a step that sets them; None for other steps, or where it says neither."""
    if step.plugin is None or step.plugin.name != REGIONS_PLUGIN:
        return None
    config: Mapping[str, Any] = step.plugin.config or {}
    regions, weight = config.get("regions"), config.get("weight")
    if not isinstance(regions, list) or not isinstance(weight, int) or isinstance(weight, bool):
        return None
    return tuple(map(str, regions)), weight


def split_at(steps: Sequence[CanaryStep], index: int | None, total: int) -> Split:
    """Return what steps ask for, all up to and with the one of an index. After the last everything is the canary's.

    A setWeight is for all regions, and so is a regions step for `*`; one for some regions leaves the others alone.
    """
    if index is None or index >= len(steps):
        return Split(total, total, managed=_managed(steps))
    canary, regions = 0, dict[str, int]()
    for step in steps[: index + 1]:
        if step.set_weight is not None:
            canary, regions = step.set_weight, {}
        elif (config := region_config(step)) is not None:
            names, weight = config
            if ALL_REGIONS in names:
                canary, regions = weight, {}
            else:
                regions |= dict.fromkeys(names, weight)
    return Split(total, canary, regions, managed=_managed(steps[: index + 1]))


def _managed(steps: Sequence[CanaryStep]) -> tuple[Managed, ...]:
    made: dict[str, Managed] = {}
    for step in steps:
        for route in (step.set_header_route, step.set_mirror_route):
            if route is None:
                continue
            made.pop(route.name or "", None)
            if route.match:
                made[route.name or ""] = route
    return tuple(made.values())


def abort_weight(sit: Situation) -> int:
    """Return the weight by which an aborted canary is counted: 0, or down the steps as the stable set grows again."""
    if not sit.is_dynamic or sit.new is None or sit.stable is None:
        return 0
    left = sit.replicas - available(sit.stable)
    pods = left if sit.has_own_abort_delay else max(left, available(sit.new))
    for step in reversed(sit.steps):
        if step.set_weight is not None and -(-step.set_weight * sit.replicas // sit.max_weight) < pods:
            return step.set_weight
    return 0


def weights_of(sit: Situation, split: Split) -> TrafficWeights:
    """Return a split as the status has it."""
    stable, canary = sit.services
    back = is_drained_back(sit)
    return TrafficWeights(
        canary=WeightDestination(
            weight=split.canary,
            service_name=canary or None,
            pod_template_hash=(back or hash_label(sit.new)) or None,
        ),
        stable=WeightDestination(
            weight=split.stable, service_name=stable or None, pod_template_hash=hash_label(sit.stable) or None
        ),
        additional=split.additional,
    )


def is_drained_back(sit: Situation) -> str:
    """Return the hash of the version that is left, where the stable set is too small yet to take all traffic back.

    So with dynamicStableScale, when the stable template is set again in the midst of an update.
    """
    weights = sit.status.canary.weights
    if not (sit.is_dynamic and sit.is_promoted) or weights is None or sit.new is None:
        return ""
    before = weights.canary.pod_template_hash or ""
    if before == hash_label(sit.new) or available(sit.new) >= sit.replicas or not size(sit.set_of(before)):
        return ""
    return before
