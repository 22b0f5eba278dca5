"""Endpoints, the older form of what a service publishes: subsets of addresses that have the same ports. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from pilothouse.kinds.structs import Endpoints, ObjectMeta, Pod, Service, replace
from pilothouse.kinds.structs.core_services import EndpointAddress, EndpointPort, EndpointSubset

from .endpoints import (
    HEADLESS,
    TRIGGER_TIME,
    addresses_of,
    families_of,
    has_address,
    hostname_of,
    is_headless,
    port_of,
    target_of,
)
from .endpoints_order import subset_order, subset_port_order
from .pods import is_ready

__all__ = ["CAPACITY", "MANAGED_BY", "MANAGER", "OVER_CAPACITY", "endpoints_for", "repacked", "subsets_of"]

CAPACITY: Final = 1000
"""How many addresses Endpoints have at most."""
OVER_CAPACITY: Final = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY: Final = "endpoints.kubernetes.io/managed-by"
MANAGER: Final = "endpoint-controller"
_NO_PORT: Final = EndpointPort(port=-1)
_PortKey = tuple[str, int, str | None, str | None]


def endpoints_for(
    service: Service, pods: Iterable[Pod], present: Endpoints | None, trigger_time: str
) -> Endpoints | None:
    """Return the Endpoints as they are to be written, None where those that are present will do."""
    subsets = subsets_of(service, pods)
    own = service.metadata.labels
    if present is not None and (
        (_plain(present.subsets) == subsets or repacked(_plain(present.subsets)) == subsets)
        and _are_labels_right(present.metadata.labels, own)
        and OVER_CAPACITY not in present.metadata.annotations
        and _count(present.subsets) <= CAPACITY
    ):
        return None
    base = present or Endpoints(metadata=ObjectMeta(name=service.metadata.name, namespace=service.metadata.namespace))
    notes = {key: value for key, value in base.metadata.annotations.items() if key not in (TRIGGER_TIME, OVER_CAPACITY)}
    if trigger_time:
        notes[TRIGGER_TIME] = trigger_time
    kept = _truncated(subsets)
    if kept is not subsets:
        notes[OVER_CAPACITY] = "truncated"
    labels = {key: value for key, value in own.items() if key != HEADLESS}
    if is_headless(service):
        labels[HEADLESS] = ""
    labels[MANAGED_BY] = MANAGER
    return replace(base, subsets=kept, metadata__labels=labels, metadata__annotations=notes)


def subsets_of(service: Service, pods: Iterable[Pod]) -> Sequence[EndpointSubset]:
    """Return what a service publishes of pods, of its first family of addresses."""
    found, family = [], families_of(service)[0]
    published = bool(service.spec.publish_not_ready_addresses)
    for pod in pods:
        if not has_address(pod) or (pod.metadata.deletion_timestamp is not None and not published):
            continue
        addresses = addresses_of(pod, family)
        if not addresses:
            continue
        address = EndpointAddress(
            ip=addresses[0],
            node_name=pod.spec.node_name,
            target_ref=target_of(pod),
            hostname=hostname_of(pod, service),
        )
        found += [_single(address, ports, published or is_ready(pod)) for ports in _ports(service, pod)]
    return repacked(found)


def _ports(service: Service, pod: Pod) -> Iterable[Sequence[EndpointPort]]:
    if not service.spec.ports:
        return ((),) if service.spec.cluster_ip == "None" else ()
    return [
        (EndpointPort(name=each.name, port=number, protocol=each.protocol or "TCP", app_protocol=each.app_protocol),)
        for each in service.spec.ports
        if (number := port_of(pod, each)) is not None
    ]


def _single(address: EndpointAddress, ports: Sequence[EndpointPort], ready: bool) -> EndpointSubset:
    if ready:
        return EndpointSubset(addresses=(address,), ports=ports)
    return EndpointSubset(not_ready_addresses=(address,), ports=ports)


def repacked(subsets: Iterable[EndpointSubset]) -> Sequence[EndpointSubset]:
    """Return the same in its usual form: each address and port once, addresses together that have the same ports."""
    addresses: dict[tuple[str, str], EndpointAddress] = {}
    ports_by_key: dict[_PortKey, EndpointPort] = {}
    ready_by_port: dict[_PortKey, dict[tuple[str, str], bool]] = {}
    for subset in subsets:
        sides = [(each, True) for each in subset.addresses] + [(each, False) for each in subset.not_ready_addresses]
        for port in subset.ports or (_NO_PORT,):
            port_key = (port.name, port.port, port.protocol, port.app_protocol)
            ports_by_key.setdefault(port_key, port)
            of_port = ready_by_port.setdefault(port_key, {})
            for address, ready in sides:
                key = (address.ip, "" if address.target_ref is None else address.target_ref.uid)
                addresses.setdefault(key, address)
                of_port[key] = of_port.get(key, True) and ready
    ports_by_addresses: dict[tuple[tuple[tuple[str, str], bool], ...], list[EndpointPort]] = {}
    for seen, of_port in ready_by_port.items():
        together = ports_by_addresses.setdefault(tuple(sorted(of_port.items())), [])
        if seen[1] > 0:
            together.append(ports_by_key[seen])
    found = [
        EndpointSubset(
            addresses=[addresses[key] for key, ready in keys if ready],
            not_ready_addresses=[addresses[key] for key, ready in keys if not ready],
            ports=sorted(ports, key=subset_port_order),
        )
        for keys, ports in ports_by_addresses.items()
    ]
    return found if len(found) < 2 else sorted(found, key=subset_order)


def _plain(subsets: Sequence[EndpointSubset]) -> Sequence[EndpointSubset]:
    """Return subsets without the versions of the pods, which are no matter."""

    def plain(address: EndpointAddress) -> EndpointAddress:
        target = address.target_ref
        if target is None or not target.resource_version:
            return address
        return replace(address, target_ref__resource_version="")

    return [
        replace(
            each,
            addresses=[*map(plain, each.addresses)],
            not_ready_addresses=[*map(plain, each.not_ready_addresses)],
        )
        for each in subsets
    ]


def _are_labels_right(present: Mapping[str, str], own: Mapping[str, str]) -> bool:
    left = {key: value for key, value in present.items() if key not in (HEADLESS, MANAGED_BY)}
    return left == own and present.get(MANAGED_BY) == MANAGER


def _count(subsets: Iterable[EndpointSubset]) -> int:
    return sum(len(each.addresses) + len(each.not_ready_addresses) for each in subsets)


def _truncated(subsets: Sequence[EndpointSubset]) -> Sequence[EndpointSubset]:
    """Return as many as there may be, ready ones first, of each subset its part; the same where all fit."""
    if _count(subsets) <= CAPACITY:
        return subsets
    ready = sum(len(each.addresses) for each in subsets)
    cuts_ready = ready > CAPACITY
    room = CAPACITY if cuts_ready else CAPACITY - ready
    total = ready if cuts_ready else _count(subsets) - ready
    kept, left = [], room
    for each in subsets:
        side = each.addresses if cuts_ready else each.not_ready_addresses
        some = side[: min(math.ceil(len(side) / total * room), left)]
        left -= len(some)
        changed = {"addresses": some, "not_ready_addresses": ()} if cuts_ready else {"not_ready_addresses": some}
        kept.append(replace(each, **changed))
    return kept
