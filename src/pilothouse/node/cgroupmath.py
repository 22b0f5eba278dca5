"""What a pod's requests and limits become in control groups: the kubelet's conversions, tree and OOM scores. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from pilothouse.node.config import Resources

__all__ = [
    "Need",
    "QosClass",
    "container_resources",
    "milli_cpu_to_quota",
    "milli_cpu_to_shares",
    "oom_score_adj",
    "pod_cgroup",
    "pod_resources",
    "qos_class",
    "shares_to_weight",
    "shares_to_weight_before",
]

QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]

_MIN_SHARES, _MAX_SHARES = 2, 262_144
_SHARES_PER_CPU = 1024
_PERIOD_US, _MIN_QUOTA_US = 100_000, 1_000
_GUARANTEED_SCORE, _BEST_EFFORT_SCORE = -997, 1000


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What one container asks for: CPU in thousandths, memory in bytes; None where the pod does not say."""

    cpu_request: int | None = None
    cpu_limit: int | None = None
    memory_request: int | None = None
    memory_limit: int | None = None


def milli_cpu_to_shares(milli: int) -> int:
    """Return cgroup v1's `cpu.shares`."""
    return min(max(milli * _SHARES_PER_CPU // 1000, _MIN_SHARES), _MAX_SHARES)


def milli_cpu_to_quota(milli: int, period: int = _PERIOD_US) -> int:
    """Return the CPU time per `period` in µs; 0, which is no limit, for 0."""
    return max(milli * period // 1000, _MIN_QUOTA_US) if milli > 0 else 0


def shares_to_weight(shares: int) -> int:
    """Return cgroup v2's `cpu.weight` as runtimes of today compute it: 1 CPU, 1024 shares, is 100."""
    if shares <= _MIN_SHARES:
        return 1 if shares else 0
    if shares >= _MAX_SHARES:
        return 10_000
    log = math.log2(shares)
    return math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34))


def shares_to_weight_before(shares: int) -> int:
    """Return cgroup v2's `cpu.weight` as runtimes computed it before 2025: 1 CPU is 39."""
    return 1 + (min(max(shares, _MIN_SHARES), _MAX_SHARES) - 2) * 9999 // 262_142 if shares else 0


def qos_class(needs: Sequence[Need]) -> QosClass:
    """Return the class of a pod with these containers, init containers included."""
    values = [
        value for need in needs for value in (need.cpu_request, need.cpu_limit, need.memory_request, need.memory_limit)
    ]
    if not any(values):
        return "BestEffort"
    if all(_guaranteed(need) for need in needs):
        return "Guaranteed"
    return "Burstable"


def oom_score_adj(qos: QosClass, memory_request: int, memory_capacity: int, *, critical: bool = False) -> int:
    """Return how soon the kernel kills a container's processes when memory is short; the higher the sooner."""
    if critical or qos == "Guaranteed":
        return _GUARANTEED_SCORE
    if qos == "BestEffort":
        return _BEST_EFFORT_SCORE
    score = 1000 - 1000 * memory_request // max(memory_capacity, 1)
    # Between the two other classes, whatever a container asks for.
    return min(max(score, 1000 + _GUARANTEED_SCORE), _BEST_EFFORT_SCORE - 1)


def pod_cgroup(uid: str, qos: QosClass, root: str = "/kubepods") -> str:
    """Return the group of a pod, below the one of its class."""
    middle = "" if qos == "Guaranteed" else f"/{qos.lower()}"
    return f"{root}{middle}/pod{uid}"


def container_resources(need: Need, score: int, *, pids_limit: int = 0) -> Resources:
    """Return a container's limits; a limit without a request is also the request."""
    request = need.cpu_request if need.cpu_request is not None else need.cpu_limit
    return Resources(
        cpu_shares=milli_cpu_to_shares(request or 0),
        cpu_quota=milli_cpu_to_quota(need.cpu_limit or 0),
        cpu_period=_PERIOD_US,
        memory_limit=need.memory_limit or 0,
        oom_score_adj=score,
        pids_limit=pids_limit,
    )


def pod_resources(needs: Sequence[Need], *, pids_limit: int = 0) -> Resources:
    """Return the limits of a pod's own group: sums, and a limit only where every container has one."""
    requests = [need.cpu_request if need.cpu_request is not None else need.cpu_limit or 0 for need in needs]
    cpu = [need.cpu_limit or 0 for need in needs]
    memory = [need.memory_limit or 0 for need in needs]
    return Resources(
        cpu_shares=milli_cpu_to_shares(sum(requests)),
        cpu_quota=milli_cpu_to_quota(sum(cpu)) if all(cpu) else 0,
        cpu_period=_PERIOD_US,
        memory_limit=sum(memory) if all(memory) else 0,
        pids_limit=pids_limit,
    )


def _guaranteed(need: Need) -> bool:
    pairs = ((need.cpu_request, need.cpu_limit), (need.memory_request, need.memory_limit))
    return all(limit and request in {None, limit} for request, limit in pairs)
