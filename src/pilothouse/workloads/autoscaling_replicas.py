"""How many replicas a metric asks for, with pods that have no value or are not ready yet. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from pilothouse.kinds import quantity, times
from pilothouse.kinds.structs import Pod
from pilothouse.kinds.structs.core_containers import Container

from .autoscaling_metrics import MetricsError, Sample
from .pods import condition_of, is_ready

__all__ = ["Proposal", "Timing", "Tolerance", "by_average", "by_ratio", "by_utilization", "per_pod"]

_MOST: Final = 2**31 - 1
_LARGEST: Final = 2**63 - 1


class Tolerance(NamedTuple):
    """How far a metric may be off its target without a change, as parts of it."""

    down: float = 0.1
    up: float = 0.1

    def takes(self, ratio: float) -> bool:
        """Whether a ratio of value to target is near enough to 1."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True)
class Timing:
    """now; for how long a pod's CPU usage is of its start; how long a pod may be unready at first."""

    now: datetime
    cpu_start: timedelta = timedelta(minutes=5)
    first_ready: timedelta = timedelta(seconds=30)


class Proposal(NamedTuple):
    """replicas that a metric asks for, its value in thousandths, and the percentage of what is requested."""

    replicas: int
    value: int
    utilization: int | None = None


@dataclass(slots=True)
class _Groups:
    ready: int = 0
    unready: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)


def _grouped(pods: Iterable[Pod], samples: Mapping[str, Sample], resource: str, timing: Timing) -> _Groups:
    found = _Groups()
    for pod in pods:
        name = pod.metadata.name
        if pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed":
            found.ignored.add(name)
        elif pod.status.phase == "Pending":
            found.unready.add(name)
        elif name not in samples:
            found.missing.add(name)
        elif resource == "cpu" and _is_starting(pod, samples[name], timing):
            found.unready.add(name)
        else:
            found.ready += 1
    return found


def _is_starting(pod: Pod, sample: Sample, timing: Timing) -> bool:
    """Whether a pod's CPU usage says nothing yet of what it will use."""
    ready = condition_of(pod, "Ready")
    if ready is None or pod.status.start_time is None:
        return True
    began = times.parse(pod.status.start_time)
    changed = began if ready.last_transition_time is None else times.parse(ready.last_transition_time)
    if began + timing.cpu_start > timing.now:
        return ready.status == "False" or sample.at < changed + timedelta(seconds=sample.window)
    return ready.status == "False" and began + timing.first_ready > changed


