"""Routes to pods of other nodes on the same network: each node's range of pods by way of that node's address."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from pilothouse.client.listener import Listener
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.foundation.rights import owns_network
from pilothouse.kinds.structs import Node
from pilothouse.node.process.marks import MachineNetwork, Route
from pilothouse.operator import Manager

from .batches import Batches

__all__ = ["NodePlace", "NodeRoutes", "place_of_node", "plan_routes"]

_CHECK_SECONDS: Final = 30.0
_MAX_ROUTES: Final = 10_000
_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_log = get_logger("pilothouse.node.services")


class NodePlace(NamedTuple):
    """Where a node and its pods are: ranges and addresses as the Node says."""

    cidrs: tuple[str, ...]
    addresses: tuple[str, ...]


def place_of_node(node: Node) -> NodePlace:
    """Return where a node and its pods are."""
    cidrs = tuple(node.spec.pod_cidrs) or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
    return NodePlace(cidrs, tuple(each.address for each in node.status.addresses if each.type == "InternalIP"))


def plan_routes(own: str, places: Mapping[str, NodePlace], cluster_cidr: str = "") -> tuple[set[Route], list[str]]:
    """Return the routes that a node wants, and in words those that it does not make.

    No range may have one of the nodes' addresses in it, be partly another node's, or lie outside `cluster_cidr`: what
    one node says of itself must not take traffic that is for somebody else.
    """
    wanted: set[Route] = set()
    problems: list[str] = []
    mine = places.get(own, NodePlace((), ()))
    taken = [(network, own) for text in mine.cidrs if (network := _network(text)) is not None]
    addresses = [ip for place in places.values() for text in place.addresses if (ip := _address(text)) is not None]
    for name in sorted(places.keys() - {own}):
        place = places[name]
        gateways = [ip for text in place.addresses if text not in mine.addresses and (ip := _address(text)) is not None]
        for text in place.cidrs:
            network = _network(text)
            gateway = next((ip for ip in gateways if network is not None and ip.version == network.version), None)
            if network is None or gateway is None or gateway.is_loopback:
                continue  # on this machine too, or not said yet
            if why := _why_not(network, taken, addresses, cluster_cidr):
                problems.append(f"no route to pods of node {name}: {text} {why}")
                continue
            taken.append((network, name))
            wanted.add(Route(str(network), str(gateway)))
    return wanted, problems


def _why_not(
    network: _Network,
    taken: Iterable[tuple[_Network, str]],
    addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address],
    cluster_cidr: str,
) -> str:
    if cluster_cidr and not Route(str(network), "").is_within(cluster_cidr):
        return f"is not part of {cluster_cidr}"
    if other := next((name for known, name in taken if known.overlaps(network)), ""):
        return f"is partly that of node {other}"
    if held := next((str(each) for each in addresses if each in network), ""):
        return f"has the node address {held} in it"
    return ""


class NodeRoutes:
    """Keeps routes to the pods of all other nodes, while the nodes share one network.

    manager: whose cache of Nodes is followed; it runs before or after `start`. node: the node's name. cluster_cidr: of
    all pods; ranges outside of it get no route, and routes outside of it are not touched. network: where routes are
    made. Without root's rights nothing is, and `problems` says so once there is another node.
    """

    def __init__(
        self,
        manager: Manager,
        node: str,
        *,
        cluster_cidr: str = "",
        network: Callable[[], MachineNetwork] = MachineNetwork,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._node = node
        self._cluster_cidr = cluster_cidr
        self._open = network
        self._clock = clock or manager.clock
        self._nodes = manager.informer(Node)
        self._places: dict[str, NodePlace] = {}
        self._batches = Batches("routes to nodes", self._sync, self._clock)
        self._listener: Listener[Any] | None = None
        self._network: MachineNetwork | None = None
        self._checking: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._problems: list[str] = []
        made = metrics or manager.metrics or PROGRAM
        self._count = made.gauge("pilothouse_node_routes_count", "Routes to the pods of other nodes")
        self._failures = made.counter(
            "pilothouse_node_routes_failures_total", "Routes that could not be made or removed"
        )

    async def start(self) -> None:
        """Follow the cache and make the routes once it is filled."""
        self._network = self._open()
        self._listener = self._nodes.add_handler(
            on_add=lambda found, _: self._seen(found),
            on_update=lambda _, found: self._seen(found),
            on_delete=self._gone,
            name="node routes",
        )
        self._batches.start()
        self._batches.poke()
        self._checking = asyncio.get_running_loop().create_task(self._check(), name="checks of routes")

    async def wait_synced(self) -> None:
        """Wait until there are routes to all nodes that the cache had at first."""
        await self._synced.wait()

    async def stop(self, *, keep: bool = False) -> None:
        """Let go of the cache and remove the routes, or keep them for the next agent. Raises `OSError`."""
        if self._listener is not None:
            self._listener.remove()
            self._listener = None
        await self._batches.stop()
        if self._checking is not None:
            self._checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checking
        network, self._network = self._network, None
        if network is not None:
            with contextlib.closing(network):
                for route in () if keep or not owns_network() else self._ours(network):
                    network.delete_route(route)

    def problems(self) -> list[str]:
        """Return which pods are not reached, and why."""
        failed = [f"routes to nodes: {self._batches.problem}"] if self._batches.problem else []
        return [*failed, *self._problems]

    async def _sync(self) -> None:
        if self._listener is None or self._network is None:
            return
        await self._listener.wait_synced()
        wanted, problems = plan_routes(self._node, self._places, self._cluster_cidr)
        if not owns_network():
            refused = [f"no routes to pods of {len(wanted)} nodes: only root may make them"] if wanted else []
            self._problems = [*problems, *refused]
            self._synced.set()
            return
        have = self._ours(self._network)
        for route in sorted(have - wanted):
            # Where only the gateway is another one the new route takes the old one's place.
            if all(route.network != each.network for each in wanted):
                self._network.delete_route(route)
        for route in sorted(wanted - have)[:_MAX_ROUTES]:
            try:
                self._network.put_route(route)
            except OSError as error:
                self._failures.inc()
                problems.append(f"{error.filename}: {error.strerror}; is the node on the same network?")
        self._problems = problems
        self._count.set(len(self._ours(self._network)))
        self._synced.set()

    def _ours(self, network: MachineNetwork) -> set[Route]:
        cidr = self._cluster_cidr
        return {route for route in network.routes() if not cidr or route.is_within(cidr)}

    async def _check(self) -> None:
        """Look whether routes are still there: a link that goes down and up again loses them."""
        while True:
            await self._clock.sleep(_CHECK_SECONDS)
            self._batches.poke()

    def _seen(self, found: Node) -> None:
        place = place_of_node(found)
        if self._places.get(found.metadata.name) != place:
            self._places[found.metadata.name] = place
            self._batches.poke()

    def _gone(self, found: Node | DeletedFinalStateUnknown[Node]) -> None:
        if self._places.pop(key_of(found), None) is not None:
            self._batches.poke()


def _network(text: str) -> _Network | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_network(text)
    return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(text)
    return None
