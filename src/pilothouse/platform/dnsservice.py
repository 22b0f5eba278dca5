"""The Service that stands for the cluster's DNS: it keeps the address from others, and tools look for it by name."""

from __future__ import annotations

import contextlib
from typing import Final

from pilothouse.kinds.status import AlreadyExists
from pilothouse.kinds.structs import Namespace, ObjectMeta, Service
from pilothouse.kinds.structs.core_services import ServicePort, ServiceSpec
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import where

__all__ = ["NAME", "NAMESPACE", "add_dns_service"]

NAME: Final = "kube-dns"
NAMESPACE: Final = "kube-system"
_LABELS: Final = {
    "k8s-app": "kube-dns",
    "kubernetes.io/name": "CoreDNS",
    # Each node's DNS has the address itself, so proxies are to leave it alone.
    "service.kubernetes.io/service-proxy-name": "pilothouse-dns",
}


class DnsServiceReconciler(Reconciler[Namespace]):
    """Makes the Service, again when somebody deletes it."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def reconcile(self, obj: Namespace, context: Context) -> Result | None:
        """Make it where it is missing. Raises what the server answers, such as that the address is taken."""
        if context.get(Service, NAME, NAMESPACE) is None:
            with contextlib.suppress(AlreadyExists):
                await context.create(dns_service(self._address))
        return None


def dns_service(address: str) -> Service:
    """Return the Service at an address."""
    ports = (
        ServicePort(name="dns", port=53, protocol="UDP"),
        ServicePort(name="dns-tcp", port=53, protocol="TCP"),
    )
    return Service(
        metadata=ObjectMeta(name=NAME, namespace=NAMESPACE, labels=dict(_LABELS)),
        spec=ServiceSpec(cluster_ip=address, ports=ports),
    )


def add_dns_service(manager: Manager, address: str) -> None:
    """Have a manager keep the Service of the cluster's DNS."""
    (
        controller(manager, "dns-service-controller")
        .for_(Namespace, where(lambda found: found.metadata.name == NAMESPACE))
        .watches(Service, _namespace_of)
        .build(DnsServiceReconciler(address))
    )


def _namespace_of(found: Service) -> list[Request]:
    return [Request("", NAMESPACE)] if (found.metadata.namespace, found.metadata.name) == (NAMESPACE, NAME) else []
