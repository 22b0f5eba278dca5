"""What a pod asks of its node: the sums over containers, init containers, sidecars, overhead and the pod itself.

As `resource.PodRequests` of k8s.io/component-helpers: an init container raises the sum only where it needs more than
what runs later, sidecars count for good, a resize in progress counts with the larger of what is wanted and given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse.kinds import quantity
from pilothouse.kinds.structs import Container, ContainerStatus, Node, Pod, Quantity

__all__ = [
    "CPU",
    "DEFAULT_CPU",
    "DEFAULT_MEMORY",
    "EPHEMERAL",
    "MEMORY",
    "PODS",
    "Demand",
    "allocatable_of",
    "amount",
    "demand_of",
    "is_extended",
    "is_scalar",
]

CPU: Final = "cpu"
MEMORY: Final = "memory"
EPHEMERAL: Final = "ephemeral-storage"
PODS: Final = "pods"
DEFAULT_CPU: Final = 100
"""Thousandths of a core that a container without a request counts for when nodes are scored."""
DEFAULT_MEMORY: Final = 200 * 1024 * 1024
"""Bytes that a container without a request counts for when nodes are scored."""

_NATIVE_DOMAIN: Final = "kubernetes.io/"
_Amounts = dict[str, int]


class Demand(NamedTuple):
    """What a pod needs. Amounts by resource (CPU in thousandths), and CPU and memory as they count in scores."""

    requests: Mapping[str, int]
    scored_cpu: int
    scored_memory: int


@lru_cache(maxsize=8192)
def _read(name: str, value: Quantity) -> int:
    number = quantity.parse_json(value)
    return number.milli_value() if name == CPU else number.value()


def amount(name: str, value: Quantity) -> int:
    """Give an amount as a whole number: thousandths for CPU, else the number rounded up. Raises QuantityError."""
    return _read(name, value)


def is_extended(name: str) -> bool:
    """Whether a resource belongs to a domain other than Kubernetes' own, as those of device plugins."""
    return "/" in name and _NATIVE_DOMAIN not in name and not name.startswith("requests.")


def is_scalar(name: str) -> bool:
    """Whether the scheduler counts a resource beside CPU, memory, ephemeral storage and pods."""
    return is_extended(name) or name.startswith(("hugepages-", "attachable-volumes-")) or _NATIVE_DOMAIN in name


def allocatable_of(node: Node) -> Mapping[str, int]:
    """Give what a node has for pods, by resource."""
    return {name: amount(name, value) for name, value in node.status.allocatable.items()}


def demand_of(pod: Pod) -> Demand:
    """Sum up what a pod asks for."""
    pod_level = _pod_level(pod)
    requests = {**_containers(pod, {}), **pod_level}
    defaults = {CPU: DEFAULT_CPU, MEMORY: DEFAULT_MEMORY}
    if pod_level:
        defaults = {name: value for name, value in defaults.items() if name not in requests}
    scored = {**_containers(pod, defaults), **pod_level}
    for name, value in pod.spec.overhead.items():
        extra = amount(name, value)
        requests[name] = requests.get(name, 0) + extra
        scored[name] = scored.get(name, 0) + extra
    return Demand(requests, scored.get(CPU, 0), scored.get(MEMORY, 0))


def _pod_level(pod: Pod) -> _Amounts:
    if pod.spec.resources is None:
        return {}
    wanted = pod.spec.resources.requests
    given = pod.status.resources.requests if pod.status.resources is not None else {}
    found = {}
    for name, value in wanted.items():
        if name in {CPU, MEMORY} or name.startswith("hugepages-"):
            parts = (value, given.get(name), pod.status.allocated_resources.get(name))
            found[name] = max(amount(name, part) for part in parts if part is not None)
    return found


def _containers(pod: Pod, defaults: Mapping[str, int]) -> _Amounts:
    statuses = {one.name: one for one in (*pod.status.container_statuses, *pod.status.init_container_statuses)}
    infeasible = any(one.type == "PodResizePending" and one.reason == "Infeasible" for one in pod.status.conditions)
    total: _Amounts = {}
    for container in pod.spec.containers:
        _add(total, _container(container, statuses.get(container.name), defaults, infeasible))
    sidecars: _Amounts = {}
    peak: _Amounts = {}
    for container in pod.spec.init_containers:
        sidecar = container.restart_policy == "Always"
        needs = _container(container, statuses.get(container.name) if sidecar else None, defaults, infeasible)
        if sidecar:
            _add(total, needs)
            _add(sidecars, needs)
            needs = sidecars
        else:
            _add(needs, sidecars)
        for name, value in needs.items():
            peak[name] = max(peak.get(name, 0), value)
    for name, value in peak.items():
        total[name] = max(total.get(name, 0), value)
    return total


def _container(
    container: Container, status: ContainerStatus | None, defaults: Mapping[str, int], infeasible: bool
) -> _Amounts:
    found = {name: amount(name, value) for name, value in container.resources.requests.items()}
    if status is not None and status.resources is not None:
        given: _Amounts = {}
        for part in (status.resources.requests, status.allocated_resources):
            for name, value in part.items():
                given[name] = max(given.get(name, 0), amount(name, value))
        # A resize that the node cannot do leaves the pod with what it has.
        found = given if infeasible else {name: max(value, given.get(name, 0)) for name, value in found.items()}
    for name, value in defaults.items():
        found.setdefault(name, value)
    return found


def _add(total: _Amounts, more: Mapping[str, int] | Iterable[tuple[str, int]]) -> None:
    for name, value in dict(more).items():
        total[name] = total.get(name, 0) + value
