"""The controller of node networks: a part of the pods' network for each node that has none."""

from __future__ import annotations

from typing import Final

from pilothouse.kinds.structs import Node, replace
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.nodes_addresses import AddressesExhaustedError, NodeNetworks

__all__ = ["CLUSTER_CIDR", "NetworkReconciler", "add_nodeipam"]

CLUSTER_CIDR: Final = "10.244.0.0/16"
_RETRY_SECONDS: Final = 60.0


class NetworkReconciler(Reconciler[Node]):
    """Gives nodes their networks."""

    def __init__(self, manager: Manager, networks: NodeNetworks) -> None:
        self._manager = manager
        self._networks = networks
        self._events = manager.recorder("cidrAllocator")
        self._has_looked = False

    async def reconcile(self, obj: Node, context: Context) -> Result | None:
        """Give a node a network, unless it has one."""
        self._look()
        if obj.spec.pod_cidr:
            for each in obj.spec.pod_cidrs or (obj.spec.pod_cidr,):
                self._networks.take(obj.metadata.name, each)
            return None
        if obj.metadata.deletion_timestamp is not None:
            return None
        name = obj.metadata.name
        try:
            network = self._networks.of(name) or self._networks.allocate(name)
        except AddressesExhaustedError:
            self._events.normal(obj, "CIDRNotAvailable", f"Node {name} status is now: CIDRNotAvailable")
            return Result(requeue_after=_RETRY_SECONDS)
        await context.update(replace(obj, spec__pod_cidr=network, spec__pod_cidrs=(network,)))
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Take back the network of a node that is gone."""
        self._networks.free(request.name)
        return None

    def _look(self) -> None:
        """Take note of all networks that nodes have, before the first one is given away."""
        if self._has_looked:
            return
        self._has_looked = True
        for node in self._manager.informer(Node).lister().list():
            for each in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
                self._networks.take(node.metadata.name, each)


class _WithoutNetwork(Predicate[Node]):
    """Nodes whose network is another than before, and those that have none."""

    def update(self, old: Node, new: Node) -> bool:
        return not new.spec.pod_cidr or old.spec.pod_cidr != new.spec.pod_cidr


def add_nodeipam(manager: Manager, network: str = CLUSTER_CIDR, mask: int = 0) -> None:
    """Add the controller of node networks. network: of all pods. mask: of a node's part, /24 or /64 by default."""
    (
        controller(manager, "node-ipam-controller")
        .for_(Node, _WithoutNetwork())
        .build(NetworkReconciler(manager, NodeNetworks(network, mask)))
    )
