"""Whether a pod may run on this node at all, as a kubelet checks again what a scheduler decided. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pilothouse.kinds.quantity import parse
from pilothouse.kinds.structs.core_nodes import Node
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.structs.core_scheduling import NodeSelectorRequirement, NodeSelectorTerm

from .facts import requests_of

__all__ = ["refusal"]

_AFFINITY = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
_PORTS = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"


def refusal(pod: Pod, others: Iterable[Pod], node: Node) -> tuple[str, str] | None:
    """Return the reason and message of a refusal, None where the pod may run. `others` are those that run here."""
    running = list(others)
    return _resources(pod, running, node) or _affinity(pod, node) or _ports(pod, running)


def _resources(pod: Pod, others: list[Pod], node: Node) -> tuple[str, str] | None:
    allocatable = node.status.allocatable
    if "pods" in allocatable and len(others) + 1 > parse(str(allocatable["pods"])).value():
        capacity = parse(str(allocatable["pods"])).value()
        return _short("pods", 1, len(others), capacity)
    used: dict[str, int] = {}
    for other in others:
        for name, value in requests_of(other).items():
            used[name] = used.get(name, 0) + value
    for name, wanted in sorted(requests_of(pod).items()):
        if not wanted:
            continue
        found = allocatable.get(name)
        amount = parse(str(found)) if found is not None else None
        capacity = 0 if amount is None else (amount.milli_value() if name == "cpu" else amount.value())
        if used.get(name, 0) + wanted > capacity:
            return _short(name, wanted, used.get(name, 0), capacity)
    return None


def _short(name: str, wanted: int, used: int, capacity: int) -> tuple[str, str]:
    return f"OutOf{name}", (
        f"Pod was rejected: Node didn't have enough resource: {name}, "
        f"requested: {wanted}, used: {used}, capacity: {capacity}"
    )


def _affinity(pod: Pod, node: Node) -> tuple[str, str] | None:
    labels = node.metadata.labels
    if any(labels.get(name) != value for name, value in pod.spec.node_selector.items()):
        return "NodeAffinity", _AFFINITY
    affinity = pod.spec.affinity
    required = (
        affinity.node_affinity.required_during_scheduling_ignored_during_execution
        if (affinity is not None and affinity.node_affinity is not None)
        else None
    )
    if required is None or not required.node_selector_terms:
        return None
    if any(_term(term, node) for term in required.node_selector_terms):
        return None
    return "NodeAffinity", _AFFINITY


def _term(term: NodeSelectorTerm, node: Node) -> bool:
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.metadata.name}
    return all(_fits(each, node.metadata.labels) for each in term.match_expressions) and all(
        _fits(each, fields) for each in term.match_fields
    )


def _fits(wanted: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(wanted.key)
    match wanted.operator:
        case "In":
            return value is not None and value in wanted.values
        case "NotIn":
            return value is None or value not in wanted.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                number, bound = int(value or ""), int(wanted.values[0])
            except (ValueError, IndexError):
                return False
            return number > bound if wanted.operator == "Gt" else number < bound
        case _:
            return False


def _ports(pod: Pod, others: list[Pod]) -> tuple[str, str] | None:
    taken = [each for other in others for each in _host_ports(other)]
    for address, port, protocol in _host_ports(pod):
        for other_address, other_port, other_protocol in taken:
            same_place = address == other_address or "0.0.0.0" in {address, other_address}  # noqa: S104  any address
            if port == other_port and protocol == other_protocol and same_place:
                return "NodePorts", _PORTS
    return None


def _host_ports(pod: Pod) -> list[tuple[str, int, str]]:
    return [
        (port.host_ip or "0.0.0.0", port.host_port, port.protocol or "TCP")  # noqa: S104  any address
        for container in (*pod.spec.containers, *pod.spec.init_containers)
        for port in container.ports
        if port.host_port
    ]
