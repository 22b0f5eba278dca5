"""Which endpoints each port of a service leads to, seen from one node: services and slices in, plain facts out."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pilothouse.kinds.structs import EndpointSlice, Service
from pilothouse.kinds.structs.discovery import Endpoint

__all__ = ["SERVICE_NAME", "NodeFacts", "ServicePortRoute", "Target", "is_headless", "is_proxied", "routes", "usable"]

SERVICE_NAME: Final = "kubernetes.io/service-name"
_OTHER_PROXY: Final = "service.kubernetes.io/service-proxy-name"
_AFFINITY_SECONDS: Final = 10_800
_IP_MODE_PROXY: Final = "Proxy"


class Target(NamedTuple):
    """Where a connection can go."""

    address: str
    port: int
    is_local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What the node is, as far as rules depend on it: `zone` and `name` decide which hints and local endpoints fit."""

    name: str
    zone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePortRoute:
    """One port of a service in one address family, and where it leads.

    `internal` is for who asks at the cluster address or from within, `external` for who comes by a node port, an
    external address or a load balancer's. `dropped_*` is true where there are endpoints but none on this node, as the
    policy Local wants: silence then, so that others are tried. `affinity_seconds` 0 is none.
    """

    namespace: str
    name: str
    port_name: str
    protocol: str
    family: int
    port: int
    cluster_address: str
    external_addresses: tuple[str, ...] = ()
    balancer_addresses: tuple[str, ...] = ()
    node_port: int = 0
    affinity_seconds: int = 0
    internal: tuple[Target, ...] = ()
    external: tuple[Target, ...] = ()
    is_external_local: bool = False
    dropped_internal: bool = False
    dropped_external: bool = False
    source_ranges: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Return what names the route among all of the node."""
        return f"{self.namespace}/{self.name}:{self.port_name or self.port}/{self.protocol}/{self.family}"

    @property
    def is_exposed(self) -> bool:
        """Whether it is reached from outside."""
        return bool(self.external_addresses or self.balancer_addresses or self.node_port)


def is_headless(service: Service) -> bool:
    """Return whether a service has no cluster address."""
    return service.spec.cluster_ip in {"None", ""}


def is_proxied(service: Service) -> bool:
    """Return whether this proxy is to carry a service."""
    if service.spec.type == "ExternalName" or is_headless(service):
        return False
    return _OTHER_PROXY not in service.metadata.labels


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the ready endpoints; where there is none those that end but still serve."""
    found = list(endpoints)
    ready = [each for each in found if each.conditions.ready is not False]
    if ready:
        return ready
    return [each for each in found if _serving(each) and each.conditions.terminating is True]


def routes(service: Service, slices: Sequence[EndpointSlice], node: NodeFacts) -> list[ServicePortRoute]:
    """Return the routes of a service's ports, in both families as it has addresses."""
    if not is_proxied(service):
        return []
    addresses = service.spec.cluster_ips or (service.spec.cluster_ip,)
    made = []
    for address in addresses:
        family = _family(address)
        mine = [each for each in slices if each.address_type == f"IPv{family}"]
        for port in service.spec.ports:
            where = _targets(mine, port.name, port.protocol or "TCP", node)
            made.append(_route(service, family, address, port.name, where))
    return made


class _Where(NamedTuple):
    """The endpoints of a port: all with their nodes, those that topology leaves, and those of this node."""

    cluster: tuple[Target, ...]
    local: tuple[Target, ...]


def _route(service: Service, family: int, address: str, port_name: str, where: _Where) -> ServicePortRoute:
    spec = service.spec
    port = next(each for each in spec.ports if each.name == port_name)
    is_internal_local = spec.internal_traffic_policy == "Local"
    is_external_local = spec.external_traffic_policy == "Local" and spec.type in {"NodePort", "LoadBalancer"}
    internal = where.local if is_internal_local else where.cluster
    external = where.local if is_external_local else where.cluster
    return ServicePortRoute(
        namespace=service.metadata.namespace,
        name=service.metadata.name,
        port_name=port.name,
        protocol=port.protocol or "TCP",
        family=family,
        port=port.port,
        cluster_address=str(ipaddress.ip_address(address)),
        external_addresses=tuple(_of_family(spec.external_ips, family)),
        balancer_addresses=tuple(_balancers(service, family)),
        node_port=port.node_port if spec.type in {"NodePort", "LoadBalancer"} else 0,
        affinity_seconds=_affinity(service),
        internal=internal,
        external=external,
        is_external_local=is_external_local,
        dropped_internal=bool(is_internal_local and not internal and where.cluster),
        dropped_external=bool(is_external_local and not external and where.cluster),
        source_ranges=tuple(_of_family([each.strip() for each in spec.load_balancer_source_ranges], family))
        if spec.type == "LoadBalancer"
        else (),
    )


def _targets(slices: Sequence[EndpointSlice], port_name: str, protocol: str, node: NodeFacts) -> _Where:
    found: list[tuple[Endpoint, int]] = []
    for each in slices:
        number = next(
            (
                port.port
                for port in each.ports
                if (port.name or "") == port_name and (port.protocol or "TCP") == protocol and port.port
            ),
            None,
        )
        if number is not None:
            found += [(endpoint, number) for endpoint in each.endpoints if endpoint.addresses]
    numbers = {id(endpoint): number for endpoint, number in found}
    every = [endpoint for endpoint, _ in found]

    def made(endpoints: Iterable[Endpoint]) -> tuple[Target, ...]:
        targets = {
            Target(each.addresses[0], numbers[id(each)], is_local=bool(each.node_name) and each.node_name == node.name)
            for each in endpoints
        }
        return tuple(sorted(targets))

    near = _near(usable(every), node)
    local = usable(each for each in every if each.node_name == node.name)
    return _Where(made(near), made(local))


def _near(endpoints: list[Endpoint], node: NodeFacts) -> list[Endpoint]:
    """Return the endpoints that are meant for this node or zone, all where hints are missing or leave none."""

    def by_node(each: Endpoint) -> bool:
        return each.hints is not None and any(hint.name == node.name for hint in each.hints.for_nodes)

    def by_zone(each: Endpoint) -> bool:
        return each.hints is not None and any(hint.name == node.zone for hint in each.hints.for_zones)

    if endpoints and all(each.hints is not None and each.hints.for_nodes for each in endpoints):
        found = [each for each in endpoints if by_node(each)]
        if found:
            return found
    if node.zone and endpoints and all(each.hints is not None and each.hints.for_zones for each in endpoints):
        found = [each for each in endpoints if by_zone(each)]
        if found:
            return found
    return endpoints


def _serving(endpoint: Endpoint) -> bool:
    conditions = endpoint.conditions
    return conditions.serving if conditions.serving is not None else conditions.ready is not False


def _affinity(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    wanted = config.client_ip.timeout_seconds if config is not None and config.client_ip is not None else None
    return wanted or _AFFINITY_SECONDS


def _balancers(service: Service, family: int) -> Iterable[str]:
    if service.spec.type != "LoadBalancer":
        return ()
    found = service.status.load_balancer.ingress
    return _of_family([each.ip for each in found if each.ip and each.ip_mode != _IP_MODE_PROXY], family)


def _of_family(addresses: Iterable[str], family: int) -> list[str]:
    found = []
    for each in addresses:
        try:
            read = ipaddress.ip_network(each, strict=False) if "/" in each else ipaddress.ip_address(each)
        except ValueError:
            continue  # the API server refuses it; one that came past it is nobody's address
        if read.version == family:
            found.append(str(read))
    return found


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version
