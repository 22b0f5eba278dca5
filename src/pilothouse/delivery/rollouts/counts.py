"""How many pods the canary and the stable set are to have. Argo's arithmetic, so that rollouts take the same steps."""

from __future__ import annotations

from fractions import Fraction
from typing import Final, NamedTuple

from pilothouse.delivery.resources.rollouts import SetCanaryScale, TrafficWeights
from pilothouse.kinds.structs import ReplicaSet

from .situation import Situation, available, size
from .weights import abort_weight, split_at

__all__ = ["PERCENT", "PODS", "Counts", "counts", "is_at_counts", "is_far_enough"]

PERCENT: Final = frozenset({"Percent", "Percentage"})
PODS: Final = frozenset({"Pods", "Pod"})
"""Types of `replicaProgressThreshold`: Argo's code has the first word of both, its documents have others."""


class Counts(NamedTuple):
    """Pods of the canary and of the stable set."""

    canary: int
    stable: int


def counts(sit: Situation, weights: TrafficWeights | None) -> Counts:
    """Return how many pods both are to have next. weights: how traffic is split, which a shrinking stable set follows.

    Without routes pods are what splits the traffic, and surge and unavailability limit each step.
    """
    return _routed(sit, weights) if sit.is_routed else _basic(sit)


def is_at_counts(sit: Situation, weights: TrafficWeights | None) -> bool:
    """Whether both have the pods that the present step wants."""
    wanted = counts(sit, weights)
    if not is_far_enough(sit, sit.new, wanted.canary):
        return False
    if not sit.is_dynamic:
        stable = sit.stable
        if stable is None or not wanted.stable == size(stable) == stable.status.replicas:
            return False
    return sit.is_routed or not any(available(found) for found in sit.others)


def is_far_enough(sit: Situation, found: ReplicaSet | None, wanted: int) -> bool:
    """Whether as many pods of a set are available as `replicaProgressThreshold` asks for, or all of them."""
    threshold = None if sit.canary is None else sit.canary.replica_progress_threshold
    if threshold is None or found is None or threshold.value < 0:
        return found is not None and wanted == size(found) == available(found)
    if threshold.type in PERCENT:
        return available(found) * 100 >= wanted * threshold.value
    return available(found) >= threshold.value


# What the step asks for


def _canary_scale(sit: Situation) -> SetCanaryScale | None:
    """Return the setCanaryScale that counts now."""
    index = sit.index
    if not sit.is_routed or sit.step is None or index is None:
        return None
    if sit.is_aborted and sit.abort_delay is not None:
        return None
    last = next((step.set_canary_scale for step in reversed(sit.steps[: index + 1]) if step.set_canary_scale), None)
    return None if last is None or last.match_traffic_weight else last


def _wanted(sit: Situation) -> tuple[int | None, int]:
    """Return a number of pods where one is said, and the weight by which they are counted otherwise."""
    if sit.status.promote_full or sit.is_first or sit.is_promoted:
        return None, sit.max_weight
    scale = _canary_scale(sit)
    if scale is not None and scale.replicas is not None:
        return scale.replicas, 0
    if scale is not None and scale.weight is not None:
        return None, scale.weight
    if sit.is_aborted:
        return None, abort_weight(sit)
    return None, split_at(sit.steps, sit.index, sit.max_weight).most


