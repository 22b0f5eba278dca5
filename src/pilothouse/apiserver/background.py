"""What the server does by itself: objects that every cluster has, roles that gather, compaction, repair."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from pilothouse.apiserver.access.aggregation import ClusterRoleAggregation
from pilothouse.apiserver.access.default_roles import reconcile
from pilothouse.apiserver.access.wiring import authentication_config_map
from pilothouse.apiserver.bundled import ensure_bundled
from pilothouse.apiserver.clusterinfo import publish_cluster_info
from pilothouse.apiserver.flow import FlowSchemaStatus, ensure_defaults
from pilothouse.apiserver.lifecycle.lifecycle import Lifecycle
from pilothouse.apiserver.localapis import LocalApis
from pilothouse.apiserver.proxying.availabilitycontroller import AvailabilityController
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists, ApiStatus
from pilothouse.store import StoreError
from pilothouse.store.errors import Compacted

if TYPE_CHECKING:
    from pilothouse.apiserver.server import ApiServer

__all__ = ["Background"]

_log = get_logger(__name__)

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_REPAIR_SECONDS = 180.0
_RETRY_SECONDS = 5.0
_PRIORITIES = (
    ("system-node-critical", 2_000_001_000),
    ("system-cluster-critical", 2_000_000_000),
)
_ABOUT = "Used for system critical pods that must {}run in the cluster."


class Background:
    """The server's own tasks, started once it has loaded and stopped before it closes."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._tasks: list[asyncio.Task[None]] = []
        self.lifecycle: Lifecycle | None = None
        """Garbage collection and the like, where it runs here."""
        self._schemas = FlowSchemaStatus(server.view, server.local, server.options.clock)
        self._started = asyncio.Event()
        self._url = ""
        self.pending: set[str] = set()
        """Steps of the start that are not done yet, by the names of their checks."""

    async def start(self) -> None:
        """Create the namespaces that everything needs, and begin with the rest."""
        server, clock = self._server, self._server.options.clock
        self.pending = {"rbac/bootstrap-roles", "priority-and-fairness-config-producer", "system-namespaces"}
        await self._once("system-namespaces", self._namespaces)
        if server.options.bundled:
            await self._once("bundled-objects", self._bundled)
        if server.options.lifecycle:
            self.lifecycle = Lifecycle(server, server.pki.read("ca.crt"))
            await self.lifecycle.start()
        aggregation = ClusterRoleAggregation(server.view, server.local, clock=clock)
        self._spawn(self._begin(), "start")
        controller = AvailabilityController(server.view, server.local, server.aggregator, clock=clock)
        self._spawn(controller.run(), "availability of aggregated APIs")
        self._spawn(server.elsewhere.run(), "discovery of aggregated APIs")
        apis = LocalApis(server.catalogue, server.view, server.local, clock)
        self._spawn(self._after_start(apis.run), "APIServices of this server")
        self._spawn(aggregation.run(), "cluster roles")
        self._spawn(self._after_start(self._schemas.run), "flow schemas")
        self._spawn(self._every(_REPAIR_SECONDS, self._repair), "repair")
        if server.options.compact_seconds:
            self._spawn(self._compact(server.options.compact_seconds), "compaction")

    async def wait_started(self) -> None:
        """Wait until all steps of the start are done."""
        await self._started.wait()

    async def close(self) -> None:
        """Stop all tasks."""
        if self.lifecycle is not None:
            await self.lifecycle.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        task.add_done_callback(_tell)
        self._tasks.append(task)

    async def _after_start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._started.wait()
        await work()

    async def _begin(self) -> None:
        await self._once("rbac/bootstrap-roles", self._roles)
        await self._once("priority-and-fairness-config-producer", self._flows)
        self._started.set()

    async def _once(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step of the start; a store that refuses for a while delays it and stops nothing else."""
        while True:
            try:
                await step()
            except (ApiStatus, StoreError) as error:
                _log.warning("a step of the start failed and is tried again", step=name, error=str(error))
                await self._server.options.clock.sleep(_RETRY_SECONDS)
            else:
                self.pending.discard(name)
                return

    async def _every(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._server.options.clock.sleep(seconds)
            try:
                await step()
            except (ApiStatus, StoreError) as error:
                _log.warning("upkeep failed and is tried again", error=str(error))

    async def _create(self, path: str, obj: dict[str, Any]) -> None:
        try:
            await self._server.local.call("POST", path, obj)
        except AlreadyExists:
            return

    async def _namespaces(self) -> None:
        missing = [name for name in _NAMESPACES if self._server.view.get("namespaces", "", name) is None]
        await asyncio.gather(
            *(
                self._create(
                    "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                )
                for name in missing
            )
        )

    async def _bundled(self) -> None:
        for path in self._server.options.bundled:
            await ensure_bundled(self._server, path)

    async def _roles(self) -> None:
        await reconcile(self._server.view, self._server.local, platform=self._server.options.platform)

    async def _flows(self) -> None:
        await ensure_defaults(self._server.local, self._server.view)
        await self._schemas.step()
        if self._server.view.get("configmaps", "kube-system", "extension-apiserver-authentication") is None:
            await self._create("/api/v1/namespaces/kube-system/configmaps", authentication_config_map(self._server.pki))
        for name, value in _PRIORITIES:
            if self._server.view.get("priorityclasses.scheduling.k8s.io", "", name) is None:
                text = _ABOUT.format("not be moved from their node, but " if "node" in name else "")
                made = {
                    "apiVersion": "scheduling.k8s.io/v1",
                    "kind": "PriorityClass",
                    "metadata": {"name": name},
                    "value": value,
                    "description": text,
                }
                await self._create("/apis/scheduling.k8s.io/v1/priorityclasses", made)

    def listening_at(self, host: str, port: int) -> None:
        """Publish where the server is reached: the service `kubernetes`, its endpoints and their slice."""
        self._spawn(self._once("service", lambda: self._publish(host, port)), "service kubernetes")
        if self._server.options.platform:
            self._url = f"https://{host}:{port}"
            self._spawn(self._once("cluster-info", self._publish_cluster), "cluster-info")

    def authorities_changed(self) -> None:
        """Publish the cluster's authorities as they are now. Raises PkiError."""
        if self.lifecycle is not None:
            self.lifecycle.publish(self._server.pki.read("ca.crt"))
            self.lifecycle.sign_with(self._server.pki.authority())
        if self._url:
            self._spawn(self._once("cluster-info", self._publish_cluster), "cluster-info")

    async def _publish_cluster(self) -> None:
        server = self._server
        await publish_cluster_info(server.view, server.local, self._url, server.pki.read("ca.crt"))

    async def _publish(self, host: str, port: int) -> None:
        """Make the service and its endpoints say where this server is; an address of loopback is nobody else's."""
        server = self._server
        network = ipaddress.ip_network(server.options.allocation.service_cidr)
        base = "/api/v1/namespaces/default"
        labels = {"component": "apiserver", "provider": "kubernetes"}
        ports = [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}]
        if server.view.get("services", "default", "kubernetes") is None:
            spec = {"type": "ClusterIP", "clusterIP": str(network[1]), "ports": ports}
            metadata = {"name": "kubernetes", "labels": labels}
            made = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
            await self._create(f"{base}/services", made)
        address = _address(host)
        if address.is_loopback and not server.options.loopback_endpoints:
            return
        endpoints = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": "kubernetes", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
            "subsets": [
                {"addresses": [{"ip": str(address)}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}
            ],
        }
        await server.local.call("PUT", f"{base}/endpoints/kubernetes", endpoints)
        slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        piece = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": f"IPv{address.version}",
            "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}}],
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }
        if server.view.get("endpointslices.discovery.k8s.io", "default", "kubernetes") is None:
            await self._create(slices, piece)
        else:
            await server.local.call("PUT", f"{slices}/kubernetes", piece)

    async def _repair(self) -> None:
        for line in await self._server.allocator.repair():
            _log.warning("an allocation was put right", what=line)

    async def _compact(self, seconds: float) -> None:
        """Let the store forget what is older than one interval, as kube-apiserver does with etcd."""
        before = 0
        while True:
            await self._server.options.clock.sleep(seconds)
            now = self._server.cacher.revision
            if before:
                try:
                    await self._server.store.compact(before)
                except Compacted:
                    pass  # another server on the same store was first
                except StoreError as error:
                    _log.warning("the store could not be compacted; tried again later", error=str(error))
                    continue
                self._server.cacher.compacted(before)
            before = now


def _tell(task: asyncio.Task[None]) -> None:
    """Say that a task of the server ended, which none does by itself but those that are done."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error(
            "a task of the server failed; it runs again with the next start", task=task.get_name(), exc_info=error
        )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return ipaddress.ip_address("127.0.0.1")
