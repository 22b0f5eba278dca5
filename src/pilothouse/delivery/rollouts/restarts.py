"""Restarting a rollout's pods: those older than `restartAt` are evicted, a few at a time."""

from __future__ import annotations

from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod, PodCondition

from .actions import EvictPod, Plan
from .names import HASH
from .situation import Situation, hash_label

__all__ = ["evictions", "has_restarted", "is_restarting"]

_CHECK_SECONDS: Final = 30.0


def is_restarting(sit: Situation) -> bool:
    """Whether pods are to be restarted now."""
    wanted = sit.spec.restart_at
    return bool(wanted) and sit.status.restarted_at != wanted and sit.since(wanted) >= 0


def _old(sit: Situation) -> list[Pod]:
    """Return the pods that are older than the moment, those of replaced sets first and of the stable one last."""
    limit = times.parse(sit.spec.restart_at) if sit.spec.restart_at else sit.now
    order = {hash_label(found): place for place, found in enumerate([*sit.others, sit.new, sit.stable]) if found}
    found = [pod for pod in _pods(sit) if times.parse(pod.metadata.creation_timestamp or sit.stamp) <= limit]
    return sorted(found, key=lambda pod: (order[pod.metadata.labels[HASH]], pod.metadata.name))


def _pods(sit: Situation) -> list[Pod]:
    named = {hash_label(found) for found in sit.sets}
    return [pod for pod in sit.view.pods if pod.metadata.labels.get(HASH, "") in named]


def has_restarted(sit: Situation) -> bool:
    """Whether no pod is older than the moment any more."""
    return is_restarting(sit) and not _old(sit)


def evictions(sit: Situation, plan: Plan) -> list[EvictPod]:
    """Return the pods to evict now: as many as may be unavailable, one at least."""
    wanted = sit.spec.restart_at
    if wanted and sit.since(wanted) < 0:
        plan.wait(-sit.since(wanted))
    if not is_restarting(sit):
        return []
    ready = sum(_is_available(sit, pod) for pod in _pods(sit))
    least = max(sit.replicas, sit.total(sit.sets)) - max(sit.max_unavailable, 1)
    found = [pod for pod in _old(sit) if pod.metadata.deletion_timestamp is None]
    plan.wait(_CHECK_SECONDS)
    return [EvictPod(pod) for pod in found[: max(ready - least, 0)]]


def _is_available(sit: Situation, pod: Pod) -> bool:
    ready: PodCondition | None = next((one for one in pod.status.conditions if one.type == "Ready"), None)
    if ready is None or ready.status != "True" or pod.metadata.deletion_timestamp is not None:
        return False
    seconds = sit.spec.min_ready_seconds or 0
    return not seconds or sit.since(ready.last_transition_time) >= seconds
