"""Where a proxied request goes: from the objects of a pod, service or node to scheme, host and port."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pilothouse.apiserver.ports import Object, View
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import ApiStatus, BadRequest, InternalError, ServiceUnavailable, Unknown, not_found

__all__ = [
    "Backend",
    "Resolver",
    "node_address",
    "service_backends",
    "split_scheme_name_port",
]

_SCHEMES: Final = ("", "http", "https")
_ADDRESS_TYPES: Final = ("InternalIP", "ExternalIP", "InternalDNS", "ExternalDNS", "Hostname")
"""As kubeadm has it: a node's name need not resolve here."""
_KUBELET_PORT: Final = 10250
_SLICES: Final = "endpointslices.discovery.k8s.io"
_SERVICE_LABEL: Final = "kubernetes.io/service-name"

Pick: TypeAlias = Callable[[Sequence["Backend"]], "Backend"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A server to connect to. An empty port is the scheme's own."""

    scheme: str
    host: str
    port: str = ""
    kubelet: bool = False
    """Whether it is a node's own API, for which this server has a client certificate."""

    @property
    def netloc(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else host

    @property
    def port_number(self) -> int:
        """The port to connect to. Raises ValueError for a port that is no number."""
        return int(self.port) if self.port else 443 if self.scheme == "https" else 80


def split_scheme_name_port(text: str) -> tuple[str, str, str] | None:
    """Split `[SCHEME:]NAME[:PORT]`; None where it is none."""
    parts = text.split(":")
    if len(parts) > 3:
        return None
    scheme, name, port = ("", *parts, "")[:3] if len(parts) < 3 else parts
    return (scheme, name, port) if name and scheme in _SCHEMES else None


def _split(kind: str, text: str) -> tuple[str, str, str]:
    found = split_scheme_name_port(text)
    if found is None:
        raise BadRequest(f"invalid {kind} request {quote(text)}")
    return found


def node_address(node: Object) -> tuple[str, int]:
    """Return host and port of a node's own API. Raises a Status where it tells no address."""
    status = node.get("status", {})
    addresses = status.get("addresses") or ()
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port") or _KUBELET_PORT
    for kind in _ADDRESS_TYPES:
        for address in addresses:
            if address.get("type") == kind and address.get("address"):
                return str(address["address"]), int(port)
    known = " ".join(f"{{{address.get('type', '')} {address.get('address', '')}}}" for address in addresses)
    raise Unknown(f"no preferred addresses found; known addresses: [{known}]", code=500)


def _ready_slices(slices: Sequence[Object]) -> Iterator[tuple[Object, Object]]:
    for found in slices:
        for endpoint in found.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False and endpoint.get("addresses"):
                yield found, endpoint


def service_backends(
    service: Object, slices: Sequence[Object], endpoints: Object | None, port_name: str, scheme: str
) -> list[tuple[Backend, Object | None]]:
    """Return what serves a port of a service, with the object each address belongs to.

    Slices count; Endpoints do only where there are no slices. Those of the service's first address family come alone
    where there are any.
    """
    found: list[tuple[str, Backend, Object | None]] = []
    for part, endpoint in _ready_slices(slices):
        for port in part.get("ports") or ():
            if (port.get("name") or "") == port_name and port.get("port"):
                backend = Backend(scheme, endpoint["addresses"][0], str(port["port"]))
                found.append((part.get("addressType", ""), backend, endpoint.get("targetRef")))
    families = service.get("spec", {}).get("ipFamilies") or ()
    preferred = [(backend, target) for family, backend, target in found if family in families[:1]]
    if slices or endpoints is None:
        return preferred or [(backend, target) for _, backend, target in found]
    return [
        (Backend(scheme, address["ip"], str(port["port"])), address.get("targetRef"))
        for subset in endpoints.get("subsets") or ()
        for port in subset.get("ports") or ()
        if (port.get("name") or "") == port_name
        for address in subset.get("addresses") or ()
    ]


def _is_proxyable(host: str) -> bool:
    """Whether an address is a global unicast one, as Go has it: private ones are."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return not (
        address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local
    ) and address != ipaddress.ip_address("255.255.255.255")


class Resolver:
    """Finds the server behind a `proxy` subresource, from the objects of a `View`.

    local: addresses of this machine are fine, for pods that are processes on it; a real server refuses them.
    pick: chooses among the addresses of a service, by chance if not given.
    """

    def __init__(self, view: View, *, local: bool = False, pick: Pick | None = None) -> None:
        self._view = view
        self._local = local
        # Spreading load, nothing secret.
        self._pick: Pick = pick or random.choice

    def _allowed(self, host: str) -> bool:
        return _is_proxyable(host) or (self._local and host.startswith(("127.", "::1")))

    def pod(self, namespace: str, text: str) -> Backend:
        """Resolve `[SCHEME:]POD[:PORT]`; without a port the first that a container has. Raises a Status."""
        scheme, name, port = _split("pod", text)
        pod = self._view.get("pods", namespace, name)
        if pod is None:
            raise not_found("", "pods", name)
        if not port:
            ports = (
                entry for container in pod["spec"].get("containers") or () for entry in container.get("ports") or ()
            )
            first = next(ports, None)
            port = str(first["containerPort"]) if first else ""
        addresses = _pod_addresses(pod)
        if not addresses or not self._allowed(addresses[0]):
            raise BadRequest("address not allowed")
        return _checked(Backend(scheme or "http", addresses[0], port))

    def node(self, text: str) -> Backend:
        """Resolve `[SCHEME:]NODE[:PORT]`; without a port the node's own API. Raises a Status."""
        scheme, name, port = _split("node", text)
        node = self._view.get("nodes", "", name)
        if node is None:
            raise not_found("", "nodes", name)
        host, own = node_address(node)
        if port in {"", str(own)}:
            return Backend("https", host, str(own), kubelet=True)
        if _is_address(host) and not self._allowed(host):
            raise BadRequest("address not allowed")
        return _checked(Backend(scheme or "http", host, port))

    async def check_host(self, backend: Backend) -> None:
        """Refuse a name that leads to an address which is not allowed. Raises BadRequest.

        A node tells its own name, and must not choose where this server connects to within its machine. One that
        cannot be looked up is left to the connection, which says so.
        """
        if backend.kubelet or _is_address(backend.host):
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(backend.host, backend.port_number)
        except OSError:
            return
        if not all(self._allowed(str(address[0])) for *_, address in found):
            raise BadRequest("address not allowed")

    def service(self, namespace: str, text: str) -> Backend:
        """Resolve `[SCHEME:]SERVICE[:PORT]`, the port by name or number. Raises a Status.

        Only addresses of pods count: who may write endpoints must not choose where this server connects to.
        """
        scheme, name, port = _split("service", text)
        service = self._view.get("services", namespace, name)
        if port.isascii() and port.isdigit():
            if service is None:
                raise not_found("", "services", name)
            port = _port_name(service, name, int(port))
        found = self._backends(namespace, name, service or {}, port, scheme or "http")
        usable = [backend for backend, target in found if self._is_pod(namespace, backend.host, target)]
        if not usable:
            raise ServiceUnavailable(f"no endpoints available for service {quote(name)}")
        return self._pick(usable)

    def _backends(
        self, namespace: str, name: str, service: Object, port_name: str, scheme: str
    ) -> list[tuple[Backend, Object | None]]:
        slices = service_slices(self._view, namespace, name)
        endpoints = self._view.get("endpoints", namespace, name)
        if service == {} and not slices and endpoints is None:
            raise not_found("", "services", name)
        return service_backends(service, slices, endpoints, port_name, scheme)

    def _is_pod(self, namespace: str, host: str, target: Object | None) -> bool:
        if not target or target.get("kind") != "Pod" or not self._allowed(host):
            return False
        pod = self._view.get("pods", target.get("namespace") or namespace, target.get("name", ""))
        return pod is not None and pod["metadata"]["namespace"] == namespace and host in _pod_addresses(pod)

    def api_service(self, namespace: str, name: str, port: int) -> Backend:
        """Resolve the service of an aggregated API to one of its addresses. Raises a Status."""
        service = self._view.get("services", namespace, name)
        if service is None:
            raise not_found("", "services", name)
        spec = service.get("spec", {})
        kind = spec.get("type", "ClusterIP")
        if kind == "ExternalName":
            return Backend("https", spec.get("externalName", ""), str(port))
        port_name = _port_name(service, name, port)
        found = self._backends(namespace, name, service, port_name, "https")
        if not found:
            raise ServiceUnavailable(f"no endpoints available for service {quote(name)}")
        return self._pick([backend for backend, _ in found])


def service_slices(view: View, namespace: str, name: str) -> list[Object]:
    """Return the endpoint slices of a service."""
    return [
        found
        for found in view.list(_SLICES, namespace)
        if (found["metadata"].get("labels") or {}).get(_SERVICE_LABEL) == name
    ]


def _port_name(service: Object, name: str, number: int) -> str:
    for port in service.get("spec", {}).get("ports") or ():
        if port.get("port") == number:
            return str(port.get("name") or "")
    raise ServiceUnavailable(f"no service port {number} found for service {quote(name)}")


def _pod_addresses(pod: Object) -> list[str]:
    status = pod.get("status", {})
    addresses = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return addresses or ([status["podIP"]] if status.get("podIP") else [])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _checked(backend: Backend) -> Backend:
    port = backend.port
    if port and (not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) <= 65535):
        error: ApiStatus = InternalError(f"dial tcp: lookup tcp/{port[:64]}: unknown port")
        raise ServiceUnavailable(f"error trying to reach service: {error.message}")
    return backend
