"""All that a real agent has beside its runtime: volumes, environments, and the node's own server, put together."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable, Mapping

import msgspec

from pilothouse.client import Client, ClientError
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import ConfigMap, Node, Service
from pilothouse.node.agent import Agent, AgentOptions
from pilothouse.node.agent.machine import addresses
from pilothouse.node.agent.model import KillPod
from pilothouse.node.agent.ports import Credentials, Names, Ports
from pilothouse.node.agent.pullsecrets import PullSecrets
from pilothouse.node.agent.worker import PodWorker
from pilothouse.node.runtime import Runtime
from pilothouse.node.volumes.manager import Volumes

from .access import Access
from .agentpods import AgentPods
from .keys import NodeKeys
from .server import NodeServer

__all__ = ["Equipment"]

_log = get_logger(__name__)
_SYNC_SECONDS = 30.0
_LOOK_SECONDS = 10.0


class Equipment:
    """Volumes, environments and server of one node. `await start()` before the agent, `await close()` after it.

    ca: authorities of client certificates, PEM; read from the cluster where empty. authority: the cluster's CA with
    its key, where it is at hand; approve: let the client approve the node's request for a certificate. services: the
    cluster's services; followed here where None. host: where to listen. A port of 0 is a free one.
    """

    def __init__(  # noqa: PLR0913  # what a node is made of
        self,
        client: Client,
        runtime: Runtime,
        options: AgentOptions,
        *,
        ca: bytes = b"",
        authority: tls.Credentials | None = None,
        services: Callable[[], Iterable[Service]] | None = None,
        host: str = "",
        approve: bool = False,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._runtime = runtime
        self._ca = ca
        self._authority = authority
        self._services = services
        self._host = host
        self._approve = approve
        self._clock = clock or SystemClock()
        self._metrics = metrics or PROGRAM
        self.options = options
        """As given; after `start` with the addresses and the port of the server."""
        self.volumes = Volumes(
            client,
            f"{options.root}/pods",
            services=lambda: self._services() if self._services is not None else (),
            allocatable=lambda: self._allocatable,
            clock=self._clock,
        )
        self.server: NodeServer | None = None
        self._agent: Agent | None = None
        self._allocatable: Mapping[str, str] = {}
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Follow services, and serve the node's API. Raises OSError, TlsError."""
        options, client = self.options, self._client
        self._stack.push_async_callback(self.volumes.close)
        if self._services is None:
            await self._follow_services()
        found = options.addresses or await asyncio.to_thread(addresses)
        ca = self._ca or await self._client_ca()
        keys = NodeKeys(
            client,
            options.name,
            found,
            f"{options.root}/pki",
            client_ca=ca,
            authority=self._authority,
            approve=self._approve,
            clock=self._clock,
        )
        server = NodeServer(
            options.name,
            self._runtime,
            AgentPods(lambda: self._agent),
            access=Access(client, options.name, authorities=ca, clock=self._clock),
            metrics=self._metrics,
            volumes=self.volumes.usage,
            logs=options.log_root,
            clock=self._clock,
        )
        context = await keys.context()
        port = await self._listen(server, context)
        self._stack.push_async_callback(server.close)
        self.server = server
        renewing = asyncio.create_task(keys.run())
        self._stack.callback(renewing.cancel)
        evicting = asyncio.create_task(self._evict())
        self._stack.callback(evicting.cancel)
        self.options = msgspec.structs.replace(options, addresses=tuple(found), port=port)

    def ports(self, *, names: Names | None = None, credentials: Credentials | None = None) -> Ports:
        """Return the agent's ports; credentials are those of pods' secrets by default."""
        return Ports(
            self.options.root,
            mounts=self.volumes,
            environment=self.volumes,
            names=names,
            credentials=credentials or PullSecrets(self._client),
        )

    async def attach(self, agent: Agent) -> None:
        """Serve the pods of an agent, and learn what its node can give once it has started."""
        self._agent = agent
        await agent.wait_started()
        with contextlib.suppress(ApiStatus, ClientError, OSError):
            found = await self._client.get(Node, self.options.name)
            self._allocatable = {name: str(amount) for name, amount in found.status.allocatable.items()}

    async def _evict(self) -> None:
        """End pods whose emptyDirs have grown over their limits, until cancelled."""
        while True:
            await self._clock.sleep(_LOOK_SECONDS)
            for worker in list(self._agent.workers.values()) if self._agent is not None else ():
                if not worker.life.finished:
                    with contextlib.suppress(OSError):
                        await self._check(worker)

    async def _check(self, worker: PodWorker) -> None:
        for each in await self.volumes.usage(worker.pod, limited=True):
            if each.used_bytes > each.limit_bytes and self._agent is not None:
                message = f'Usage of EmptyDir volume "{each.volume}" exceeds the limit "{each.limit}". '
                self._agent.host.recorder.warning(worker.pod, "Evicted", message)
                worker.take(KillPod(reason="Evicted", message=message, grace=0.0, condition="TerminationByKubelet"))
                return

    async def close(self) -> None:
        """Serve and follow nothing any more; pods and volumes stay."""
        await self._stack.aclose()

    async def _listen(self, server: NodeServer, context: ssl.SSLContext) -> int:
        wanted = self.options.port
        try:
            return await server.start(self._host or "0.0.0.0", wanted, context)  # noqa: S104
        except OSError as error:
            if not wanted:
                raise
            _log.warning("the node's port is taken; another one is used", port=wanted, reason=str(error))
        return await server.start(self._host or "0.0.0.0", 0, context)  # noqa: S104

    async def _follow_services(self) -> None:
        factory = SharedInformerFactory(self._client, clock=self._clock, metrics=self._metrics)
        informer = factory.informer(Service, namespace="*", managed_fields=False)
        factory.start()
        self._stack.push_async_callback(factory.stop)
        await factory.wait_for_sync(_SYNC_SECONDS)
        lister = informer.lister()
        self._services = lister.list

    async def _client_ca(self) -> bytes:
        """Return the authorities of client certificates as the cluster tells them."""
        for name, namespace, key in (
            ("extension-apiserver-authentication", "kube-system", "client-ca-file"),
            ("kube-root-ca.crt", "default", "ca.crt"),
        ):
            with contextlib.suppress(ApiStatus):
                text = (await self._client.get(ConfigMap, name, namespace)).data.get(key)
                if text:
                    return text.encode()
        raise OSError("the authorities of client certificates are not in the cluster: pass its CA")
