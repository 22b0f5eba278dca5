"""The etcd v3 gRPC service over an embedded store."""

from __future__ import annotations

import ssl

from pilothouse.foundation.grpc import GrpcServer
from pilothouse.store.engine import EmbeddedStore
from pilothouse.store.etcd.auth_service import AuthService
from pilothouse.store.etcd.cluster_service import ClusterService
from pilothouse.store.etcd.kv_service import KvService
from pilothouse.store.etcd.lease_service import LeaseService
from pilothouse.store.etcd.maintenance_service import MaintenanceService
from pilothouse.store.etcd.service_context import ServiceContext, grpc_error
from pilothouse.store.etcd.watch_service import WatchService

__all__ = ["EtcdService"]

_OVERHEAD = 512 * 1024
"""Bytes that a message may have beyond the largest request, as in etcd: those get the store's own refusal."""


class EtcdService:
    """Serve `store` to etcd's clients: KV, Watch, Lease, Maintenance, Cluster and Auth.

    `certificate_users`: a verified client certificate without a token stands for the user of its common name.
    The store stays its owner's; close the service first.
    """

    def __init__(self, store: EmbeddedStore, *, certificate_users: bool = False) -> None:
        self._context = ServiceContext(store, certificate_users=certificate_users)
        largest = store.options.max_request_bytes
        self.server = GrpcServer(max_message_bytes=largest + _OVERHEAD, error_mapper=grpc_error)
        for service in (
            KvService(self._context),
            WatchService(self._context, max_bytes=largest),
            LeaseService(self._context),
            MaintenanceService(self._context),
            ClusterService(self._context),
            AuthService(self._context),
        ):
            service.register(self.server)

    async def listen_tcp(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Accept clients at an address and return it, with the port chosen where `port` is 0; `OSError` if taken."""
        return await self.server.listen_tcp(host, port, tls=tls)

    async def listen_unix(self, path: str) -> None:
        """Accept clients at a Unix socket; `OSError` where it cannot be made."""
        await self.server.listen_unix(path)

    async def close(self, grace: float = 5.0) -> None:
        """Stop: watches and keep-alives end with UNAVAILABLE, so that clients go on elsewhere; other calls may end."""
        self._context.end_sessions()
        await self.server.close(grace)
