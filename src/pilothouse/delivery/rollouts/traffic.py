"""Which split of the traffic is wanted now, given what pods there are and what was decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pilothouse.delivery.resources.rollouts import WeightDestination

from .counts import is_at_counts, is_far_enough
from .routed import weight_shown
from .situation import Situation, available
from .weights import Split, abort_weight, is_drained_back, split_at

__all__ = ["SETTLE_SECONDS", "wanted_split"]

SETTLE_SECONDS: Final = 2.0
"""How long the stable service has to know its new pods before traffic moves there from the canary service, which has
the same ones."""


def wanted_split(sit: Situation) -> Split:
    """Return the split for a canary with routes; its total is that of all weights."""
    total = sit.max_weight
    if back := is_drained_back(sit):
        return Split(total, _back_weight(sit)) if back else Split(total)
    if sit.is_promoted or sit.is_first:
        return Split(total)
    if sit.is_aborted:
        return Split(total, _back_weight(sit))
    extra = _experiment(sit)
    if not available(sit.new):
        return Split(total, additional=extra)
    if sit.status.promote_full:
        return _promoting(sit)
    if sit.index is None:
        return Split(total)
    if not is_at_counts(sit, None):
        return replace(_before(sit), additional=extra)
    split = split_at(sit.steps, sit.index, total)
    if sit.is_past_steps:
        return split
    return replace(split, additional=extra)


def may_take(sit: Situation, split: Split) -> bool:
    """Whether the stable set has the pods for its share, so that a version that goes on may leave it that much."""
    stable = sit.stable
    if stable is None:
        return False
    wanted = (split.total - split.canary) * sit.replicas // split.total
    return available(stable) >= wanted or is_far_enough(sit, stable, wanted)


def _before(sit: Situation) -> Split:
    """Return what the steps before the present one asked for."""
    if not sit.index:
        return Split(sit.max_weight, managed=split_at(sit.steps, 0, sit.max_weight).managed if sit.steps else ())
    return split_at(sit.steps, min(sit.index, len(sit.steps)) - 1, sit.max_weight)


def _promoting(sit: Situation) -> Split:
    """Return the split while a full promotion waits for its pods."""
    weights = sit.status.canary.weights
    if sit.is_dynamic:
        share = sit.max_weight * available(sit.new) // max(sit.replicas, 1)
        return Split(sit.max_weight, min(share, sit.max_weight))
    return Split(sit.max_weight, 0 if weights is None else min(weights.canary.weight, sit.max_weight))


def _back_weight(sit: Situation) -> int:
    """Return the canary's weight on the way back: 0, or as much as a stable set that has shrunk cannot take yet."""
    if not sit.is_dynamic or sit.stable is None or sit.new is None or not sit.replicas:
        return 0
    total, weights = sit.max_weight, sit.status.canary.weights
    wanted = abort_weight(sit) if sit.is_aborted else 0
    could = total * available(sit.stable) // sit.replicas
    expected = max(0, total - could)
    # What is written counts, not what the status remembers: nothing is given back that has been taken away.
    there = weight_shown(sit)
    present = there if weights is None else min(weights.canary.weight, there)
    if wanted <= 0:
        return min(expected, present)
    return present if could < total - wanted else min(wanted, present)


def _experiment(sit: Situation) -> tuple[WeightDestination, ...]:
    """Return the shares of the experiment that runs."""
    name, step = sit.status.canary.current_experiment, sit.step
    if step is None or step.experiment is None or not name:
        return ()
    found = next((one for one in sit.view.experiments if one.metadata.name == name), None)
    if found is None or found.status.phase != "Running":
        return ()
    shares = {one.name: one.weight for one in step.experiment.templates if one.weight is not None}
    return tuple(
        WeightDestination(
            weight=shares[one.name], service_name=one.service_name, pod_template_hash=one.pod_template_hash
        )
        for one in found.status.template_statuses
        if one.name in shares and one.service_name
    )
