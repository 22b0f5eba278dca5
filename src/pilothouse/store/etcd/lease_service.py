"""etcd's Lease service."""

from __future__ import annotations

import asyncio

from pilothouse.foundation.grpc import GrpcCode, GrpcError, GrpcServer, ServerCall, ServerStream
from pilothouse.store.errors import LeaseNotFound, Unavailable
from pilothouse.store.etcd.requests import (
    decode_lease_grant,
    decode_lease_keep_alive,
    decode_lease_revoke,
    decode_lease_time_to_live,
)
from pilothouse.store.etcd.service_context import ServiceContext

__all__ = ["LeaseService"]


class LeaseService:
    """`etcdserverpb.Lease`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._store = context.store
        self._leases = context.machine.leases
        self._encoder = context.encoder

    def register(self, server: GrpcServer) -> None:
        """Add the service's methods to a server."""
        prefix = "/etcdserverpb.Lease/"
        server.unary(prefix + "LeaseGrant", self.grant)
        server.unary(prefix + "LeaseRevoke", self.revoke)
        server.unary(prefix + "LeaseTimeToLive", self.time_to_live)
        server.unary(prefix + "LeaseLeases", self.leases)
        server.stream(prefix + "LeaseKeepAlive", self.keep_alive)

    async def grant(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `LeaseGrantRequest`."""
        ttl, lease_id = decode_lease_grant(message)
        self._context.require_user(call)
        return self._encoder.lease_grant(await self._store.lease_grant(ttl, lease_id))

    async def revoke(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `LeaseRevokeRequest`."""
        lease_id = decode_lease_revoke(message)
        self._require_write(call, lease_id)
        return self._encoder.header(await self._store.lease_revoke(lease_id))

    async def time_to_live(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `LeaseTimeToLiveRequest`; permission is needed for the keys alone, as in etcd."""
        lease_id, keys = decode_lease_time_to_live(message)
        auth = self._context.auth
        if auth.enabled:
            info = self._context.identify(call)
            if keys:
                auth.require_lease_read(info, self._leases.keys(lease_id))
        return self._encoder.lease_time_to_live(await self._store.lease_time_to_live(lease_id, keys=keys))

    async def leases(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `LeaseLeasesRequest` of who may read the keys of all leases, as in etcd."""
        del message
        found = await self._store.lease_leases()
        auth = self._context.auth
        if auth.enabled:
            bound = (key for lease_id in found for key in self._leases.keys(lease_id))
            auth.require_lease_read(self._context.identify(call), bound)
        return self._encoder.lease_leases(self._context.revision, found)

    async def keep_alive(self, stream: ServerStream) -> None:
        """Answer a stream of `LeaseKeepAliveRequest`; a lease that is gone has 0 seconds."""
        self._context.open_session()
        try:
            async for message in stream:
                lease_id = decode_lease_keep_alive(message)
                self._require_write(stream, lease_id)
                # Taken before, so that nobody is told of a lease alive at a revision that has its keys deleted.
                revision = self._context.revision
                stream.send(self._encoder.lease_keep_alive(revision, lease_id, self._renew(lease_id)))
                await stream.drain()
        except asyncio.CancelledError:
            if stream.cancelled:
                raise
            raise GrpcError(GrpcCode.UNAVAILABLE, Unavailable.text) from None

    def _renew(self, lease_id: int) -> int:
        try:
            return self._leases.keep_alive(lease_id)
        except LeaseNotFound:
            return 0

    def _require_write(self, call: ServerCall, lease_id: int) -> None:
        auth = self._context.auth
        if auth.enabled:
            auth.require_lease_write(self._context.identify(call), self._leases.keys(lease_id))
