"""What a pod asks for in all: the sums over its containers that quotas, limits and the scheduler count with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pilothouse.kinds.quantity import ZERO, Quantity, parse

__all__ = ["Resources", "add", "is_best_effort", "pod_resources", "quantities", "read"]

Resources: TypeAlias = dict[str, Quantity]

_POD_LEVEL: Final = frozenset({"cpu", "memory"})
_HUGE: Final = "hugepages-"


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    return parse(text)


def read(value: Any) -> Quantity:
    """Read a quantity of an object that was validated or is about to be; what is none counts as zero."""
    try:
        return _parse(value if type(value) is str else str(value)) if len(str(value)) < 64 else ZERO
    except ValueError:
        return ZERO


def quantities(found: Mapping[str, Any] | None) -> Resources:
    """Read a map of resources."""
    return {name: read(value) for name, value in found.items()} if found else {}


def add(left: Mapping[str, Quantity], right: Mapping[str, Quantity]) -> Resources:
    """Add two maps of resources name by name."""
    total = dict(left)
    for name, value in right.items():
        total[name] = total[name] + value if name in total else value
    return total


def _largest(left: Mapping[str, Quantity], right: Mapping[str, Quantity]) -> Resources:
    total = dict(left)
    for name, value in right.items():
        if name not in total or total[name] < value:
            total[name] = value
    return total


def _container(container: Mapping[str, Any], field: str) -> Resources:
    return quantities((container.get("resources") or {}).get(field))


def pod_resources(spec: Mapping[str, Any], field: str, *, overhead: bool = True) -> Resources:
    """Sum the `requests` or `limits` of a pod.

    Containers and sidecars run together; init containers run one after another beside the sidecars started before.
    Resources of the pod as a whole replace the sums. Its overhead is added, to limits only where there is a limit.
    """
    total: Resources = {}
    for container in spec.get("containers") or ():
        total = add(total, _container(container, field))
    total = _with_init(spec.get("initContainers") or (), total, field)
    for name, value in quantities((spec.get("resources") or {}).get(field)).items():
        if name in _POD_LEVEL or name.startswith(_HUGE):
            total[name] = value
    if overhead and spec.get("overhead"):
        extra = quantities(spec["overhead"])
        if field == "limits":
            extra = {name: value for name, value in extra.items() if total.get(name)}
        total = add(total, extra)
    return total


def _with_init(containers: Iterable[Mapping[str, Any]], total: Resources, field: str) -> Resources:
    sidecars: Resources = {}
    peak: Resources = {}
    for container in containers:
        own = _container(container, field)
        if container.get("restartPolicy") == "Always":
            total = add(total, own)
            sidecars = add(sidecars, own)
            own = sidecars
        else:
            own = add(own, sidecars)
        peak = _largest(peak, own)
    return _largest(total, peak)


def is_best_effort(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has the quality of service BestEffort: no container asks for processor or memory."""
    told = (pod.get("status") or {}).get("qosClass")
    if told:
        return bool(told == "BestEffort")
    spec = pod.get("spec") or {}
    asking = [spec, *(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return not any(
        read(value)
        for one in asking
        for field in ("requests", "limits")
        for name, value in ((one.get("resources") or {}).get(field) or {}).items()
        if name in _POD_LEVEL
    )
