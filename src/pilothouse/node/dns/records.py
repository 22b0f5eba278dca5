"""Which records a service has: the service and its slices in, names and data out, after the specification 1.1.0."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from pilothouse.kinds.structs import EndpointSlice, Service
from pilothouse.kinds.structs.discovery import Endpoint

__all__ = ["SPECIFICATION", "Record", "fixed_records", "pod_address", "service_records"]

SPECIFICATION: Final = "1.1.0"


class Record(NamedTuple):
    """One record: `name` in lower case without the last dot, `kind` such as "A", `data` as a zone file has it."""

    name: str
    kind: str
    data: str


def fixed_records(domain: str) -> list[Record]:
    """Return the records that are there without any service."""
    return [Record(f"dns-version.{domain}", "TXT", f'"{SPECIFICATION}"')]


def service_records(service: Service, slices: Sequence[EndpointSlice], domain: str) -> list[Record]:
    """Return the records of a service."""
    name = f"{service.metadata.name}.{service.metadata.namespace}.svc.{domain}".lower()
    spec = service.spec
    if spec.type == "ExternalName":
        target = spec.external_name.rstrip(".").lower()
        return [Record(name, "CNAME", f"{target}.")] if target else []
    if spec.cluster_ip == "None":
        publishes = bool(spec.publish_not_ready_addresses)
        return list(dict.fromkeys(_headless(name, slices, publishes=publishes)))
    if not spec.cluster_ip:
        return []
    return list(_clustered(name, service))


def pod_address(label: str) -> str:
    """Return the address that a pod's name says, such as 10-1-2-3; empty where it says none."""
    for candidate in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return str(ipaddress.ip_address(candidate))
        except ValueError:
            continue
    return ""


def _clustered(name: str, service: Service) -> Iterator[Record]:
    for address in service.spec.cluster_ips or (service.spec.cluster_ip,):
        yield _address(name, address)
        yield _pointer(address, name)
    for port in service.spec.ports:
        if port.name:
            yield _service_port(name, port.name, port.protocol or "TCP", port.port, name)


def _headless(name: str, slices: Iterable[EndpointSlice], *, publishes: bool) -> Iterator[Record]:
    for found in slices:
        if found.address_type == "FQDN":
            continue
        for endpoint in found.endpoints:
            if not (publishes or endpoint.conditions.ready is not False):
                continue
            for address in endpoint.addresses:
                own = f"{_hostname(endpoint, address)}.{name}"
                yield _address(name, address)
                yield _address(own, address)
                if endpoint.hostname:
                    yield _pointer(address, own)
                for port in found.ports:
                    if port.name and port.port:
                        yield _service_port(name, port.name, port.protocol or "TCP", port.port, own)


def _hostname(endpoint: Endpoint, address: str) -> str:
    """Return the first label of an endpoint's own name: its hostname, else one made of its address."""
    return (endpoint.hostname or address.replace(".", "-").replace(":", "-").strip("-")).lower()


def _address(name: str, address: str) -> Record:
    read = ipaddress.ip_address(address)
    return Record(name, "A" if read.version == 4 else "AAAA", str(read))


def _pointer(address: str, name: str) -> Record:
    return Record(ipaddress.ip_address(address).reverse_pointer, "PTR", f"{name}.")


def _service_port(name: str, port_name: str, protocol: str, port: int, target: str) -> Record:
    return Record(f"_{port_name}._{protocol}.{name}".lower(), "SRV", f"0 100 {port} {target}.")
