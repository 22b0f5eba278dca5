"""Whether a node is short of memory, disk or processes, and which pod has to go. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from pilothouse.kinds.structs.core_pods import Pod

from .facts import need_of
from .options import Thresholds

__all__ = ["Pressure", "Reading", "Shortage", "eviction_message", "shortages", "victim"]

_CRITICAL_PRIORITY = 2_000_000_000
Resource = Literal["memory", "ephemeral-storage", "inodes", "pids"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the machine has left; a total of 0 means not known."""

    memory_total: int = 0
    memory_available: int = 0
    disk_total: int = 0
    disk_available: int = 0
    inodes_total: int = 0
    inodes_free: int = 0
    pids_total: int = 0
    pids_available: int = 0


class Shortage(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is short: how much there should be and how much there is."""

    resource: Resource
    threshold: int
    available: int


def shortages(reading: Reading, limits: Thresholds) -> list[Shortage]:
    """Return what is short, memory first."""
    wanted: list[tuple[Resource, int, int, int]] = [
        ("memory", reading.memory_total, limits.memory_available, reading.memory_available),
        (
            "ephemeral-storage",
            reading.disk_total,
            int(reading.disk_total * limits.disk_available),
            reading.disk_available,
        ),
        ("inodes", reading.inodes_total, int(reading.inodes_total * limits.inodes_free), reading.inodes_free),
        ("pids", reading.pids_total, int(reading.pids_total * limits.pids_available), reading.pids_available),
    ]
    return [
        Shortage(resource=name, threshold=threshold, available=left)
        for name, total, threshold, left in wanted
        if total and left < threshold
    ]


class Pressure:
    """The node's pressure conditions: true at once, and for some time after the last shortage."""

    _CONDITIONS: Final = {
        "memory": "MemoryPressure",
        "ephemeral-storage": "DiskPressure",
        "inodes": "DiskPressure",
        "pids": "PIDPressure",
    }

    def __init__(self, calm_seconds: float) -> None:
        self._calm = calm_seconds
        self._seen: dict[str, float] = {}

    def saw(self, found: Iterable[Shortage], now: float) -> None:
        """Take a look's shortages."""
        for shortage in found:
            self._seen[self._CONDITIONS[shortage.resource]] = now

    def active(self, now: float) -> set[str]:
        """Return the conditions that hold."""
        return {name for name, at in self._seen.items() if now - at < self._calm}


def victim(pods: Iterable[Pod], usage: dict[str, int], resource: Resource) -> Pod | None:
    """Return the pod to end first: one that uses more than it asked for, of low priority, by most beyond its request.

    `usage` by uid, in bytes of memory or disk. Critical pods are never chosen.
    """
    ranked: list[tuple[bool, int, int, str, Pod]] = []
    for pod in pods:
        priority = pod.spec.priority or 0
        if priority >= _CRITICAL_PRIORITY:
            continue
        used = usage.get(pod.metadata.uid, 0)
        beyond = used - _requested(pod, resource)
        ranked.append((beyond <= 0, priority, -beyond, pod.metadata.uid, pod))
    return min(ranked, key=lambda each: each[:4])[4] if ranked else None


def _requested(pod: Pod, resource: Resource) -> int:
    if resource != "memory":
        return 0
    return sum(need_of(each).memory_request or 0 for each in pod.spec.containers)


def eviction_message(shortage: Shortage, pod: Pod, used: int) -> str:
    """Return what an evicted pod's status says."""
    text = (
        f"The node was low on resource: {shortage.resource}. "
        f"Threshold quantity: {_shown(shortage.threshold)}, available: {_shown(shortage.available)}. "
    )
    if shortage.resource in {"memory", "ephemeral-storage"} and used:
        request = _requested(pod, shortage.resource)
        name = pod.spec.containers[0].name if pod.spec.containers else ""
        text += (
            f"Container {name} was using {_shown(used)}, request is {_shown(request)}, "
            f"has larger consumption of {shortage.resource}. "
        )
    return text


def _shown(number: int) -> str:
    for suffix, size in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if number and number % size == 0:
            return f"{number // size}{suffix}"
    return f"{number // 1024}Ki" if number >= 1 << 20 else str(number)
