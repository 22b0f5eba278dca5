"""What controllers ask of pods: whether one is ready, available, active, and which one goes first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cmp_to_key
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod
from pilothouse.kinds.structs.core_pod_status import PodCondition

__all__ = [
    "available_in",
    "condition_of",
    "deletion_order",
    "is_active",
    "is_available",
    "is_finished",
    "is_ready",
    "is_terminating",
    "max_restarts",
]

_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_PHASES: Final[Mapping[str | None, int]] = {"Pending": 0, "Unknown": 1, "Running": 2}
_COST: Final = "controller.kubernetes.io/pod-deletion-cost"
_NEVER: Final = -math.inf


def condition_of(pod: Pod, kind: str) -> PodCondition | None:
    """Return the condition of a type, None where there is none."""
    return next((found for found in pod.status.conditions if found.type == kind), None)


def is_ready(pod: Pod) -> bool:
    """Whether the condition Ready is true."""
    found = condition_of(pod, "Ready")
    return found is not None and found.status == "True"


def available_in(pod: Pod, min_ready_seconds: int, now: datetime) -> float | None:
    """Return in how many seconds a pod has been ready for as long as it has to; 0 if it has, None if not ready."""
    found = condition_of(pod, "Ready")
    if found is None or found.status != "True":
        return None
    if min_ready_seconds == 0:
        return 0.0
    if found.last_transition_time is None:
        return None
    since = times.parse(found.last_transition_time)
    return max(0.0, (since + timedelta(seconds=min_ready_seconds) - now).total_seconds())


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Whether a pod has been ready for as long as it has to."""
    return available_in(pod, min_ready_seconds, now) == 0.0


def is_finished(pod: Pod) -> bool:
    """Whether all containers have ended for good."""
    return pod.status.phase in _FINISHED


def is_active(pod: Pod) -> bool:
    """Whether a pod counts as a replica: neither finished nor being deleted."""
    return pod.status.phase not in _FINISHED and pod.metadata.deletion_timestamp is None


def is_terminating(pod: Pod) -> bool:
    """Whether a pod is being deleted and its containers may still run."""
    return pod.status.phase not in _FINISHED and pod.metadata.deletion_timestamp is not None


def max_restarts(pod: Pod) -> int:
    """Return the restarts of the container that was restarted most often."""
    return max((found.restart_count for found in pod.status.container_statuses), default=0)


def deletion_order(pods: Sequence[Pod], neighbours: Iterable[Pod], now: datetime) -> list[Pod]:
    """Return pods in the order in which a controller that has too many lets go of them.

    Those without a node first, then pending ones, those that are not ready, of low deletion cost, on a node with many
    of their kind, ready for a short time, restarted often, young. Times are compared by their order of magnitude, so
    that pods of about one age go at random. neighbours: pods of the controllers that share a node with these.
    """
    crowd: dict[str, int] = {}
    for pod in neighbours:
        if is_active(pod):
            crowd[pod.spec.node_name] = crowd.get(pod.spec.node_name, 0) + 1
    ranked = [_Rank(pod, crowd.get(pod.spec.node_name, 0), now) for pod in pods]
    return [one.pod for one in sorted(ranked, key=cmp_to_key(_compare))]


class _Rank:
    __slots__ = ("born", "first", "pod", "ready", "restarts")

    def __init__(self, pod: Pod, crowd: int, now: datetime) -> None:
        self.pod = pod
        ready = condition_of(pod, "Ready") if is_ready(pod) else None
        self.first = (
            bool(pod.spec.node_name),
            _PHASES.get(pod.status.phase, 0),
            ready is not None,
            _cost(pod),
            -crowd,
        )
        self.ready = None if ready is None else _magnitude(ready.last_transition_time, now)
        self.restarts = -max_restarts(pod)
        self.born = _magnitude(pod.metadata.creation_timestamp, now)


def _compare(one: _Rank, other: _Rank) -> int:
    if one.first != other.first:
        return -1 if one.first < other.first else 1
    if one.ready is not None and other.ready is not None and (found := _by_time(one, other, one.ready, other.ready)):
        return found
    if one.restarts != other.restarts:
        return -1 if one.restarts < other.restarts else 1
    return _by_time(one, other, one.born, other.born)


def _by_time(one: _Rank, other: _Rank, first: tuple[float, float], second: tuple[float, float]) -> int:
    if first[1] == second[1]:
        return 0
    if first[0] != second[0]:
        return -1 if first[0] < second[0] else 1
    return -1 if one.pod.metadata.uid < other.pod.metadata.uid else 1


def _magnitude(time: str | None, now: datetime) -> tuple[float, float]:
    """Return the order of magnitude of an age, and the moment itself; no time is younger than any."""
    if time is None:
        return _NEVER, _NEVER
    moment = times.parse(time)
    nanoseconds = (now - moment).total_seconds() * 1e9
    return (float(int(math.log2(nanoseconds))) if nanoseconds > 0 else -1.0), moment.timestamp()


def _cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(_COST, "0"))
    except ValueError:
        return 0
