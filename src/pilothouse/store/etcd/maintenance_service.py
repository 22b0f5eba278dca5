"""etcd's Maintenance service, and the standard health check."""

from __future__ import annotations

import hashlib

import msgspec

from pilothouse.foundation.grpc import GrpcCode, GrpcError, GrpcServer, ServerCall, ServerStream
from pilothouse.store.etcd.requests import decode_alarm, decode_hash_kv
from pilothouse.store.etcd.service_context import API_VERSION, ServiceContext
from pilothouse.store.etcd.snapshot_file import filling
from pilothouse.store.model import AlarmAction

__all__ = ["STATUS_PATH", "MaintenanceService"]

STATUS_PATH = "/pilothouse.store.v1.Store/Status"
"""Our own call: no request, and the store's `Status` with its advice as JSON, for which etcd's message has no room."""

_SERVING, _NOT_SERVING = b"\x08\x01", b"\x08\x02"


class MaintenanceService:
    """`etcdserverpb.Maintenance` and `grpc.health.v1.Health`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._store = context.store
        self._encoder = context.encoder

    def register(self, server: GrpcServer) -> None:
        """Add the service's methods to a server."""
        prefix = "/etcdserverpb.Maintenance/"
        server.unary(prefix + "Status", self.status)
        server.unary(prefix + "Alarm", self.alarm)
        server.unary(prefix + "Hash", self.hash)
        server.unary(prefix + "HashKV", self.hash_kv)
        server.unary(prefix + "Defragment", self.defragment)
        server.unary(prefix + "MoveLeader", self.move_leader)
        server.unary(prefix + "Downgrade", self.downgrade)
        server.stream(prefix + "Snapshot", self.snapshot)
        server.unary("/grpc.health.v1.Health/Check", self.health)
        server.unary(STATUS_PATH, self.own_status)

    async def status(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `StatusRequest`."""
        del message
        self._context.require_user(call)
        status = await self._store.status()
        return self._encoder.status(msgspec.structs.replace(status, version=API_VERSION))

    async def own_status(self, message: bytes, call: ServerCall) -> bytes:
        """Answer with everything that the store says of itself, see `STATUS_PATH`."""
        del message
        self._context.require_user(call)
        return msgspec.json.encode(await self._store.status())

    async def alarm(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AlarmRequest`; everybody known may look, administrators may change."""
        action, alarm, member_id = decode_alarm(message)
        if action == AlarmAction.GET:
            self._context.require_user(call)
        else:
            self._context.require_admin(call)
        found = await self._store.alarm(action, alarm, member_id)
        return self._encoder.alarms(self._context.revision, found)

    async def hash(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `HashRequest`. Etcd hashes its file; here it is the key space, which can be compared as well."""
        del message
        self._context.require_admin(call)
        found = await self._store.hash_kv()
        return self._encoder.hash(found.revision, found.hash)

    async def hash_kv(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `HashKVRequest`."""
        revision = decode_hash_kv(message)
        self._context.require_admin(call)
        return self._encoder.hash_kv(await self._store.hash_kv(revision))

    async def defragment(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `DefragmentRequest` when the space has been given back."""
        del message
        self._context.require_admin(call)
        await self._store.defragment()
        return self._encoder.header(self._context.revision)

    async def snapshot(self, stream: ServerStream) -> None:
        """Answer a `SnapshotRequest`: the snapshot filled up to whole sectors, and its SHA-256 as the last block.

        etcd's clients look for that checksum: they take a file for whole when it has 32 bytes beyond a multiple of
        512. `remaining_bytes` stays 0, for the size is not known before; clients read to the end of the stream.
        """
        self._context.require_admin(stream)
        async for _ in stream:
            break
        revision = self._context.revision
        digest = hashlib.sha256()
        size = 0
        async for block in self._store.snapshot():
            digest.update(block)
            size += len(block)
            stream.send(self._encoder.snapshot(revision, 0, block))
            await stream.drain()
        rest = filling(size)
        digest.update(rest)
        stream.send(self._encoder.snapshot(revision, 0, rest))
        stream.send(self._encoder.snapshot(revision, 0, digest.digest()))

    def move_leader(self, message: bytes, call: ServerCall) -> bytes:
        """Refuse: there is nobody to move to."""
        del message
        self._context.require_admin(call)
        raise GrpcError(
            GrpcCode.FAILED_PRECONDITION,
            "etcdserver: bad leader transferee: an embedded store has one member, which always leads",
        )

    def downgrade(self, message: bytes, call: ServerCall) -> bytes:
        """Refuse: formats on disk only move forward."""
        del message
        self._context.require_admin(call)
        raise GrpcError(
            GrpcCode.UNIMPLEMENTED,
            "Downgrade: an older program does not read a newer one's files; save a snapshot before an upgrade instead",
        )

    async def health(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a health check: not serving while there is an alarm or the disk failed."""
        del message, call
        return _NOT_SERVING if (await self._store.status()).errors else _SERVING