def by_utilization(  # noqa: PLR0913  each is a part of the question
    current: int,
    target: int,
    resource: str,
    container: str,
    samples: Mapping[str, Sample],
    pods: Sequence[Pod],
    tolerance: Tolerance,
    timing: Timing,
) -> Proposal:
    """Return what a percentage of what pods request asks for. Raises MetricsError."""
    values, groups = _values(samples, pods, resource, timing)
    requests = {pod.metadata.name: _requested(pod, container, resource) for pod in pods}

    def ratio(values: Mapping[str, int]) -> tuple[float, int, int]:
        known = {name: value for name, value in values.items() if name in requests}
        requested = sum(requests[name] for name in known)
        if not requested:
            raise MetricsError("no metrics returned matched known pods")
        percentage = sum(known.values()) * 100 // requested
        return percentage / target, percentage, sum(known.values()) // len(known)

    used, percentage, average = ratio(values)
    full = max(100, target)
    fallback = {name: requests[name] * full // 100 for name in groups.missing}
    replicas = _replicas(current, used, values, groups, fallback, tolerance, lambda found: ratio(found)[0])
    return Proposal(replicas, average, percentage)


def by_average(
    current: int,
    target: int,
    samples: Mapping[str, Sample],
    pods: Sequence[Pod],
    tolerance: Tolerance,
    timing: Timing,
    resource: str = "",
) -> Proposal:
    """Return what an average of pods' values asks for. target: in thousandths. Raises MetricsError."""
    values, groups = _values(samples, pods, resource, timing)

    def average(values: Mapping[str, int]) -> int:
        return sum(values.values()) // len(values)

    fallback = dict.fromkeys(groups.missing, target)
    used = average(values)
    replicas = _replicas(
        current, used / target, values, groups, fallback, tolerance, lambda found: average(found) / target
    )
    return Proposal(replicas, used)


def _values(
    samples: Mapping[str, Sample], pods: Sequence[Pod], resource: str, timing: Timing
) -> tuple[dict[str, int], _Groups]:
    if not pods:
        raise MetricsError("no pods returned by selector while calculating replica count")
    groups = _grouped(pods, samples, resource, timing)
    left_out = groups.ignored | groups.unready
    values = {name: sample.value for name, sample in samples.items() if name not in left_out}
    if not values:
        raise MetricsError("did not receive metrics for targeted pods (pods might be unready)")
    return values, groups


def _replicas(
    current: int,
    ratio: float,
    values: Mapping[str, int],
    groups: _Groups,
    fallback: Mapping[str, int],
    tolerance: Tolerance,
    ratio_of: Callable[[Mapping[str, int]], float],
) -> int:
    """Return the replicas for a ratio of value to target; missing pods are taken for what changes least.

    fallback: what missing pods are taken for when there shall be less; when there shall be more, they use nothing.
    """
    counts_unready = bool(groups.unready) and ratio > 1.0
    if not counts_unready and not groups.missing:
        return current if tolerance.takes(ratio) else math.ceil(ratio * groups.ready)
    values = dict(values)
    if ratio < 1.0:
        values |= fallback
    elif ratio > 1.0:
        values |= dict.fromkeys(groups.missing, 0)
    if counts_unready:
        values |= dict.fromkeys(groups.unready, 0)
    changed = ratio_of(values)
    if tolerance.takes(changed) or (ratio < 1.0 < changed) or (changed < 1.0 < ratio):
        return current
    replicas = math.ceil(changed * len(values))
    if (changed < 1.0 and replicas > current) or (changed > 1.0 and replicas < current):
        return current
    return replicas


def by_ratio(current: int, ratio: float, pods: Collection[Pod], tolerance: Tolerance) -> int:
    """Return what a value that belongs to all pods together asks for. Raises MetricsError."""
    if not current:
        return math.ceil(ratio)
    if tolerance.takes(ratio):
        return current
    if not pods:
        what = "no pods returned by selector while calculating replica count"
        raise MetricsError(f"unable to calculate ready pods: {what}")
    ready = sum(pod.status.phase == "Running" and is_ready(pod) for pod in pods)
    return min(math.ceil(ratio * ready), _MOST)


def per_pod(replicas: int, value: int, target: int, tolerance: Tolerance) -> Proposal:
    """Return what a value that is shared by the pods asks for. replicas: that there are. target: for each."""
    ratio = value / (target * replicas) if replicas else math.inf
    wanted = replicas if tolerance.takes(ratio) else min(math.ceil(value / target), _MOST)
    return Proposal(wanted, min(math.ceil(value / replicas), _LARGEST) if replicas else value)


def _requested(pod: Pod, container: str, resource: str) -> int:
    level = pod.spec.resources
    if not container and level is not None and level.requests:
        if resource not in level.requests:
            raise MetricsError(f"missing pod-level request for {resource} in Pod {pod.metadata.name}")
        return quantity.parse_json(level.requests[resource]).milli_value()
    sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
    chosen = [one for one in (*pod.spec.containers, *sidecars) if container in ("", one.name)]
    if container and not chosen:
        raise MetricsError(f"container {container} not found in Pod {pod.metadata.name}")
    return sum(_request_of(one, resource, pod) for one in chosen)


def _request_of(container: Container, resource: str, pod: Pod) -> int:
    found = container.resources.requests.get(resource)
    if found is None:
        where = f"container {container.name} of Pod {pod.metadata.name}"
        raise MetricsError(f"missing request for {resource} in {where}")
    return quantity.parse_json(found).milli_value()