def _of_weight(sit: Situation, weight: int) -> int:
    return -(-weight * sit.replicas // sit.max_weight)


def _at_least(sit: Situation, count: int) -> int:
    least = None if sit.canary is None else sit.canary.min_pods_per_replica_set
    return count if not count or least is None or not sit.is_routed else max(count, min(least, sit.replicas))


def _routed(sit: Situation, weights: TrafficWeights | None) -> Counts:
    said, weight = _wanted(sit)
    canary = _at_least(sit, max(_of_weight(sit, weight), _for_routes(sit))) if said is None else said
    if not sit.is_dynamic:
        return Counts(canary, sit.replicas)
    # The stable set serves what it has now and what it gets next, so it shrinks after its traffic and grows before.
    stable = _of_weight(sit, sit.max_weight - weight)
    if weights is not None:
        stable = max(stable, _of_weight(sit, weights.stable.weight))
        if sit.is_aborted:
            canary = max(canary, _of_weight(sit, weights.canary.weight))
    return Counts(_at_least(sit, canary), _at_least(sit, stable))


def _for_routes(sit: Situation) -> int:
    """Return the pod that routes made by steps lead to, also where no share of the rest of the traffic does."""
    if sit.is_aborted or sit.is_promoted or sit.is_first or sit.status.promote_full or not sit.replicas:
        return 0
    return 1 if split_at(sit.steps, sit.index, sit.max_weight).managed else 0


# Without routes


def _basic(sit: Situation) -> Counts:
    new, others, beside = sit.new, sit.others, sit.has_stable
    stable = sit.stable if beside else None
    wanted = _approximated(sit.replicas, _wanted(sit)[1], sit.max_weight, sit.max_surge)
    if not beside:
        wanted = Counts(sit.replicas, 0)
    most = sit.replicas + sit.max_surge
    made = _grown(wanted, new, stable, most - sit.total([new, stable, *others]))
    if sit.total(others) > 0:
        return made  # those go first
    least = sit.replicas - sit.max_unavailable
    growing = new is None or wanted.canary >= size(new)
    spare = _may_go(new, not growing) + _may_go(stable if beside else sit.stable, growing) - least
    if spare <= 0:
        return made
    if not growing:
        canary = _shrunk(new, wanted.canary, spare, made.canary)
        return Counts(*_within(new, stable, canary, made.stable, most, least))
    if beside:
        kept = _shrunk(stable, wanted.stable, spare, made.stable)
        kept, canary = _within(stable, new, kept, made.canary, most, least)
        return Counts(canary, kept)
    return made


def _grown(wanted: Counts, new: ReplicaSet | None, stable: ReplicaSet | None, room: int) -> Counts:
    """Let both grow as there is room, the stable set first."""
    canary, kept = size(new), size(stable)
    if stable is not None and kept < wanted.stable and room > 0:
        more = min(room, wanted.stable - kept)
        kept, room = kept + more, room - more
    if new is not None and canary < wanted.canary and room > 0:
        canary += min(room, wanted.canary - canary)
    return Counts(canary, kept)


def _may_go(found: ReplicaSet | None, ignore_availability: bool) -> int:
    if found is None:
        return 0
    return size(found) if ignore_availability else min(size(found), available(found))


def _shrunk(found: ReplicaSet | None, wanted: int, spare: int, count: int) -> int:
    return max(wanted, size(found) - spare) if found is not None and size(found) > wanted else count


def _within(
    drained: ReplicaSet | None, kept: ReplicaSet | None, drain: int, keep: int, most: int, least: int
) -> tuple[int, int]:
    """Hold two counts within surge and unavailability; the first is of the set that gets smaller."""
    if kept is None:
        return drain, keep
    keep -= max(0, keep + drain - most)
    # Pods that are going already are no reserve, though they may be available still.
    reserve = min(available(kept), size(kept))
    ready = min(available(drained), drain) + min(reserve, keep)
    keep += min(max(0, reserve - keep), max(0, least - ready))
    return drain - max(0, keep + drain - most), keep


def _approximated(replicas: int, weight: int, max_weight: int, surge: int) -> Counts:
    """Return the counts that come nearest to a weight; with surge there may be one pod more in all."""
    if not replicas:
        return Counts(0, 0)
    share = Fraction(replicas * weight, max_weight)
    up, down = -(-share.numerator // share.denominator), share.numerator // share.denominator
    zero = weight in {0, max_weight} or (replicas == 1 and not surge)
    options: list[tuple[int, int]] = []
    if up < replicas or zero:
        options.append((up, replicas))
    if not _is_tied(replicas, weight, max_weight) and (down or zero):
        options.append((down, replicas))
    if surge > 0:
        options.append((up, replicas + 1))
        if not _is_tied(replicas + 1, weight, max_weight) and (down or zero):
            options.append((down, replicas + 1))
    if not options:
        return Counts(0, replicas)
    canary, total = min(options, key=lambda one: abs(Fraction(one[0] * max_weight, one[1]) - weight))
    return Counts(canary, total - canary)


def _is_tied(total: int, weight: int, max_weight: int) -> bool:
    return Fraction(total * weight, max_weight) % 1 == Fraction(1, 2)
