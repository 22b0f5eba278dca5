"""What a service publishes of a pod: whether at all, under which addresses and ports, and in which state. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from pilothouse.kinds.structs import Node, Pod, Service
from pilothouse.kinds.structs.core_references import ObjectReference
from pilothouse.kinds.structs.core_services import ServicePort
from pilothouse.kinds.structs.discovery import Endpoint, EndpointConditions, EndpointPort

from .endpoints_order import slice_port_order
from .pods import condition_of, is_finished, is_ready

__all__ = [
    "HEADLESS",
    "TRIGGER_TIME",
    "TriggerTimes",
    "addresses_of",
    "endpoint_of",
    "families_of",
    "has_address",
    "hostname_of",
    "is_headless",
    "is_relevant_change",
    "normal_address",
    "port_of",
    "ports_of",
    "target_of",
]

HEADLESS: Final = "service.kubernetes.io/headless"
"""The label of what belongs to a service without an address of its own."""
TRIGGER_TIME: Final = "endpoints.kubernetes.io/last-change-trigger-time"
_ZONE: Final = "topology.kubernetes.io/zone"


def is_headless(service: Service) -> bool:
    """Whether a service has no address of its own."""
    return service.spec.cluster_ip in ("", "None")


def families_of(service: Service) -> list[str]:
    """Return the families of addresses that a service has, IPv4 and IPv6 at most."""
    found = [each for each in service.spec.ip_families if each in ("IPv4", "IPv6")]
    if found:
        return found
    if is_headless(service):
        return ["IPv4", "IPv6"]
    return ["IPv6" if ":" in service.spec.cluster_ip else "IPv4"]


def has_address(pod: Pod) -> bool:
    """Whether a pod can be an endpoint: it has an address, and its containers have not ended for good."""
    return not is_finished(pod) and bool(pod.status.pod_ip or pod.status.pod_ips)


@lru_cache(maxsize=65_536)
def normal_address(text: str) -> str:
    """Return an address as it is usually written, zeros before its decimal numbers left out; "" for none."""
    if ":" not in text:
        text = ".".join(part.lstrip("0") or "0" for part in text.split("."))
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def addresses_of(pod: Pod, family: str) -> list[str]:
    """Return a pod's addresses of a family."""
    found = [normal_address(each.ip) for each in pod.status.pod_ips]
    return [each for each in found if each and (":" in each) == (family == "IPv6")]


def hostname_of(pod: Pod, service: Service) -> str:
    """Return the host name under which a pod is found in the service's domain; "" for none."""
    return pod.spec.hostname if pod.spec.subdomain == service.metadata.name else ""


def target_of(pod: Pod) -> ObjectReference:
    """Return the reference of an endpoint to its pod."""
    metadata = pod.metadata
    return ObjectReference(kind="Pod", namespace=metadata.namespace, name=metadata.name, uid=metadata.uid)


def port_of(pod: Pod, port: ServicePort) -> int | None:
    """Return the number of a service's port in a pod: as it is, or as a container names it; None for none."""
    if isinstance(port.target_port, int):
        return port.target_port
    sidecars = [each for each in pod.spec.init_containers if each.restart_policy == "Always"]
    for container in [*pod.spec.containers, *sidecars]:
        for each in container.ports:
            if each.name == port.target_port and (each.protocol or "TCP") == (port.protocol or "TCP"):
                return each.container_port
    return None


def ports_of(service: Service, pod: Pod) -> tuple[EndpointPort, ...]:
    """Return the ports of a pod's endpoint, in the order in which a slice has them."""
    found = []
    for each in service.spec.ports:
        number = port_of(pod, each)
        if number is not None:
            protocol = each.protocol or "TCP"
            found.append(EndpointPort(name=each.name, protocol=protocol, port=number, app_protocol=each.app_protocol))
    return tuple(found if len(found) < 2 else sorted(found, key=slice_port_order))


def endpoint_of(service: Service, pod: Pod, node: Node | None, family: str) -> Endpoint:
    """Return a pod's endpoint in a slice of a family; it has no addresses where the pod has none of it."""
    serving, terminating = is_ready(pod), pod.metadata.deletion_timestamp is not None
    ready = bool(service.spec.publish_not_ready_addresses) or (serving and not terminating)
    return Endpoint(
        addresses=sorted(addresses_of(pod, family)),
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hostname=hostname_of(pod, service) or None,
        target_ref=target_of(pod),
        node_name=pod.spec.node_name or None,
        zone=None if node is None else node.metadata.labels.get(_ZONE) or None,
    )


def is_relevant_change(old: Pod, new: Pod) -> bool:
    """Whether a pod changed in what services see of it."""
    return _seen(old) != _seen(new)


def _seen(pod: Pod) -> tuple[object, ...]:
    return (
        pod.metadata.labels,
        pod.spec.hostname,
        pod.spec.subdomain,
        pod.metadata.deletion_timestamp,
        is_ready(pod),
        is_finished(pod),
        [each.ip for each in pod.status.pod_ips],
    )


class TriggerTimes:
    """Knows for each service when what its endpoints follow changed last: for how long a change took is measured."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def changed(self, service: Service, pods: Iterable[Pod]) -> str:
        """Return the time of the oldest change since the last call; "" where nothing changed that has a time."""
        key = f"{service.metadata.namespace}/{service.metadata.name}"
        born = service.metadata.creation_timestamp or ""
        times = {pod.metadata.name: time for pod in pods if (time := _ready_time(pod))}
        before = self._known.get(key)
        self._known[key] = (born, times)
        if before is None:
            return born
        newer: Sequence[str] = [time for name, time in times.items() if time > before[1].get(name, "")]
        return min([*newer, born] if born > before[0] else newer, default="")

    def forget(self, namespace: str, name: str) -> None:
        """Forget a service that is gone."""
        self._known.pop(f"{namespace}/{name}", None)


def _ready_time(pod: Pod) -> str:
    found = condition_of(pod, "Ready")
    return "" if found is None else found.last_transition_time or ""
