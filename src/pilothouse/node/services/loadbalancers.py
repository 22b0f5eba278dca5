"""Services of type LoadBalancer get the addresses of the nodes: there is no balancer before a small cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from pilothouse.kinds.structs import Node, Service, replace
from pilothouse.kinds.structs.core_services import LoadBalancerIngress, LoadBalancerStatus
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate

__all__ = ["LoadBalancerReconciler", "add_load_balancers", "ingress_of", "node_addresses"]

_EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
_MOST: Final = 16
_CLASS: Final = "pilothouse.dev/node"


def node_addresses(nodes: Iterable[Node]) -> list[str]:
    """Return the addresses that a service can be reached at: each node's external ones, else its internal ones."""
    found: list[str] = []
    for node in sorted(nodes, key=lambda each: each.metadata.name):
        if _EXCLUDED in node.metadata.labels or not _is_ready(node):
            continue
        external = [each.address for each in node.status.addresses if each.type == "ExternalIP"]
        found += external or [each.address for each in node.status.addresses if each.type == "InternalIP"]
    return list(dict.fromkeys(found))


def ingress_of(service: Service, addresses: Iterable[str]) -> tuple[LoadBalancerIngress, ...]:
    """Return what the status of a service is to say: addresses of its families, none for another type or class."""
    spec = service.spec
    if not is_ours(service):
        return ()
    families = set(spec.ip_families) or {"IPv4"}
    fitting = [each for each in addresses if f"IPv{ipaddress.ip_address(each).version}" in families]
    if spec.load_balancer_ip:
        fitting = [each for each in fitting if each == spec.load_balancer_ip]
    return tuple(LoadBalancerIngress(ip=each, ip_mode="VIP") for each in fitting[:_MOST])


def is_ours(service: Service) -> bool:
    """Return whether a service wants a balancer, and no other controller's."""
    return service.spec.type == "LoadBalancer" and service.spec.load_balancer_class in {None, "", _CLASS}


class LoadBalancerReconciler(Reconciler[Service]):
    """Writes `status.loadBalancer`."""

    def __init__(self, manager: Manager) -> None:
        self._nodes = manager.informer(Node)

    async def reconcile(self, obj: Service, context: Context) -> Result | None:
        """Write the addresses where they differ; clear them where the service wants none any more."""
        if obj.metadata.deletion_timestamp is not None:
            return None
        if obj.spec.type == "LoadBalancer" and not is_ours(obj):
            return None
        wanted = ingress_of(obj, node_addresses(self._nodes.lister().list()))
        if tuple(obj.status.load_balancer.ingress) == wanted:
            return None
        status = replace(obj.status, load_balancer=LoadBalancerStatus(ingress=wanted))
        await context.update_status(replace(obj, status=status))
        told = ", ".join(each.ip for each in wanted)
        if wanted:
            context.recorder.normal(obj, "EnsuredLoadBalancer", f"Reached at the nodes' addresses {told}")
        elif is_ours(obj):
            context.recorder.warning(obj, "SyncLoadBalancerFailed", "no ready node has an address that fits")
        return None


class _Addresses(Predicate[Node]):
    """Nodes that changed in what balancers see of them."""

    def update(self, old: Node, new: Node) -> bool:
        return node_addresses([old]) != node_addresses([new])


def add_load_balancers(manager: Manager) -> None:
    """Add the controller of load balancers, which kube-controller-manager leaves to clouds."""

    def all_services(_: Node) -> Iterable[Request]:
        return [Request.of(each) for each in manager.informer(Service).lister().list() if is_ours(each)]

    (
        controller(manager, "service-lb-controller")
        .for_(Service)
        .watches(Node, all_services, _Addresses())
        .build(LoadBalancerReconciler(manager))
    )


def _is_ready(node: Node) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
