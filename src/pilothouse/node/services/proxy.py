"""The proxy of services on a node: follows services and slices, and has a back end carry them out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from pilothouse.client.listener import Listener
from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.structs import EndpointSlice, Node, Service
from pilothouse.operator import Manager

from .batches import Batches
from .kernel import KernelBackend
from .nft import why_not
from .proxying import Backend
from .selection import NodeFacts, ServicePortRoute
from .servicerules import ProxyNetwork
from .tracking import ServiceTracker
from .userspace import UserspaceBackend

__all__ = ["ServiceProxy", "choose_backend"]

_ZONE: Final = "topology.kubernetes.io/zone"
_CHECK_SECONDS: Final = 30.0
_log = get_logger("pilothouse.node.services")


def choose_backend(network: ProxyNetwork | None = None, node_addresses: Sequence[str] = ("127.0.0.1",)) -> Backend:
    """Return nftables where rules can be made, the user-space proxy elsewhere, with node ports at these addresses."""
    if why := why_not():
        _log.info("services are carried by this program", reason=why)
        return UserspaceBackend(node_addresses=tuple(node_addresses))
    return KernelBackend(network=network)


class ServiceProxy:
    """Carries the services of a cluster on one node.

    manager: whose caches of Services, EndpointSlices and Nodes are followed; it runs before or after `start`. node: the
    node's name. backend: see `choose_backend`. Changes are carried out in batches, within 50 ms while nothing fails.
    """

    def __init__(
        self,
        manager: Manager,
        node: str,
        *,
        backend: Backend | None = None,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.backend: Final = backend or choose_backend()
        self._node = node
        self._clock = clock or manager.clock
        self._services = manager.informer(Service)
        self._slices = manager.informer(EndpointSlice)
        self._nodes = manager.informer(Node)
        self._tracker = ServiceTracker(NodeFacts(name=node))
        self._batches = Batches("service proxy", self._sync, self._clock)
        self._checking: asyncio.Task[None] | None = None
        self._pending: dict[str, tuple[tuple[ServicePortRoute, ...], tuple[ServicePortRoute, ...]]] = {}
        self._synced = asyncio.Event()
        self._is_first = True
        self._listeners: list[Listener[Any]] = []
        made = metrics or manager.metrics or PROGRAM
        self._sync_seconds = made.histogram(
            "pilothouse_node_proxy_sync_seconds", "How long changes of services took to carry out, in seconds"
        )
        self._failures = made.counter(
            "pilothouse_node_proxy_failures_total", "Changes of services that could not be carried out"
        )
        self._routes = made.gauge("pilothouse_node_proxy_routes", "Ports of services that are carried on this node")
        self._figures = made.gauge("pilothouse_node_proxy_backend_size", "What the back end has", ("backend", "what"))

    async def start(self) -> None:
        """Follow the caches and carry out what is there once they are filled. Raises what the back end cannot do."""
        await self.backend.start()
        self._listeners = [
            self._services.add_handler(
                on_add=lambda found, _: self._service(found),
                on_update=lambda _, found: self._service(found),
                on_delete=self._service_gone,
                name="service proxy",
            ),
            self._slices.add_handler(
                on_add=lambda found, _: self._slice(found),
                on_update=lambda _, found: self._slice(found),
                on_delete=self._slice_gone,
                name="service proxy",
            ),
            self._nodes.add_handler(
                on_add=lambda found, _: self._node_facts(found),
                on_update=lambda _, found: self._node_facts(found),
                name="service proxy",
            ),
        ]
        self._batches.start()
        self._batches.poke()
        self._checking = asyncio.get_running_loop().create_task(self._check(), name="service proxy checks")

    async def wait_synced(self) -> None:
        """Wait until everything that the caches had at first is carried out."""
        await self._synced.wait()

    async def stop(self) -> None:
        """Let go of the caches and take everything away."""
        for listener in self._listeners:
            listener.remove()
        self._listeners = []
        await self._batches.stop()
        if self._checking is not None:
            self._checking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._checking
        await self.backend.stop()

    def problems(self) -> list[str]:
        """Return what is not carried out, and why."""
        failed = [f"services: {self._batches.problem}"] if self._batches.problem else []
        return [*failed, *(f"services: {each}" for each in self.backend.problems())]

    async def _sync(self) -> None:
        if self._is_first:
            # One table with everything instead of many with some of it.
            for listener in self._listeners:
                await listener.wait_synced()
        for key, (before, after) in self._tracker.changes().items():
            known = self._pending.get(key)
            self._pending[key] = (before if known is None else known[0], after)
        changes = dict(self._pending)
        if not changes and not self._is_first and await self.backend.check():
            return
        started = self._clock.monotonic()
        try:
            await self.backend.apply(changes)
        except Exception:
            self._failures.inc()
            raise
        self._pending.clear()
        self._is_first = False
        self._synced.set()
        self._sync_seconds.observe(self._clock.monotonic() - started)
        self._routes.set(sum(len(each) for each in self._tracker.routes.values()))
        for what, value in self.backend.figures().items():
            self._figures.labels(self.backend.name, what).set(value)

    async def _check(self) -> None:
        """Look whether somebody took the rules away, as a firewall does when it is loaded anew."""
        while True:
            await self._clock.sleep(_CHECK_SECONDS)
            self._batches.poke()

    def _service(self, found: Service) -> None:
        if self._tracker.set_service(key_of(found), found):
            self._batches.poke()

    def _service_gone(self, found: Service | DeletedFinalStateUnknown[Service]) -> None:
        if self._tracker.set_service(key_of(found), None):
            self._batches.poke()

    def _slice(self, found: EndpointSlice) -> None:
        if self._tracker.set_slice(key_of(found), found):
            self._batches.poke()

    def _slice_gone(self, found: EndpointSlice | DeletedFinalStateUnknown[EndpointSlice]) -> None:
        if self._tracker.set_slice(key_of(found), None):
            self._batches.poke()

    def _node_facts(self, found: Node) -> None:
        if found.metadata.name != self._node:
            return
        if self._tracker.set_node(NodeFacts(name=self._node, zone=found.metadata.labels.get(_ZONE, ""))):
            self._batches.poke()
